"""Dividing data: into training and test sets, and into mini-batches."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def train_test_split(
    images: ArrayLike,
    labels: ArrayLike,
    test_size: float = 0.2,
    seed: int = 42,
    stratify: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """Divide images at random into those to learn from and those to test with.

    The same division as ``sklearn.model_selection.train_test_split(images, labels,
    test_size=test_size, random_state=seed)``, with ``stratify=labels`` where `stratify` is true;
    scikit-learn is not needed.

    Parameters
    ----------
    images : array-like, (N, ...)
    labels : array-like, (N,)
    test_size : float or int
        A share of the images in (0, 1), or a number of them.
    seed : int
        The same seed gives the same division.
    stratify : bool
        Keep the shares of the labels the same in both parts.

    Returns
    -------
    train_images, test_images, train_labels, test_labels : ndarray
        Copies of the types of `images` and `labels`.

    Raises
    ------
    TypeError, ValueError
        Also where a part would be empty or, when stratified, too small to hold every class.

    Examples
    --------
    >>> import numpy as np
    >>> train, test, train_labels, test_labels = train_test_split(np.arange(5), np.arange(5))
    >>> train, test
    (array([4, 2, 0, 3]), array([1]))
    """
    images, labels = _matched(images, labels)
    train, test = _sizes(len(images), test_size)
    # The generator that scikit-learn uses, so that seeds mean the same.
    rng = np.random.RandomState(seed)
    if stratify:
        chosen, left = _stratified(labels, train, test, rng)
    else:
        order = rng.permutation(len(images))
        left, chosen = order[:test], order[test : test + train]
    return images[chosen], images[left], labels[chosen], labels[left]


def batches(
    images: ArrayLike,
    labels: ArrayLike,
    batch_size: int,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Go once through the images in mini-batches.

    Parameters
    ----------
    images : array-like, (N, ...)
    labels : array-like, (N,)
    batch_size : int
        Images at a time.
    rng : numpy.random.Generator, optional
        Shuffles them, differently at every call; without it they keep their order.
    drop_last : bool
        Leave out the last batch where it is smaller than the others.

    Returns
    -------
    iterator of (images, labels)
        Of `batch_size` images each; the last may hold fewer. Views without `rng`, else copies.

    Raises
    ------
    TypeError, ValueError
        At once, not when the first batch is asked for.

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
    try:
        size = operator.index(batch_size)
    except TypeError:
        raise TypeError(f"batch_size must be an int, got {batch_size!r}") from None
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator, got {rng!r}: numpy.random.default_rng(seed)"
        )
    # Made here: later calls of the generator must not find it half shuffled.
    order = None if rng is None else rng.permutation(len(images))
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
    """Return how many images are to learn from and how many to test with."""
    if isinstance(test_size, bool) or not isinstance(test_size, int | float | np.number):
        raise TypeError(f"test_size must be a number, got {test_size!r}")
    if isinstance(test_size, float | np.floating):
        if not 0 < test_size < 1:
            raise ValueError(f"test_size must be a share in (0, 1) or an int, got {test_size!r}")
        test = math.ceil(test_size * count)
    else:
        test = int(test_size)
    if not 0 < test < count:
        raise ValueError(
            f"test_size must leave images in both parts: {test_size!r} of {count} images "
            f"is {test} to test with"
        )
    return count - test, test


def _stratified(
    labels: Array, train: int, test: int, rng: np.random.RandomState
) -> tuple[Array, Array]:
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (N,) to stratify by, got {labels.shape}")
    classes, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"labels must hold every class twice to be stratified, got {classes[counts < 2][0]!r} "
            "once"
        )
    if min(train, test) < len(classes):
        raise ValueError(
            f"test_size must leave {len(classes)} images, one a class, in both parts, got {test} "
            f"to test with and {train} to learn from"
        )
    members = np.split(np.argsort(where, kind="stable"), np.cumsum(counts)[:-1])
    for_train = _shares(counts, train, rng)
    for_test = _shares(counts - for_train, test, rng)
    chosen: list[int] = []
    left: list[int] = []
    for own, first, second in zip(members, for_train, for_test, strict=True):
        shuffled = own[rng.permutation(len(own))]
        chosen.extend(shuffled[:first])
        left.extend(shuffled[first : first + second])
    return rng.permutation(chosen), rng.permutation(left)


def _shares(counts: Array, draws: int, rng: np.random.RandomState) -> Array:
    """Divide `draws` by `counts`: rounded down, the rest to the largest remainders.

    Equal remainders are drawn from, in the order in which scikit-learn draws.
    """
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    remainders = exact - shares
    missing = int(draws - shares.sum())
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (equal,) = np.nonzero(remainders == value)
        drawn = min(len(equal), missing)
        shares[rng.choice(equal, size=drawn, replace=False)] += 1
        missing -= drawn
    whole: Array = shares.astype(np.int64)
    return whole
