"""ONNX files of `fastconv.nn`'s models: what others compute from them, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn_cases import CASES, Case, build, case, images, name_of, scrambled, small_net
from reference import Array
from test_nn_models import NETWORKS, small, used

import fastconv
from fastconv import nn

onnx = pytest.importorskip("onnx")

# Layers that take one image without a batch; ONNX has no such convolutions and poolings.
IMAGES = ("Conv", "MaxPool", "AvgPool", "Adaptive", "Pixel", "ZeroPad")
#: Cases of forms that a file writes otherwise than the layer has them.
MORE: list[Case] = [
    case("AvgPool2d", 3, 2, 1, True, True, shape=(2, 3, 8, 7)),
    case("AvgPool2d", 3, 2, 1, True, True, 4, shape=(2, 3, 8, 7)),
    case("AvgPool2d", 2, 2, 0, True, False, shape=(1, 2, 5, 7)),
    case("AvgPool2d", 2, 1, "same", shape=(1, 2, 5, 7)),
    case("AvgPool2d", 2, dilation=2, shape=(1, 2, 6, 7)),
    case("AvgPool2d", 2, 1, 3, wide_padding=True, shape=(1, 2, 4, 5)),
    case("AdaptiveAvgPool2d", (2, 3), shape=(1, 2, 4, 6)),
    case("AdaptiveAvgPool2d", 7, shape=(1, 2, 2, 1)),
    case("AdaptiveAvgPool2d", (None, None), shape=(1, 2, 2, 3)),
    case("AdaptiveMaxPool2d", 7, shape=(1, 2, 2, 9)),
    case("MaxPool2d", 3, 1, 4, 4, shape=(2, 3, 9, 9)),
    case("MaxPool2d", 2, 3, 2, 1, False, True, wide_padding=True, shape=(2, 3, 9, 9)),
    case("MaxPool2d", (2, 3), 2, "same_lower", shape=(2, 3, 5, 6)),
    case("Conv2d", 2, 3, 3, 2, ((1, 0), (2, 1)), shape=(1, 2, 6, 5)),
    case("Conv2d", 2, 3, 2, padding="same_lower", shape=(1, 2, 6, 5)),
    case("Upsample", None, 0.7, shape=(1, 2, 10, 9)),
    case("Upsample", None, 0.7, "bilinear", shape=(1, 2, 10, 9)),
    case("Upsample", (3, 5), shape=(1, 2, 6, 7)),
    case("Identity", shape=(2, 3, 4)),
]


#: What ONNX has, and ONNX Runtime refuses: windows without an element, rows that no tap reaches.
REFUSED = (MORE[11], case("ConvTranspose2d", 2, 2, 3, 1, 0, 2, 1, True, 3, shape=(1, 2, 4, 5)))


def written(model: nn.Module, shape: Sequence[Any], folder: Path) -> tuple[str, Any]:
    """Save a model; return the path and the model in the file, which is checked."""
    path = str(folder / "model.onnx")
    fastconv.onnx.save(model, path, shape)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return path, proto


def by_onnxruntime(path: str, x: Array) -> Array | None:
    """Return what ONNX Runtime computes, None without it."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def assert_same(
    model: nn.Module, x: Array, folder: Path, *, free: bool = False, alone: bool = False
) -> Any:
    """Assert that a model's file computes what the model does; return what is in the file."""
    wanted = model.eval()(x)
    path, proto = written(model, ("N", *x.shape[1:]) if free else x.shape, folder)
    results = {"fastconv": fastconv.onnx.load(path)(x)}
    if x.dtype == np.float32 and not alone:  # ONNX Runtime has no float64 kernel for most operators
        results["onnxruntime"] = by_onnxruntime(path, x)
    for name, y in results.items():
        if y is not None:
            assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype), name
            atol = 1e-5 * np.abs(wanted).max()
            np.testing.assert_allclose(y, wanted, rtol=0, atol=atol, err_msg=name)
    return proto


def batched(case: Case) -> Case:
    name, arguments, options, shape = case
    single = len(shape) == 3 and name.startswith(IMAGES)
    return name, arguments, options, (1, *shape) if single else shape


# What is computed ------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*map(batched, CASES), *MORE], ids=name_of)
def test_layers(case: Case, tmp_path: Path) -> None:
    model, shape = scrambled(build(case)), case[-1]
    proto = assert_same(model, images(shape), tmp_path, free=True, alone=case in REFUSED)
    first = proto.graph.output[0].type.tensor_type.shape.dim[0]
    merged = case[:2] == ("Flatten", (0, 1))
    assert first.dim_param == ("" if merged else "N")


