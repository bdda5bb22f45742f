"""Run-time integers with Python's operators: addresses, counts and loops of emitted code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.vector import I64, Vectors


class Integer:
    """A 64-bit integer that is known at run time.

    ``a + b`` emits an addition and returns its result, and so on; the other operand may be a
    Python integer. ``//`` and ``%`` are for non-negative numbers.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        value = value.value if isinstance(value, Integer) else value
        self.value: Any = ir.Constant(I64, value) if isinstance(value, int) else value

    def _of(self, value: Any) -> Integer:
        return Integer(self.builder, value)

    def __add__(self, other: Any) -> Integer:
        return self._of(self.builder.add(self.value, self._of(other).value))

    def __sub__(self, other: Any) -> Integer:
        return self._of(self.builder.sub(self.value, self._of(other).value))

    def __mul__(self, other: Any) -> Integer:
        return self._of(self.builder.mul(self.value, self._of(other).value))

    def __floordiv__(self, other: Any) -> Integer:
        return self._of(self.builder.sdiv(self.value, self._of(other).value))

    def __mod__(self, other: Any) -> Integer:
        return self._of(self.builder.srem(self.value, self._of(other).value))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Integer:
        return self._of(other) - self

    def __neg__(self) -> Integer:
        return 0 - self

    def compare(self, how: str, other: Any) -> Any:
        """Return the result of a comparison, such as ``self < other``, as an LLVM bit."""
        return self.builder.icmp_signed(how, self.value, self._of(other).value)

    def at_most(self, other: Any) -> Integer:
        """Return ``min(self, other)``."""
        return self.choose(self.compare("<", other), self, other)

    def at_least(self, other: Any) -> Integer:
        """Return ``max(self, other)``."""
        return self.choose(self.compare(">", other), self, other)

    def choose(self, condition: Any, a: Any, b: Any) -> Integer:
        """Return ``a if condition else b``; both are computed."""
        return self._of(self.builder.select(condition, self._of(a).value, self._of(b).value))


def integers(builder: Any, values: Mapping[str, Any]) -> SimpleNamespace:
    """Return a namespace of LLVM values as `Integer`."""
    return SimpleNamespace(**{name: Integer(builder, value) for name, value in values.items()})


def integers_at(
    builder: Any, address: Any, names: Sequence[str], first: int = 0
) -> SimpleNamespace:
    """Load 64-bit integers, beginning with number `first`, into a namespace."""
    numbers = (integer_at(builder, address, first + i) for i in range(len(names)))
    return SimpleNamespace(**dict(zip(names, numbers, strict=True)))


@contextmanager
def counted(builder: Any, start: Any, stop: Any, step: Any = 1) -> Iterator[Integer]:
    """Emit a loop over ``range(start, stop, step)`` around the code of the block."""
    bounds = (Integer(builder, bound).value for bound in (start, stop, step))
    with cgutils.for_range_slice(builder, *bounds) as (value, _):
        yield Integer(builder, value)


@contextmanager
def counted_together(
    builder: Any, start: Integer, stop: Integer, sizes: Sequence[Any]
) -> Iterator[list[Integer]]:
    """Emit one loop over a multi-index, from flat index `start` to `stop`.

    The block gets the indices: first that of an outer axis of unknown length, then those of the
    axes of `sizes`. They are incremented with a carry, without a division in each iteration.
    """
    rest = start
    positions: list[Integer] = []
    for size in reversed(sizes):
        positions.insert(0, rest % size)
        rest = rest // size
    variables = [cgutils.alloca_once_value(builder, number.value) for number in (rest, *positions)]
    with cgutils.for_range(builder, (stop - start).value):
        current = [Integer(builder, builder.load(variable)) for variable in variables]
        yield current
        carry = Integer(builder, 1)
        for variable, number, size in zip(
            reversed(variables[1:]), reversed(current[1:]), reversed(sizes), strict=True
        ):
            following = number + carry
            full = following.compare("==", size)
            builder.store(following.choose(full, 0, following).value, variable)
            carry = Integer(builder, builder.zext(full, I64))
        builder.store((current[0] + carry).value, variables[0])


def pointer_to(vector: Vectors, address: Any, *offsets: Any) -> Any:
    """Return the pointer to the element at ``address``, plus `offsets` in elements."""
    builder = vector.builder
    pointer = builder.inttoptr(Integer(builder, address).value, vector.element.as_pointer())
    return vector.at(pointer, *(Integer(builder, offset).value for offset in offsets))


def integer_at(builder: Any, address: Any, number: Any) -> Integer:
    """Return element `number` of an array of 64-bit integers."""
    array = builder.inttoptr(Integer(builder, address).value, I64.as_pointer())
    return Integer(builder, builder.load(builder.gep(array, [Integer(builder, number).value])))


class Record:
    """A record of 64-bit integers in memory: attributes are loaded at run time."""

    def __init__(self, builder: Any, address: Integer, layout: np.dtype[Any]) -> None:
        self._builder, self._address, self._names = builder, address, layout.names or ()

    def __getattr__(self, name: str) -> Integer:
        """Load one of the integers."""
        return integer_at(self._builder, self._address, self._names.index(name))


def call_at(builder: Any, address: Any, *numbers: Any) -> None:
    """Call machine code that takes 64-bit integers."""
    signature = ir.FunctionType(ir.VoidType(), [I64] * len(numbers))
    function = builder.inttoptr(Integer(builder, address).value, signature.as_pointer())
    builder.call(function, [Integer(builder, number).value for number in numbers])
