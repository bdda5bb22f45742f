"""Pooling against ONNX's reference evaluator: dilated means, wide padding, named padding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checks import assert_identical
from reference import Array

import fastconv

pytest.importorskip("onnx")
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

NAMES = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}
INCLUDE = pytest.mark.parametrize("include", [False, True])


def run(kind: str, x: Array, outputs: int = 1, **attributes: Any) -> list[Array]:
    """Run one node."""
    names = ["y", "indices"][:outputs]
    node = helper.make_node(kind, ["x"], names, **attributes)
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", element, None)]
    types = (element, TensorProto.INT64)
    returned = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(names, types, strict=False)
    ]
    model = helper.make_model(helper.make_graph([node], "one", inputs, returned))
    return ReferenceEvaluator(model).run(None, {"x": x})  # type: ignore[no-any-return]


def rules(rng: np.random.Generator, dilations: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield the attributes of poolings that have windows in images of 5 x 6."""
    for kernel, stride, dilation in itertools.product((1, 2, 3), (1, 2, 3), dilations):
        for _ in range(3):
            pads = [int(pad) for pad in rng.integers(0, 6, 4)]
            span = dilation * (kernel - 1) + 1
            if span <= min(5 + pads[0] + pads[2], 6 + pads[1] + pads[3]):
                yield {
                    "kernel_shape": [kernel, kernel],
                    "strides": [stride, stride],
                    "dilations": [dilation, dilation],
                    "pads": pads,
                }


def ours(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the same arguments for fastconv."""
    top, left, bottom, right = rule["pads"]
    return {
        "kernel_size": rule["kernel_shape"],
        "stride": rule["strides"],
        "dilation": rule["dilations"],
        "padding": ((top, bottom), (left, right)),
        "wide_padding": True,
    }


@INCLUDE
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_means(include: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-9, 10, (1, 2, 5, 6)).astype(np.float32)
    nothing = 0
    for rule in rules(rng, (1, 2, 3)):
        (wanted,) = run("AveragePool", x, **rule, count_include_pad=int(include))
        for algorithm in ("auto", *fastconv.pool_algorithms()):
            actual = fastconv.avg_pool2d(
                x, **ours(rule), count_include_pad=include, algorithm=algorithm
            )
            np.testing.assert_allclose(actual, wanted, rtol=1e-6, err_msg=str(rule))
        nothing += np.isnan(wanted).sum() if not include else (wanted == 0).sum()
    assert nothing > 100


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int8])
def test_maxima(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 100, (1, 2, 5, 6)).astype(dtype)
    planes = 30 * np.arange(2).reshape(1, 2, 1, 1)  # their indices count these too
    nothing = 0
    for rule in rules(rng, (2, 3)):
        # Without strides or dilation the evaluator takes no window that is all padding.
        wanted, indices = run("MaxPool", x, 2, **rule)
        empty = indices == -1
        for algorithm in ("auto", *fastconv.pool_algorithms()):
            options = {**ours(rule), "algorithm": algorithm}
            actual, where = fastconv.max_pool2d(x, **options, return_indices=True)
            assert_identical(actual, wanted, dtype)
            np.testing.assert_array_equal(where, np.where(empty, -1, indices - planes))
        nothing += empty.sum()
    assert nothing > 100


@pytest.mark.parametrize("padding", NAMES)
def test_named_padding(padding: str) -> None:
    rng = np.random.default_rng(3)
    for kernel, stride, size in itertools.product((1, 2, 3, 4), (1, 2, 3), (4, 5, 7)):
        x = rng.integers(1, 100, (1, 2, size, 11 - size)).astype(np.float32)
        rule = {"kernel_shape": [kernel, kernel], "strides": [stride, stride]}
        if stride > kernel and padding != "valid":
            continue  # the evaluator asks for padding below zero
        (wanted,) = run("AveragePool", x, **rule, auto_pad=NAMES[padding])
        options: dict[str, Any] = {"stride": stride, "padding": padding}
        actual = fastconv.avg_pool2d(x, kernel, **options, count_include_pad=False)
        np.testing.assert_allclose(actual, wanted, rtol=1e-6)
