"""Splitting data into training and test sets, and into mini-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.core.arguments import Array
from fastconv.core.geometry import as_int
from fastconv.data.augment import as_generator
from fastconv.runtime.optional_packages import require

I = TypeVar("I", bound=np.generic)  # noqa: E741
L = TypeVar("L", bound=np.generic)


@overload
def train_test_split(
    images: NDArray[I],
    labels: NDArray[L],
    test_size: float = 0.2,
    seed: int = 42,
    stratify: bool = False,
) -> tuple[NDArray[I], NDArray[I], NDArray[L], NDArray[L]]: ...
@overload
def train_test_split(
    images: ArrayLike,
    labels: ArrayLike,
    test_size: float = 0.2,
    seed: int = 42,
    stratify: bool = False,
) -> tuple[Array, Array, Array, Array]: ...
def train_test_split(
    images: ArrayLike,
    labels: ArrayLike,
    test_size: float = 0.2,
    seed: int = 42,
    stratify: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """Split images at random into a training set and a test set.

    The result is that of ``sklearn.model_selection.train_test_split(images, labels,
    test_size=test_size, random_state=seed)``, with ``stratify=labels`` where `stratify` is true.

    Parameters
    ----------
    images : array-like, (N, ...)
    labels : array-like, (N,)
    test_size : float or int
        A fraction of the images in (0, 1), or a number of them.
    seed : int
        The same seed gives the same split.
    stratify : bool
        Keep the proportions of the labels the same in both parts; needs scikit-learn.

    Returns
    -------
    train_images, test_images, train_labels, test_labels : ndarray
        Copies of the types of `images` and `labels`.

    Raises
    ------
    TypeError, ValueError
        Also where a part would be empty or, when stratified, too small to hold every class.
    ModuleNotFoundError
        Where `stratify` is true, without scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> train, test, train_labels, test_labels = train_test_split(np.arange(5), np.arange(5))
    >>> train, test
    (array([4, 2, 0, 3]), array([1]))
    """
    images, labels = _matched(images, labels)
    train, test = _sizes(len(images), test_size)
    if stratify:
        _check_stratified(labels, train, test)
        module = require("sklearn.model_selection", "train_test_split(stratify=True)", "data")
        options = {"train_size": train, "test_size": test, "random_state": seed}
        chosen, left = module.train_test_split(np.arange(len(labels)), stratify=labels, **options)
    else:
        # The generator that scikit-learn uses, so that a seed means the same.
        order = np.random.RandomState(seed).permutation(len(images))
        left, chosen = order[:test], order[test:]
    return images[chosen], images[left], labels[chosen], labels[left]


@overload
def batches(
    images: NDArray[I],
    labels: NDArray[L],
    batch_size: int,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[NDArray[I], NDArray[L]]]: ...
@overload
def batches(
    images: ArrayLike,
    labels: ArrayLike,
    batch_size: int,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Array, Array]]: ...
def batches(
    images: ArrayLike,
    labels: ArrayLike,
    batch_size: int,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Iterate once over the images in mini-batches.

    Parameters
    ----------
    images : array-like, (N, ...)
    labels : array-like, (N,)
    batch_size : int
        Images at a time.
    rng : numpy.random.Generator, optional
        Shuffles them at every call; by default they keep their order.
    drop_last : bool
        Omit the last batch if it is smaller than the others.

    Returns
    -------
    iterator of (images, labels)
        Of `batch_size` images each, or fewer in the last. Views without `rng`, else copies.

    Raises
    ------
    TypeError, ValueError
        At the call, not at the first batch.

    Examples
    --------
    >>> import numpy as np
    >>> for part, _ in batches(np.arange(5), np.arange(5), 2, np.random.default_rng(0)):
    ...     print(part)
    [2 4]
    [3 0]
    [1]
    """
    images, labels = _matched(images, labels)
    size = as_int("batch_size", batch_size, 1)
    # Drawn here, so that it does not depend on when the batches are read.
    order = None if rng is None else as_generator(rng).permutation(len(images))
    stop = len(images) - len(images) % size if drop_last else len(images)
    return _batches(images, labels, size, stop, order)


def _batches(
    images: Array, labels: Array, size: int, stop: int, order: Array | None
) -> Iterator[tuple[Array, Array]]:
    for start in range(0, stop, size):
        part = slice(start, start + size)
        chosen = part if order is None else order[part]
        yield images[chosen], labels[chosen]


def _matched(images: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim < 1 or labels.ndim < 1:
        raise ValueError(
            f"images and labels must be arrays of N items, got shapes {images.shape} and "
            f"{labels.shape}"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"images and labels must be equally many, got {len(images)} and {len(labels)}"
        )
    return images, labels


def _sizes(count: int, test_size: Any) -> tuple[int, int]:
    """Return the numbers of training and test images."""
    if isinstance(test_size, bool) or not isinstance(test_size, int | float | np.number):
        raise TypeError(f"test_size must be a number, got {test_size!r}")
    if isinstance(test_size, float | np.floating):
        if not 0 < test_size < 1:
            raise ValueError(f"test_size must be a fraction in (0, 1) or an int, got {test_size!r}")
        test = math.ceil(test_size * count)
    else:
        test = int(test_size)
    if not 0 < test < count:
        raise ValueError(
            f"test_size must leave images in both parts: {test_size!r} of {count} images "
            f"is {test} for testing"
        )
    return count - test, test


def _check_stratified(labels: Array, train: int, test: int) -> None:
    """Raise ValueError where a part would be too small to hold every class."""
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (N,) to stratify by, got {labels.shape}")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"labels must hold every class twice to be stratified, got {classes[counts < 2][0]!r} "
            "once"
        )
    if min(train, test) < len(classes):
        raise ValueError(
            f"test_size must leave {len(classes)} images, one a class, in both parts, got {test} "
            f"for testing and {train} for training"
        )
