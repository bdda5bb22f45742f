"""Compiling every kernel ahead of its first use, into the folder of compiled kernels."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastconv
from fastconv.convolution.blocking.tile_shapes import all_shapes
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.jit.kernel_cache import cache_folder, usable_folder
from fastconv.kernels.conv_microkernels import tile_address
from fastconv.select import conv_registry

# Problems so small that they take no time, of every kind that some algorithm is made for:
# (input shape, weight shape, stride, padding, dilation, groups).
_CONVOLUTIONS: tuple[tuple[Any, ...], ...] = (
    ((2, 4, 12, 12), (4, 4, 3, 3), 1, 1, 1, 1),
    ((2, 4, 12, 12), (4, 4, 3, 3), 2, 1, 1, 1),
    ((2, 4, 12, 12), (4, 4, 3, 3), 1, 2, 2, 1),
    ((2, 4, 12, 12), (4, 1, 3, 3), 1, 1, 1, 4),
    ((2, 4, 12, 12), (4, 1, 3, 3), 2, 1, 1, 4),
    ((2, 4, 12, 12), (4, 2, 3, 3), 1, 1, 1, 2),
    ((2, 4, 12, 12), (8, 4, 1, 1), 1, 0, 1, 1),
    ((2, 4, 12, 12), (8, 4, 1, 1), 2, 0, 1, 1),
    ((2, 4, 12, 12), (4, 4, 5, 5), 1, 2, 1, 1),
    ((2, 3, 16, 16), (8, 3, 7, 7), 2, 3, 1, 1),
    ((1, 32, 12, 40), (64, 32, 3, 3), 1, 1, 1, 1),
)

Step = tuple[str, Callable[[], Any]]


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels on disk."""

    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.stat().st_size for file in self.files)


def stored_kernels(folder: Path | None = None) -> Kernels:
    """Return the kernels of this build, or those below `folder`."""
    if folder is None:
        folder = usable_folder()
    files = folder.rglob("*.kernel") if folder else ()
    return Kernels(tuple(sorted(file for file in files if file.is_file())))


def clear() -> int:
    """Delete all compiled kernels, those of other versions too; return how many.

    Only files ``*.kernel`` in the sub-folders that fastconv makes; then these sub-folders, if
    nothing else is in them.
    """
    count = 0
    root = cache_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not re.fullmatch("[0-9a-f]{16}", folder.name) or folder.is_symlink():
            continue
        for file in folder.glob("*.kernel"):
            if file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)
                count += 1
        for file in folder.glob("tmp*"):  # left by a process that was killed while writing
            if file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or another process is writing
            folder.rmdir()
    return count


def steps(dtypes: Sequence[str]) -> Iterator[Step]:
    """Yield what compiles everything: (name, function without arguments).

    Every algorithm that the registries know, through the public functions.
    """
    for dtype in dtypes:
        for direction, name in _all_algorithms():
            for case in _CONVOLUTIONS:
                call = _convolution(dtype, direction, name, case)
                if call is not None:
                    yield f"{name} {direction} {dtype}", call
        for name in fastconv.pool_algorithms():
            yield f"{name} pooling {dtype}", partial(_pool, dtype, name)
        yield f"columns {dtype}", partial(_columns, dtype)
        for shape in all_shapes(dtype):
            yield shape.name, partial(tile_address, shape)


def _all_algorithms() -> Iterator[tuple[Direction, str]]:
    for direction in DIRECTIONS:
        for name in conv_registry.algorithms(direction):
            yield direction, name


def _convolution(
    dtype: str, direction: Direction, name: str, case: tuple[Any, ...]
) -> Callable[[], Any] | None:
    """Return the call, None if the algorithm refuses the problem."""
    input_shape, weight_shape, stride, padding, dilation, groups = case
    problem = Conv2dProblem.from_shapes(
        input_shape, weight_shape, stride, padding, dilation, groups, dtype
    )
    algorithm = next(a for a in conv_registry.offering(direction) if a.name == name)
    if algorithm[direction].refusal(problem) is not None:
        return None
    x, weight, grad = (
        np.ones(shape, dtype) for shape in (input_shape, weight_shape, problem.output_shape)
    )
    how: dict[str, Any] = {
        **{"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        "algorithm": name,
    }
    if direction == "forward":
        return partial(fastconv.conv2d, x, weight, **how)
    if direction == "input_grad":
        return partial(fastconv.conv2d_input_grad, input_shape, weight, grad, **how)
    return partial(fastconv.conv2d_weight_grad, x, weight_shape, grad, **how)


def _pool(dtype: str, name: str) -> None:
    x = np.ones((2, 3, 8, 8), dtype)
    for size, stride, padding in ((2, 2, 0), (3, 2, 1)):
        largest, indices = fastconv.max_pool2d(
            x, size, stride, padding, return_indices=True, algorithm=name
        )
        fastconv.max_pool2d(x, size, stride, padding, algorithm=name)
        fastconv.max_pool2d_grad(largest, indices, x.shape, algorithm=name)
        mean = fastconv.avg_pool2d(x, size, stride, padding, algorithm=name)
        fastconv.avg_pool2d_grad(mean, x.shape, size, stride, padding, algorithm=name)
    adaptive = fastconv.adaptive_avg_pool2d(x, 3, algorithm=name)
    fastconv.adaptive_avg_pool2d_grad(adaptive, x.shape, algorithm=name)


def _columns(dtype: str) -> None:
    x = np.ones((2, 3, 8, 8), dtype)
    fastconv.col2im(fastconv.im2col(x, 3), (8, 8), 3)
