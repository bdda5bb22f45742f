"""Building blocks that take addresses, and activations, with this process's instruction set.

Run as ``python block_scenarios.py``: with NUMBA_CPU_NAME and NUMBA_CPU_FEATURES it takes another
instruction set, and a block that reads or writes too far meets a protected page and ends it.
Prints the instruction set; any wrong result is an AssertionError.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from guarded_memory import Array, guarded
from numba.core import types
from numba.extending import intrinsic

from fastconv.codegen import epilogue_activation, packing
from fastconv.codegen.vector import I64, Vectors, vectors
from fastconv.jit import emitter, machine_code
from fastconv.runtime import cpu

SLOPE = 0.1
TYPES = (np.float32, np.float64)


def lanes_of(dtype: Any) -> int:
    return cpu.describe().instructions.lanes(np.dtype(dtype).name)


# Rows -------------------------------------------------------------------------------------------


def block_function(write: Callable[..., None], arguments: int, dtype: Any, *constants: int) -> Any:
    """Return a block of `packing` as a function of integers, compiled for this process alone."""
    names = [f"argument{number}" for number in range(arguments)]
    symbol = "-".join(map(str, (write.__name__, np.dtype(dtype).name, *constants)))

    def emit(builder: Any, values: dict[str, Any]) -> None:
        vector = vectors(builder, 8 * np.dtype(dtype).itemsize, lanes_of(dtype))
        write(vector, *values.values(), *constants)

    code = emitter.compiled(symbol, names, emit)
    (address,) = machine_code.load(code.code, *code.symbols)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(address)


@cache
def row_functions(dtype: Any) -> tuple[Any, dict[int, Any]]:
    """Return what clears rows, and what copies them by steps; 3 is one that is known later."""

    def copy(vector: Any, target: Any, row: Any, width: Any, *rest: Any) -> None:
        packing.copy_row(vector, target, row, width, rest[:3], rest[3])

    copiers = {step or 3: block_function(copy, 6, dtype, step) for step in (1, 2, 0)}
    return block_function(packing.clear_row, 2, dtype), copiers


def check_rows(dtype: Any, at_end: bool) -> None:
    """Find what was asked for, zeros to the end of the vector, and not one element more."""
    lanes, rng = lanes_of(dtype), np.random.default_rng(lanes_of(dtype))
    clear, copiers = row_functions(dtype)

    def room(count: int) -> Array:
        """One vector more than was asked for."""
        return guarded(np.full(max(count, 0) + lanes, 7, dtype), at_end)

    for count in (-3, *range(3 * lanes + 2)):
        written = max(0, -(-count // lanes) * lanes)
        target = room(count)
        clear(target.ctypes.data, count)
        cleared = max(0, count)
        assert (target[:cleared] == 0).all(), count
        assert (target[cleared:] == 7).all(), count
        for step, copy in copiers.items():
            width = int(rng.integers(0, 3 * lanes))
            left = int(rng.integers(-2 * lanes, width + 2))
            values = rng.standard_normal(width).astype(dtype)
            row, target = guarded(values, at_end), room(count)
            copy(target.ctypes.data, row.ctypes.data, width, left, step, count)
            whole = max(0, count) if step == 3 else written  # one by one, or whole vectors
            columns = left + step * np.arange(whole)
            wanted = [values[w] if 0 <= w < width else 0 for w in columns]
            np.testing.assert_array_equal(target[:whole], wanted, str((count, step, left)))
            assert (target[whole:] == 7).all(), (count, step)


@cache
def transposers(dtype: Any) -> dict[int, Any]:
    def transpose(vector: Any, target: Any, to_row: Any, *rest: Any) -> None:
        *numbers, step = rest
        packing.transpose_block(vector, target, to_row, numbers[:3], numbers[3:], step)

    return {step: block_function(transpose, 8, dtype, step) for step in (1, 2)}


def check_transpose_block(dtype: Any, at_end: bool) -> None:
    """Columns become rows; places without a row get zeros; nothing else is touched."""
    lanes, rng = lanes_of(dtype), np.random.default_rng(lanes_of(dtype))
    sizes = sorted({1, 2, lanes - 1, lanes, lanes + 1, 3 * lanes})
    for step, rows, columns, wide in itertools.product((1, 2), (-lanes, 0, *sizes), sizes, sizes):
        # No more than one vector of each is looked at; rows that are not there are zeros.
        seen = max(0, min(rows, lanes)), min(columns, lanes), min(wide, lanes)
        of_row, to_row = step * columns + int(rng.integers(3)), wide + int(rng.integers(3))
        # The last element wanted is the last there is.
        values = rng.standard_normal(max(1, (seen[0] - 1) * of_row + step * (columns - 1) + 1))
        values = values.astype(dtype)
        values[rng.integers(values.size)] = np.nan
        places = guarded(rng.permutation(seen[1]), at_end)
        expected = np.full((seen[1] - 1) * to_row + seen[2], 7, dtype)
        for c, r in np.ndindex(seen[1], seen[2]):
            expected[places[c] * to_row + r] = values[r * of_row + c * step] if r < seen[0] else 0
        source, target = guarded(values, at_end), guarded(np.full_like(expected, 7), at_end)
        addresses = target.ctypes.data, to_row, source.ctypes.data, of_row, places.ctypes.data
        transposers(dtype)[step](*addresses, rows, columns, wide)
        np.testing.assert_array_equal(target, expected, str((step, rows, columns, wide)))


@cache
def gatherer(dtype: Any) -> Any:
    return block_function(packing.gather_block, 6, dtype)


def check_gather_block(dtype: Any, at_end: bool) -> None:
    """Vectors from anywhere become columns; nothing else is touched."""
    lanes, rng = lanes_of(dtype), np.random.default_rng(lanes_of(dtype))
    gather = gatherer(dtype)
    sizes = sorted({1, 2, lanes - 1, lanes, lanes + 1, 3 * lanes})
    for rows, columns in itertools.product(sizes, sizes):
        seen = min(rows, lanes), min(columns, lanes)
        to_row = columns + int(rng.integers(3))
        values = rng.standard_normal(5 * lanes).astype(dtype)
        places = rng.integers(0, 4 * lanes + 1, lanes)
        places[rng.integers(lanes)] = 4 * lanes
        expected = np.full((seen[0] - 1) * to_row + seen[1], 7, dtype)
        for r, c in np.ndindex(*seen):
            expected[r * to_row + c] = values[places[c] + r]
        source, where = guarded(values, at_end), guarded(places, at_end)
        target = guarded(np.full_like(expected, 7), at_end)
        addresses = target.ctypes.data, to_row, source.ctypes.data, where.ctypes.data
        gather(*addresses, rows, columns)
        np.testing.assert_array_equal(target, expected, str((rows, columns)))


# Masks ------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def copy_masked(typingctx, source, target, count, lanes, bits):  # type: ignore[no-untyped-def]
    """Load and store the first `count` elements of a vector; both arrays may be that short."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        read, write = (
            context.make_array(array)(context, builder, value).data
            for array, value in ((source, arguments[0]), (target, arguments[1]))
        )
        vector = Vectors(builder, read.type.pointee, lanes.literal_value)
        mask = vector.first(builder.sext(arguments[2], I64))
        vector.store(vector.load(read, mask), write, mask)
        return context.get_dummy_value()

    return types.void(source, target, count, lanes, bits), generate


