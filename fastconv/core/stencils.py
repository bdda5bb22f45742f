"""The small kernels that every course on image processing shows."""

from __future__ import annotations

import numpy as np

# Divided by the sum of their positive taps, so that images in [0, 1] give numbers in [-1, 1].
SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
SOBEL_Y = SOBEL_X.T
LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]) / 4
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
BLUR = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
