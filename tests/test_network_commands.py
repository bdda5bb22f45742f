"""The commands of networks: run, profile and explain, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import Command, command, in_new_process, one_error

Image: Any = pytest.importorskip("PIL.Image")
onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("rich")

import onnx_models  # noqa: E402

import fastconv.onnx  # noqa: E402
from fastconv.graph.profile import example_inputs, profile  # noqa: E402

__all__ = ["command"]

#: What the network of `scorer` knows.
CLASSES = ("red", "green", "blue")


def save(model: Any, path: Path) -> str:
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    return save(onnx_models.classifier(), tmp_path / "classifier.onnx")


def scorer(shape: tuple[int | str, ...] = (1, 3, 4, 4), softmax: bool = False) -> Any:
    """Return a network whose scores are the means of the channels."""
    nodes = onnx_models.Nodes()
    y = nodes.add("Flatten", nodes.add("GlobalAveragePool", "x"))
    return nodes.model(shape, nodes.add("Softmax", y) if softmax else y)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """Return a picture that is green, blue at the top and bottom."""
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[..., 2], pixels[12:-12] = 255, (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


# Run ---------------------------------------------------------------------------------------------


def classes_in(text: str) -> dict[str, float]:
    lines = (line.split("%") for line in text.splitlines() if "%" in line)
    return {name.strip(): float(number) / 100 for number, name in lines}


@pytest.mark.parametrize("softmax", [False, True])
def test_run_names_the_classes(
    command: Command, tmp_path: Path, picture: str, softmax: bool
) -> None:
    model = save(scorer(softmax=softmax), tmp_path / "m.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES))
    plain = ("--mean", "0", "--std", "0.5", "--crop", "0.4")
    outcome = command(
        *("run", model, "--input", picture, "--labels", tmp_path / "labels.txt"),
        *("--output", tmp_path / "o.npz", "--top", "2", *plain),
    )
    assert outcome.code == 0, outcome.err
    found = classes_in(outcome.out)
    # The centre is pure green, so the scores are 0, 2, 0.
    probability = np.exp(2) / (np.exp(2) + 2)
    assert list(found) == ["green", "red"]
    assert found["green"] == pytest.approx(probability, abs=0.005)
    with np.load(tmp_path / "o.npz") as saved:
        (y,) = saved.values()
    np.testing.assert_allclose(
        y, [[(1 - probability) / 2, probability, (1 - probability) / 2]] if softmax else [[0, 2, 0]]
    )


def test_run_resizes_crops_and_normalizes(command: Command, tmp_path: Path, picture: str) -> None:
    nodes = onnx_models.Nodes()
    model = save(nodes.model((1, 3, "h", "w"), nodes.add("Identity", "x")), tmp_path / "m.onnx")
    outcome = command(
        *("run", model, "--input", f"x={picture}", "--output", tmp_path / "o.npz"),
        *("--size", "8", "--crop", "1"),
    )
    assert outcome.code == 0, outcome.err
    assert "1x3x8x8 float32" in outcome.out
    with np.load(tmp_path / "o.npz") as saved:
        (y,) = saved.values()
    # Of 40 rows the middle 20 remain, blue but for 16: a fifth of 8 rows is blue.
    blue = (np.array([0, 0, 1]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    green = (np.array([0, 1, 0]) - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(y[0, :, 4, 4], green, rtol=1e-5)
    share = (y[0].mean(axis=(1, 2)) - green)[1:] / (blue - green)[1:]
    np.testing.assert_allclose(share, 0.2, atol=0.02)
    np.testing.assert_allclose(y[0, 0], green[0], rtol=1e-5)


def test_run_takes_arrays(command: Command, tmp_path: Path) -> None:
    model = save(onnx_models.selection(), tmp_path / "m.onnx")
    x = np.random.default_rng(0).random((1, 12, 4), np.float32)
    np.save(tmp_path / "x.npy", x)
    outcome = command("run", model, "--input", tmp_path / "x.npy", "--output", tmp_path / "o.npz")
    assert outcome.code == 0, outcome.err
    network = fastconv.onnx.load(model)
    with np.load(tmp_path / "o.npz") as saved:
        for name, wanted in zip(network.outputs, network(x), strict=True):
            np.testing.assert_array_equal(saved[name], wanted)
            assert name in outcome.out


def test_run_refuses_in_one_line(
    command: Command, tmp_path: Path, classifier: str, picture: str
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    wrong = [
        (("no.onnx", "--input", picture), "there is no file 'no.onnx'"),
        ((picture, "--input", picture), "this is no ONNX model"),
        ((str(tmp_path), "--input", picture), str(tmp_path)),
        ((classifier, "--input", "no.png"), "there is no file 'no.png'"),
        ((classifier, "--input", str(text)), "cannot be read as a picture"),
        ((classifier, "--input", f"y={picture}"), "inputs x, got 'y="),
        ((classifier, "--input", picture, "--input", picture), "given twice"),
        ((classifier, "--input", picture, "--mean", "1,2"), "--mean must be one number"),
        ((classifier, "--input", picture, "--std", "0"), "--std must not be 0"),
        ((classifier, "--input", picture, "--crop", "2"), "--crop must be"),
        ((classifier, "--input", picture, "--output", "o.txt"), "--output must name a file .npz"),
        ((classifier, "--input", picture, "--labels", str(labels)), "each of 5 classes"),
        ((classifier, "--input", picture, "--labels", "none.txt"), "--labels cannot be read"),
    ]
    for arguments, message in wrong:
        assert message in one_error(command("run", *arguments)), arguments
    boxes = save(onnx_models.selection(), tmp_path / "boxes.onnx")
    assert "(1, 12, 4)" in one_error(command("run", boxes, "--input", picture))
    free = save(scorer((1, 3, "h", "w")), tmp_path / "free.onnx")
    outcome = command("run", free, "--input", picture, "--size", "9999999")
    assert "this computer has" in one_error(outcome)


@pytest.mark.parametrize("package", ["onnx", "PIL.Image"])
def test_missing_packages_are_told_in_one_line(classifier: str, picture: str, package: str) -> None:
    before = f"sys.modules[{package!r}] = None"
    outcome = in_new_process("run", classifier, "--input", picture, before=before)
    assert "python -m pip install" in one_error(outcome)


# Explain and profile -----------------------------------------------------------------------------


def test_explain_shows_passes_steps_and_memory(command: Command, classifier: str) -> None:
    outcome = command("explain", classifier, "--shape", "2,3,8,8")
    assert outcome.code == 0, outcome.err
    words = [line.split() for line in outcome.out.splitlines()]
    assert ["fold_batch_norm", "1"] in words
    assert ["fuse_max_pool", "1"] in words
    (first,) = (line for line in words if line[:2] == ["1", "Conv+relu+max_pool"])
    assert first[3] == "2x4x4x4"
    assert first[4] in fastconv.algorithms("forward")
    network = fastconv.onnx.load(classifier)
    summary = network.summary((2, 3, 8, 8))
    weights = 4 * 27 + 4 + 4 * 9 + 4 * 4 + 5 * 8 + 5
    assert summary.weight_bytes == 4 * weights
    assert summary.flops == 2 * 2 * (27 * 4 * 64 + 9 * 4 * 16 + 4 * 4 * 16 + 5 * 8)
    assert summary.largest_bytes == 4 * 2 * 8 * 4 * 4
    assert str(summary) in outcome.out
    assert str(summary) == str(network.summary([2, 3, 8, 8]))


def test_constants_that_were_folded_are_counted(tmp_path: Path) -> None:
    network = fastconv.onnx.load(save(onnx_models.shapes(), tmp_path / "m.onnx"))
    text = network.explain((1, 3, 8, 6))
    (line,) = (line for line in text.splitlines() if "fold_constants" in line)
    assert int(line.split()[1]) >= 4  # Shape, Gather, Unsqueeze, Concat


def test_free_sizes_need_a_shape(command: Command, classifier: str) -> None:
    for name in ("explain", "profile"):
        message = one_error(command(name, classifier))
        assert "free sizes (n)" in message
        assert message.endswith("--shape 1,3,8,8")
        for text, part in (("1,3,9,9", "(1, 3, 9, 9)"), ("1,b", "whole numbers"), ("y=1", "y=1")):
            assert part in one_error(command(name, classifier, "--shape", text))
    network = fastconv.onnx.load(classifier)
    for shapes in ((), ((1, 3, 8),), ((1, 3, 8, 8), (1,))):
        with pytest.raises(ValueError, match="a shape is needed for each input"):
            network.summary(*shapes)


def test_explain_of_networks_takes_no_geometry(command: Command, classifier: str) -> None:
    for option in (("--stride", "2"), ("--dtype", "float64"), ("--direction", "input_grad")):
        assert "only --shape" in one_error(command("explain", classifier, *option))
    outcome = command("explain", "1,3,8,8,4,3,3", "--shape", "1,3,8,8")
    assert "--shape goes with a network" in one_error(outcome)


def test_profile_has_a_row_a_step(command: Command, classifier: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    outcome = command(
        *("profile", classifier, "--shape", "x=1,3,8,8", "--seconds", "0.05", "--json", file),
        *("--threads", "1"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(file.read_text())
    network = fastconv.onnx.load(classifier)
    summary = network.summary((1, 3, 8, 8))
    assert [step["operator"] for step in found["steps"]] == [s.operator for s in summary.steps]
    assert found["steps_s"] == pytest.approx(sum(step["median_s"] for step in found["steps"]))
    assert all(step["median_s"] > 0 for step in found["steps"])
    assert found["header"]["threads"] == 1
    for step in summary.steps:
        assert f"{step.operator:20}{step.name:12}" in outcome.out
    assert f"sum of {len(summary.steps)} steps" in outcome.out
    assert "whole network, median of" in outcome.out
    assert max(map(len, outcome.out.splitlines()[1:-2])) <= 100


def test_steps_are_timed_in_the_network(classifier: str) -> None:
    network = fastconv.onnx.load(classifier)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    compiled = network.compiled_for(x.shape)
    wanted = network(x)
    found = profile(compiled, [x], seconds=0.01)
    assert found.rounds >= 3
    assert len(found.steps) == len(compiled.steps)
    np.testing.assert_array_equal(network(x), wanted)
    (like_x,) = example_inputs(compiled)
    assert like_x.shape == x.shape
    assert like_x.dtype == x.dtype


def test_profile_refuses_in_one_line(command: Command, classifier: str, tmp_path: Path) -> None:
    shape = ("--shape", "1,3,8,8")
    assert "--json" in one_error(command("profile", classifier, *shape, "--json", tmp_path))
    assert "--threads" in one_error(command("profile", classifier, *shape, "--threads", "9999"))
    assert "no file" in one_error(command("profile", "no.onnx"))
    huge = command("profile", classifier, "--shape", f"{10**15},3,8,8")
    assert "GiB" in one_error(huge)
