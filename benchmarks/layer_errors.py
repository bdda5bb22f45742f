"""The errors of one layer by every algorithm: on random numbers, and on what networks see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from methods import Array, Error, Method, by_algorithm, digits, error, exact, table, worst
from sklearn.datasets import load_sample_images

import fastconv
from fastconv import nn
from fastconv.select import conv_registry

#: What algorithms that are less exact than a plain sum promise in float32, on standard-normal data
#: of up to 512 channels: the largest error over the largest output, for kernels of that size.
PROMISED = {
    ("winograd_2x2", 3): 3e-6,
    ("winograd_4x4", 3): 1e-5,
    ("winograd_2x2", 5): 5e-6,
    ("winograd_4x4", 5): 2e-5,
    ("fft", 3): 3e-6,
    ("fft", 5): 3e-6,
}
DEPTHS = {3: (1, 3, 16, 64, 128, 256, 512), 5: (3, 64, 256)}
SIDE, FILTERS = 24, 32
# The largest of many errors is larger than that of few: a layer with so many outputs looks for it.
WIDE_DEPTH, WIDE_SIDE, WIDE_FILTERS = 64, 56, 128

#: By (method, kernel size, channels).
Errors = dict[tuple[str, int, int], Error]
Data = Callable[[int, int], Array]


def normal(channels: int, seed: int) -> Array:
    """Return standard-normal numbers."""
    return np.random.default_rng(seed).standard_normal((2, channels, SIDE, SIDE))


def uniform(channels: int, seed: int) -> Array:
    """Return numbers evenly distributed in [0, 1)."""
    return np.random.default_rng(seed).random((2, channels, SIDE, SIDE))


def photographs(channels: int, seed: int) -> Array:
    """Return the middle of photographs, or of what a network makes of them.

    Up to 3 channels are pixels in [0, 1], one channel is gray. More are the feature maps of a
    network of random filters, so they are positive, sparse and smooth as in trained networks. All
    draws see the same maps, with other filters.
    """
    maps = photograph_pixels()
    if channels == 1:
        maps = maps.mean(1, keepdims=True)
    elif channels > 3:
        maps = feature_maps(channels)
    top, left = ((size - SIDE) // 2 for size in maps.shape[2:])
    return maps[:, :, top : top + SIDE, left : left + SIDE]


@lru_cache(maxsize=1)
def photograph_pixels() -> Array:
    """Return two photographs, (2, 3, 427, 640), in [0, 1]."""
    images: Array = np.stack(load_sample_images().images).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images / np.float32(255), np.float32)


@lru_cache(maxsize=8)
def feature_maps(channels: int) -> Array:
    """Return convolution, ReLU and pooling of the maps before, from pixels on."""
    depths = DEPTHS[3]
    before = depths[depths.index(channels) - 1]
    maps = photograph_pixels() if before == 3 else feature_maps(before)
    weight = nn.init.kaiming_normal((channels, before, 3, 3), channels, nonlinearity="relu")
    with fastconv.at_precision("highest"):
        result = np.maximum(fastconv.conv2d(maps, weight, padding=1), 0)
    return fastconv.max_pool2d(result, 2) if min(result.shape[2:]) >= 2 * SIDE else result


KINDS: dict[str, Data] = {
    "standard normal": normal,
    "uniform in [0, 1)": uniform,
    "photographs": photographs,
}


def measure(
    known: dict[str, Method],
    data: Data,
    depths: dict[int, tuple[int, ...]],
    draws: int,
    dtype: str = "float32",
) -> Errors:
    """Return the errors of all methods that take the layers, over several draws of filters."""
    found: Errors = {}
    for size, channels in ((size, c) for size, some in depths.items() for c in some):
        errors: dict[str, list[Error]] = {}
        for seed in range(draws):
            x = data(channels, seed).astype(dtype)
            shape = (FILTERS, channels, size, size)
            weight = nn.init.kaiming_normal(shape, 1000 + seed, dtype=dtype)
            truth = exact(x, weight)
            for name, convolve in known.items():
                result = convolve(x, weight)
                if result is not None:
                    errors.setdefault(name, []).append(error(result, truth))
        found |= {(name, size, channels): worst(some) for name, some in errors.items()}
    return found


def as_table(errors: Errors, unit: float) -> str:
    """Return a table with a row for each method: "largest / RMS" in units of `unit`."""
    layers = list(dict.fromkeys(key[1:] for key in errors))
    names = dict.fromkeys(key[0] for key in errors)
    rows = []
    for name in names:
        cells = (errors.get((name, *layer)) for layer in layers)
        told = (f"{digits(e.largest / unit)} / {digits(e.rms / unit)}" if e else "" for e in cells)
        rows.append((f"`{name}`" if name in fastconv.algorithms() else name, *told))
    return table(("", *(f"{size}x{size}, C = {c}" for size, c in layers)), rows)


def wide(names: Sequence[str], draws: int) -> Errors:
    """Return the errors of some algorithms on layers of many outputs, standard-normal data."""
    found: dict[tuple[str, int, int], list[Error]] = {}
    for size, seed in product(DEPTHS, range(draws)):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((2, WIDE_DEPTH, WIDE_SIDE, WIDE_SIDE)).astype(np.float32)
        weight = rng.standard_normal((WIDE_FILTERS, WIDE_DEPTH, size, size)).astype(np.float32)
        truth = exact(x, weight)
        for name in names:
            result = by_algorithm(name)(x, weight)
            if result is not None:
                found.setdefault((name, size, WIDE_DEPTH), []).append(error(result, truth))
    return {key: worst(errors) for key, errors in found.items()}


def contract(*measured: Errors) -> str:
    """Return what is promised of each algorithm, and the largest error of it that was seen."""
    rows = []
    for algorithm in conv_registry.offering("forward"):
        name, cells = algorithm.name, []
        for size in DEPTHS:
            seen = [
                e.largest for some in measured for k, e in some.items() if k[:2] == (name, size)
            ]
            promised = PROMISED.get((name, size))
            cells += [f"{promised:.0e}" if promised else "", f"{max(seen):.1e}" if seen else ""]
        rows.append((f"`{name}`", f'"{algorithm.precision}"', *cells))
    told = (f"{size}x{size}: {word}" for size in DEPTHS for word in ("promised", "measured"))
    return table(("", "precision", *told), rows)


def broken(errors: Errors) -> list[str]:
    """Return a sentence for each promise that the errors on standard-normal data break."""
    return [
        f"{name}, {size}x{size}, C = {channels}: {found.largest:.2g} of the largest output, "
        f"promised is {PROMISED[name, size]:.2g}"
        for (name, size, channels), found in errors.items()
        if found.largest > PROMISED.get((name, size), np.inf)
    ]
