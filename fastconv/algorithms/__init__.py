"""How a convolution is computed: one file, one algorithm, up to three directions."""
