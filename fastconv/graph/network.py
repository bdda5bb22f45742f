"""A network that runs: called with arrays, compiled once for each combination of input shapes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.core.arguments import Array, as_computed
from fastconv.graph.compiled import CompiledNetwork
from fastconv.graph.ir import Graph
from fastconv.graph.passes import optimize
from fastconv.graph.specialize import specialize

# Combinations of input shapes that are kept.
_KEPT = 4


class Network:
    """A graph with weights, called as a function.

    It may be called from several threads at once, and pickled.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Names, in the order of arguments and of results.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs = tuple(value.name for value in graph.inputs)
        self.outputs = tuple(value.name for value in graph.outputs)
        self._compiled: OrderedDict[Any, CompiledNetwork] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *arrays: Any, **named: Any) -> Array | tuple[Array, ...]:
        """Return the output, or a tuple of several."""
        given = self._checked(arrays, named)
        results = self.compiled_for(*(array.shape for array in given)).run(given)
        return results[0] if len(results) == 1 else tuple(results)

    def compiled_for(self, *shapes: Sequence[int]) -> CompiledNetwork:
        """Return the network for inputs of these shapes."""
        key = tuple(tuple(shape) for shape in shapes)
        with self._lock:
            found = self._compiled.get(key)
            if found is not None:
                self._compiled.move_to_end(key)
                return found
        graph = specialize(self._graph, dict(zip(self.inputs, key, strict=True)))
        compiled = CompiledNetwork(optimize(graph))
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return compiled

    def _checked(self, arrays: Sequence[Any], named: dict[str, Any]) -> list[Array]:
        """Return the inputs in their order, each of its type and contiguous."""
        if len(arrays) > len(self.inputs):
            raise TypeError(f"the network takes {len(self.inputs)} inputs, got {len(arrays)}")
        given = dict(zip(self.inputs, arrays, strict=False))
        wrong = [name for name in named if name not in self.inputs or name in given]
        missing = [n for n in self.inputs if n not in given and n not in named]
        if wrong or missing:
            raise TypeError(
                f"the network's inputs are {', '.join(self.inputs)}; "
                + (f"got {', '.join(wrong)} besides" if wrong else f"missing: {', '.join(missing)}")
            )
        given |= named
        checked = []
        for value in self._graph.inputs:
            array = np.asarray(given[value.name])
            wanted = value.dtype or array.dtype
            if not np.can_cast(array.dtype, wanted, "same_kind"):
                raise TypeError(f"input {value.name!r} must be {wanted}, got {array.dtype}")
            if not _fits(array.shape, value.declared):
                raise ValueError(
                    f"input {value.name!r} must have shape {value.declared}, got {array.shape}"
                )
            checked.append(as_computed(array, wanted))
        return checked

    def __getstate__(self) -> dict[str, Any]:
        return {"_graph": self._graph, "inputs": self.inputs, "outputs": self.outputs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_graph"])  # type: ignore[misc]


def _fits(shape: Sequence[int], declared: Sequence[int | str] | None) -> bool:
    """Return whether a shape has the sizes that are declared, and as many."""
    return declared is None or (
        len(shape) == len(declared)
        and all(
            isinstance(wanted, str) or size == wanted
            for size, wanted in zip(shape, declared, strict=True)
        )
    )
