"""Convolutions on arrays that touch protected pages: a stray access ends the process.

`guarded_runs` runs it. In another instruction set than the machine's best, one thread does the
work of all, in the same parts: parallel loops are compiled for the best one only. What the library
borrows for itself (scratch memory, packed weights, tables of offsets) is guarded too, and scratch
memory is full of NaN, so that nothing is read before it was written.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import reference
from checks import LESS_EXACT
from numpy.typing import NDArray

import fastconv
from fastconv.convolution import depthwise, fft, packed_weights, register_tiles, winograd
from fastconv.convolution.algorithm import as_read_only
from fastconv.convolution.blocking import tile_search, tile_shapes, tiling, winograd_search
from fastconv.convolution.blocking.spectra import Transform
from fastconv.convolution.weight_grad import (
    direct_1x1_weight_grad,
    direct_weight_grad,
    implicit_gemm_weight_grad,
    winograd_weight_grad,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.runtime.workspace import scratch
from fastconv.select.conv_registry import ALGORITHMS

PAGE = mmap.PAGESIZE
PROT_NONE = 0
# In a narrower instruction set fewer: the same emitters make the others.
NARROWER = "narrower" in sys.argv
DIFFERENT_TILES = 1 if NARROWER else 2  # of each type and step, beside the smallest
DIFFERENT_KERNELS = (
    6 if NARROWER else 16
)  # of depthwise: size, stride and type; of weight gradients
IMAGES = 6  # for each of them

Array = NDArray[Any]


def guarded(values: Array, at_end: bool) -> Array:
    """Return a copy of `values` that ends where a protected page begins, or starts after one."""
    pages = -(-values.nbytes // PAGE) or 1
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (0, pages + 1):
        place = ctypes.c_void_p(address + page * PAGE)
        if libc.mprotect(place, ctypes.c_size_t(PAGE), PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = (pages + 1) * PAGE - values.nbytes if at_end else PAGE
    array = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    array[...] = values
    return array


def kind_of(shape: Any) -> tuple[int, ...]:
    """Return what a tile is of which each takes its time to compile."""
    return shape.step, shape.bits, shape.lanes, shape.pooled


class Guard:
    """Puts what the library allocates for itself between protected pages."""

    at_end = True

    def __init__(self, rng: np.random.Generator) -> None:
        enter = scratch.__enter__
        pack, tile_cut = packed_weights.TilePacker.__call__, tiling.tiling_of
        spectra, padded = fft._weight_spectra, Transform._padded

        def guard(array: Array) -> Array:
            kept = guarded(array, Guard.at_end)
            kept.flags.writeable = array.flags.writeable
            return kept

        def lend(self: scratch) -> Array:
            lent = enter(self)
            lent.view(np.uint8)[...] = 0xFF  # NaN in every type of float
            return guard(lent)

        used: set[Any] = set()

        @cache
        def any_tile(problem: Any, over: Any, num_threads: int, pooled: bool = False) -> Any:
            """Return any tile that fits, not only the one that seems fastest."""
            fitting = list(tile_shapes.shapes(problem, over, pooled))
            alike = [shape for shape in used if kind_of(shape) == kind_of(fitting[0])]
            if len(alike) >= DIFFERENT_TILES:  # each takes its time to compile
                fitting = [shape for shape in fitting if shape in used] or fitting[-1:]
            shape = fitting[rng.integers(len(fitting))]
            used.add(shape)
            return tile_search.blocking_with(problem, shape, num_threads)

        tiles: dict[Any, Any] = {}

        def depthwise_shape(problem: Any, odd: Any = None, pooled: bool = False) -> Any:
            """Return the same tile for a kernel as before, as long as it fits."""
            fitting = list(depthwise._shapes(problem, odd, pooled))
            kernel = fitting[0]._replace(rows=0, vectors=0)
            shape = tiles.setdefault(kernel, fitting[rng.integers(len(fitting))])
            return shape if shape in fitting else fitting[-1]

        def tiling_of(*arguments: Any) -> tiling.Tiling:
            found = tile_cut(*arguments)
            arrays = {name: guard(getattr(found, name)) for name in ("record", "offsets", "cuts")}
            return found._replace(**arrays)

        def as_read_only(array: Array) -> Array:
            kept = guard(array)
            kept.flags.writeable = False
            return kept

        @cache
        def any_cut(problem: Any, m: int, shape: Any, num_threads: int, fresh: bool = False) -> Any:
            """Return any cut, not only the one that seems fastest."""
            every = winograd_search._Cuts(problem, m, (shape,), num_threads, fresh)
            every.costs = np.where(every.costs < 1e19, rng.random(every.costs.shape), np.inf)
            return every.best()

        @cache
        def any_product_tile(problem: Any, m: int, num_threads: int, once: bool = False) -> Any:
            fitting = list(winograd_search.product_tiles(problem, m))
            alike = [shape for shape in used if kind_of(shape) == kind_of(fitting[0])]
            if len(alike) >= 2 * DIFFERENT_TILES:
                fitting = [shape for shape in fitting if shape in used] or fitting[-1:]
            shape = fitting[rng.integers(len(fitting))]
            used.add(shape)
            fresh = once and bool(rng.random() < 0.7)
            return any_cut(problem, m, shape, num_threads, fresh)

        weights, blocks_of = winograd.WinogradLaunch.weights, winograd.blocks_of

        def guarded_arrays(found: Any) -> Any:
            """Return a cut whose arrays are guarded, and whose record has their addresses."""
            fields = found._asdict()
            given = {n: v for n, v in fields.items() if hasattr(v, "flags")}
            given |= fields.get("tables", {})
            arrays = {name: guard(array) for name, array in given.items()}
            for record in (array for array in arrays.values() if array.dtype.names):
                record.flags.writeable = True
                for name in set(arrays) & set(record.dtype.names):
                    if record[name] == given[name].ctypes.data:
                        record[name] = arrays[name].ctypes.data
                record.flags.writeable = False
            if "tables" in fields:
                fields["tables"] = {name: arrays.pop(name) for name in fields["tables"]}
            return type(found)(**{**fields, **arrays})

        def guarded_blocks(*arguments: Any) -> Any:
            return guarded_arrays(blocks_of(*arguments))

        def guarded_cut(module: Any, cut: Callable[..., Any]) -> Callable[..., Any]:
            def guarded(*arguments: Any) -> Any:
                found = guarded_arrays(cut(*arguments))
                if module is direct_1x1_weight_grad:
                    bands = tuple((*band[:2], guard(band[2])) for band in found.bands)
                    found = found._replace(bands=bands)
                return found

            return guarded

        def any_shape(module: Any) -> Any:
            seen: set[Any] = set()

            @cache
            def shape_of(problem: Any) -> Any:
                """Return any tile that fits, not only the one that seems fastest."""
                fitting = list(module.shapes(problem))
                if len(seen) >= DIFFERENT_KERNELS:
                    fitting = [shape for shape in fitting if shape in seen] or fitting[:1]
                shape = fitting[rng.integers(len(fitting))]
                seen.add(shape)
                return shape

            return shape_of

        direct_weight_grad.best_shape = any_shape(direct_weight_grad)
        direct_1x1_weight_grad.best_shape = any_shape(direct_1x1_weight_grad)

        for module, cut in (
            (implicit_gemm_weight_grad, "bands_of"),
            (winograd_weight_grad, "bands_of"),
            (direct_weight_grad, "cut_of"),
            (direct_1x1_weight_grad, "cut_of"),
        ):
            setattr(module, cut, guarded_cut(module, getattr(module, cut)))
        winograd.cheapest_with = any_cut  # type: ignore[assignment]
        winograd.cheapest = any_product_tile  # type: ignore[assignment]
        winograd.blocks_of = guarded_blocks  # type: ignore[assignment]
        winograd.WinogradLaunch.weights = lambda *arguments: guard(weights(*arguments))  # type: ignore[method-assign]
        winograd.as_read_only = as_read_only
        scratch.__enter__ = lend  # type: ignore[method-assign]
        packed_weights.TilePacker.__call__ = lambda *arguments: guard(pack(*arguments))  # type: ignore[method-assign]
        fft._weight_spectra = lambda *arguments: guard(spectra(*arguments))
        Transform._padded = lambda *arguments: guard(padded(*arguments))  # type: ignore[method-assign]
        register_tiles.tiling_of = tiling_of  # type: ignore[assignment]
        register_tiles.best_blocking = any_tile  # type: ignore[assignment]
        register_tiles.as_read_only = depthwise.as_read_only = as_read_only
        depthwise.depthwise_shape = depthwise_shape  # type: ignore[assignment]


def random_problem(rng: np.random.Generator, algorithm: str) -> dict[str, Any]:
    """Return shapes and parameters of a convolution, sizes on both sides of every tile."""
    kind = rng.choice(["plain", "plain", "grouped", "depthwise", "pointwise"])
    if algorithm.startswith("winograd"):
        kind = "winograd"
    groups, c, k = 1, int(rng.integers(1, 7)), int(rng.integers(1, 71))
    if kind == "grouped" or (kind == "winograd" and rng.random() < 0.2):
        groups = int(rng.integers(2, 4))
        c, k = groups * c, groups * -(-k // groups)
    elif kind == "depthwise":
        groups = c = int(rng.integers(1, 24))
        k = groups * int(rng.integers(1, 3))
    kernel = rng.integers(1, 5, 2)
    stride, dilation = rng.integers(1, 5, 2), rng.choice([1, 1, 2, 3, 9], 2)
    padding = rng.integers(0, 4, (2, 2)) * rng.integers(0, 2)
    if kind == "pointwise":
        kernel[:], stride[:] = 1, rng.integers(1, 3)
    if kind == "winograd":
        kernel[:], stride[:], dilation[:] = rng.choice((3, 5)), 1, 1
    elif rng.random() < 0.4:
        stride[1] = 1
    spans = dilation * (kernel - 1) + 1
    wide = 70 if rng.random() < 0.5 else 9
    out = np.array([rng.integers(1, 9), rng.integers(1, wide + 1)])
    # A few pixels more than the last window needs are never read for the result.
    size = (out - 1) * stride + spans - padding.sum(axis=1) + rng.integers(0, stride)
    size = np.maximum(size, 1)
    return {
        "input_shape": tuple(map(int, (rng.integers(1, 4), c, *size))),
        "weight_shape": tuple(map(int, (k, c // groups, *kernel))),
        "stride": tuple(map(int, stride)),
        "padding": tuple(tuple(map(int, sides)) for sides in padding),
        "dilation": tuple(map(int, dilation)),
        "groups": groups,
    }


def depthwise_kernels(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Return kernel sizes, strides and types: the usual, the largest, and some of the others."""
    kernels: list[tuple[Any, ...]] = [((3, 3), (1, 1), np.float32), ((3, 3), (2, 2), np.float32)]
    for size in (1, 5):
        kernels += [((size, size), (2, 2), np.float32), ((size, size), (1, 1), np.float64)]
    while len(kernels) < DIFFERENT_KERNELS:
        size, stride = rng.integers(1, 6, 2), rng.integers(1, 3, 2)
        dtype = (np.float32, np.float64)[len(kernels) % 2]
        kernels.append((tuple(map(int, size)), tuple(map(int, stride)), dtype))
    return kernels


