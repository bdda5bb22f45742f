"""Whole networks from files: ONNX's light models, PyTorch's exports and trained ones."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_models import by_onnxruntime

import fastconv.onnx
from fastconv.graph.network import Network

Array = np.ndarray[Any, Any]
# Of the largest value.
TOLERANCE = 1e-4


def assert_near(actual: Any, wanted: list[Array]) -> None:
    """Ask for all results within a small part of the largest value."""
    results = actual if isinstance(actual, tuple) else (actual,)
    for result, right in zip(results, wanted, strict=True):
        assert result.shape == right.shape
        assert np.abs(result - right).max() <= TOLERANCE * np.abs(right).max()


def operators(network: Network, x: Array) -> Counter[str]:
    """Return how often each operator runs."""
    return Counter(bound.node.operator for bound in network.compiled_for(x.shape).steps)


# ONNX's light models: their weights are one constant, so they get random ones ------------------

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def with_weights(path: Path) -> tuple[bytes, Array]:
    """Return a light model with random weights, without a last softmax, and an input."""
    rng, model = np.random.default_rng(0), onnx.load(path)
    graph = model.graph
    sizes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    readers = {n: (node.op_type, i) for node in graph.node for i, n in enumerate(node.input)}
    for node in list(graph.node):
        if node.op_type == "ConstantOfShape":
            name, shape = node.output[0], tuple(sizes[node.input[0]])
            if len(shape) > 1:
                high = np.sqrt(6 / np.prod(shape[1:]))  # K. He's, of a uniform distribution
                low = -high
            elif readers.get(name) in (("BatchNormalization", 1), ("BatchNormalization", 4)):
                low, high = 0.5, 1.5
            else:
                low, high = -0.2, 0.2
            weights = rng.random(shape, np.float32)
            weights *= np.float32(high - low)
            weights += np.float32(low)
            graph.node.remove(node)
            graph.initializer.append(numpy_helper.from_array(weights, name))
    last = graph.node[-1]
    if last.op_type == "Softmax":  # it would hide all but one number
        graph.output[0].name = last.input[0]
        graph.node.remove(last)
    names = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = 8
    shape = tuple(each.dim_value for each in inputs[0].type.tensor_type.shape.dim)
    return model.SerializeToString(), rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models(path: Path) -> None:
    content, x = with_weights(path)
    assert_near(fastconv.onnx.load(content)(x), by_onnxruntime(content)(x))


# PyTorch's exports -----------------------------------------------------------------------------


def exported(name: str) -> tuple[bytes, Array, list[Array]]:
    """Return the file of one of `exported_networks`, an input, and what PyTorch computes."""
    for package in ("torch",) if name in ("unet", "detector") else ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    import exported_networks

    model, x = exported_networks.network(name)
    content = exported_networks.exported(model, x)
    return content, x.numpy(), exported_networks.wanted(model, x)


NETWORKS = {
    "resnet18": "BatchNormalization Relu Add",
    "resnet50": "BatchNormalization Relu Add",
    "mobilenet_v2": "BatchNormalization Clip Add",
    "mobilenet_v3_small": "BatchNormalization",
    "mobilenet_v3_large": "BatchNormalization",
    "efficientnet_b0": "BatchNormalization Silu Add",
    "squeezenet1_1": "Relu",
    "densenet121": "",
    "inception_v3": "BatchNormalization Relu",
    "shufflenet_v2_x1_0": "BatchNormalization Relu Shape Gather",
    "unet": "BatchNormalization Relu Shape",
    "detector": "BatchNormalization Range Shape Expand",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_of_pytorch(name: str) -> None:
    content, x, wanted = exported(name)
    network = fastconv.onnx.load(content)
    assert_near(network(x), wanted)
    # What is fused or computed ahead does not run.
    assert not operators(network, x).keys() & set(NETWORKS[name].split())
    assert_near(network(x[1:]), [each[1:] for each in wanted])


def test_a_detector_with_suppression() -> None:
    content, x, _ = exported("detector")
    model = onnx.load_model_from_string(content)
    graph = model.graph
    boxes, scores = (each.name for each in graph.output)
    for name, number in (
        ("most", np.int64(5)),
        ("overlap", np.float32(0.45)),
        ("least", np.float32(0.5)),
    ):
        graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    graph.node.append(
        helper.make_node(
            *("NonMaxSuppression", [boxes, scores, "most", "overlap", "least"], ["kept"]),
            center_point_box=1,
        )
    )
    graph.output.append(helper.make_tensor_value_info("kept", TensorProto.INT64, None))
    content = model.SerializeToString()
    network, runtime = fastconv.onnx.load(content), by_onnxruntime(content)
    for images in (x, x[:1], -x):
        *numbers, kept = network(images)
        *wanted, right = runtime(images)
        assert_near(tuple(numbers), wanted)
        assert len(right)
        np.testing.assert_array_equal(kept, right)


# Trained networks --------------------------------------------------------------------------------


def trained(part: str) -> Path:
    """Return a file of the package rapidocr-onnxruntime, which is not imported."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        pytest.skip("needs the package rapidocr-onnxruntime")
    (path,) = (Path(found.origin).parent / "models").glob(f"*_{part}_infer.onnx")
    return path


def text(height: int, width: int, words: str) -> Array:
    """Return an image of dark words, (1, 3, height, width), as these networks take it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(min(32, height // 2))
    ImageDraw.Draw(image).text((6, height // 4), words, "black", font)
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("part", "sizes"),
    [
        ("det", [(64, 160), (96, 128), (160, 224)]),
        ("rec", [(48, 120), (48, 320)]),
        ("cls", [(48, 192), (48, 64)]),
    ],
)
def test_text_in_pictures(part: str, sizes: list[tuple[int, int]]) -> None:
    pytest.importorskip("PIL")
    path = trained(part.replace("cls", "v2.0_cls"))
    network, runtime = fastconv.onnx.load(path), by_onnxruntime(path.read_bytes())
    for height, width in sizes:
        x = np.concatenate([text(height, width, words) for words in ("fast 47", "Text")])
        assert_near(network(x), runtime(x))
        assert_near(network(x[:1]), runtime(x[:1]))
    assert not operators(network, x[:1]).keys() & {"HardSwish", "Clip", "BatchNormalization"}
