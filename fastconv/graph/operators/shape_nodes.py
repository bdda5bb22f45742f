"""Operators that move elements without computing: views, copies of parts, joins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    Operator,
    ShapeRule,
    Step,
    Type,
    axes_from_front,
    axis_of,
    by_shape,
    integers,
    into,
    known,
    register,
    scalar,
    type_of,
)

Sizes = tuple[int, ...]

# Views ------------------------------------------------------------------------------------


def _reshaped(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    """Return the shape that `Reshape` gives: 0 keeps a size, -1 stands for what remains."""
    wanted = integers(node, inputs, 1)
    keep = not node.attributes.get("allowzero", 0)
    sizes = [
        shape[i] if size == 0 and keep and i < len(shape) else size for i, size in enumerate(wanted)
    ]
    if sizes.count(-1) == 1:
        others = -prod(sizes)
        sizes[sizes.index(-1)] = prod(shape) // others if others else 0
    if prod(sizes) != prod(shape) or min(sizes, default=0) < 0:
        raise ValueError(f"an array of shape {shape} cannot be reshaped to {wanted}")
    return tuple(sizes)


def _flattened(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    axis = axis_of(node, len(shape), 1, past=True)
    return prod(shape[:axis]), prod(shape[axis:])


def _squeezed(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    axes = integers(node, inputs, 1)
    if axes is None:
        return tuple(size for size in shape if size != 1)
    gone = axes_from_front(axes, len(shape))
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {axes} of shape {shape} are not all of size 1")
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def _unsqueezed(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    axes = integers(node, inputs, 1)
    rank = len(shape) + len(axes)
    at = axes_from_front(axes, rank)
    rest = iter(shape)
    return tuple(1 if axis in at else next(rest) for axis in range(rank))


def _register_view(name: str, rule: ShapeRule) -> None:
    def compute(node: Node, inputs: Sequence[Any]) -> Array:
        return np.asarray(inputs[0].reshape(rule(node, inputs[0].shape, inputs)))

    register(name, Operator(by_shape(rule), compute, view=True))


for _name, _rule in {
    "Reshape": _reshaped,
    "Flatten": _flattened,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
}.items():
    _register_view(_name, _rule)


# Copies of the input's elements -----------------------------------------------------------


def _permutation(node: Node, rank: int) -> Sizes:
    return axes_from_front(node.attributes.get("perm", range(rank)[::-1]), rank)


def _transposed(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    permutation = _permutation(node, len(shape))
    if len(permutation) != len(shape):
        raise ValueError(f"perm {permutation} must name each axis of shape {shape}")
    return tuple(shape[axis] for axis in permutation)


def _transpose(node: Node, inputs: Sequence[Any]) -> Array:
    return np.asarray(inputs[0].transpose(_permutation(node, inputs[0].ndim)))


def _slices(node: Node, shape: Sizes, inputs: Sequence[Any]) -> tuple[slice, ...]:
    starts, ends = integers(node, inputs, 1), integers(node, inputs, 2)
    axes = integers(node, inputs, 3, tuple(range(len(starts))))
    steps = integers(node, inputs, 4, (1,) * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError(f"starts, ends, axes and steps differ in length: {starts}, {ends}, {axes}")
    found = [slice(None)] * len(shape)
    axes = axes_from_front(axes, len(shape))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        found[axis] = slice(start, end, step)
    return tuple(found)


def _sliced(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    slices = _slices(node, shape, inputs)
    return tuple(len(range(n)[part]) for n, part in zip(shape, slices, strict=True))


def _slice(node: Node, inputs: Sequence[Any]) -> Array:
    return np.asarray(inputs[0][_slices(node, inputs[0].shape, inputs)])


def _expanded(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    return tuple(np.broadcast_shapes(shape, integers(node, inputs, 1)))


def _expand(node: Node, inputs: Sequence[Any]) -> Array:
    return np.broadcast_to(inputs[0], _expanded(node, inputs[0].shape, inputs))


def _tiled(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    repeats = integers(node, inputs, 1)
    if len(repeats) != len(shape) or min(repeats, default=0) < 0:
        raise ValueError(f"repeats must be one count an axis of shape {shape}, got {repeats}")
    return tuple(size * count for size, count in zip(shape, repeats, strict=True))


def _tile(node: Node, inputs: Sequence[Any]) -> Array:
    _tiled(node, inputs[0].shape, inputs)
    return np.tile(inputs[0], integers(node, inputs, 1))


def _check_blocks(node: Node, shape: Sizes, sizes: Sizes, divisor: int) -> None:
    if len(shape) != 4 or divisor < 1 or any(size % divisor for size in sizes):
        raise ValueError(f"blocks of {node.attributes['blocksize']} do not divide shape {shape}")


def _depth_to_space(node: Node, inputs: Sequence[Any]) -> Array:
    (x,), block = inputs, int(node.attributes["blocksize"])
    _check_blocks(node, x.shape, x.shape[1:2], block * block)
    n, c, h, w = x.shape
    deep = c // block**2
    if node.attributes.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, block, block, deep, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, deep, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return np.asarray(parts.reshape(n, deep, h * block, w * block))


def _space_to_depth(node: Node, inputs: Sequence[Any]) -> Array:
    (x,), block = inputs, int(node.attributes["blocksize"])
    _check_blocks(node, x.shape, x.shape[2:], block)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    by_row = node.attributes.get("mode", "DCR") == "DCR"
    parts = parts.transpose((0, 3, 5, 1, 2, 4) if by_row else (0, 1, 3, 5, 2, 4))
    return np.asarray(parts.reshape(n, c * block**2, h // block, w // block))


def _spaced(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    block, to_space = int(node.attributes["blocksize"]), node.operator == "DepthToSpace"
    divided, divisor = (shape[1:2], block * block) if to_space else (shape[2:], block)
    _check_blocks(node, shape, divided, divisor)
    n, c, h, w = shape
    if to_space:
        return n, c // block**2, h * block, w * block
    return n, c * block**2, h // block, w // block


for _name, (_rule, _compute) in {
    "DepthToSpace": (_spaced, _depth_to_space),
    "Expand": (_expanded, _expand),
    "Slice": (_sliced, _slice),
    "SpaceToDepth": (_spaced, _space_to_depth),
    "Tile": (_tiled, _tile),
    "Transpose": (_transposed, _transpose),
}.items():
    register(_name, Operator(by_shape(_rule), _compute, into(_compute)))


# Padding ----------------------------------------------------------------------------------


def pad_widths(node: Node, rank: int, inputs: Sequence[Any]) -> list[tuple[int, int]]:
    """Return what is added before and after each axis; below zero, what is cut."""
    pads = integers(node, inputs, 1)
    axes = axes_from_front(integers(node, inputs, 3, tuple(range(rank))), rank)
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads must be two numbers for each of the axes {axes}, got {pads}")
    widths = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        widths[axis] = before, after
    return widths


def _padded(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    widths = pad_widths(node, len(shape), inputs)
    sizes = tuple(size + sum(pair) for size, pair in zip(shape, widths, strict=True))
    if min(sizes, default=0) < 0:
        raise ValueError(f"pads {widths} cut more than shape {shape} has")
    return sizes


def _pad(node: Node, inputs: Sequence[Any]) -> Array:
    x, mode = inputs[0], node.attributes.get("mode", "constant")
    widths = pad_widths(node, x.ndim, inputs)
    sizes = x.shape
    x = x[tuple(slice(max(0, -a), n + min(0, b)) for n, (a, b) in zip(sizes, widths, strict=True))]
    added = [(max(0, before), max(0, after)) for before, after in widths]
    if mode == "constant":
        return np.pad(x, added, constant_values=np.asarray(scalar(inputs, 2, 0)).astype(x.dtype))
    return np.pad(x, added, mode)


register("Pad", Operator(by_shape(_padded), _pad, into(_pad)))


# Joins and parts --------------------------------------------------------------------------


def _infer_concat(node: Node) -> Sequence[Type]:
    types = [type_of(node, i) for i in range(len(node.inputs))]
    shapes = [shape for _, shape in types]
    first = shapes[0]
    if first is None or any(shape is None for shape in shapes):
        return [(types[0][0], None)]
    axis = axis_of(node, len(first))
    apart = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes if shape is not None}
    if len(apart) > 1 or len({len(shape) for shape in shapes if shape is not None}) > 1:
        raise ValueError(f"shapes must differ along axis {axis} alone, got {shapes}")
    if len({dtype for dtype, _ in types}) > 1:
        raise ValueError("the inputs must have one type")
    total = sum(shape[axis] for shape in shapes if shape is not None)
    return [(types[0][0], (*first[:axis], total, *first[axis + 1 :]))]


def _concat(node: Node, inputs: Sequence[Any]) -> Array:
    return np.concatenate(inputs, axis=int(node.attributes.get("axis", 0)))


def _bind_concat(node: Node) -> Step:
    axis = int(node.attributes.get("axis", 0))

    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        np.concatenate(inputs, axis=axis, out=outputs[0])

    return step


register("Concat", Operator(_infer_concat, _concat, _bind_concat))


def _part_sizes(node: Node, shape: Sizes, inputs: Sequence[Any]) -> Sizes:
    """Return the sizes of parts: those given, or equal ones, of which the last may be smaller."""
    axis = axis_of(node, len(shape))
    sizes: Sizes | None = integers(node, inputs, 1)
    if sizes is None:
        count = int(node.attributes.get("num_outputs", len(node.outputs)))
        each = -(-shape[axis] // max(1, count))
        rest = [min(each, max(0, shape[axis] - i * each)) for i in range(len(node.outputs))]
        sizes = tuple(rest)
    if sum(sizes) != shape[axis] or len(sizes) != len(node.outputs) or min(sizes) < 0:
        raise ValueError(
            f"parts of {sizes} do not make the {shape[axis]} of axis {axis} in "
            f"{len(node.outputs)} outputs"
        )
    return sizes


def _infer_split(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    sizes = known(_part_sizes, node, shape)
    if shape is None or sizes is None:
        return [(dtype, None)] * len(node.outputs)
    axis = axis_of(node, len(shape))
    return [(dtype, (*shape[:axis], size, *shape[axis + 1 :])) for size in sizes]


def _split(node: Node, inputs: Sequence[Any]) -> tuple[Array, ...]:
    axis = axis_of(node, inputs[0].ndim)
    ends = accumulate(_part_sizes(node, inputs[0].shape, inputs), initial=0)
    before = (slice(None),) * axis
    return tuple(inputs[0][(*before, slice(*ends_))] for ends_ in pairwise(ends))


register("Split", Operator(_infer_split, _split))
