"""Suites: tables of the convolution layers of well-known networks, and of small problems.

A suite is a CSV file in the folder ``suites`` of this package; a new file is a new suite. The
columns: id, C, K, H, W, R, S, stride, padding, groups, count (how often the network has the
layer) and, where the default is not right, batch.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

from fastconv.bench.bench_errors import BenchError
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.geometry import IntPair, Padding

#: Where more names than this would be right, an error names only those nearest to the wrong one.
_MOST_NAMES = 12


@dataclass(frozen=True)
class Layer:
    """A row of a suite, or a user's; `batch` is how many images it gets unless told otherwise."""

    suite: str
    id: str
    C: int
    K: int
    H: int
    W: int
    R: int
    S: int
    stride: IntPair
    padding: Padding
    groups: int
    count: int
    batch: int
    dilation: IntPair = 1

    def problem(self, batch: int | None = None, dtype: str = "float32") -> Conv2dProblem:
        """Return the convolution this layer does on `batch` images."""
        return Conv2dProblem.from_shapes(
            (batch or self.batch, self.C, self.H, self.W),
            (self.K, self.C // max(1, self.groups), self.R, self.S),
            *(self.stride, self.padding, self.dilation, self.groups, dtype),
        )


def shapes(problem: Conv2dProblem) -> str:
    """Return what a convolution is in short, as a title or in a table.

    >>> shapes(load_suite("mobilenet_v1")[3].problem())
    '1x64x112x112 → 64x56x56, 3x3, stride 2, depthwise'
    """
    p = problem
    parts = [f"{p.N}x{p.C}x{p.H}x{p.W} → {p.K}x{p.OH}x{p.OW}", f"{p.R}x{p.S}"]
    for name, (down, across) in (("stride", p.stride), ("dilation", p.dilation)):
        if (down, across) != (1, 1):
            parts.append(f"{name} {down}" + (f"x{across}" if across != down else ""))
    if p.groups > 1:
        parts.append("depthwise" if p.groups == p.C else f"{p.groups} groups")
    return ", ".join(parts)


@dataclass(frozen=True)
class Item:
    """A layer and the directions in which it is to be measured."""

    layer: Layer
    directions: tuple[Direction, ...]


#: What a run without options measures beside the suite of images: a cross-section of the
#: networks, and here and there the gradients too.
CROSS_SECTION: dict[str, dict[str, tuple[Direction, ...]]] = {
    "small": {
        "mnist1": ("forward",),
        "mnist2": DIRECTIONS,
        "cifar2": DIRECTIONS,
        "photo_edge": ("forward",),
    },
    "resnet50": {
        "r01": ("forward",),
        "r02": ("forward",),
        "r04": DIRECTIONS,
        "r08": ("forward",),
        "r13": ("forward",),
        "r18": ("forward",),
    },
    "vgg16": {"v4_2": ("forward",)},
    "mobilenet_v1": {"dw3": DIRECTIONS, "pw3": ("forward",)},
}


@lru_cache(maxsize=1)
def suite_names() -> tuple[str, ...]:
    """Return the names of all suites, the real images first."""
    names = sorted(
        entry.name.removesuffix(".csv")
        for entry in _folder().iterdir()
        if entry.name.endswith(".csv")
    )
    return tuple(sorted(names, key=lambda name: name != "images"))


@lru_cache(maxsize=16)
def load_suite(name: str) -> tuple[Layer, ...]:
    """Return the layers of a suite.

    >>> load_suite("resnet50")[3].id
    'r04'
    """
    check_names("suite", [name], suite_names())
    text = (_folder() / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(_layer(name, row) for row in csv.DictReader(text.splitlines()))


def _layer(suite: str, row: dict[str, str]) -> Layer:
    identity = row.pop("id")
    numbers = {column: int(value) for column, value in row.items()}
    # Small images come in batches, as in training; photographs and networks one by one.
    small = suite == "small" and numbers["H"] <= 32
    numbers.setdefault("batch", 64 if small else 1)
    return Layer(suite, identity, **numbers)


def _folder() -> Traversable:
    return resources.files("fastconv.bench") / "suites"


def select(
    suites: Sequence[str] = (),
    layers: Sequence[str] = (),
    directions: Sequence[Direction] | None = None,
) -> list[Item]:
    """Return what is to be measured; raise `BenchError` for an unknown suite or layer.

    Whole suites, or only the layers with these ids, of the named suites or else of all; without
    either the suite of images and a cross-section of the others. By default forward, in the
    cross-section also some gradients.
    """
    check_names("suite", suites, suite_names())
    if not suites and not layers:
        return _default_items(directions)
    found = [layer for name in suites or suite_names() for layer in load_suite(name)]
    check_names("layer", layers, [layer.id for layer in found])
    chosen = tuple(directions or ("forward",))
    return [Item(layer, chosen) for layer in found if not layers or layer.id in layers]


def _default_items(directions: Sequence[Direction] | None) -> list[Item]:
    items = [Item(layer, tuple(directions or ("forward",))) for layer in load_suite("images")]
    for suite, chosen in CROSS_SECTION.items():
        known = {layer.id: layer for layer in load_suite(suite)}
        items += [
            Item(known[identity], tuple(directions or some)) for identity, some in chosen.items()
        ]
    return items


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `BenchError` for the first name that is not among the known ones."""
    right = list(dict.fromkeys(known))
    for name in given:
        if name in right:
            continue
        if len(right) <= _MOST_NAMES:
            raise BenchError(f"{what} must be one of {', '.join(right)}, got {name!r}")
        near = difflib.get_close_matches(name, right, n=5, cutoff=0.5)
        nearest = f"; the nearest are {', '.join(near)}" if near else ""
        raise BenchError(
            f"{what} must be one that `fastconv suites NAME` lists, got {name!r}{nearest}"
        )
