"""Sliding windows as ONNX's attributes describe them, for one or two spatial axes.

One axis is taken as images of one row, so that all below knows two axes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastconv.core.geometry import extent, output_size
from fastconv.graph.ir import Array, Node

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def as_images(array: Array) -> Array:
    """Return (N, C, H, W) of an array that may be (N, C, W)."""
    return array if array.ndim == 4 else array[:, :, None]


def image_shape(shape: Sequence[int]) -> Any:
    """Return the shape of `as_images`."""
    return tuple(shape) if len(shape) == 4 else (*shape[:2], 1, *shape[2:])


def _two(numbers: Any, first: Any) -> Any:
    """Return two numbers, `first` for the rows of an array of one axis."""
    found = tuple(int(number) for number in numbers)
    return found if len(found) == 2 else (first, *found)


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and resolved padding of both axes.

    Attributes
    ----------
    sizes, kernel, stride, dilation : (int, int)
    padding : ((int, int), (int, int))
    ceil_mode : bool
    """

    sizes: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding
    ceil_mode: bool = False

    @classmethod
    def of(cls, node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
        """Return the window of a node for spatial sizes of the input and of the kernel."""
        check_axes(node, sizes, kernel)
        stride, dilation = strides_of(node, len(sizes))
        padding = tuple(
            _axis_padding(node, *axis)
            for axis in zip(range(len(sizes)), sizes, kernel, stride, dilation, strict=True)
        )
        padding = padding if len(padding) == 2 else ((0, 0), *padding)
        pairs = _two(sizes, 1), _two(kernel, 1), _two(stride, 1), _two(dilation, 1)
        return cls(*pairs, padding, bool(node.attributes.get("ceil_mode", 0)))  # type: ignore[arg-type]

    @property
    def output_sizes(self) -> Pair:
        """Rows and columns of the output."""
        axes = zip(self.sizes, self.kernel, self.stride, self.dilation, self.padding, strict=True)
        outputs = tuple(output_size(*axis, self.ceil_mode) for axis in axes)
        if min(outputs) < 1:
            raise ValueError(
                f"a kernel of {self.kernel} with dilation {self.dilation} does not fit into "
                f"{self.sizes} and a padding of {self.padding}"
            )
        return outputs  # type: ignore[return-value]


def check_axes(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> None:
    """Refuse other numbers of spatial axes than one and two."""
    if len(sizes) not in (1, 2) or len(sizes) != len(kernel):
        raise ValueError(
            f"{node.operator} {node.name!r} needs one or two spatial axes, got an input with "
            f"{len(sizes)} and a kernel with {len(kernel)}"
        )


def strides_of(node: Node, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return strides and dilations of a node."""
    ones = (1,) * axes
    found = (tuple(node.attributes.get(name, ones)) for name in ("strides", "dilations"))
    strides, dilations = found
    if len(strides) != axes or len(dilations) != axes:
        raise ValueError(
            f"{node.operator} {node.name!r} needs strides and dilations of {axes} axes"
        )
    return strides, dilations


def _axis_padding(
    node: Node, axis: int, size: int, kernel: int, stride: int, dilation: int
) -> Pair:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return explicit_padding(node, axis)
    if mode == "VALID":
        return 0, 0
    total = max(0, (-(-size // stride) - 1) * stride + extent(kernel, dilation) - size)
    return shared(mode, total)


def explicit_padding(node: Node, axis: int) -> Pair:
    """Return the padding before and after an axis that the node names."""
    pads = tuple(node.attributes.get("pads", ()))
    return (int(pads[axis]), int(pads[len(pads) // 2 + axis])) if pads else (0, 0)


def shared(mode: str, total: int) -> Pair:
    """Return a total padding in two parts; the odd element goes to the end with SAME_UPPER."""
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


@dataclass(frozen=True)
class Transposed:
    """The window of a transposed convolution, and the sizes of its output.

    `output_padding` is how much of those no tap need reach.
    """

    stride: Pair
    dilation: Pair
    padding: Padding
    output_sizes: Pair
    output_padding: Pair

    @classmethod
    def of(cls, node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Transposed:
        """Return it for spatial sizes of the input and of the kernel."""
        check_axes(node, sizes, kernel)
        axes = len(sizes)
        strides, dilations = strides_of(node, axes)
        mode = node.attributes.get("auto_pad", "NOTSET")
        extra = tuple(node.attributes.get("output_padding", (0,) * axes))
        wanted = node.attributes.get("output_shape")
        if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
            wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        padding, outputs, beyond = [], [], []
        for axis, (size, stride, dilation, taps) in enumerate(
            zip(sizes, strides, dilations, kernel, strict=True)
        ):
            reached = (size - 1) * stride + extent(taps, dilation)
            whole = reached + extra[axis]
            pair = explicit_padding(node, axis) if mode == "NOTSET" else (0, 0)
            if wanted is not None:
                target = int(wanted[len(wanted) - axes + axis])
                pair = shared(mode, max(0, whole - target))
            padding.append(pair)
            outputs.append(whole - sum(pair) if wanted is None else target)
            beyond.append(outputs[-1] + sum(pair) - reached)
        all_padding: Any = tuple(padding) if axes == 2 else ((0, 0), *padding)
        return cls(
            *(_two(strides, 1), _two(dilations, 1), all_padding, _two(outputs, 1)), _two(beyond, 0)
        )
