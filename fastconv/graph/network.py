"""A network that runs: called with arrays, compiled once for each combination of input shapes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from fastconv.core.arguments import Array, as_computed
from fastconv.graph.compiled import CompiledNetwork
from fastconv.graph.ir import Graph
from fastconv.graph.network_summary import NetworkSummary, explanation, summarize
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

    Examples
    --------
    >>> from fastconv.graph.ir import Value
    >>> graph = Graph([Value("x", np.dtype("float32"), declared=("n", 3))])
    >>> graph.outputs = [graph.add("Relu", graph.inputs, name="y").output]
    >>> network = Network(graph)
    >>> network(np.array([[-1, 0, 2]], np.float32))
    array([[0., 0., 2.]], dtype=float32)
    >>> network.declared_shapes
    {'x': ('n', 3)}
    >>> print(network.summary((4, 3)))
    x 4x3 -> y.1 4x3
    steps          1, 0 GFLOP
    weights        0 B
    arena          0 B, for values of 0 B that live at different times
    largest value  48 B, y.1 4x3
    >>> "1  Relu  y  4x3" in network.explain((4, 3))
    True
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

    @property
    def input_dtypes(self) -> tuple[np.dtype[Any], ...]:
        """The type of each input."""
        return tuple(value.dtype for value in self._graph.inputs if value.dtype is not None)

    @property
    def declared_shapes(self) -> dict[str, tuple[int | str, ...] | None]:
        """The shape that each input must have; names are sizes that are free, None all of them."""
        return {value.name: value.declared for value in self._graph.inputs}

    def summary(self, *shapes: Sequence[int]) -> NetworkSummary:
        """Return the work and the memory of a call.

        Parameters
        ----------
        *shapes : sequence of int
            Of the inputs, in their order. Not needed where the model has fixed ones.

        Returns
        -------
        NetworkSummary
            ``str`` gives a few lines.

        Raises
        ------
        ValueError
            If a shape is needed or does not fit.
        """
        return summarize(self.compiled_as_declared(shapes))

    def explain(self, *shapes: Sequence[int]) -> str:
        """Return what each pass did, the steps with their algorithms, and the summary.

        The arguments and errors are those of `summary`.
        """
        return explanation(self.compiled_as_declared(shapes))

    def compiled_as_declared(self, shapes: Sequence[Sequence[int]]) -> CompiledNetwork:
        """Return the network for shapes, or for those that it declares if none are given."""
        declared = self.declared_shapes
        if not shapes and all(is_fixed(shape) for shape in declared.values()):
            shapes = cast(Any, tuple(declared.values()))
        fit = len(shapes) == len(declared) and all(
            _fits(shape, wanted) for shape, wanted in zip(shapes, declared.values(), strict=True)
        )
        if not fit:
            wanted = ", ".join(f"{name} {shape or '(...)'}" for name, shape in declared.items())
            raise ValueError(
                f"a shape is needed for each input of {wanted}, got {', '.join(map(str, shapes))}"
                f"{'' if shapes else 'none'}"
            )
        return self.compiled_for(*shapes)

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


def is_fixed(declared: Sequence[int | str] | None) -> bool:
    """Return whether an input can have one shape only."""
    return declared is not None and not any(isinstance(size, str) for size in declared)


def _fits(shape: Sequence[int], declared: Sequence[int | str] | None) -> bool:
    """Return whether a shape has the sizes that are declared, and as many."""
    return declared is None or (
        len(shape) == len(declared)
        and all(
            isinstance(wanted, str) or size == wanted
            for size, wanted in zip(shape, declared, strict=True)
        )
    )
