"""A graph bound to memory: a list of steps that run one after another, without checks between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.convolution.algorithm import as_read_only
from fastconv.graph.ir import Array, Graph, Node, Value
from fastconv.graph.memory_plan import ALIGNMENT, check_bytes, plan_memory, storage_roots
from fastconv.graph.operators import operator_list
from fastconv.runtime import output_memory


class Slots:
    """The arrays of one call, by slot: as steps read them, and as they write them.

    Kernels are compiled for read-only inputs, and cannot write to one even by mistake.
    """

    def __init__(self, constants: Sequence[Any]) -> None:
        self.read = list(constants)
        self.write: list[Any] = [None] * len(self.read)

    def put(self, number: int, array: Array) -> None:
        """Set an array that a step will write, and others read."""
        self.write[number], self.read[number] = array, as_read_only(array)


@dataclass(frozen=True)
class BoundNode:
    """A node and its step, which reads and writes slots; the algorithm if there was a choice."""

    node: Node
    step: Callable[[Slots], None]
    algorithm: str = ""


class CompiledNetwork:
    """A network for inputs of fixed shapes.

    Every value has a slot. Those of constants and of values in the arena are filled once for each
    concurrent caller; inputs, outputs and values of unknown size by each call.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.memory = plan_memory(graph)
        check_bytes(self.memory.nbytes, "intermediate results")
        values = graph.values()
        self._slot = {id(value): number for number, value in enumerate(values)}
        self._constants = [value.constant for value in values]
        self._arena = [
            (self._slot[id(value)], self.memory.offsets[id(value)], value)
            for value in values
            if id(value) in self.memory.offsets
        ]
        self._inputs = [self._slot[id(value)] for value in graph.inputs]
        self._outputs = [(self._slot[id(value)], value) for value in graph.outputs]
        self._new = self._allocated()
        self.steps = [self._prepared(node) for node in graph.nodes]
        roots = storage_roots(graph)
        made = {id(root) for _, root in self._new}
        # A result that is an input, a constant or a second view of a result is copied.
        first_of: set[int] = set()
        self._copied = []
        for value in graph.outputs:
            root = roots[id(value)]
            own = id(root) in made or root.shape is None
            self._copied.append(not own or id(root) in first_of)
            first_of.add(id(root))
        self._idle: deque[Slots] = deque()

    def _allocated(self) -> list[tuple[int, Value]]:
        """Return the values that each call allocates anew: those that hold results."""
        roots = storage_roots(self.graph)
        found = {}
        for value in self.graph.outputs:
            root = roots[id(value)]
            if root.producer is not None and root.shape is not None:
                found[id(root)] = (self._slot[id(root)], root)
        return list(found.values())

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the results for checked inputs."""
        try:
            slots = self._idle.pop()
        except IndexError:
            slots = self._new_slots()
        for number, array in zip(self._inputs, inputs, strict=True):
            slots.read[number] = array
        for number, value in self._new:
            slots.put(number, output_memory.empty(value.shape, value.dtype))  # type: ignore[arg-type]
        bound = None
        try:
            with np.errstate(all="ignore"):
                for bound in self.steps:
                    bound.step(slots)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"{bound.node.label if bound else ''}: {error}") from error
        results = [
            np.array(slots.read[number]) if copied else slots.write[number]
            for (number, _), copied in zip(self._outputs, self._copied, strict=True)
        ]
        self._idle.append(slots)
        return results

    def _new_slots(self) -> Slots:
        """Return slots with an arena of their own."""
        slots = Slots(self._constants)
        arena = np.empty(self.memory.nbytes + ALIGNMENT, np.uint8)
        start = -arena.ctypes.data % ALIGNMENT
        for number, offset, value in self._arena:
            assert value.dtype is not None
            memory = arena[start + offset : start + offset + value.nbytes]
            slots.put(number, memory.view(value.dtype).reshape(value.shape))
        return slots

    def _prepared(self, node: Node) -> BoundNode:
        """Return a node's step, or raise an error that names the node."""
        try:
            return self._bound(node)
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"{node.label}: {error}") from error

    def _bound(self, node: Node) -> BoundNode:
        """Return a node's step."""
        operator = operator_list.of(node)
        inputs = [None if value is None else self._slot[id(value)] for value in node.inputs]
        outputs = [None if value is None else self._slot[id(value)] for value in node.outputs]
        fixed = all(value is not None and value.shape is not None for value in node.outputs)
        fixed &= all(value is None or value.shape is not None for value in node.inputs)
        into = operator.bind(node) if operator.bind and fixed else None
        if into is not None:

            def step(slots: Slots) -> None:
                read, write = slots.read, slots.write
                into(
                    [None if i is None else read[i] for i in inputs],
                    [write[i] for i in outputs],  # type: ignore[index]
                )

            return BoundNode(node, step, getattr(into, "algorithm", ""))
        compute = operator.compute
        placed = {number for number, _, _ in self._arena} | {number for number, _ in self._new}

        def computed(slots: Slots) -> None:
            given = [None if i is None else slots.read[i] for i in inputs]
            if operator.view and slots.write[inputs[0]] is not None:  # type: ignore[index]
                given[0] = slots.write[inputs[0]]  # type: ignore[index]
            results = compute(node, given)
            results = results if isinstance(results, tuple) else (results,)
            for number, result in zip(outputs, results, strict=False):
                if number is None:
                    continue
                if number in placed:
                    slots.write[number][...] = result
                    continue
                array = np.asarray(result, order="C")
                if not operator.view and any(
                    each is not None and np.may_share_memory(array, each) for each in given
                ):
                    array = array.copy()  # the plan of memory knows of views only
                slots.put(number, array)

        return BoundNode(node, computed)
