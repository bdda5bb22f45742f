"""What a graph knows of an operator: the type of its results, and how it computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastconv.graph.ir import Array, Node, Shape

#: The dtype and the shape of a result.
Type: TypeAlias = "tuple[np.dtype[Any], Shape]"
#: Writes the results into arrays of the inferred types: ``step(inputs, outputs)``.
Step: TypeAlias = "Callable[[Sequence[Any], Sequence[Any]], None]"


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes
    ----------
    infer : callable
        ``infer(node)`` returns the `Type` of every output. Types of inputs are known; where a shape
        depends on numbers that are not, or an input's shape is unknown, it is None.
    compute : callable
        ``compute(node, inputs)`` returns the result, or a tuple of several, in new arrays. Views of
        inputs are fine if the operator is a `view`.
    bind : callable, optional
        ``bind(node)`` returns a `Step` for a node whose types are all known, or None to `compute`;
        what can be prepared once is.
    view : bool
        Whether the result shares the memory of the first input.
    """

    infer: Callable[[Node], Sequence[Type]]
    compute: Callable[[Node, Sequence[Any]], Any]
    bind: Callable[[Node], Step | None] | None = None
    view: bool = False


#: All operators by name.
OPERATORS: dict[str, Operator] = {}


def register(name: str, operator: Operator) -> None:
    """Add an operator to the list."""
    assert name not in OPERATORS, f"two operators are named {name}"
    OPERATORS[name] = operator


# For the functions of operators ------------------------------------------------------------------


def type_of(node: Node, index: int) -> Type:
    """Return the type of an input that is not missing."""
    value = node.inputs[index]
    assert value is not None, f"{node.operator} {node.name!r} needs input {index}"
    assert value.dtype is not None, f"{value} has no dtype"
    return value.dtype, value.shape


def one_type(node: Node) -> np.dtype[Any]:
    """Return the dtype of all inputs, which must have the same."""
    found = {value.dtype.name for value in node.inputs if value is not None and value.dtype}
    if len(found) != 1:
        raise ValueError(f"all inputs must have one type, got {', '.join(sorted(found))}")
    return np.dtype(found.pop())


def shape_of(node: Node, index: int) -> Shape:
    """Return the shape of an input that is not missing."""
    return type_of(node, index)[1]


def into(compute: Callable[[Node, Sequence[Any]], Any]) -> Callable[[Node], Step]:
    """Return the `bind` of an operator whose result is computed and then copied to its place."""

    def bind(node: Node) -> Step:
        def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            outputs[0][...] = compute(node, inputs)

        return step

    return bind


def axis_of(node: Node, rank: int, default: int = 0) -> int:
    """Return the attribute `axis`, counted from the front."""
    axis = int(node.attributes.get("axis", default))
    if not -rank <= axis < rank:
        raise ValueError(
            f"{node.operator} {node.name!r} needs an axis of {rank} dimensions, got {axis}"
        )
    return axis % rank


def integers(array: Array | None) -> tuple[int, ...] | None:
    """Return the elements of a constant as integers, None if there is no constant."""
    return None if array is None else tuple(int(number) for number in np.ravel(array))
