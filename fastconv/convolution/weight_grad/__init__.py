"""The weight gradient: one file, one algorithm."""
