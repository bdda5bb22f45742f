"""Base class of the pooling microkernels, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastconv.codegen.integers import Integer
from fastconv.codegen.vector import Vectors, phis
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
        kept = [old.get(key, self.vector.zero) for key in new]
        merged = phis(builder, (before, kept), (inside, new.values()))
        return {**old, **dict(zip(new, merged, strict=True))}


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
