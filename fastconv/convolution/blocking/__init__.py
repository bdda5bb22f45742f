"""How a convolution is cut into tiles and blocks, and what each cut costs."""
