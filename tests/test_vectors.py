"""Each vector building block does what its plain Python meaning says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from instruction_sets import NARROWER
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.codegen.vector import I64, Vectors, index

Array = NDArray[Any]

SCRIPT = Path(__file__).with_name("block_scenarios.py")

LANES = (2, 4, 8, 16)
TYPES = (np.float32, np.float64)


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def run_block(typingctx, name, lanes, source, target):  # type: ignore[no-untyped-def]
    """Write the named block between two arrays: what `plain` says."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        read = context.make_array(source)(context, builder, arguments[2]).data
        write = context.make_array(target)(context, builder, arguments[3]).data
        vector = Vectors(builder, read.type.pointee, lanes.literal_value)
        n = vector.lanes
        rows = [vector.load(vector.at(read, index(i * n))) for i in range(n)]
        block = name.literal_value
        if block == "load and store":
            results = [rows[0], rows[1]]
        elif block == "broadcast":
            results = [vector.broadcast(builder.load(vector.at(read, index(1))))]
        elif block in ("multiply_add", "dot"):
            results = [getattr(vector, block)(rows[0], rows[1], rows[-1])]
        elif block == "shuffle":
            results = [vector.shuffle(rows[0], rows[1], picks(n))]
        elif block == "pick":
            few = (rows * 2)[:3]
            results = [vector.pick(few, many_picks(n)), vector.pick(few[:1], [n - 1] * n)]
        elif block == "transpose":
            results = vector.transpose(rows)
        elif block == "sums":
            results = [vector.sums(rows), vector.sums(rows[:1])]
        elif block == "all":
            results = [vector.all(-0.375)]
        elif block == "clamp":
            results = [vector.clamp(row, rows[0], rows[1]) for row in rows]
        elif block == "first":
            # Counts that are known when the code runs only, some of them out of range.
            counts = [
                builder.fptosi(builder.load(vector.at(read, index(i * n))), I64) for i in range(n)
            ]
            results = [
                builder.select(vector.first(count), row, vector.all(99.0))
                for count, row in zip(counts, rows, strict=True)
            ]
        elif block == "within":
            # Starts on both sides of 0, sizes that some vectors begin or end beyond.
            results = []
            for i, row in enumerate(rows):
                start, root = (
                    builder.fptosi(builder.load(vector.at(read, index(i * n + at))), I64)
                    for at in (0, 1)
                )
                inside = vector.within(start, builder.mul(root, root))
                results.append(builder.select(inside, row, vector.all(99.0)))
        elif block == "load_masked otherwise":
            results = [
                vector.load(vector.at(read, index(i * n)), vector.first(index(i)), rows[0])
                for i in range(n)
            ]
        elif block == "load_masked":
            results = [
                vector.load(vector.at(read, index(i * n)), vector.first(index(i))) for i in range(n)
            ]
        else:
            for i, row in enumerate(rows):
                odd = builder.fcmp_ordered("<", row, rows[(i + 1) % n])
                vector.store(row, vector.at(write, index(i * n)), odd)
            results = []
        for i, result in enumerate(results):
            vector.store(result, vector.at(write, index(i * n)))
        return context.get_dummy_value()

    return types.void(name, lanes, source, target), generate


def picks(lanes: int) -> list[int]:
    """Return positions in two vectors, from both and not in order."""
    return [(7 * i + 3) % (2 * lanes) for i in range(lanes)]


def many_picks(lanes: int) -> list[int]:
    """Return positions in three vectors."""
    return [(7 * i + 5) % (3 * lanes) for i in range(lanes)]


