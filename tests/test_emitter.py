"""Machine code from LLVM IR: integers as in Python, code from the store, fused epilogues."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv.codegen.epilogue import Epilogue
from fastconv.codegen.integers import (
    Integer,
    counted,
    counted_together,
    integer_at,
    integers,
    integers_at,
    pointer_to,
)
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.vector import I64, Vectors, index
from fastconv.jit import compiler, emitter, kernel_cache, machine_code

Write = Callable[[Any, Any], None]


def function(name: str, arguments: tuple[str, ...], write: Write) -> Any:
    """Return a function of integers, compiled for this process alone."""
    code = emitter.compiled(
        name, arguments, lambda builder, v: write(builder, integers(builder, v))
    )
    return as_function(machine_code.load(code.code, *code.symbols)[0], len(arguments))


def as_function(address: int, arguments: int) -> Any:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(address)


def store(builder: Any, address: Any, number: Any, value: Any) -> None:
    """Write ``address[number] = value``, integers all of them."""
    array = builder.inttoptr(address.value, I64.as_pointer())
    value = Integer(builder, value).value
    builder.store(value, builder.gep(array, [Integer(builder, number).value]))


EXPRESSIONS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "sums": lambda a, b: [a + b, a - b, a + 3, 3 + a, 3 - a, -a],
    "products": lambda a, b: [a * b, a * 5, 5 * a],
    "quotients": lambda a, b: [a // b, a % b, a // 7, a % 7],
}


@pytest.mark.parametrize("kind", EXPRESSIONS)
def test_integers_calculate_as_python_does(kind: str) -> None:
    def write(builder: Any, v: Any) -> None:
        for number, value in enumerate(EXPRESSIONS[kind](v.a, v.b)):
            store(builder, v.out, number, value)

    run = function(f"test-{kind}", ("a", "b", "out"), write)
    low = 0 if kind == "quotients" else -(10**9)
    for a, b in np.random.default_rng(0).integers(low, 10**9, (50, 2)).tolist():
        expected = EXPRESSIONS[kind](a, b + (kind == "quotients"))
        out = np.zeros(len(expected), np.int64)
        run(a, b + (kind == "quotients"), out.ctypes.data)
        assert out.tolist() == expected


def test_integers_compare() -> None:
    def write(builder: Any, v: Any) -> None:
        chosen = v.a.choose(v.a.compare("<", v.b), 1, v.b)
        for number, value in enumerate((v.a.at_most(v.b), v.a.at_least(2), chosen)):
            store(builder, v.out, number, value)

    run = function("test-compare", ("a", "b", "out"), write)
    for a, b in np.ndindex(5, 5):
        out = np.zeros(3, np.int64)
        run(a - 2, b - 2, out.ctypes.data)
        assert out.tolist() == [min(a - 2, b - 2), max(a - 2, 2), 1 if a < b else b - 2]


def test_loops_and_records() -> None:
    def write(builder: Any, v: Any) -> None:
        g = integers_at(builder, v.record, ("out", "step"), 1)
        with counted(builder, v.start, v.stop, g.step) as i:
            store(builder, g.out, i, integer_at(builder, g.out, i) + 1)

    run = function("test-loops", ("record", "start", "stop"), write)
    for start, stop, step in ((0, 10, 3), (2, 9, 1), (3, 3, 1), (4, 2, 1), (0, 10, 20)):
        out = np.zeros(10, np.int64)
        record = np.array([-1, out.ctypes.data, step])
        run(record.ctypes.data, start, stop)
        assert [i for i in range(10) if out[i]] == list(range(start, stop, step))
        assert out.max(initial=0) <= 1


@pytest.mark.parametrize("sizes", [(), (3,), (1, 4), (2, 3, 2)])
def test_elements_are_counted_in_order(sizes: tuple[int, ...]) -> None:
    axes = len(sizes) + 1

    def write(builder: Any, v: Any) -> None:
        lengths = [integer_at(builder, v.sizes, axis) for axis in range(len(sizes))]
        position = v.start - v.start
        with counted_together(builder, v.start, v.stop, lengths) as numbers:
            flat = numbers[0]
            for number, size in zip(numbers[1:], sizes, strict=True):
                flat = flat * size + number
            for axis, number in enumerate(numbers):
                store(builder, v.out, (flat - v.start) * axes + axis, position + number)

    run = function(f"test-elements-{len(sizes)}", ("sizes", "start", "stop", "out"), write)
    lengths = np.array([*sizes, 0])
    for start, stop in ((0, 24), (5, 17), (7, 8)):
        out = np.full((stop - start, axes), -1)
        run(lengths.ctypes.data, start, stop, out.ctypes.data)
        wanted = [np.unravel_index(n, (99, *sizes)) for n in range(start, stop)]
        np.testing.assert_array_equal(out, wanted)


def test_code_comes_from_the_store_where_it_can(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(tmp_path / "kernels"))
    names = "value", "out"

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v = integers(builder, arguments)
        store(builder, v.out, 0, v.value)

    def fail(builder: Any, arguments: dict[str, Any]) -> None:
        raise AssertionError("compiled twice")

    address = emitter.emitted_address("test-stored", names, emit)
    assert emitter.emitted_address("test-stored", names, fail) == address
    monkeypatch.delitem(compiler._addresses, "test-stored")
    again = emitter.emitted_address("test-stored", names, fail)
    out = np.zeros(1, np.int64)
    as_function(again, 2)(5, out.ctypes.data)
    assert out[0] == 5
    monkeypatch.delitem(compiler._addresses, "test-stored")


@pytest.mark.parametrize("bits", NUMBER_TYPES)
@pytest.mark.parametrize("scaled", [False, True])
def test_an_epilogue_scales_each_channel(bits: int, scaled: bool) -> None:
    dtype, lanes, channels = np.dtype(f"f{bits // 8}"), 4, 3
    element = NUMBER_TYPES[bits].output

    def write(builder: Any, v: Any) -> None:
        vector = Vectors(builder, element, lanes)
        sums = [vector.load(pointer_to(vector, v.sums, k * lanes)) for k in range(channels)]
        scales = [
            vector.broadcast(builder.load(pointer_to(vector, v.scales, k))) for k in range(channels)
        ]
        rest = index(0), index(lanes)
        fused = v.out.value, v.residual.value, v.numbers.value, v.form.value
        epilogue = Epilogue(vector, *fused, *rest, scales=scales if scaled else None)
        epilogue.rows(sums, [(0, 0)], lanes, v.channels.value, v.columns.value)

    names = ("sums", "scales", "out", "residual", "numbers", "form", "channels", "columns")
    run = function(f"test-epilogue-{bits}-{scaled}", names, write)
    rng = np.random.default_rng(bits)
    sums: NDArray[Any] = rng.integers(-9, 10, (channels, lanes)).astype(dtype)
    scales = np.array([2, -1, 0.5], dtype)
    residual = rng.integers(-3, 4, sums.shape).astype(dtype)
    numbers = np.array([0, np.inf, 0], dtype)  # ReLU
    total = sums * scales[:, None] if scaled else sums
    for added, left, columns in ((None, 3, 4), (residual, 3, 4), (residual, 2, 3), (None, 3, 1)):
        out = np.full(sums.shape, 99, dtype)
        place = 0 if added is None else added.ctypes.data
        arrays = sums.ctypes.data, scales.ctypes.data, out.ctypes.data, place, numbers.ctypes.data
        run(*arrays, 0, left, columns)
        expected = np.full_like(out, 99)
        expected[:left, :columns] = total[:left, :columns]
        if added is not None:
            expected[:left, :columns] += added[:left, :columns]
        expected[:left, :columns] = np.maximum(expected[:left, :columns], 0)
        np.testing.assert_array_equal(out, expected)