@pytest.mark.parametrize("case", [*map(batched, CASES), *MORE], ids=name_of)
def test_layers_in_float64(case: Case, tmp_path: Path) -> None:
    model = scrambled(build(case), np.float64)
    if model.state_dict():
        assert_same(model, images(case[-1], np.float64), tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, tmp_path: Path) -> None:
    options = {"width_mult": 0.25} if "mobilenet" in name else {}
    model = used(small(name, **options))
    proto = assert_same(model, images((2, 3, 32, 32)), tmp_path, free=True)
    state, tensors = model.state_dict(), {each.name: each for each in proto.graph.initializer}
    for key, value in state.items():
        if "num_batches" not in key:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensors[key]), value, key)
    assert proto.opset_import[0].version == 17


def test_compositions(tmp_path: Path) -> None:
    class Named(nn.Residual):
        """A class of the user's, which computes what its base does."""

    model = nn.Sequential(
        nn.Concat(nn.Identity(), nn.Conv2d(3, 2, 1, rng=0), nn.Identity()),
        Named(nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(8, 8, 3, padding=1, rng=1))),
        nn.DepthwiseSeparableConv2d(8, 4, 3, rng=2),
        nn.SiLU(),
    )
    assert_same(scrambled(model), images(), tmp_path)
    assert_same(scrambled(small_net()), images(), tmp_path)


def test_the_reference_of_onnx_agrees(tmp_path: Path) -> None:
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    model, x = scrambled(small_net()).eval(), images()
    (y,) = evaluator(written(model, x.shape, tmp_path)[1]).run(None, {"x": x})
    np.testing.assert_allclose(y, model(x), rtol=0, atol=1e-5 * np.abs(y).max())


def test_shared_parameters_are_written_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4, rng=0), nn.ReLU(), nn.Linear(4, 4, rng=1))
    model[2].weight = model[0].weight
    proto = assert_same(model, images((3, 4)), tmp_path)
    assert [each.name for each in proto.graph.initializer] == ["0.weight", "0.bias", "2.bias"]


# What a file says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "version"),
    [
        (nn.Hardswish(), (1, 3), 17),
        (nn.LayerNorm(3), (1, 3), 17),
        (nn.AvgPool2d(2), (1, 3, 8, 8), 17),
        (nn.AvgPool2d(2, dilation=2), (1, 3, 8, 8), 19),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (1, 1, 8, 8), 17),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 1, 8, 8), 19),
        (nn.GELU(), (1, 3), 20),
        (nn.Sequential(nn.GroupNorm(1, 3), nn.GELU()), (1, 3), 21),
    ],
)
def test_version(layer: nn.Module, shape: tuple[int, ...], version: int, tmp_path: Path) -> None:
    proto = written(layer, shape, tmp_path)[1]
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", version)]
    assert proto.ir_version <= 10
    assert (proto.producer_name, proto.producer_version) == ("fastconv", fastconv.__version__)


@pytest.mark.parametrize("batch", [5, "batch", None])
def test_names_and_sizes(batch: Any, tmp_path: Path) -> None:
    path, proto = written(nn.Conv2d(3, 2, 3), (batch, 3, 6, 5), tmp_path)
    found = [
        (each.name, [dim.dim_value or dim.dim_param for dim in each.type.tensor_type.shape.dim])
        for each in (*proto.graph.input, *proto.graph.output)
    ]
    wanted = batch or "N"
    assert found == [("x", [wanted, 3, 6, 5]), ("y", [wanted, 2, 4, 3])]
    network = fastconv.onnx.load(path)
    if batch == 5:
        with pytest.raises(ValueError, match="must have shape"):
            network(images((4, 3, 6, 5)))
    else:
        assert network(images((4, 3, 6, 5))).shape == (4, 2, 4, 3)


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model, x = scrambled(small_net()), images()
    model[1].eval(keep=True)
    before = [(m.training, m.keeping, m.frozen) for m in model.modules()]
    state, versions = model.state_dict(), [p.version for p in model.parameters()]
    path, _ = written(model, x.shape, tmp_path)
    assert [(m.training, m.keeping, m.frozen) for m in model.modules()] == before
    assert [p.version for p in model.parameters()] == versions
    assert all(map(np.array_equal, model.state_dict().values(), state.values()))
    for parameter in model.parameters():
        parameter.data += 1
    y = fastconv.onnx.load(path)(x)
    model.load_state_dict(state)
    np.testing.assert_allclose(y, model.eval()(x), rtol=0, atol=1e-5 * np.abs(y).max())


# What is refused -------------------------------------------------------------------------


class Twice(nn.Module):
    """A layer of the user's."""

    def forward(self, x: Any) -> Any:
        """Return the double."""
        return x + x


class Other(nn.ReLU):
    """A layer that computes something else than its base."""

    def forward(self, x: Any) -> Any:
        """Return the opposite."""
        return -super().forward(x)