def plain(block: str, rows: Array) -> list[list[float]]:
    """Return what a block leaves in memory, row by row; NaN where it must write nothing."""
    lanes = len(rows)
    if block == "load and store":
        return [list(rows[0]), list(rows[1])]
    if block == "broadcast":
        return [[rows[0, 1]] * lanes]
    if block in ("multiply_add", "dot"):
        return [[a * b + c for a, b, c in zip(rows[0], rows[1], rows[-1], strict=True)]]
    if block == "shuffle":
        return [[[*rows[0], *rows[1]][i] for i in picks(lanes)]]
    if block == "pick":
        few = [a for row in [*rows, *rows][:3] for a in row]
        return [[few[i] for i in many_picks(lanes)], [rows[0, -1]] * lanes]
    if block == "transpose":
        return [list(column) for column in zip(*rows, strict=True)]
    if block == "sums":
        return [[sum(row) for row in rows], [sum(rows[0]), *[0.0] * (lanes - 1)]]
    if block == "all":
        return [[-0.375] * lanes]
    if block == "clamp":
        return [
            [min(max(a, low), high) for a, low, high in zip(row, rows[0], rows[1], strict=True)]
            for row in rows
        ]
    if block == "first":
        return [[a if i < row[0] else 99 for i, a in enumerate(row)] for row in rows]
    if block == "within":
        return [
            [a if 0 <= row[0] + i < row[1] ** 2 else 99 for i, a in enumerate(row)] for row in rows
        ]
    if block == "load_masked otherwise":
        return [
            [a if i < count else rows[0, i] for i, a in enumerate(row)]
            for count, row in enumerate(rows)
        ]
    if block == "load_masked":
        return [
            [a if i < count else 0 for i, a in enumerate(row)] for count, row in enumerate(rows)
        ]
    following = [*rows[1:], rows[0]]  # store_masked
    return [
        [a if a < b else np.nan for a, b in zip(row, other, strict=True)]
        for row, other in zip(rows, following, strict=True)
    ]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    "block",
    [
        *("load and store", "broadcast", "multiply_add", "dot", "shuffle", "transpose", "sums"),
        *("all", "clamp", "first", "within", "load_masked", "store_masked"),
        *("load_masked otherwise", "pick"),
    ],
)
def test_block(block: str, lanes: int, dtype: Any) -> None:
    # Small integers: fused or not, the products and sums are exact.
    rows = np.random.default_rng(lanes).integers(-9, 10, (lanes, lanes)).astype(dtype)
    wanted = plain(block, rows)
    # Odd offsets: no vector is aligned to more than its elements.
    source = np.empty(lanes * lanes + 1, dtype)[1:]
    target = np.full(lanes * lanes + 1, np.nan, dtype)[1:]
    source[:] = rows.ravel()

    @numba.njit
    def run(source: Any, target: Any) -> None:
        run_block(block, lanes, source, target)

    run(source, target)
    written = target.reshape(lanes, lanes)
    np.testing.assert_array_equal(written[: len(wanted)], np.array(wanted, dtype))
    assert np.isnan(written[len(wanted) :]).all()
    np.testing.assert_array_equal(source, rows.ravel())


@pytest.mark.parametrize("dtype", TYPES)
def test_clamp_keeps_nan_and_infinity(dtype: Any) -> None:
    inf, nan = np.inf, np.nan
    rows = np.array([[-1, -inf, 0, -1], [1, inf, 0, 1], [nan, nan, nan, inf], [-inf, -inf, 2, -2]])
    source, target = rows.astype(dtype).ravel(), np.empty(16, dtype)

    @numba.njit
    def run(source: Any, target: Any) -> None:
        run_block("clamp", 4, source, target)

    run(source, target)
    np.testing.assert_array_equal(target[8:], [nan, nan, nan, 1, -1, -inf, 0, -1])


@pytest.mark.skipif(os.name != "posix", reason="mprotect as on POSIX systems")
@pytest.mark.parametrize("name", ["native", *NARROWER])
def test_rows_masks_and_activations(name: str) -> None:
    """In a process of its own: a stray access ends it, and it takes another instruction set."""
    if name != "native" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86-64 code")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT)],
        env={**os.environ, **NARROWER.get(name, {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert name == "native" or done.stdout.startswith(name)


def test_the_blocks_write_vector_instructions() -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    vector = Vectors(builder, ir.FloatType(), 16)
    vector.transpose([vector.undefined] * 16)
    assert str(module).count("shufflevector") == 16 * 4  # log2(16) rounds
