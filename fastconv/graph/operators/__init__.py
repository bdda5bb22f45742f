"""The operators of graphs, a file for each kind."""