def random_depthwise_problem(rng: np.random.Generator, kernel: Any, stride: Any) -> dict[str, Any]:
    """Return shapes and parameters: images narrower than a vector and wider than several."""
    groups, multiplier = int(rng.integers(1, 12)), int(rng.choice([1, 1, 1, 2, 3]))
    wide, high = (int(rng.integers(1, most + 1)) for most in (rng.choice([9, 70]), 40))
    padding = rng.integers(0, 9, (2, 2)) * rng.integers(0, 2, (2, 2))
    # Whole tiles of margin, before the image and behind it.
    if rng.random() < 0.1:
        padding[rng.integers(2), rng.integers(2)] = 40
    size = np.maximum((high, wide), np.array(kernel) - padding.sum(axis=1))
    return {
        "input_shape": (int(rng.integers(1, 3)), groups, *map(int, size)),
        "weight_shape": (groups * multiplier, 1, *kernel),
        "stride": stride,
        "padding": tuple(tuple(map(int, sides)) for sides in padding),
        "dilation": (1, 1),
        "groups": groups,
    }


#: Each with its plain meaning. A slope that is a power of two keeps integers exact.
ACTIVATIONS: tuple[tuple[Any, Callable[[Array], Array]], ...] = (
    (None, lambda y: y),
    ("relu", lambda y: np.where(y < 0, 0, y)),
    ("relu6", lambda y: np.where(y < 0, 0, np.where(y > 6, 6, y))),
    (("clip", -3, 2.5), lambda y: np.where(y < -3, -3, np.where(y > 2.5, 2.5, y))),
    (("leaky_relu", 0.25), lambda y: np.where(y < 0, 0.25 * y, y)),
    ("silu", lambda y: y / (1 + np.exp(-np.maximum(y, -700)))),
    ("hard_swish", lambda y: y * np.clip(y + 3, 0, 6) / 6),
)


