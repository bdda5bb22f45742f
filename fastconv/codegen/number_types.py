"""The number types that kernels compute in, in one table.

Operands, accumulators and results have separate types. A lane of operands holds one or more
numbers, neighbours along the reduction axis: `Vectors.dot` multiplies two such vectors and adds the
products of each lane to an accumulator lane. A new type needs a line in the table, its instruction
in `Vectors.dot`, and, where the output type differs from the accumulator type, a conversion in
`Epilogue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir


@dataclass(frozen=True)
class NumberType:
    """The types of operands, accumulators and results.

    Attributes
    ----------
    name : str
        Its name in kernel names and in LLVM's intrinsics.
    operand, accumulator, output : llvmlite.ir.Type
        A lane of operands, a lane of sums, and an element of the result.
    size : int
        Bytes of a lane of operands.
    values : int
        How many numbers a lane of operands holds.
    """

    name: str
    operand: Any
    accumulator: Any
    output: Any
    size: int
    values: int = 1


#: Number types by bits of one number.
NUMBER_TYPES = {
    32: NumberType("f32", *(ir.FloatType(),) * 3, size=4),
    64: NumberType("f64", *(ir.DoubleType(),) * 3, size=8),
}
