"""Small ONNX models of many kinds of nodes, for tests of reading, and damage done to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Nodes:
    """Collects nodes and tensors of a model; names of results are given."""

    def __init__(self, opset: int = 17) -> None:
        self.opset, self.nodes, self.tensors = opset, [], []  # type: ignore[var-annotated]
        self.rng = np.random.default_rng(len(self.nodes))

    def tensor(self, array: Any) -> str:
        """Add a tensor."""
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def random(self, *shape: int) -> str:
        """Add a tensor of normal numbers."""
        return self.tensor(self.rng.standard_normal(shape).astype(np.float32))

    def ints(self, *numbers: int) -> str:
        """Add a tensor of integers."""
        return self.tensor(np.array(numbers, np.int64))

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return the name of its result, or several."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(operator, inputs, names, f"n{len(self.nodes)}", **attributes)
        )
        return names[0] if outputs == 1 else names

    def model(self, shape: Sequence[int | str], *outputs: str, dtype: int = FLOAT) -> ModelProto:
        """Return the model with one input, x."""
        inputs = [helper.make_tensor_value_info("x", dtype, shape)]
        results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "model", inputs, results, self.tensors)
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def classifier() -> ModelProto:
    """Return a network with what is usually fused."""
    b = Nodes()
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    y = b.add("Conv", "x", b.random(4, 3, 3, 3), b.random(4), **conv)
    scale, shift, mean, var = (
        b.random(4),
        b.random(4),
        b.random(4),
        b.tensor(np.ones(4, np.float32)),
    )
    y = b.add("Relu", b.add("BatchNormalization", y, scale, shift, mean, var))
    y = pooled = b.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.add("Conv", y, b.random(4, 1, 3, 3), group=4, **conv)
    y = b.add("Mul", y, b.add("Sigmoid", y))
    y = b.add("Add", b.add("Conv", y, b.random(4, 4, 1, 1)), pooled)
    y = b.add("Concat", y, pooled, axis=1)
    y = b.add("Flatten", b.add("GlobalAveragePool", y))
    y = b.add("Gemm", y, b.random(5, 8), b.random(5), transB=1)
    return b.model(("n", 3, 8, 8), b.add("Softmax", y))


def shapes() -> ModelProto:
    """Return a network with arithmetic on sizes, as dynamic exports have it."""
    b = Nodes()
    y = b.add("Pad", "x", b.ints(0, 0, 1, 1, 0, 0, 1, 1))
    y = b.add("Conv", y, b.random(4, 3, 3, 3))
    size = b.add("Shape", y)
    height = b.add("Unsqueeze", b.add("Gather", size, b.tensor(np.int64(2))), b.ints(0))
    rows = b.add("Reshape", y, b.add("Concat", b.ints(0, 4), height, b.ints(-1), axis=0))
    y = b.add("Resize", rows, "", b.tensor(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    y = b.add("Slice", y, b.ints(0, 1), b.ints(9, 99), b.ints(2, 3), b.ints(1, 2))
    y = b.add("ConvTranspose", y, b.random(4, 2, 2, 2), strides=[2, 2], kernel_shape=[2, 2])
    left, right = b.add("Split", b.add("Transpose", y, perm=[0, 2, 3, 1]), outputs=2, axis=2)
    y = b.add("Tile", b.add("Sub", left, right), b.ints(1, 1, 1, 2))
    y = b.add("Squeeze", b.add("ReduceMean", y, axes=[1], keepdims=1), b.ints(1))
    scale, shift = b.random(4), b.random(4)
    y = b.add("LayerNormalization", y, scale, shift)
    return b.model((1, 3, "h", 6), b.add("LRN", b.add("Unsqueeze", y, b.ints(0)), size=3))


def selection() -> ModelProto:
    """Return a network whose results have sizes that only elements decide."""
    b = Nodes()
    boxes = b.add("Abs", "x")
    scores = b.add("ReduceSum", boxes, b.ints(2), keepdims=0)
    scores = b.add("Unsqueeze", scores, b.ints(1))
    kept = b.add(
        "NonMaxSuppression", boxes, scores, b.ints(4), b.tensor(np.float32(0.5)), center_point_box=1
    )
    found = b.add("Gather", kept, b.tensor(np.int64(2)), axis=1)
    chosen = b.add("Gather", boxes, found, axis=1)
    top, where = b.add("TopK", scores, b.ints(3), outputs=2, axis=-1)
    count = b.add("Shape", b.add("NonZero", b.add("Greater", "x", b.tensor(np.float32(0)))))
    many = b.add("Expand", b.tensor(np.float32(2)), count)
    order = b.add("Range", b.tensor(np.int64(0)), b.tensor(np.int64(3)), b.tensor(np.int64(1)))
    best = b.add("Where", b.add("Equal", order, b.ints(1)), top, b.add("Cast", where, to=FLOAT))
    return b.model((1, 12, 4), chosen, b.add("ReduceSum", many), best)


def older() -> ModelProto:
    """Return a network of an old operator set, in which numbers are attributes."""
    b = Nodes(9)
    y = b.add("Conv", "x", b.random(4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    y = b.add("Clip", y, min=0.0, max=6.0)
    y = b.add("Upsample", y, b.tensor(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    y = b.add("Slice", y, starts=[0, 0], ends=[4, 5], axes=[2, 3])
    y = b.add("Pad", y, pads=[0, 0, 1, 0, 0, 0, 0, 2])
    y = b.add("AveragePool", y, kernel_shape=[3, 2], count_include_pad=1, pads=[1, 0, 1, 1])
    y = b.add("LeakyRelu", y, alpha=0.1)
    y = b.add("Squeeze", b.add("ReduceMean", y, axes=[2], keepdims=1), axes=[2])
    return b.model((1, 3, 8, 8), b.add("Softmax", y, axis=1))


def branches() -> ModelProto:
    """Return a network with a condition on a size."""
    b = Nodes()
    part = {}
    for name, operator in (("then_branch", "Neg"), ("else_branch", "Exp")):
        node = helper.make_node(operator, ["x"], [f"{operator}_y"])
        result = helper.make_tensor_value_info(f"{operator}_y", FLOAT, None)
        part[name] = helper.make_graph([node], operator, [], [result])
    one = b.add("Gather", b.add("Shape", "x"), b.tensor(np.int64(0)))
    y = b.add("If", b.add("Equal", one, b.tensor(np.int64(1))), **part)
    return b.model(("n", 4), b.add("Add", y, b.random(4)))


MODELS: dict[str, Callable[[], ModelProto]] = {
    each.__name__: each for each in (classifier, shapes, selection, older, branches)
}


def by_onnxruntime(model: ModelProto | bytes) -> Callable[[Any], list[Any]]:
    """Return a function that runs a model of one input in ONNX Runtime; skip a test without it."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = runtime.InferenceSession(content, options)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})  # type: ignore[no-any-return]


