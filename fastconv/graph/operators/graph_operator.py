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


INT64 = np.dtype(np.int64)


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
        what can be prepared once is. A step may have the attribute `algorithm`, a name.
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


class NumbersUnknown(Exception):
    """A shape depends on numbers that only a call knows."""


#: ``rule(node, shape, constants)``: the shape of the result for that of the first input. Elements
#: of inputs, as far as they are known, are in the list.
ShapeRule: TypeAlias = "Callable[[Node, tuple[int, ...], Sequence[Any]], Shape]"


def type_of(node: Node, index: int) -> Type:
    """Return the type of an input that is not missing."""
    value = node.input(index)
    if value is None:
        raise ValueError(f"input {index} is missing")
    assert value.dtype is not None, f"{value} has no dtype"
    return value.dtype, value.shape


def one_type(node: Node) -> np.dtype[Any]:
    """Return the dtype of all inputs, which must have the same."""
    found = {value.dtype.name for value in node.inputs if value is not None and value.dtype}
    if len(found) != 1:
        raise ValueError(f"all inputs must have one type, got {', '.join(sorted(found))}")
    return np.dtype(found.pop())


def same_type(node: Node) -> Sequence[Type]:
    """Infer that the result has the type of the first input."""
    return [type_of(node, 0)]


def by_shape(rule: ShapeRule, dtype: Any = None) -> Callable[[Node], Sequence[Type]]:
    """Return the `infer` of an operator with one result, in the first input's or a fixed dtype."""

    def infer(node: Node) -> Sequence[Type]:
        given, shape = type_of(node, 0)
        return [(given if dtype is None else np.dtype(dtype), known(rule, node, shape))]

    return infer


def known(rule: ShapeRule, node: Node, shape: Shape) -> Shape:
    """Return the shape that a rule gives, None if it depends on what is not known."""
    if shape is None:
        return None
    try:
        return rule(node, shape, constants_of(node))
    except NumbersUnknown:
        return None


def constants_of(node: Node) -> list[Array | None]:
    """Return the elements of the inputs that are constant."""
    return [None if value is None else value.constant for value in node.inputs]


def integers(node: Node, inputs: Sequence[Any], index: int, default: Any = None) -> Any:
    """Return the elements of an optional input as integers.

    `inputs` are arrays, of a call or the constants known before.
    """
    if node.input(index) is None:
        return default
    if inputs[index] is None:
        raise NumbersUnknown
    return tuple(int(number) for number in np.ravel(inputs[index]))


def scalar(inputs: Sequence[Any], index: int, default: Any) -> Any:
    """Return the only element of an optional input."""
    if index >= len(inputs) or inputs[index] is None:
        return default
    return np.asarray(inputs[index]).reshape(-1)[0]


def into(compute: Callable[[Node, Sequence[Any]], Any]) -> Callable[[Node], Step]:
    """Return the `bind` of an operator whose result is computed and then copied to its place."""

    def bind(node: Node) -> Step:
        def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            outputs[0][...] = compute(node, inputs)

        return step

    return bind


def axis_of(node: Node, rank: int, default: int = 0, past: bool = False) -> int:
    """Return the attribute `axis`, counted from the front; `past` allows the end as well."""
    return axis_from_front(int(node.attributes.get("axis", default)), rank, past)


def axis_from_front(axis: int, rank: int, past: bool = False) -> int:
    """Return a checked axis, counted from the front."""
    if not -rank <= axis < rank + past:
        raise ValueError(f"axis must be one of {rank} dimensions, got {axis}")
    return axis + rank if axis < 0 else axis


def axes_from_front(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return different axes, counted from the front."""
    found = tuple(axis_from_front(int(axis), rank) for axis in axes)
    if len(set(found)) < len(found):
        raise ValueError(f"axes must differ, got {tuple(axes)}")
    return found
