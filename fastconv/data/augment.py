"""Augmentation: random shifts and flips of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.core.arguments import Array, as_flag
from fastconv.core.geometry import IntPair, as_pair

Step = Callable[..., Array]


P = TypeVar("P", bound=np.generic)


@overload
def shift(
    images: NDArray[P], most: IntPair, rng: np.random.Generator, *, edge: bool = False
) -> NDArray[P]: ...
@overload
def shift(
    images: ArrayLike, most: IntPair, rng: np.random.Generator, *, edge: bool = False
) -> Array: ...
def shift(
    images: ArrayLike, most: IntPair, rng: np.random.Generator, *, edge: bool = False
) -> Array:
    """Move every image by its own random number of whole pixels.

    Parameters
    ----------
    images : array-like, (N, C, H, W)
    most : int or (int, int)
        Largest move in rows and columns, in both directions.
    rng : numpy.random.Generator
    edge : bool
        Whether to pad with the pixels of the edge instead of zeros.

    Returns
    -------
    ndarray, (N, C, H, W)
        A new array of the type of `images`.

    Raises
    ------
    TypeError, ValueError
        Also where `most` is as large as the images, and they are padded with zeros.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.ones((1, 1, 2, 4))
    >>> shift(images, (0, 1), np.random.default_rng(0))
    array([[[[1., 1., 1., 0.],
             [1., 1., 1., 0.]]]])
    """
    array, rng = _as_images(images), as_generator(rng)
    rows, columns = as_pair("most", most, 0)
    count, _, height, width = array.shape
    if not as_flag("edge", edge) and (rows >= max(height, 1) or columns >= max(width, 1)):
        raise ValueError(f"most must be smaller than images of {height} x {width}, got {most}")
    down = rng.integers(0, 2 * rows, count, endpoint=True)
    right = rng.integers(0, 2 * columns, count, endpoint=True)
    if not array.size:
        return array.copy()
    mode: Any = "edge" if edge else "constant"
    padded = np.pad(array, ((0, 0), (0, 0), (rows, rows), (columns, columns)), mode)
    # All windows of the old size, of which one is taken for each image.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    moved: Array = windows[np.arange(count), :, down, right]
    return moved


@overload
def flip(images: NDArray[P], rng: np.random.Generator, p: float = 0.5) -> NDArray[P]: ...
@overload
def flip(images: ArrayLike, rng: np.random.Generator, p: float = 0.5) -> Array: ...
def flip(images: ArrayLike, rng: np.random.Generator, p: float = 0.5) -> Array:
    """Mirror images left to right, each with probability `p`.

    Parameters
    ----------
    images : array-like, (N, C, H, W)
    rng : numpy.random.Generator
    p : float
        In [0, 1].

    Returns
    -------
    ndarray, (N, C, H, W)
        A new array of the type of `images`.

    Raises
    ------
    TypeError, ValueError
        For another probability, or arrays that are not images.

    Examples
    --------
    >>> import numpy as np
    >>> flip(np.arange(4).reshape(1, 1, 1, 4), np.random.default_rng(0), p=1)
    array([[[[3, 2, 1, 0]]]])
    """
    array, rng = _as_images(images), as_generator(rng)
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability in [0, 1], got {p!r}")
    mirrored = rng.random(len(array)) < p
    return np.where(mirrored[:, np.newaxis, np.newaxis, np.newaxis], array[..., ::-1], array)


class Augment:
    """Several augmentations, one after the other.

    Parameters
    ----------
    steps : sequence of callables
        Each is called as ``step(images, rng=rng)`` and returns as many images. Options are bound
        with ``functools.partial``.

    Examples
    --------
    >>> import numpy as np
    >>> from functools import partial
    >>> augment = Augment([partial(shift, most=1), flip])
    >>> augment(np.ones((2, 1, 8, 8)), np.random.default_rng(0)).shape
    (2, 1, 8, 8)
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps: tuple[Step, ...] = tuple(steps)
        for step in self.steps:
            if not callable(step):
                raise TypeError(f"steps must be functions (images, rng) -> images, got {step!r}")

    def __call__(self, images: ArrayLike, rng: np.random.Generator) -> Array:
        """Return augmented images as a new array."""
        array, rng = _as_images(images), as_generator(rng)
        result = array
        for step in self.steps:
            result = step(result, rng=rng)
            if not isinstance(result, np.ndarray) or len(result) != len(array):
                raise ValueError(f"{step!r} must return {len(array)} images, got {type(result)}")
        return result.copy() if result is array else result

    def __repr__(self) -> str:
        return f"Augment({list(self.steps)})"


def _as_images(images: ArrayLike) -> Array:
    array = np.asarray(images)
    if array.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {array.shape}")
    return array


def as_generator(rng: Any) -> np.random.Generator:
    """Return `rng` if it is a generator, else raise TypeError."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator, got {rng!r}: numpy.random.default_rng(seed)"
        )
    return rng