@cache
def masked_copier(lanes: int, bits: int) -> Any:
    @numba.njit
    def run(source: Array, target: Array, count: int) -> None:
        copy_masked(source, target, np.int32(count), lanes, bits)

    return run


def check_masks(dtype: Any, at_end: bool) -> None:
    """Lanes that are masked out touch no memory."""
    lanes, bits = lanes_of(dtype), 8 * np.dtype(dtype).itemsize

    run = masked_copier(lanes, bits)
    for count in range(1, lanes + 1):
        source = guarded(np.arange(1, count + 1).astype(dtype), at_end)
        target = guarded(np.full(count, 7, dtype), at_end)
        run(source, target, count)
        np.testing.assert_array_equal(target, source)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def load_within(typingctx, source, target, start, size, lanes):  # type: ignore[no-untyped-def]
    """Load ``source[start : start + lanes]`` as far as it is within ``source[:size]``."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        read, write = (
            context.make_array(array)(context, builder, value).data
            for array, value in ((source, arguments[0]), (target, arguments[1]))
        )
        vector = Vectors(builder, read.type.pointee, lanes.literal_value)
        mask = vector.within(arguments[2], arguments[3])
        vector.store(vector.load(vector.at(read, arguments[2]), mask), write)
        return context.get_dummy_value()

    return types.void(source, target, start, size, lanes), generate


@cache
def loader(lanes: int) -> Any:
    @numba.njit
    def run(source: Array, target: Array, start: int, size: int) -> None:
        load_within(source, target, start, size, lanes)

    return run


def check_within(dtype: Any, at_end: bool) -> None:
    """Find zeros where a vector begins before a row, or ends behind it."""
    lanes = lanes_of(dtype)

    run = loader(lanes)
    far = 2**31 - 1
    for size in range(1, 2 * lanes + 3):
        source = guarded(np.arange(1, size + 1).astype(dtype), at_end)
        for start in (-far, -far // 2, *range(-lanes - 2, size + 3), far // 2, far - lanes, far):
            target = np.full(lanes, np.nan, dtype)
            run(source, target, start, size)
            places = [start + lane for lane in range(lanes)]
            wanted = [source[place] if 0 <= place < size else 0 for place in places]
            np.testing.assert_array_equal(target, wanted, str((start, size)))


# Activations ------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def write_function(typingctx, name, lanes, source, target, place):  # type: ignore[no-untyped-def]
    """Do ``target[place : place + lanes] = name(source[place : place + lanes])``."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        read, write = (
            context.make_array(array)(context, builder, value).data
            for array, value in ((source, arguments[2]), (target, arguments[3]))
        )
        vector = Vectors(builder, read.type.pointee, lanes.literal_value)
        y = vector.load(vector.at(read, arguments[4]))
        function = getattr(epilogue_activation, name.literal_value)
        extra = (vector.all(SLOPE),) if name.literal_value == "leaky" else ()
        vector.store(function(vector, y, *extra), vector.at(write, arguments[4]))
        return context.get_dummy_value()

    return types.void(name, lanes, source, target, place), generate


