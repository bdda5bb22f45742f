"""Convolution: one file, one algorithm, up to three directions."""
