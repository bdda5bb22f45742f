"""Pooling: every output is the maximum or the mean of a window. One file, one algorithm."""
