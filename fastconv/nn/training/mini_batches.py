"""Mini-batches: from arrays, shuffled by a seed, or from an iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator, SeedSequence

from fastconv.core.arguments import Array, as_array
from fastconv.core.array_hints import not_numbers
from fastconv.nn.layer_arguments import as_number
from fastconv.nn.training.resuming import fingerprint

Pair = tuple[Array, Array]
#: Called as ``augment(images, rng=generator)``.
Augment = Callable[..., Array]

# Purposes of random numbers. Each purpose, epoch and batch has a generator of its own, so that
# training can go on from any of them without a record of those before.
SPLIT, SHUFFLE, AUGMENT = range(3)


def generator(seed: int, *purpose: int) -> Generator:
    """Return the generator for a purpose."""
    return np.random.default_rng(SeedSequence(seed, spawn_key=purpose))


class Arrays:
    """Images and targets in memory."""

    def __init__(self, x: Any, y: Any, batch_size: int, shuffle: bool, seed: int) -> None:
        self.x, self.y = checked(x, y)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed

    def __len__(self) -> int:
        """Return the number of batches; a single sample left over joins the batch before it."""
        size, samples = self.batch_size, len(self.x)
        rest = samples % size
        return max(1, samples // size + (rest > 1 or (rest == 1 and size == 1)))

    def of_each_size(self) -> list[Pair]:
        """Return a batch, and one of the size of the last if that is another."""
        last = len(self.x) - (len(self) - 1) * self.batch_size
        sizes = {min(self.batch_size, len(self.x)), last}
        return [(self.x[:size], self.y[:size]) for size in sorted(sizes, reverse=True)]

    def epoch(self, number: int, skip: int = 0) -> Iterator[Pair]:
        """Yield the batches of an epoch, without the first `skip`."""
        samples, count = len(self.x), len(self)
        order = np.arange(samples)
        if self.shuffle:
            order = generator(self.seed, SHUFFLE, number).permutation(samples)
        for batch in range(skip, count):
            stop = (batch + 1) * self.batch_size if batch + 1 < count else samples
            rows = order[batch * self.batch_size : stop]
            yield self.x[rows], self.y[rows]

    def describe(self) -> dict[str, Any]:
        """Return what must be the same when training goes on."""
        return {
            "x": fingerprint(self.x),
            "y": fingerprint(self.y),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }


class Batches:
    """An iterable of batches, read once an epoch."""

    def __init__(self, source: Any, seed: int) -> None:
        if not isinstance(source, Iterable):
            raise TypeError(
                "x must be images, with their targets as y, or without y an iterable of pairs "
                f"(images, targets), got {type(source).__name__}"
            )
        if isinstance(source, np.ndarray):
            raise TypeError("y must be the targets of x, got None with x an array")
        self.source: Any = source
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of batches, 0 if unknown."""
        try:
            return len(self.source)
        except TypeError:
            return 0

    def epoch(self, number: int, skip: int = 0) -> Iterator[Pair]:
        """Yield the batches of an epoch, without the first `skip`."""
        count = 0
        for count, batch in enumerate(self.source, 1):
            if count <= skip:
                continue
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TypeError(
                    "x must yield pairs (images, targets), got "
                    f"{type(batch).__name__} as batch {count}"
                )
            yield checked(*batch)
        if not count:
            again = " in its second epoch" if number else ""
            raise ValueError(
                f"x must yield at least one batch, got none{again}: a generator can be read "
                "only once, a list or a class with __iter__ every time"
            )

    def describe(self) -> dict[str, Any]:
        """Return what must be the same when training goes on."""
        return {"x": "an iterable of batches", "seed": self.seed}


def checked(x: Any, y: Any) -> Pair:
    """Return images and targets as arrays of the same length."""
    images, targets = as_array("x", x), as_array("y", y)
    for name, array in (("x", images), ("y", targets)):
        if array.dtype.kind not in "fiub":
            hint = ": number the classes, e.g. by np.unique(y, return_inverse=True)[1]"
            if name != "y" or array.dtype.kind not in "UOST":
                hint = not_numbers(name, array)
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}{hint}")
        if array.ndim == 0 or not len(array):
            raise ValueError(f"{name} must hold at least one sample, got shape {array.shape}")
    if len(images) != len(targets):
        raise ValueError(
            f"y must have a target for each of the {len(images)} images, got {len(targets)}"
        )
    return images, targets


def split(x: Any, y: Any, fraction: float, seed: int) -> tuple[Pair, Pair]:
    """Return training and validation samples, of which the latter are about `fraction`."""
    images, targets = checked(x, y)
    held = round(as_number("validation", fraction, 0, 1) * len(images))
    if not 0 < held < len(images):
        raise ValueError(
            f"validation must leave samples in both parts, got {fraction} of {len(images)} samples"
        )
    order = generator(seed, SPLIT).permutation(len(images))
    train, rest = np.sort(order[held:]), np.sort(order[:held])
    return (images[train], targets[train]), (images[rest], targets[rest])
