"""A place in one arena for every value that lives only inside a network.

Values whose lifetimes do not overlap share memory. The largest is placed first, each at the lowest
offset where nothing that lives at the same time lies (Y. Pisarchyk and J. Lee, "Efficient memory
management for deep neural net inference", arXiv:2001.03288: greedy by size).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fastconv.graph.ir import Graph, Value
from fastconv.graph.operators import operator_list

#: Bytes: a cache line, and an AVX-512 register.
ALIGNMENT = 64


@dataclass(frozen=True)
class MemoryPlan:
    """Where values lie.

    Attributes
    ----------
    offsets : mapping of int to int
        The offset of each value, by its `id`. Values that are not in it are allocated by each call:
        inputs, outputs, constants, and those whose size is not known before.
    nbytes : int
        Bytes of the arena.
    """

    offsets: Mapping[int, int]
    nbytes: int


@dataclass
class _Life:
    """A block of memory: the steps that write it first and read it last."""

    value: Value
    first: int
    last: int
    offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + -(-self.value.nbytes // ALIGNMENT) * ALIGNMENT


def check_bytes(nbytes: int, what: str) -> None:
    """Refuse what cannot fit into this computer's memory."""
    if nbytes > _installed_bytes():
        raise ValueError(
            f"{what} would take {nbytes / 2**30:.3g} GiB; this computer has "
            f"{_installed_bytes() / 2**30:.3g} GiB of memory"
        )


def _installed_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known here
        return 2**36


def plan_memory(graph: Graph) -> MemoryPlan:
    """Return a place for every value with a known size that no caller sees."""
    roots = storage_roots(graph)
    lives: dict[int, _Life] = {}
    for step, node in enumerate(graph.nodes):
        for value in node.outputs:
            if value is not None and roots[id(value)] is value:
                lives[id(value)] = _Life(value, step, step)
        for value in node.inputs:
            life = lives.get(id(roots.get(id(value)))) if value is not None else None
            if life is not None:
                life.last = step
    seen = {id(roots[id(value)]) for value in graph.outputs if id(value) in roots}
    placed = _place(
        life for key, life in lives.items() if key not in seen and life.value.shape is not None
    )
    offsets = {id(life.value): life.offset for life in placed}
    return MemoryPlan(offsets, max((life.end for life in placed), default=0))


def storage_roots(graph: Graph) -> dict[int, Value]:
    """Return the value whose memory each value uses, by `id`: itself, or what it is a view of."""
    roots = {id(value): value for value in graph.values()}
    for node in graph.nodes:
        source = node.input(0)
        if operator_list.of(node).view and source is not None:
            for value in node.outputs:
                if value is not None:
                    roots[id(value)] = roots[id(source)]
    return roots


def _place(lives: Iterable[_Life]) -> list[_Life]:
    """Give every block an offset, the largest first."""
    # Those that have one, by offset: the first and the last step, begin and end of each.
    placed = np.zeros((4, 0), np.int64)
    done = []
    for life in sorted(lives, key=lambda life: (-life.value.nbytes, life.first)):
        first, last, begin, end = placed
        alive = (first <= life.last) & (life.first <= last)
        # Below each block, and above all, there may be room.
        floors = np.append(0, np.maximum.accumulate(end[alive]))
        ceilings = np.append(begin[alive], np.iinfo(np.int64).max)
        life.offset = int(floors[np.argmax(ceilings - floors >= life.value.nbytes)])
        entry = (life.first, life.last, life.offset, life.end)
        placed = np.insert(placed, np.searchsorted(begin, life.offset), entry, axis=1)
        done.append(life)
    return done
