"""Whatever an ONNX file says, it runs, or a ValueError names what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import FLOAT, MODELS, Nodes

import fastconv.onnx


def refused(model: ModelProto | bytes | Path, words: str) -> None:
    source = model.SerializeToString() if isinstance(model, ModelProto) else model
    with pytest.raises(ValueError, match=words):
        fastconv.onnx.load(source)


def adding(tensor: TensorProto) -> ModelProto:
    """Return a model that adds a tensor to its input."""
    b = Nodes()
    model = b.model(("n", 4), b.add("Add", "x", tensor.name))
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_cut_short(name: str) -> None:
    content = MODELS[name]().SerializeToString()
    for length in range(0, len(content), 37):
        with pytest.raises(ValueError, match="the model: "):
            fastconv.onnx.load(content[:length])


def test_many_kinds_of_damage() -> None:
    script = Path(__file__).with_name("onnx_fuzz.py")
    done = subprocess.run(
        [sys.executable, str(script), "300"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'ran': " in done.stdout


def test_what_contradicts_itself() -> None:
    b = Nodes()
    b.add("Neg", "v1_0")
    refused(b.model((2,), b.add("Neg", "v0_0")), "'v1_0' is read, but no input, tensor or node")
    b = Nodes()
    b.add("Neg", "x")
    b.nodes[0].output[0] = "x"
    refused(b.model((2,), "x"), "'x' is given to two values")
    refused(b.model((2,)), "'x' is given to two values")
    b = Nodes()
    refused(b.model((2,), "nothing"), "'nothing' is read")
    refused(b.model((2,)), "no outputs")
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "t")
    tensor.dims[0] = 2**40
    refused(
        adding(tensor), r"dimensions \(1099511627776,\) needs 4398046511104 bytes, the file has 16"
    )
    tensor.dims[0] = -1
    refused(adding(tensor), r"dimensions \(-1,\)")
    tensor = helper.make_tensor("t", FLOAT, [4], [1, 2, 3, 4])
    tensor.dims[0] = 5
    refused(adding(tensor), "needs 5 elements, the file has 4")
    tensor.data_type = TensorProto.BFLOAT16
    refused(adding(tensor), "type number 16; fastconv knows float32")


@pytest.mark.parametrize(
    ("operator", "attributes", "words"),
    [
        ("Relu", {"slope": 1.0}, "n0.*attribute 'slope' does not exist"),
        ("Flatten", {"axis": 1.5}, "n0.*attribute 'axis' does not exist or has another type"),
        ("LRN", {}, "n0.*needs the attribute size"),
        ("Add", {}, "n0.*takes 2 to 2 inputs, got 1"),
        ("Mish", {}, "n0.*version 17 of ONNX's operators does not have it"),
    ],
)
def test_nodes_that_onnx_does_not_have(operator: str, attributes: Any, words: str) -> None:
    b = Nodes()
    refused(b.model((2, 3), b.add(operator, "x", **attributes)), words)


def test_all_missing_operators_are_named() -> None:
    b = Nodes()
    y = b.add("Einsum", b.add("Det", b.add("Einsum", "x", equation="i->i")), equation="i->i")
    model = b.model((2, 3), y)
    model.graph.node.append(
        helper.make_node("FusedConv", [y], ["z"], "own", domain="com.microsoft")
    )
    refused(
        model,
        r"not have these operators: Det \(node n1\); Einsum \(nodes n0, n2\); "
        r"com.microsoft.FusedConv \(node own\)",
    )


def test_a_condition_on_elements() -> None:
    model = MODELS["branches"]()
    model.graph.node[0].op_type = "Cast"
    model.graph.node[0].attribute.append(helper.make_attribute("to", TensorProto.INT64))
    network = fastconv.onnx.load(model.SerializeToString())
    with pytest.raises(ValueError, match=r"n3.*If.*depends on elements of an input"):
        network(np.ones((2, 4), np.float32))


def test_sizes_that_no_memory_has() -> None:
    for operator, numbers in (("Expand", [2**40, 2, 4]), ("Tile", [2**40, 1])):
        b = Nodes()
        network = fastconv.onnx.load(
            b.model((2, 4), b.add(operator, "x", b.ints(*numbers))).SerializeToString()
        )
        with pytest.raises(ValueError, match=r"n0.*GiB of memory"):
            network(np.ones((2, 4), np.float32))
    # Small constants that grow from node to node are not computed ahead.
    b = Nodes()
    y = b.tensor(np.ones(2**18, np.float32))
    for _ in range(8):
        y = b.add("Concat", y, y, y, y, axis=0)
    y = b.add("Add", b.add("ReduceMean", y, keepdims=0), "x")
    network = fastconv.onnx.load(b.model((1,), y).SerializeToString())
    with pytest.raises(ValueError, match=r"GiB of memory"):
        network(np.ones(1, np.float32))


def test_inputs_are_checked() -> None:
    network = fastconv.onnx.load(MODELS["shapes"]().SerializeToString())
    with pytest.raises(
        ValueError, match=r"'x' must have shape \(1, 3, 'h', 6\), got \(1, 3, 6, 5\)"
    ):
        network(np.ones((1, 3, 6, 5), np.float32))
    with pytest.raises(ValueError, match="a shape for each of x, got y"):
        fastconv.onnx.load(MODELS["shapes"]().SerializeToString(), {"y": (1, 3, 6, 6)})


# Files ------------------------------------------------------------------------------------


def external(location: str, **numbers: Any) -> ModelProto:
    """Return a model with four numbers in another file."""
    tensor = TensorProto(name="t", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    return adding(tensor)


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    numbers = np.arange(8, dtype=np.float32)
    (tmp_path / "weights" / "all.bin").write_bytes(numbers.tobytes())
    path = saved(external("weights/all.bin", offset=16, length=16), tmp_path)
    y = fastconv.onnx.load(path)(np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(y, [[4, 5, 6, 7]])
    os.symlink("weights", tmp_path / "link")
    y = fastconv.onnx.load(saved(external("link/all.bin"), tmp_path))(np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(y, [[0, 1, 2, 3]])
    refused(path.read_bytes(), "give the model's path instead of its bytes")


@pytest.mark.parametrize(
    "location", ["../secret", "{above}/secret", "out", "into/secret", "a/../../secret"]
)
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = tmp_path / "model"
    folder.mkdir()
    os.symlink("../secret", folder / "out")
    os.symlink(tmp_path, folder / "into")
    model = external(location.format(above=tmp_path))
    refused(saved(model, folder), "not below the model's folder")


@pytest.mark.parametrize(
    ("location", "numbers", "words"),
    [
        ("", {}, "not below the model's folder"),
        (".", {}, "not below the model's folder"),
        ("a\0b", {}, "not below the model's folder"),
        ("circle", {}, "not below the model's folder|levels of symbolic links"),
        ("none.bin", {}, "No such file"),
        ("folder", {}, "no regular file"),
        ("pipe", {}, "no regular file"),
        ("data.bin", {"offset": -4}, "from -4 on"),
        ("data.bin", {"offset": "many"}, "no number"),
        ("data.bin", {"length": 12}, "needs 16 bytes, but is said to have 12"),
        ("data.bin", {"offset": 4}, "has 16 bytes: 16 from 4 are not there"),
        ("data.bin", {"offset": 2**70}, "are not there"),
    ],
)
def test_external_data_that_is_wrong(
    tmp_path: Path, location: str, numbers: Any, words: str
) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(16))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.symlink("circle", tmp_path / "circle")
    refused(saved(external(location, **numbers), tmp_path), words)


def test_external_data_that_overlaps(tmp_path: Path) -> None:
    """A small file does not stand for much memory, however often it is named."""
    (tmp_path / "data.bin").write_bytes(bytes(20))
    model = external("data.bin")
    model.graph.initializer.append(model.graph.initializer[0])
    model.graph.initializer[1].name = "twin"
    assert fastconv.onnx.load(saved(model, tmp_path)).inputs == ("x",)
    model.graph.initializer[1].external_data.add(key="offset", value="4")
    refused(saved(model, tmp_path), "others overlap them")


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe: this is no regular file")
    refused(tmp_path, "no regular file|Is a directory")
    with pytest.raises(FileNotFoundError):
        fastconv.onnx.load(tmp_path / "none.onnx")
    (tmp_path / "large.onnx").touch()
    os.truncate(tmp_path / "large.onnx", 2**40)
    refused(tmp_path / "large.onnx", "at most 2147483648 bytes")
    (tmp_path / "text.onnx").write_text("no model")
    refused(tmp_path / "text.onnx", r"text.onnx: this is no ONNX model")