@pytest.mark.parametrize("layer", [Twice(), Other()])
def test_modules_with_code_of_their_own(layer: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential({"body": nn.Sequential(nn.ReLU(), layer)})
    sentence = rf"layer 'body\.1' \({type(layer).__name__}\).* build it of fastconv\.nn's layers"
    with pytest.raises(TypeError, match=sentence):
        fastconv.onnx.save(model, tmp_path / "m.onnx", (1, 3))
    with pytest.raises(TypeError, match="the model"):
        fastconv.onnx.save(layer, tmp_path / "m.onnx", (1, 3))
    assert not list(tmp_path.iterdir())


def test_forward_replaced_in_one_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU())
    model[0].forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="layer '0'"):
        fastconv.onnx.save(model, tmp_path / "m.onnx", (1, 3))


@pytest.mark.parametrize(
    ("layer", "shape", "sentence"),
    [
        (nn.MaxPool2d(2, return_indices=True), (1, 3, 4, 4), "returns indices"),
        (nn.Conv2d(3, 2, 3), (3, 8, 8), r"\(1, C, H, W\) for one image"),
        (nn.Conv2d(3, 2, 3), (1, 4, 8, 8), "takes 3 channels"),
        (nn.Conv2d(3, 2, 9), (1, 3, 8, 8), "kernel"),
        (nn.Conv2d(3, 2, 9, padding=8, padding_mode="reflect"), (1, 3, 8, 8), "at most 7"),
        (nn.MaxPool2d(9), (1, 3, 8, 8), "kernel_size"),
        (nn.BatchNorm2d(3), (1, 4, 8, 8), "takes 3 channels"),
        (nn.Linear(3, 2), (1, 4), r"arrays \(\.\.\., 3\)"),
        (nn.LayerNorm(3), (1, 4), "ends in"),
        (nn.Softmax(2), (1, 4), "axis"),
        (nn.Flatten(2), (1, 4), "axes"),
        (nn.PReLU(3), (1, 4), "takes 3 channels"),
        (nn.ChannelShuffle(3), (1, 4, 2, 2), "groups=3"),
        (nn.PixelShuffle(2), (1, 3, 2, 2), "multiple of 4 channels"),
        (nn.PixelUnshuffle(3), (1, 3, 2, 2), "downscale_factor=3"),
        (nn.Residual(nn.Conv2d(3, 2, 1)), (1, 3, 2, 2), "one shape"),
        (nn.Concat(nn.Identity(), nn.Conv2d(3, 2, 2)), (1, 3, 4, 4), ""),
    ],
)
def test_shapes_that_do_not_fit(
    layer: nn.Module, shape: tuple[int, ...], sentence: str, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.ReLU(), layer)
    with pytest.raises(ValueError, match=rf"layer '1'.*({sentence})"):
        fastconv.onnx.save(model, tmp_path / "m.onnx", shape)


@pytest.mark.parametrize(
    ("model", "shape", "error", "sentence"),
    [
        (nn.ReLU, (1, 3), TypeError, "model must be a Module"),
        (nn.MaxUnpool2d(2), (1, 3, 4, 4), TypeError, "indices"),
        (nn.ReLU(), 3, TypeError, "input_shape"),
        (nn.ReLU(), (), ValueError, "input_shape"),
        (nn.ReLU(), (0, 3), ValueError, "input_shape"),
        (nn.ReLU(), ("N", "C"), TypeError, "input_shape"),
        (nn.ReLU(), "N3", TypeError, "input_shape"),
        (nn.ReLU(), (1.5, 3), TypeError, "input_shape"),
    ],
)
def test_bad_arguments(
    model: Any, shape: Any, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        fastconv.onnx.save(model, tmp_path / "m.onnx", shape)


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    model = nn.ReLU()
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        fastconv.onnx.save(model, tmp_path / "none" / "m.onnx", (1, 3))
    with pytest.raises(OSError, match=tmp_path.name):
        fastconv.onnx.save(model, tmp_path, (1, 3))
    with pytest.raises(TypeError):
        fastconv.onnx.save(model, None, (1, 3))  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        fastconv.onnx.save(nn.ReLU(), tmp_path / "m.onnx", (1, 3))
    tmp_path.chmod(0o700)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    fastconv.onnx.save(nn.ReLU(), path, (1, 3))
    old = path.read_bytes()
    with pytest.raises(TypeError):
        fastconv.onnx.save(Twice(), path, (1, 3))
    assert path.read_bytes() == old
    fastconv.onnx.save(nn.Tanh(), path, (1, 3))
    assert path.read_bytes() != old
    assert list(tmp_path.iterdir()) == [path]
