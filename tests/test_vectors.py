"""Each vector building block does what its plain Python meaning says."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.codegen.vector import Vectors, index

Array = NDArray[Any]

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
        elif block == "multiply_add":
            results = [vector.multiply_add(rows[0], rows[1], rows[-1])]
        elif block == "shuffle":
            results = [vector.shuffle(rows[0], rows[1], picks(n))]
        elif block == "transpose":
            results = vector.transpose(rows)
        else:
            for count in range(1, n + 1):
                vector.store_first(rows[count - 1], vector.at(write, index((count - 1) * n)), count)
            results = []
        for i, result in enumerate(results):
            vector.store(result, vector.at(write, index(i * n)))
        return context.get_dummy_value()

    return types.void(name, lanes, source, target), generate


def picks(lanes: int) -> list[int]:
    """Return positions in two vectors, from both and not in order."""
    return [(7 * i + 3) % (2 * lanes) for i in range(lanes)]


def plain(block: str, rows: Array) -> list[list[float]]:
    """Return what a block leaves in memory, row by row; NaN where it must write nothing."""
    lanes = len(rows)
    if block == "load and store":
        return [list(rows[0]), list(rows[1])]
    if block == "broadcast":
        return [[rows[0, 1]] * lanes]
    if block == "multiply_add":
        return [[a * b + c for a, b, c in zip(rows[0], rows[1], rows[-1], strict=True)]]
    if block == "shuffle":
        return [[[*rows[0], *rows[1]][i] for i in picks(lanes)]]
    if block == "transpose":
        return [list(column) for column in zip(*rows, strict=True)]
    return [
        [*rows[count - 1][:count], *[np.nan] * (lanes - count)] for count in range(1, lanes + 1)
    ]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    "block",
    ["load and store", "broadcast", "multiply_add", "shuffle", "transpose", "store_first"],
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


def test_the_blocks_write_vector_instructions() -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    vector = Vectors(builder, ir.FloatType(), 16)
    vector.transpose([vector.undefined] * 16)
    assert str(module).count("shufflevector") == 16 * 4  # log2(16) rounds
