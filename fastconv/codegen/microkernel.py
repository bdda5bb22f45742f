"""What all microkernels have: their arguments by name, and vectors of what they read and sum."""

from __future__ import annotations

from typing import Any

from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.vector import Vectors


class Microkernel:
    """Writes the instructions of a microkernel.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    bits, lanes : int
        Bits of a number that is read, and lanes of a vector.
    arguments : dict of LLVM values
        What it is called with, 64-bit integers by name.
    """

    def __init__(self, builder: Any, bits: int, lanes: int, arguments: dict[str, Any]) -> None:
        self.builder, self.values, self.number = builder, arguments, NUMBER_TYPES[bits]
        self.operand = Vectors(builder, self.number.operand, lanes)
        self.vector = Vectors(builder, self.number.accumulator, lanes)

    def operands(self, *names: str) -> list[Any]:
        """Return arguments as pointers to what is multiplied."""
        return [self._pointer(name, self.number.operand) for name in names]

    def accumulators(self, *names: str) -> list[Any]:
        """Return arguments as pointers to what has the type of sums."""
        return [self._pointer(name, self.number.accumulator) for name in names]

    def _pointer(self, name: str, element: Any) -> Any:
        return self.builder.inttoptr(self.values[name], element.as_pointer())