@cache
def function_of(name: str, lanes: int) -> Any:
    @numba.njit
    def run(source: Array, target: Array) -> None:
        for place in range(0, source.size, lanes):
            write_function(name, lanes, source, target, place)

    return run


def compute(name: str, y: Array) -> Array:
    """Return what the vector code makes of each element."""
    lanes = lanes_of(y.dtype)
    padded = np.zeros(-(-y.size // lanes) * lanes, y.dtype)
    padded[: y.size] = y
    result = np.empty_like(padded)

    run = function_of(name, lanes)
    run(padded, result)
    return result[: y.size]


# In long double: 64 bits of fraction on x86, never fewer than float64.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exponential": np.exp,
    "silu": lambda y: y / (1 + np.exp(-y)),
    "hard_swish": lambda y: y * np.clip(y + 3, 0, 6) / 6,
    "leaky": lambda y: np.where(y < 0, y * SLOPE, y),
}
#: The largest error in units of the last bit: the roundings of each formula, and for the
#: exponential the last bit of its series.
ULPS = {"exponential": 1.5, "silu": 3.0, "hard_swish": 3.0, "leaky": 1.0}


def check_activation(name: str, dtype: Any) -> None:
    """Hold the vector code against its formula, from denormals to overflow."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(3)
    highest, lowest = np.log(float(info.max)), np.log(float(info.smallest_subnormal))
    signs = rng.choice([-1, 1], 20000)
    sizes = np.exp(rng.uniform(lowest, highest, signs.size).astype(np.longdouble))
    y = np.concatenate(
        [
            *(rng.uniform(-size, size, 20000) for size in (0.5, 4, 40, highest)),
            rng.uniform(lowest - 2, np.log(float(info.tiny)) + 2, 5000),
            signs * sizes,
            [0.0, -0.0, 3, -3, 6, info.max, info.tiny, -info.tiny],
        ]
    ).astype(dtype)
    actual = compute(name, y)
    with np.errstate(over="ignore", under="ignore"):
        exact = FUNCTIONS[name](y.astype(np.longdouble))
        expected = exact.astype(dtype)
    assert not np.isnan(actual).any()
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(actual[infinite], expected[infinite])
    assert np.isfinite(actual[~infinite]).all()
    near = ~infinite
    if name == "silu":
        # Where exp(-y) overflows, the result is 0 instead of a number next to the denormals.
        near &= y > -highest
        assert (np.abs(actual - expected)[~near & ~infinite] <= 1000 * info.tiny).all()
    below_max = np.minimum(np.abs(expected[near]), np.nextafter(info.max, dtype(0)))
    last_bit = np.spacing(below_max).astype(np.longdouble)
    error = np.abs(actual[near].astype(np.longdouble) - exact[near]) / last_bit
    worst = error.argmax()
    assert error[worst] <= ULPS[name], (name, dtype, error[worst], y[near][worst])


def check_special_values(dtype: Any) -> None:
    """NaN stays NaN in its lane alone, infinity has the limits of the formula."""
    special = np.array([np.nan, np.inf, 1, -np.inf, 0, -0.0, -1, -np.nan], dtype)
    wanted = {
        "exponential": [np.nan, np.inf, np.exp(1), 0, 1, 1, np.exp(-1), np.nan],
        "leaky": [np.nan, np.inf, 1, -np.inf, 0, 0, -SLOPE, np.nan],
        "silu": [np.nan, np.inf, 1 / (1 + np.exp(-1)), np.nan, 0, 0, -1 / (1 + np.e), np.nan],
        "hard_swish": [np.nan, np.inf, 4 / 6, np.nan, 0, 0, -2 / 6, np.nan],
    }
    for name, values in wanted.items():
        actual = compute(name, special)
        np.testing.assert_allclose(actual, values, rtol=4 * np.finfo(dtype).eps, err_msg=name)
    for name in ("leaky", "silu", "hard_swish"):
        assert np.signbit(compute(name, special)[5]), name


if __name__ == "__main__":
    for each in TYPES:
        for end in (True, False):
            check_rows(each, end)
            check_transpose_block(each, end)
            check_gather_block(each, end)
            check_masks(each, end)
            check_within(each, end)
        for function in FUNCTIONS:
            check_activation(function, each)
        check_special_values(each)
    print(cpu.describe().instructions.name)