# Damage -----------------------------------------------------------------------------------

_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"))
_PATHS = ("../../etc/passwd", "/etc/passwd", "/dev/zero", "", ".", "..", "a\0b", "missing.bin")


def damaged(name: str, seed: int) -> bytes:
    """Return the file of a model with something wrong: in its bytes, or in what they say."""
    dice = random.Random(f"{name} {seed}")
    model = MODELS[name]()
    if dice.random() < 0.25:
        return _spoiled_bytes(model.SerializeToString(), dice)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        dice.choice(_CHANGES)(model, dice)
    return bytes(model.SerializeToString())


def _spoiled_bytes(content: bytes, dice: random.Random) -> bytes:
    data = bytearray(content)
    at, kind = dice.randrange(len(data)), dice.choice((0, 1, 1, 1, 2, 3, 4))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(dice.choice((1, 1, 1, 4))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 2:
        del data[at : at + dice.choice((1, 2, 8, 64))]
    elif kind == 3:
        data[at:at] = dice.randbytes(dice.choice((1, 2, 8)))
    else:
        other = dice.randrange(len(data))
        data[at:at] = data[other : other + dice.choice((4, 32, 256))]
    return bytes(data)


def _change_attribute(model: Any, dice: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = dice.choice(dice.choice(nodes).attribute)
    attribute.i, attribute.f = dice.choice(_NUMBERS), dice.choice(_FLOATS)
    if attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(_NUMBERS)
        if dice.random() < 0.3:
            attribute.ints.append(dice.choice(_NUMBERS))
    if attribute.s:
        attribute.s = dice.choice((b"", b"linear", b"SAME_LOWER", b"cubic", b"\xff", b"edge"))
    if dice.random() < 0.1:
        attribute.type = dice.randrange(15)


def _change_tensor(model: Any, dice: random.Random) -> None:
    tensor = dice.choice(model.graph.initializer)
    kind = dice.choice((0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 6))
    if kind == 0 and tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_NUMBERS)
    elif kind == 1:
        tensor.dims.append(dice.choice(_NUMBERS))
    elif kind == 2:
        tensor.data_type = dice.randrange(-1, 30)
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: dice.randrange(1 + len(tensor.raw_data))]
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", dice.choice(_PATHS)),
            ("offset", str(dice.choice(_NUMBERS))),
            ("length", str(dice.choice(_NUMBERS))),
        ):
            tensor.external_data.add(key=key, value=value)
    elif kind == 5:
        dtype = np.int64 if tensor.data_type == INT64 else np.float32
        array = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // 8 * 8], dtype).copy()
        wrong: Any = dice.choice(_NUMBERS if dtype is np.int64 else _FLOATS)
        array[dice.randrange(array.size) if array.size else slice(0)] = wrong
        tensor.raw_data = array.tobytes() or tensor.raw_data
    else:
        tensor.name = dice.choice(model.graph.initializer).name


def _change_nodes(model: Any, dice: random.Random) -> None:
    nodes = model.graph.node
    node, other = dice.choice(nodes), dice.choice(nodes)
    kind = dice.randrange(7)
    if kind == 0:
        nodes.remove(node)
    elif kind == 1:
        nodes.append(node)
    elif kind == 2:
        node.op_type = dice.choice(
            (other.op_type, "Conv", "Loop", "Reshape", "Resize", "Expand", "")
        )
    elif kind == 3 and node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice((*other.output, "", "x", "none"))
    elif kind == 4:
        node.input.append(dice.choice((*other.output, "x", "")))
    elif kind == 5:
        del node.attribute[:]
    else:
        node.output[0] = dice.choice((*other.output, ""))


def _change_frame(model: Any, dice: random.Random) -> None:
    kind, graph = dice.randrange(6), model.graph
    if kind == 0:
        model.opset_import[0].version = dice.choice((*_NUMBERS, *range(6, 30)))
    elif kind == 1:
        graph.output.extend(list(graph.output[:1]))
    elif kind == 2:
        del graph.output[:]
    elif kind == 3:
        dims = graph.input[0].type.tensor_type.shape.dim
        dice.choice(dims).dim_value = dice.choice(_NUMBERS)
    elif kind == 4:
        graph.input[0].type.tensor_type.elem_type = dice.randrange(-1, 30)
    else:
        graph.input.append(graph.input[0])


#: Numbers more often than what is refused when it is read.
_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    _change_attribute,
    _change_attribute,
    _change_attribute,
    _change_tensor,
    _change_tensor,
    _change_nodes,
    _change_frame,
)
