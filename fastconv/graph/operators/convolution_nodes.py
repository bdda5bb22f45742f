"""Convolutions: `Conv`, with what is fused to it, and `ConvTranspose`.

`Conv` has, besides ONNX's, a fourth input, the residual, and the attributes `activation` (as
`fastconv.plan_conv2d` takes it) and `max_pool`: passes fill them. Arrays of one spatial axis are
images of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv.api.conv2d import plan_conv2d
from fastconv.api.conv_transpose2d import conv_transpose2d
from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    Operator,
    Step,
    Type,
    one_type,
    register,
    type_of,
)
from fastconv.graph.operators.windows import Transposed, Window, as_images, image_shape

#: The input that is added before the activation.
RESIDUAL = 3


def _infer_conv(node: Node) -> Sequence[Type]:
    dtype, shape, weight = one_type(node), type_of(node, 0)[1], type_of(node, 1)[1]
    if shape is None or weight is None:
        return [(dtype, None)]
    groups = int(node.attributes.get("group", 1))
    if len(shape) < 3 or len(shape) != len(weight) or shape[1] != weight[1] * groups:
        raise ValueError(
            f"x must have {weight[1] * groups} channels for weights of {weight} and {groups} "
            f"groups, got {shape}"
        )
    window = Window.of(node, shape[2:], weight[2:])
    sizes: tuple[int, ...] = window.output_sizes
    if node.attributes.get("max_pool"):
        sizes = tuple(size // 2 for size in sizes)
    return [(dtype, (shape[0], weight[0], *sizes[-len(shape[2:]) :]))]


def _plan(node: Node, shape: Sequence[int], weight: Array, bias: Any) -> Any:
    window = Window.of(node, shape[2:], weight.shape[2:])
    return plan_conv2d(
        image_shape(shape),
        as_images(weight),
        bias,
        window.stride,
        window.padding,
        window.dilation,
        int(node.attributes.get("group", 1)),
        activation=node.attributes.get("activation"),
        max_pool=node.attributes.get("max_pool"),
    )


def _compute_conv(node: Node, inputs: Sequence[Any]) -> Array:
    x, weight, bias, residual = (*inputs, None, None)[:4]
    y: Array = _plan(node, x.shape, weight, bias)(
        as_images(x), residual=None if residual is None else as_images(residual)
    )
    return y if x.ndim == 4 else y[:, :, 0]


def _bind_conv(node: Node) -> Step | None:
    weight, bias = node.constant(1), node.constant(2)
    shape = type_of(node, 0)[1]
    if weight is None or shape is None or (node.input(2) is not None and bias is None):
        return None
    plan = _plan(node, shape, weight, bias)

    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        residual = inputs[RESIDUAL] if len(inputs) > RESIDUAL else None
        added = None if residual is None else as_images(residual)
        plan.run(as_images(inputs[0]), added, as_images(outputs[0]))

    step.algorithm = plan.algorithm  # type: ignore[attr-defined]
    return step


def _infer_transposed(node: Node) -> Sequence[Type]:
    dtype, shape, weight = one_type(node), type_of(node, 0)[1], type_of(node, 1)[1]
    if shape is None or weight is None:
        return [(dtype, None)]
    groups = int(node.attributes.get("group", 1))
    window = Transposed.of(node, shape[2:], weight[2:])
    return [(dtype, (shape[0], weight[1] * groups, *window.output_sizes[-len(shape[2:]) :]))]


def _compute_transposed(node: Node, inputs: Sequence[Any]) -> Array:
    x, weight, bias = (*inputs, None)[:3]
    window = Transposed.of(node, x.shape[2:], weight.shape[2:])
    y = conv_transpose2d(
        as_images(x),
        as_images(weight),
        bias,
        window.stride,
        window.padding,
        groups=int(node.attributes.get("group", 1)),
        dilation=window.dilation,
        output_padding=window.output_padding,
    )
    return y if x.ndim == 4 else y[:, :, 0]


register("Conv", Operator(_infer_conv, _compute_conv, _bind_conv))
register("ConvTranspose", Operator(_infer_transposed, _compute_transposed))
