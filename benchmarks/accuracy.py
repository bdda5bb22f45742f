"""Measure how exact every algorithm is: the tables and the picture of docs/accuracy.md.

Each part of the page between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is one that this
program writes; the text around them is left alone.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import error_plot
import extreme_errors
import layer_errors
import network_errors
import numpy as np
import point_errors
from layer_errors import Errors
from methods import TORCH, less_exact, methods

from fastconv.bench.machine import version
from fastconv.runtime import blas, cpu
from fastconv.runtime.atomic_files import write_atomically


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    depths: dict[int, tuple[int, ...]] = field(default_factory=lambda: layer_errors.DEPTHS)
    depths_in_float64: dict[int, tuple[int, ...]] = field(
        default_factory=lambda: {3: (3, 64, 512), 5: (64,)}
    )
    draws: int = 3
    wide_draws: int = 12
    positions: range = range(8, 16)
    point_depths: tuple[int, ...] = (64, 512)
    landscape_steps: int = 20
    landscape_depth: int = 64
    stages: tuple[tuple[int, ...], ...] = network_errors.STAGES
    side: int = 224
    images: int | None = None
    epochs: int = 6


QUICK = Size(
    depths={3: (1, 3, 16), 5: (3,)},
    depths_in_float64={3: (3,)},
    draws=1,
    wide_draws=0,
    positions=range(8, 9),
    point_depths=(8,),
    landscape_steps=6,
    landscape_depth=8,
    stages=((8, 8), (16,)),
    side=32,
    images=100,
    epochs=1,
)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write there, else to the screen")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the picture")
    parser.add_argument("--quick", action="store_true", help="few and small layers, for tests")
    return parser.parse_args()


def main() -> int:
    """Write all parts; return 1 if an algorithm breaks its promise."""
    arguments = options()
    size = QUICK if arguments.quick else Size()
    errors = {
        name: layer_errors.measure(methods(), data, size.depths, size.draws)
        for name, data in layer_errors.KINDS.items()
    }
    normal = errors["standard normal"]
    wide = layer_errors.wide(less_exact(), size.wide_draws)
    page = arguments.out.read_text("utf-8") if arguments.out and arguments.out.exists() else ""
    for name, text in parts(size, errors, wide):
        page = with_part(page, name, text)
    if arguments.out:
        write_atomically(arguments.out, lambda file: file.write_text(page, "utf-8"))
    else:
        print(page)
    if arguments.plot:
        points = point_errors.landscape(size.landscape_steps, size.landscape_depth)
        error_plot.draw(arguments.plot, normal, *points)
    failures = [*layer_errors.broken(normal), *layer_errors.broken(wide)]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def parts(size: Size, errors: dict[str, Errors], wide: Errors) -> Iterator[tuple[str, str]]:
    """Yield the name of each part of the page and its text."""
    yield "machine", machine()
    yield "contract", layer_errors.contract(errors["standard normal"], wide)
    for name, some in errors.items():
        yield name, layer_errors.as_table(some, 1e-7)
    # Where a long double is no longer than a double there is nothing to compare float64 with.
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        found = layer_errors.measure(
            methods(), layer_errors.normal, size.depths_in_float64, size.draws, "float64"
        )
        yield "float64", layer_errors.as_table(found, 1e-16)
    yield "extremes", extreme_errors.as_table(methods(), size.positions)
    for m, r in point_errors.CANDIDATES:
        yield f"points F({m}, {r})", point_errors.as_table(m, r, size.point_depths, size.draws)
    yield "photographs in a network", network_errors.photographs_table(size.stages, size.side)
    yield "digits", network_errors.digits_table(size.images, size.epochs)


def with_part(page: str, name: str, text: str) -> str:
    """Return a page with one part written anew, at its end if it had none of that name."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    written = f"{begin}\n\n{text}\n\n{end}"
    if begin not in page:
        return f"{page}{written}\n"
    return re.sub(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: written, page, flags=re.DOTALL
    )


def machine() -> str:
    """Return what the errors may depend on: who adds up in which order."""
    processor = cpu.describe()
    packages = {name: version(name) for name in ("fastconv", "numpy", "numba")}
    packages |= {TORCH: version("torch")}
    told = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor.name}, {processor.instructions.name}; "
        f"Python {platform.python_version()}, {told}; {', '.join(sorted(blas.names()))}"
    )


if __name__ == "__main__":
    sys.exit(main())
