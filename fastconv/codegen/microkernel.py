"""What all microkernels have: their arguments by name, and vectors of what they read and sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastconv.codegen.integers import integers, pointer_to
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.vector import Vectors


class Microkernel:
    """Writes the instructions of a microkernel.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    bits, lanes : int
        Bits of a number that is read, and lanes of a vector.
    arguments : dict
        What it is called with, 64-bit integers by name: LLVM values, or as `integers` has them.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: Mapping[str, Any]) -> None:
        self.builder, self.v, number = builder, integers(builder, arguments), NUMBER_TYPES[bits]
        self.operand = Vectors(builder, number.operand, lanes)
        self.vector = Vectors(builder, number.accumulator, lanes)

    def operands(self, *names: str) -> list[Any]:
        """Return arguments as pointers to what is multiplied."""
        return [pointer_to(self.operand, getattr(self.v, name)) for name in names]

    def accumulators(self, *names: str) -> list[Any]:
        """Return arguments as pointers to what has the type of sums."""
        return [pointer_to(self.vector, getattr(self.v, name)) for name in names]
