"""Base class of the pooling microkernels, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from llvmlite import ir

from fastconv.codegen.integers import Integer
from fastconv.codegen.vector import Vectors
from fastconv.runtime import cpu


class Window(NamedTuple):
    """Kernel size and stride of a pooling window, each (vertical, horizontal), without dilation."""

    R: int
    S: int
    stride: tuple[int, int]

    @property
    def name(self) -> str:
        """Its part of a kernel's name."""
        return f"{self.R}x{self.S}-s{self.stride[0]}x{self.stride[1]}"


class PoolTile:
    """`rows` rows of one vector of windows; `values` are the arguments as `Integer`."""

    def __init__(
        self, builder: Any, window: Window, rows: int, vector: Vectors, values: SimpleNamespace
    ) -> None:
        self.builder, self.vector, self.v = builder, vector, values
        self.window, self.rows = window, rows

    def pointer(self, address: Integer, kind: Any = None) -> Any:
        """Return an address as a pointer to elements, or to another type."""
        return self.builder.inttoptr(address.value, (kind or self.vector.element).as_pointer())

    def within(self, start: Integer, size: Integer) -> Any:
        """Return ``[0 <= start + i < size for i in range(lanes)]``."""
        return self.vector.within(start.value, size.value)

    def load(self, pointer: Any, mask: Any, otherwise: Any = None) -> Any:
        """Load a vector, with `otherwise` where a mask is not set."""
        if mask is None:
            return self.vector.load(pointer)
        return self.vector.load_masked(pointer, mask, otherwise)

    def store(self, vector: Vectors, value: Any, pointer: Any, mask: Any) -> None:
        """Store a vector, where the mask is set if there is one."""
        if mask is None:
            vector.store(value, pointer)
        else:
            vector.store_masked(value, pointer, mask)

    def all_of(self, *conditions: Any) -> Any:
        """Return whether all conditions hold."""
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = self.builder.and_(whole, condition)
        return whole

    def if_in_plane(
        self, row: Integer, height: Integer, old: Mapping[Any, Any], compute: Callable[[], Any]
    ) -> dict[Any, Any]:
        """Return `old`, updated by `compute` if the row is inside the plane."""
        builder, before = self.builder, self.builder.block
        with builder.if_then(builder.icmp_unsigned("<", row.value, height.value)):
            new = compute()
            inside = builder.block
        merged = dict(old)
        for key, value in new.items():
            kept = old.get(key, self.vector.zero)
            merged[key] = merge(builder, [(kept, before), (value, inside)])
        return merged


def whole_or_masked(builder: Any, whole: Any, write: Callable[[bool], None]) -> None:
    """Call ``write(masked)``: masked only where masks are fast, else for `whole` and for others."""
    if cpu.describe().instructions.masks:
        write(True)
        return
    with builder.if_else(whole) as (then, otherwise):
        with then:
            write(False)
        with otherwise:
            write(True)


def merge(builder: Any, values: list[tuple[Any, Any]]) -> Any:
    """Return a phi node over (value, block) pairs."""
    merged = builder.phi(values[0][0].type)
    for value, block in values:
        merged.add_incoming(value, block)
    return merged


def vectors(builder: Any, bits: int, lanes: int) -> Vectors:
    """Return vectors of float32 or float64."""
    return Vectors(builder, ir.FloatType() if bits == 32 else ir.DoubleType(), lanes)
