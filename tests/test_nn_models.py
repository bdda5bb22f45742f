"""Networks against torchvision's, from the same weights; and what can be asked without it."""

from __future__ import annotations

import inspect
import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import Array

from fastconv import nn

#: Arguments for networks small enough for tests, and how many parameters the whole ones have.
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 11_689_512),
    "resnet34": ({}, 21_797_672),
    "resnet50": ({}, 25_557_032),
    "vgg11": ({"hidden": 16}, 132_863_336),
    "vgg11_bn": ({"hidden": 16}, 132_868_840),
    "vgg16": ({"hidden": 16}, 138_357_544),
    "vgg16_bn": ({"hidden": 16}, 138_365_992),
    "mobilenet_v1": ({}, 4_231_976),
    "mobilenet_v2": ({}, 3_504_872),
    "squeezenet1_0": ({}, 1_248_424),
    "squeezenet1_1": ({}, 1_235_496),
    "unet": ({"width": 8}, 31_037_698),
}
#: The layers that torchvision's parameters, and U-Net's, are named after.
NAMES = {
    "resnet": r"conv1|bn1|layer[1-4]\.\d\.(conv[123]|bn[123]|downsample\.[01])|fc",
    "vgg": r"features\.\d+|classifier\.[036]",
    "mobilenet_v1": r"features\.\d+\.[0134]|classifier\.1",
    "mobilenet_v2": r"features\.\d+\.([01]|conv\.(\d\.[01]|[123]))|classifier\.1",
    "squeezenet": r"features\.(0|\d+\.(squeeze|expand1x1|expand3x3))|classifier\.1",
    "unet": r"(inc|down\d\.maxpool_conv\.1|up\d\.conv)\.double_conv\.[0134]|up\d\.up|outc\.conv",
}
LIGHT = ("mobilenet_v1", "mobilenet_v2", "squeezenet1_1", "unet")
CLASSES = 7


def small(name: str, **options: Any) -> nn.Sequential:
    options = {"num_classes": CLASSES, "rng": 0} | NETWORKS[name][0] | options
    return getattr(nn.models, name)(**options)


def photos(count: int = 2, side: int = 64, channels: int = 3) -> Array:
    return np.random.default_rng(1).standard_normal((count, channels, side, side), np.float32)


# Without torchvision ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_numbers_of_parameters(name: str) -> None:
    options, count = NETWORKS[name]
    model = getattr(nn.models, name)(rng=0, **({} if name == "unet" else options))
    shapes = [p.shape for p in model.parameters()]
    if "hidden" in options:
        whole = {options["hidden"]: 4096}
        shapes = [tuple(whole.get(size, size) for size in shape) for shape in shapes]
    assert sum(map(math.prod, shapes)) == count
    pattern = next(pattern for family, pattern in NAMES.items() if name.startswith(family))
    for key in model.state_dict():
        assert re.fullmatch(rf"({pattern})\.(weight|bias|running_\w+|num_batches_tracked)", key)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_channels_and_seeds(name: str) -> None:
    model, x = small(name, in_channels=1).eval(), photos(1, 32, 1)
    y = model(x)
    assert y.shape == ((1, CLASSES, 32, 32) if name == "unet" else (1, CLASSES))
    for seed, same in ((0, True), (1, False)):
        other = small(name, in_channels=1, rng=seed).state_dict()
        assert all(map(np.array_equal, model.state_dict().values(), other.values())) is same
    one_by_one = model.eval(keep=True)(x)
    np.testing.assert_allclose(y, one_by_one, rtol=0, atol=2e-5 * np.abs(one_by_one).max())


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "squeezenet1_1", "unet"])
def test_two_steps_lower_the_loss(name: str) -> None:
    options = {"width_mult": 0.25} if "mobilenet" in name else {}
    model, loss = small(name, **options), nn.CrossEntropyLoss()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x = photos(4, 32)
    target = np.arange(4) if name != "unet" else (x[:, 0] > 0).astype(int)
    optimizer = nn.SGD(model.parameters(), lr=0.01)
    values = []
    for _ in range(3):
        values.append(loss(model(x), target))
        model.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    assert values[0] > values[1] > values[2]


def test_the_last_layer_can_be_replaced() -> None:
    model = small("resnet18")
    model.fc = nn.Linear(512, 3)
    assert model.eval()(photos()).shape == (2, 3)
    assert model.state_dict()["fc.weight"].shape == (3, 512)
    assert model[:-2](photos()).shape == (2, 512, 1, 1)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(AttributeError, match=r"did you mean fastconv\.nn\.models\.resnet"):
        nn.models.resnet101  # noqa: B018
    assert set(nn.models.__all__) == {name for name in dir(nn.models) if name[0] != "_"}


@pytest.mark.parametrize("name", nn.models.__all__)
def test_networks_are_documented(name: str) -> None:
    function = getattr(nn.models, name)
    text = inspect.getdoc(function) or ""
    assert "Examples\n--------" in text
    section = text.partition("Parameters\n")[2].partition("\n\n")[0]
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"\b{parameter}\b", section), parameter
    with pytest.raises(ValueError, match="must be"):
        function(in_channels=0)
    with pytest.raises(TypeError, match="rng must be"):
        function(rng="seed")


# Against PyTorch -------------------------------------------------------------------------


