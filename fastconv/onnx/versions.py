"""Nodes of older operator sets in the newest form of each operator.

A table says up to which version an operator had another form, and what makes the newer one of it.
Most changes are of one kind: an attribute became an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Value


@dataclass
class Draft:
    """A node on its way into a graph."""

    graph: Graph
    operator: str
    inputs: list[Value | None]
    outputs: list[Value | None]
    attributes: dict[str, Any]
    name: str = ""

    def give(self, index: int, value: Value | None) -> None:
        """Set an input; those before it that are not there are missing."""
        self.inputs += [None] * (index + 1 - len(self.inputs))
        self.inputs[index] = value


Rewrite = Callable[[Draft], None]


def newest_form(draft: Draft, opset: int) -> None:
    """Add a node to its graph, rewritten from the form of an operator set."""
    for before, rewrite in CHANGES.get(draft.operator, ()):
        if opset < before:
            rewrite(draft)
    graph = draft.graph
    graph.add(draft.operator, draft.inputs, draft.outputs, draft.attributes, name=draft.name)


def _to_inputs(dtype: Any = np.int64, **places: int) -> Rewrite:
    """Return what makes inputs, at these places, of attributes."""

    def rewrite(draft: Draft) -> None:
        for name, index in places.items():
            found = draft.attributes.pop(name, None)
            if found is not None:
                draft.give(index, draft.graph.constant(np.asarray(found, dtype), name))

    return rewrite


def _drop(*names: str) -> Rewrite:
    """Return what removes attributes that mean nothing to a network that is only run."""

    def rewrite(draft: Draft) -> None:
        for name in names:
            draft.attributes.pop(name, None)

    return rewrite


def _top_count(draft: Draft) -> None:
    draft.give(1, draft.graph.constant(np.array([draft.attributes.pop("k")], np.int64), "k"))


def _statistics_by_channel(draft: Draft) -> None:
    """Versions 7 to 13: other outputs than the first are those of training."""
    if not draft.attributes.pop("spatial", 1):
        raise ValueError("statistics by element (spatial=0) cannot be applied")
    if any(draft.outputs[1:]):
        raise ValueError("a network for training cannot be run: it returns statistics")
    del draft.outputs[1:]
    draft.attributes.pop("momentum", None)


def _as_before_11(draft: Draft) -> None:
    """Resize by scales alone, whose grids begin at one corner."""
    draft.inputs[1:] = [None, *draft.inputs[1:]]
    mode = draft.attributes.get("mode", "nearest")
    draft.attributes |= {
        "mode": "linear" if mode == "bilinear" else mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }


def _as_resize(draft: Draft) -> None:
    draft.operator = "Resize"
    _as_before_11(draft)


def _over_all_axes_behind(draft: Draft) -> None:
    """Before 13, exponentials were normalized over an axis and all behind it together."""
    graph, (x,) = draft.graph, draft.inputs
    shape = graph.add("Shape", [x], name=draft.name).output
    axis = {"axis": draft.attributes.pop("axis", 1)}
    flat = graph.add("Flatten", [x], None, axis, name=draft.name).output
    made = graph.add(draft.operator, [flat], None, {"axis": -1}, name=draft.name).output
    draft.operator, draft.inputs = "Reshape", [made, shape]


def _renamed(operator: str) -> Rewrite:
    def rewrite(draft: Draft) -> None:
        draft.operator = operator

    return rewrite


#: By operator, the version that brought another form, and what makes it of the form before.
CHANGES: dict[str, Sequence[tuple[int, Rewrite]]] = {
    "BatchNormalization": ((14, _statistics_by_channel),),
    "Clip": ((11, _to_inputs(np.float64, min=1, max=2)),),
    "Dropout": ((12, _drop("ratio")),),
    "LogSoftmax": ((13, _over_all_axes_behind),),
    "Pad": ((11, _to_inputs(np.int64, pads=1)), (11, _to_inputs(np.float64, value=2))),
    "ReduceSum": ((13, _to_inputs(axes=1)),),
    "Resize": ((11, _as_before_11),),
    "Scatter": ((11, _renamed("ScatterElements")),),
    "Slice": ((10, _to_inputs(starts=1, ends=2, axes=3)),),
    "Softmax": ((13, _over_all_axes_behind),),
    "Split": ((13, _to_inputs(split=1)),),
    "Squeeze": ((13, _to_inputs(axes=1)),),
    "TopK": ((10, _top_count),),
    "Unsqueeze": ((13, _to_inputs(axes=1)),),
    "Upsample": ((9, _to_inputs(np.float32, scales=1)), (99, _as_resize)),
}
for _name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"):
    CHANGES[f"Reduce{_name}"] = ((18, _to_inputs(axes=1)),)
