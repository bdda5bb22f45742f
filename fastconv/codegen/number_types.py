"""The number types that kernels compute in, in one table.

Operands, sums and results have types of their own. A lane of a vector of operands is a word of one
or more numbers, neighbours along the axis that is summed: `Vectors.dot` multiplies two such vectors
and adds the products of each lane to a lane of sums. What a new type needs is a line of the table,
its instruction in `Vectors.dot`, and, where results are not stored as they are summed, the
conversion in `Epilogue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir


@dataclass(frozen=True)
class NumberType:
    """What a kernel reads, sums and writes.

    Attributes
    ----------
    name : str
        What stands for it in names of kernels and of LLVM's functions.
    operand, accumulator, output : llvmlite.ir.Type
        A lane of what is multiplied, a lane of the sums, and an element of the result.
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


#: By the bits of one number.
NUMBER_TYPES = {
    32: NumberType("f32", *(ir.FloatType(),) * 3, size=4),
    64: NumberType("f64", *(ir.DoubleType(),) * 3, size=8),
}