def is_right(actual: Array, expected: Array, activation: Any, algorithm: str) -> bool:
    """Return whether a result is exact, or near enough where it cannot be exact."""
    if algorithm in LESS_EXACT:  # a product too many or too few changes a sum by one
        return np.allclose(actual, expected, rtol=1e-5, atol=0.1, equal_nan=False)
    if activation in ("silu", "hard_swish"):
        eps = np.finfo(actual.dtype).eps
        return np.allclose(actual, expected, rtol=16 * eps, atol=1e-36, equal_nan=False)
    return np.array_equal(actual, expected)


def squares(y: Array) -> Array:
    """Return a view in which axes 3 and 5 are those of squares of 2 x 2."""
    n, k, height, width = y.shape
    even = y[:, :, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(n, k, height // 2, 2, width // 2, 2)


KERNELS = depthwise_kernels(np.random.default_rng(8))


def check(rng: np.random.Generator, algorithm: str, number: int) -> bool:
    """Return whether one problem comes out right; integers, so that it is exactly right."""
    if algorithm == "depthwise":
        kernel, stride, dtype = KERNELS[number // IMAGES]
        options = random_depthwise_problem(rng, kernel, stride)
    else:
        options, dtype = random_problem(rng, algorithm), rng.choice([np.float32, np.float64])
    input_shape, weight_shape = options.pop("input_shape"), options.pop("weight_shape")
    x, weight = (rng.integers(-3, 4, shape).astype(dtype) for shape in (input_shape, weight_shape))
    bias = rng.integers(-3, 4, weight_shape[0]).astype(dtype) if rng.random() < 0.7 else None
    summed = reference.conv2d(x, weight, bias, **options)
    assert summed.size
    residual = rng.integers(-9, 10, summed.shape).astype(dtype) if rng.random() < 0.5 else None
    activation, apply = ACTIVATIONS[number % len(ACTIVATIONS)]
    expected = apply(summed if residual is None else summed + residual)
    fastconv.set_num_threads(number % 3 + 1)
    for at_end in (True, False):
        Guard.at_end = at_end
        parameters = guarded(weight, at_end), None if bias is None else guarded(bias, at_end)
        y = fastconv.conv2d(guarded(x, at_end), *parameters, algorithm=algorithm, **options)
        right = is_right(y, summed, None, algorithm)
        plan = fastconv.plan_conv2d(
            input_shape, *parameters, activation=activation, algorithm=algorithm, **options
        )
        out = guarded(np.full(summed.shape, np.nan, dtype), at_end)
        added = None if residual is None else guarded(residual, at_end)
        plan(guarded(x, at_end), out=out, residual=added)
        right &= is_right(out, expected, activation, algorithm)
        if min(summed.shape[2:]) > 1 and number % 2:
            plan = fastconv.plan_conv2d(
                *(input_shape, *parameters),
                **{"activation": activation, "algorithm": algorithm, "max_pool": 2, **options},
            )
            out = guarded(np.full(plan.output_shape, np.nan, dtype), at_end)
            # What is added needs the whole output.
            added = added if number % 8 == 1 else None
            plan(guarded(x, at_end), out=out, residual=added)
            maxima = squares(expected if added is not None else apply(summed)).max(axis=(3, 5))
            right &= is_right(out, maxima, activation, algorithm)
        right &= gradients_are_right(rng, algorithm, x, weight, options)
        if not right:
            print(algorithm, input_shape, weight_shape, options, dtype, activation, file=sys.stderr)
            return False
    return True


def gradients_are_right(
    rng: np.random.Generator, algorithm: str, x: Array, weight: Array, options: Any
) -> bool:
    """Return whether those gradients of a problem come out right that the algorithm offers."""
    kernel = next(a for a in ALGORITHMS if a.name == algorithm)
    geometry = {**options, "dtype": str(weight.dtype)}
    problem = Conv2dProblem.from_shapes(x.shape, weight.shape, **geometry)

    def offered(direction: Any) -> bool:
        return direction in kernel.directions and kernel[direction].refusal(problem) is None

    right = True
    grad = rng.integers(-3, 4, problem.output_shape).astype(weight.dtype)
    if offered("input_grad"):
        expected = reference.conv2d_input_grad(x.shape, weight, grad, **options)
        out = guarded(np.full(x.shape, np.nan, weight.dtype), Guard.at_end)
        arrays = (as_read_only(guarded(array, Guard.at_end)) for array in (weight, grad))
        kernel.input_grad.run(problem, *arrays, out)
        right &= is_right(out, expected, None, algorithm)
    if offered("weight_grad"):
        expected = reference.conv2d_weight_grad(x, weight.shape, grad, **options)
        out = guarded(np.full(weight.shape, np.nan, weight.dtype), Guard.at_end)
        arrays = (as_read_only(guarded(array, Guard.at_end)) for array in (x, grad))
        kernel.weight_grad.run(problem, *arrays, out)
        right &= is_right(out, expected, None, algorithm)
    return right