def peer(name: str) -> Any:
    """Return the same small network in PyTorch, without initial weights of any meaning."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    if name in ("mobilenet_v1", "unet"):
        import torch_networks

        return getattr(torch_networks, name)(CLASSES, **NETWORKS[name][0])
    hidden = NETWORKS[name][0].get("hidden")
    options = {"init_weights": False} if hidden else {}
    with torch.device("meta" if hidden else "cpu"):
        model = getattr(torchvision_models(), name)(num_classes=CLASSES, **options)
    if hidden:
        for place, shape in ((0, (25088, hidden)), (3, (hidden, hidden)), (6, (hidden, CLASSES))):
            model.classifier[place] = torch.nn.Linear(*shape)
        model.to_empty(device="cpu")
    return model


def torchvision_models() -> Any:
    """Return torchvision's models; its operators, which need a build of their own, are not used."""
    torch = pytest.importorskip("torch")
    if find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor x) -> Tensor")
        KEPT.append(library)
    import torchvision.models

    return torchvision.models


KEPT: list[Any] = []


def used(model: nn.Sequential) -> nn.Sequential:
    """Give normalizations parameters and statistics of a network in use; drop nothing."""
    rng = np.random.default_rng(2)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.BatchNorm2d):
            count = layer.num_features
            layer.weight.data, layer.bias.data = (
                rng.uniform(0.5, 1.5, count),
                rng.normal(0, 0.1, count),
            )
            layer.running_mean[...] = rng.normal(0, 0.1, count)
            layer.running_var[...] = rng.uniform(0.5, 1.5, count)
    return model


def both(name: str) -> tuple[nn.Sequential, Any]:
    """Return a network here and in PyTorch, with the same weights, loaded from there."""
    torch = pytest.importorskip("torch")
    theirs, source = peer(name), used(small(name)).state_dict()
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in source.items()} == shapes
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in source.items()})
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    ours = used(small(name, rng=5))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def near(actual: Array, wanted: Any, tolerance: float, what: str = "output") -> None:
    expected = wanted.detach().numpy()
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    atol = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=what)


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluates_as_pytorch(name: str) -> None:
    ours, theirs = both(name)
    x = photos(2, 32)
    near(ours.eval()(x), theirs.eval()(tensor(x)), 1e-5)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "vgg11_bn", "mobilenet_v1", "mobilenet_v2", "squeezenet1_1", "unet"],
)
def test_trains_as_pytorch(name: str) -> None:
    ours, theirs = both(name)
    x = photos(4, 64)
    near(ours(x), theirs(tensor(x)), 1e-4)
    compare_states(ours, theirs, 1e-4)
    # In float32 a rounding error may decide whether a ReLU passes a gradient.
    ours, theirs = ours.astype("float64"), theirs.double()
    ours.load_state_dict(theirs.state_dict())
    their_x = tensor(x).double().requires_grad_()
    y, their_y = ours(x.astype(float)), theirs(their_x)
    near(y, their_y, 1e-10)
    compare_states(ours, theirs, 1e-10)
    grad = np.random.default_rng(3).standard_normal(y.shape)
    their_y.backward(tensor(grad))
    near(ours.backward(grad), their_x.grad, 1e-9, "input gradient")
    named, found = dict(theirs.named_parameters()), dict(ours.named_parameters())
    assert named.keys() == found.keys()
    largest = max(float(p.grad.abs().max()) for p in named.values())
    for key, p in named.items():  # that of a bias before a normalization is rounding only
        close = {"rtol": 1e-7, "atol": 1e-10 * largest, "err_msg": key}
        np.testing.assert_allclose(found[key].grad, p.grad.numpy(), **close)


def compare_states(ours: nn.Module, theirs: Any, tolerance: float) -> None:
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        near(state[key], value, tolerance, key)


def tensor(x: Array) -> Any:
    return pytest.importorskip("torch").from_numpy(x)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_0"])
def test_first_weights_are_spread_as_in_torchvision(name: str) -> None:
    torch, library = pytest.importorskip("torch"), torchvision_models()
    torch.manual_seed(0)
    ours, theirs = getattr(nn.models, name)(rng=0), getattr(library, name)()
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        compare_spread(key, p.value, q.detach().numpy())


def test_first_weights_of_vgg() -> None:  # torchvision's would take seconds
    model = nn.models.vgg11(hidden=64, rng=0)
    for layer, std in ((model.features[3], (2 / (128 * 9)) ** 0.5), (model.classifier[0], 0.01)):
        assert layer.weight.value.std() == pytest.approx(std, rel=0.02)
        assert not layer.bias.value.any()


def compare_spread(key: str, ours: Array, theirs: Array) -> None:
    if theirs.ndim == 1 and np.ptp(theirs) == 0:
        np.testing.assert_array_equal(ours, theirs, key)
        return
    few = 4 / theirs.size**0.5
    assert ours.std() == pytest.approx(float(theirs.std()), rel=max(0.03, few)), key
    # Kurtosis tells a uniform distribution, 1.8, from a normal one, 3.
    tails = [float(np.mean((w / w.std()) ** 4)) for w in (ours, theirs)]
    assert tails[0] == pytest.approx(tails[1], abs=max(0.2, 10 * few)), key


def test_the_page_about_pytorch_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    torchvision_models()
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "from_pytorch.md"
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)
    x, theirs = names["x"], names["theirs"]
    near(names["y"], theirs.eval()(x), 1e-5)
    assert names["model"].eval()(photos()).shape == (2, 5)
