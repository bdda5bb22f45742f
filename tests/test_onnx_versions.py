"""Older forms of operators, against ONNX Runtime; sizes that only a call knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import Nodes, by_onnxruntime

import fastconv.onnx
from fastconv.graph.operators import operator_list
from fastconv.onnx.versions import CHANGES

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 6)).astype(np.float32)
ONES = np.ones(3, np.float32)
SCALES = np.array([1, 1, 2, 1.5], np.float32)

#: Operator, operator set, attributes, and inputs besides x.
OLDER: list[tuple[str, int, dict[str, Any], list[Any]]] = [
    ("BatchNormalization", 7, {"spatial": 1}, [ONES, ONES, 2 * ONES, 3 * ONES]),
    ("BatchNormalization", 9, {"epsilon": 0.1}, [ONES, ONES, 2 * ONES, 3 * ONES]),
    ("Clip", 7, {"min": -0.5, "max": 0.5}, []),
    ("Clip", 10, {"max": 0.5}, []),
    ("Dropout", 10, {"ratio": 0.3}, []),
    ("Pad", 10, {"pads": [0, 0, 1, 0, 0, 0, 0, 2], "value": 3.0}, []),
    ("Pad", 7, {"pads": [0, 0, 1, 0, 0, 0, 0, 2], "mode": "reflect"}, []),
    ("ReduceMax", 11, {"axes": [1, -1]}, []),
    ("ReduceMean", 17, {"axes": [2], "keepdims": 0}, []),
    ("ReduceMean", 13, {}, []),
    ("ReduceSum", 12, {"axes": [3]}, []),
    ("ReduceSumSquare", 13, {"axes": [0]}, []),
    ("ReduceLogSumExp", 13, {"axes": [1]}, []),
    ("Resize", 10, {"mode": "nearest"}, [SCALES]),
    ("Resize", 10, {"mode": "linear"}, [SCALES]),
    ("Slice", 9, {"starts": [1, -3], "ends": [9, -1], "axes": [1, 3]}, []),
    ("Slice", 7, {"starts": [0, 1], "ends": [1, 3]}, []),
    ("Softmax", 12, {"axis": 2}, []),
    ("Softmax", 11, {}, []),
    ("Softmax", 7, {"axis": -1}, []),
    ("LogSoftmax", 12, {"axis": 1}, []),
    ("Split", 11, {"split": [1, 3], "axis": 2}, []),
    ("Split", 7, {"axis": 3}, []),
    ("Squeeze", 11, {"axes": [1]}, []),
    ("Squeeze", 7, {}, []),
    ("TopK", 9, {"k": 2, "axis": 3}, []),
    ("Unsqueeze", 11, {"axes": [0, 3]}, []),
    ("Upsample", 9, {"mode": "nearest"}, [SCALES]),
    ("Upsample", 7, {"mode": "nearest", "scales": [1.0, 1.0, 3.0, 2.0]}, []),
]
OUTPUTS = {"Split": 2, "TopK": 2}


@pytest.mark.parametrize(("operator", "opset", "attributes", "others"), OLDER)
def test_older_forms(operator: str, opset: int, attributes: Any, others: list[Any]) -> None:
    x = X[:, :1] if operator == "Squeeze" else X
    b = Nodes(opset)
    count = OUTPUTS.get(operator, 1)
    names = b.add(operator, "x", *map(b.tensor, others), outputs=count, **attributes)
    model = b.model(x.shape, *(names if count > 1 else [names]))
    if operator == "TopK":
        model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    results = fastconv.onnx.load(model.SerializeToString())(x)
    results = results if count > 1 else (results,)
    for actual, right in zip(results, by_onnxruntime(model)(x), strict=True):
        assert actual.dtype == right.dtype
        np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-6)


def test_all_changes_are_tested() -> None:
    covered = {operator for operator, *_ in OLDER}
    reductions = {name for name in CHANGES if name.startswith("Reduce")}
    assert set(CHANGES) - covered - reductions == {"Scatter"}  # one of ONNX's own cases
    assert all(operator_list.find(name) for name in set(CHANGES) - {"Scatter", "Upsample"})


def test_statistics_for_training_are_refused() -> None:
    for attributes, outputs, words in (({"spatial": 0}, 1, "spatial=0"), ({}, 5, "for training")):
        b = Nodes(7)
        y = b.add(
            "BatchNormalization", "x", *map(b.tensor, [ONES] * 4), outputs=outputs, **attributes
        )
        model = b.model(X.shape, y if outputs == 1 else y[0])
        with pytest.raises(ValueError, match=f"n0.*{words}"):
            fastconv.onnx.load(model.SerializeToString())


# Sizes that only a call knows --------------------------------------------------------------------


def run(
    b: Nodes, x: Any, *outputs: str, types: int = TensorProto.FLOAT
) -> tuple[list[Any], list[Any]]:
    """Return what fastconv and the evaluator compute."""
    model = b.model(["a"] * x.ndim, *outputs, dtype=types)
    results = fastconv.onnx.load(model.SerializeToString())(x)
    results = list(results) if isinstance(results, tuple) else [results]
    return results, ReferenceEvaluator(model).run(None, {"x": x})


@pytest.mark.parametrize("count", [0, 1, 5])
def test_everything_behind_unknown_sizes(count: int) -> None:
    """Views, convolutions, poolings and products of what has as many elements as are positive."""
    x = np.full(6, -1, np.float32)
    x[:count] = np.arange(1, count + 1)
    b = Nodes()
    found = b.add("NonZero", b.add("Relu", "x"))
    flat = b.add("Cast", b.add("Reshape", found, b.ints(-1)), to=TensorProto.FLOAT)
    again = b.add("Identity", flat)
    row = b.add("Unsqueeze", again, b.ints(0, 1))
    pair = b.add("Concat", row, b.add("Neg", row), axis=1)
    weight = b.tensor(RNG.standard_normal((3, 2, 3)).astype(np.float32))
    image = b.add("Conv", pair, weight, pads=[2, 2], kernel_shape=[3])
    pooled = b.add("MaxPool", image, kernel_shape=[2], strides=[2])
    mean = b.add("AveragePool", image, kernel_shape=[2])
    left = b.add("MatMul", b.add("Transpose", row, perm=[0, 2, 1]), row)
    total = b.add("Add", b.add("ReduceSum", left, b.ints(1, 2), keepdims=0), "x")
    if not count:
        results, wanted = run(b, x, flat, row, total)
    else:
        results, wanted = run(b, x, flat, again, row, image, pooled, mean, left, total)
    for actual, right in zip(results, wanted, strict=True):
        assert actual.shape == right.shape
        np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-5)


def test_numbers_from_inputs() -> None:
    """A count, a shape, bounds and a range that are computed by the network."""
    for size in (2, 4):
        x = np.array([size], np.int64)
        b = Nodes()
        data = b.tensor(RNG.standard_normal((5, 6)).astype(np.float32))
        top, places = b.add("TopK", data, "x", outputs=2)
        wide = b.add("Expand", data, b.add("Concat", "x", b.ints(1, 1), axis=0))
        part = b.add("Slice", data, b.ints(0), "x", b.ints(1))
        zeros = b.add("ConstantOfShape", b.add("Concat", "x", b.ints(3), axis=0))
        scalar = b.add("Squeeze", "x")
        steps = b.add("Range", b.tensor(np.int64(0)), scalar, b.tensor(np.int64(1)))
        tiled = b.add("Tile", data, b.add("Concat", "x", b.ints(2), axis=0))
        first = b.add(
            "Reshape", b.add("Slice", wide, b.ints(0), b.ints(1), b.ints(0)), b.ints(5, -1)
        )
        names = [top, places, wide, part, zeros, steps, tiled, first]
        results, wanted = run(b, x, *names, types=TensorProto.INT64)
        for actual, right in zip(results, wanted, strict=True):
            assert actual.shape == right.shape
            assert actual.dtype == right.dtype
            np.testing.assert_array_equal(actual, right)
            assert actual.flags.writeable


def test_a_wrong_number_at_run_time_names_the_node() -> None:
    b = Nodes()
    y = b.add("Gather", b.tensor(np.arange(4.0, dtype=np.float32)), "x")
    network = fastconv.onnx.load(b.model((2,), y, dtype=TensorProto.INT64).SerializeToString())
    np.testing.assert_array_equal(network(np.array([3, -4])), [3, 0])
    with pytest.raises(ValueError, match=r"node 'n0' \(Gather\): index 4 is out of bounds"):
        network(np.array([0, 4]))


def test_a_branch_chosen_by_a_size() -> None:
    from onnx_models import branches

    model = branches()
    network = fastconv.onnx.load(model.SerializeToString())
    shift = numpy_helper.to_array(model.graph.initializer[-1])
    for rows, function in ((1, np.negative), (3, np.exp)):
        x = RNG.standard_normal((rows, 4)).astype(np.float32)
        np.testing.assert_allclose(network(x), function(x) + shift, rtol=1e-6)
        assert len(network.compiled_for(x.shape).steps) == 2


def test_branches_that_read_what_is_around_them() -> None:
    b = Nodes()
    scale = b.tensor(np.float32(3))
    double = b.add("Add", "x", "x")
    parts = {}
    for name, operator in (("then_branch", "Mul"), ("else_branch", "Sub")):
        node = helper.make_node(operator, [double, scale], [operator])
        result = helper.make_tensor_value_info(operator, TensorProto.FLOAT, None)
        parts[name] = helper.make_graph([node], operator, [], [result])
    size = b.add("Gather", b.add("Shape", "x"), b.tensor(np.int64(0)))
    y = b.add("If", b.add("Less", size, b.tensor(np.int64(2))), **parts)
    model = b.model(("n",), b.add("Neg", y))
    network = fastconv.onnx.load(model.SerializeToString())
    np.testing.assert_array_equal(network(np.float32([2])), [-12])
    np.testing.assert_array_equal(network(np.float32([2, 1])), [-1, 1])
