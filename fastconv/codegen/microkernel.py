"""Base class of microkernels: arguments by name, vectors of operands and of accumulators."""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import pointer_to
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.vector import Vectors


class Microkernel:
    """Emits the instructions of a microkernel.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    bits, lanes : int
        Bits of an operand, and lanes of a vector.
    v : SimpleNamespace of Integer
        The arguments by name.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, v: Any) -> None:
        self.builder, self.v, number = builder, v, NUMBER_TYPES[bits]
        self.operand = Vectors(builder, number.operand, lanes)
        self.vector = Vectors(builder, number.accumulator, lanes)

    def operands(self, *names: str) -> list[Any]:
        """Return arguments as pointers to operands."""
        return [pointer_to(self.operand, getattr(self.v, name)) for name in names]

    def accumulators(self, *names: str) -> list[Any]:
        """Return arguments as pointers to numbers of the accumulator type."""
        return [pointer_to(self.vector, getattr(self.v, name)) for name in names]
