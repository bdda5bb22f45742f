"""Real images for the suite ``images``: handwritten digits and two photographs.

Both come with scikit-learn. They pass through filters that every course on image processing
shows, and through the first layers of small networks with freshly drawn filters.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv.bench.bench_errors import require
from fastconv.bench.suites import Layer
from fastconv.core.arguments import Array
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.stencils import BLUR, LAPLACE, SHARPEN, SOBEL_X, SOBEL_Y

# What the filters of the layers ``digits_edges``, ``photo_blur``, ... are; those of a layer
# that is not named here are drawn.
_FILTERS = {
    "edges": (SOBEL_X, SOBEL_Y, LAPLACE, SHARPEN),
    "sharpen": (SHARPEN,),
    "blur": (BLUR,),
}


def check_available() -> None:
    """Raise `BenchError` unless scikit-learn, and Pillow for its photographs, are installed."""
    require("sklearn.datasets", "the suite of images")
    require("PIL", "the suite of images")


def image_batch(layer: Layer, problem: Conv2dProblem) -> Array:
    """Return the images a layer sees, in [0, 1]; over again where there are too few."""
    source = _digits() if layer.id.startswith("digits") else _photographs(gray=layer.C == 1)
    batch: Array = source[np.arange(problem.N) % len(source)]
    return batch


def filters(layer: Layer, problem: Conv2dProblem, rng: np.random.Generator) -> Array:
    """Return the named filters of a layer, once for each group, or He-initialized ones."""
    named = _FILTERS.get(layer.id.partition("_")[2])
    if named is None:
        drawn: Array = rng.standard_normal(problem.weight_shape) * np.sqrt(2 / problem.taps)
        return drawn
    return np.tile(np.stack(named)[:, np.newaxis], (problem.groups, 1, 1, 1))


@lru_cache(maxsize=1)
def _digits() -> Array:
    """Return 1797 handwritten digits, (N, 1, 8, 8)."""
    from sklearn import datasets

    images: Array = datasets.load_digits().images[:, np.newaxis] / 16
    return images


@lru_cache(maxsize=2)
def _photographs(gray: bool) -> Array:
    """Return a Chinese temple and a flower, (2, 3, 427, 640) or gray (2, 1, 427, 640)."""
    from sklearn import datasets

    colors: Array = np.stack(datasets.load_sample_images().images).transpose(0, 3, 1, 2) / 255
    if not gray:
        return colors
    luminance = np.array([0.299, 0.587, 0.114])
    gray_images: Array = np.tensordot(colors, luminance, axes=(1, 0))[:, np.newaxis]
    return gray_images
