"""Layers that compute nothing: they move elements, add zeros, or return their input."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.core.geometry import as_int, as_ints, require_tensor
from fastconv.nn.layer_arguments import as_floats, as_images
from fastconv.nn.module import Module


class Identity(Module):
    """The input itself: a place holder, or the branch of a `Concat` that changes nothing.

    Examples
    --------
    >>> Identity()(np.ones(2))
    array([1., 1.])
    """

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`."""
        array = as_floats(self, x)
        self.keep(array)
        return array

    def backward(self, grad: Array) -> Array:
        """Return `grad`."""
        return np.asarray(self.recall(grad)[0])


class PixelShuffle(Module):
    """Move blocks of channels into squares of pixels: (N, C * r * r, H, W) to (N, C, H * r, W * r).

    Images may also be one (C * r * r, H, W).

    Parameters
    ----------
    upscale_factor : int
        r.

    References
    ----------
    W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", arXiv:1609.05158.

    Examples
    --------
    >>> PixelShuffle(2)(np.arange(4.0).reshape(1, 4, 1, 1))
    array([[[[0., 1.],
             [2., 3.]]]])
    """

    shown = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = as_int("upscale_factor", upscale_factor, 1)

    def forward(self, x: ArrayLike) -> Array:
        """Return the larger images with fewer channels."""
        images, r = as_images(self, x), self.upscale_factor
        if images.shape[-3] % r**2:
            raise ValueError(
                f"x must have a multiple of {r**2} channels for upscale_factor={r}, got shape "
                f"{images.shape}"
            )
        y = _to_pixels(images, r)
        self.keep(y)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, moved back."""
        return _to_channels(self.recall(grad)[0], self.upscale_factor)


class PixelUnshuffle(Module):
    """Move squares of pixels into channels: (N, C, H * r, W * r) to (N, C * r * r, H, W).

    Images may also be one (C, H * r, W * r). It undoes `PixelShuffle`.

    Parameters
    ----------
    downscale_factor : int
        r, which must divide height and width.

    Examples
    --------
    >>> PixelUnshuffle(2)(np.arange(4.0).reshape(1, 1, 2, 2)).shape
    (1, 4, 1, 1)
    """

    shown = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = as_int("downscale_factor", downscale_factor, 1)

    def forward(self, x: ArrayLike) -> Array:
        """Return the smaller images with more channels."""
        images, r = as_images(self, x), self.downscale_factor
        if any(size % r for size in images.shape[-2:]):
            raise ValueError(
                f"x must have a height and width that downscale_factor={r} divides, got shape "
                f"{images.shape}"
            )
        y = _to_channels(images, r)
        self.keep(y)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, moved back."""
        return _to_pixels(self.recall(grad)[0], self.downscale_factor)


def _to_pixels(x: Array, r: int) -> Array:
    *first, C, H, W = x.shape
    squares = x.reshape(-1, C // r**2, r, r, H, W).transpose(0, 1, 4, 2, 5, 3)
    return squares.reshape(*first, C // r**2, H * r, W * r)


def _to_channels(x: Array, r: int) -> Array:
    *first, C, H, W = x.shape
    squares = x.reshape(-1, C, H // r, r, W // r, r).transpose(0, 1, 3, 5, 2, 4)
    return squares.reshape(*first, C * r**2, H // r, W // r)


class ChannelShuffle(Module):
    """Take channels from each group in turn, so that groups of convolutions mix.

    Parameters
    ----------
    groups : int
        It must divide the channels.

    References
    ----------
    X. Zhang et al., "ShuffleNet", arXiv:1707.01083.

    Examples
    --------
    >>> ChannelShuffle(2)(np.arange(6.0).reshape(1, 6, 1, 1)).reshape(6)
    array([0., 3., 1., 4., 2., 5.])
    """

    shown = ("groups",)

    def __init__(self, groups: int) -> None:
        self.groups = as_int("groups", groups, 1)

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, (N, C, H, W), with its channels in another order."""
        images = as_images(self, as_numbers("x", x, 4))
        if images.shape[1] % self.groups:
            raise ValueError(
                f"x must have a multiple of groups={self.groups} channels, got shape {images.shape}"
            )
        y = _interleaved(images, self.groups)
        self.keep(y)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients in the order of the input."""
        (grad,) = self.recall(grad)
        return _interleaved(grad, grad.shape[1] // self.groups)


def _interleaved(x: Array, groups: int) -> Array:
    N, C, H, W = x.shape
    return x.reshape(N, groups, C // groups, H * W).transpose(0, 2, 1, 3).reshape(x.shape)


class ZeroPad2d(Module):
    """Zeros around images, (N, C, H, W) or one (C, H, W).

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        In PyTorch's order.

    Examples
    --------
    >>> ZeroPad2d((1, 0, 0, 1))(np.ones((1, 1, 1)))
    array([[[0., 1.],
            [0., 0.]]])
    """

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        sides = padding if hasattr(padding, "__len__") else (padding,) * 4
        self.padding = as_ints("padding", sides, 4, 0)

    def forward(self, x: ArrayLike) -> Array:
        """Return the larger images."""
        images = as_images(self, x)
        left, right, top, bottom = self.padding
        *first, H, W = images.shape
        shape = (*first, top + H + bottom, left + W + right)
        require_tensor(f"padding {self.padding}", shape)
        y = np.zeros(shape, images.dtype)
        y[..., top : top + H, left : left + W] = images
        self.keep(y, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients without those of the zeros."""
        grad, shape = self.recall(grad)
        left, _, top, _ = self.padding
        return np.ascontiguousarray(grad[..., top : top + shape[-2], left : left + shape[-1]])

    def extra_repr(self) -> str:
        """Return the padding, as PyTorch shows it."""
        return str(self.padding)
