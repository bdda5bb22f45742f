"""Padding "same" and "same_lower" against ONNX's reference evaluator: SAME_UPPER and SAME_LOWER."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from checks import assert_identical
from reference import Array, Pair

import fastconv
from fastconv import nn

pytest.importorskip("onnx")
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

NAMES = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def convolved(x: Array, weight: Array, padding: str, stride: Pair, dilation: Pair) -> Array:
    """Run one Conv node."""
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        auto_pad=NAMES[padding],
        strides=stride,
        dilations=dilation,
        kernel_shape=weight.shape[2:],
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xw"]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs))
    (y,) = ReferenceEvaluator(model).run(None, {"x": x, "w": weight})
    return np.asarray(y)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padding", NAMES)
def test_functions_plans_and_layers(padding: str, kernel: int, dilation: int) -> None:
    rng = np.random.default_rng(kernel)
    weight = rng.integers(-4, 5, (3, 2, kernel, 1 + kernel % 3)).astype(np.float32)
    for size, stride in itertools.product(range(1, 10), range(1, 5)):
        # The other axis goes through them in another order.
        step, gap = (stride, 1 + size % 3), (dilation, 4 - dilation)
        x = rng.integers(-4, 5, (2, 2, size, 10 - size)).astype(np.float32)
        wanted = convolved(x, weight, padding, step, gap)
        assert wanted.shape[2:] == (-(-size // step[0]), -(-(10 - size) // step[1]))
        rule: dict[str, Any] = {"stride": step, "padding": padding, "dilation": gap}
        with fastconv.at_precision("highest"):
            assert_identical(fastconv.conv2d(x, weight, **rule), wanted, np.float32)
            plan = fastconv.plan_conv2d(x.shape, weight, **rule)
            assert_identical(plan(x), wanted, np.float32)
            layer = nn.Conv2d(2, 3, weight.shape[2:], **rule, bias=False)  # type: ignore[arg-type]
            layer.weight.data[...] = weight
            assert_identical(layer.eval()(x), wanted, np.float32)
