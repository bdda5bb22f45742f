"""Dropout of elements and of whole channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array
from fastconv.nn.layer_arguments import RngLike, as_floats, as_generator, as_images, as_number
from fastconv.nn.module import Module


class Dropout(Module):
    """In training, drop every element with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        From 0 to 1.
    rng : numpy.random.Generator or int, optional
        Draws which elements are dropped.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15, 2014.

    Examples
    --------
    >>> layer = Dropout(0.5, rng=0)
    >>> layer(np.ones(4))
    array([2., 2., 2., 0.])
    >>> layer.eval()(np.ones(4))
    array([1., 1., 1., 1.])
    """

    shown = ("p",)

    def __init__(self, p: float = 0.5, *, rng: RngLike = None) -> None:
        self.p = as_number("p", p, 0, 1)
        self.rng = as_generator(rng)

    def _array(self, x: ArrayLike) -> tuple[Array, tuple[int, ...]]:
        """Return `x` as an array, and the shape of what is drawn for it."""
        array = as_floats(self, x)
        return array, array.shape

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, some of it dropped; in evaluation `x` itself."""
        array, drawn = self._array(x)
        if not self.training or self.p == 0:
            self.keep(array, None)
            return array
        factor = (self.rng.random(drawn, np.float32) >= self.p).astype(array.dtype)
        if self.p < 1:
            factor *= 1 / (1 - self.p)
        y: Array = array * factor
        self.keep(y, factor)
        return y

    def backward(self, grad: Array) -> Array:
        """Return `grad` of the elements that were not dropped, scaled alike."""
        grad, factor = self.recall(grad)
        return np.asarray(grad if factor is None else grad * factor)


class Dropout2d(Dropout):
    """In training, drop every channel with probability p and scale the others by 1 / (1 - p).

    Neighbouring pixels resemble each other, so `Dropout` of single ones hides little. Images are
    (N, C, H, W), or one (C, H, W).

    Parameters
    ----------
    p, rng
        As in `Dropout`.

    References
    ----------
    J. Tompson et al., "Efficient object localization using convolutional networks",
    arXiv:1411.4280.

    Examples
    --------
    >>> Dropout2d(0.5, rng=0)(np.ones((4, 1, 2)))
    array([[[2., 2.]],
    <BLANKLINE>
           [[2., 2.]],
    <BLANKLINE>
           [[2., 2.]],
    <BLANKLINE>
           [[0., 0.]]])
    """

    def _array(self, x: ArrayLike) -> tuple[Array, tuple[int, ...]]:
        images = as_images(self, x)
        return images, (*images.shape[:-2], 1, 1)
