"""Layers, losses, optimizers, schedules and files against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn_cases import CASES, Case, build, name_of, scramble
from reference import Array

from fastconv import nn

torch = pytest.importorskip("torch")
# On a busy machine several threads of so small a network would wait for each other.
torch.set_num_threads(1)


def to_torch(state: dict[str, Array]) -> dict[str, Any]:
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_layer(case: Case, training: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = build(case).astype(dtype), build(case, torch.nn).to(getattr(torch, dtype))
    scramble(ours, rng)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(to_torch(ours.state_dict()))
    # PyTorch does not show all that is not usual.
    assert repr(ours).startswith(repr(theirs).replace(", inplace=False", "")[:-1])
    if not training:
        ours.eval(keep=True)
        theirs.eval()
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    if case[0] == "Hardsigmoid":  # PyTorch's gradient is a sixth in float32, also in float64
        tolerance = 1e-5

    def near(actual: Array, wanted: Any, what: str) -> None:
        expected = wanted.detach().numpy()
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), what
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=what)

    for _ in range(2):  # twice, for the running averages
        x = rng.standard_normal(case[3]).astype(dtype)
        their_x = torch.from_numpy(x).requires_grad_()
        y, their_y = ours(x), theirs(their_x)
        near(y, their_y, "output")
        grad = rng.standard_normal(y.shape).astype(dtype)
        theirs.zero_grad()
        their_y.backward(torch.from_numpy(grad))
        ours.zero_grad()
        near(ours.backward(grad), their_x.grad, "input gradient")
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            near(p.grad, q.grad, name)
        for name, value in theirs.state_dict().items():
            near(ours.state_dict()[name], value, name)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("size", [(9, 10), (10, 12), [9, 11]])
def test_output_size_of_transposed_convolution(size: Any, batched: bool) -> None:
    rng = np.random.default_rng(7)
    # The layer's own output padding gives way.
    rule = 3, 4, 3, (2, 3), 1, (1, 2)
    ours, theirs = nn.ConvTranspose2d(*rule).astype("float64"), torch.nn.ConvTranspose2d(*rule)
    theirs.double().load_state_dict(to_torch(ours.state_dict()))
    x = rng.standard_normal((2, 3, 5, 4) if batched else (3, 5, 4))
    their_x = torch.from_numpy(x).requires_grad_()
    if size == (9, 10):
        size = (*x.shape[:-3], 4, 9, 10)
    y, their_y = ours(x, output_size=size), theirs(their_x, output_size=size)
    assert y.shape == their_y.shape
    np.testing.assert_allclose(y, their_y.detach().numpy(), rtol=0, atol=1e-13)
    grad = rng.standard_normal(y.shape)
    their_y.backward(torch.from_numpy(grad))
    wanted = [their_x.grad, theirs.weight.grad, theirs.bias.grad]
    for actual, right in zip(
        (ours.backward(grad), ours.weight.grad, ours.bias.grad), wanted, strict=True
    ):
        np.testing.assert_allclose(actual, right.numpy(), rtol=0, atol=1e-12)
    for wrong in ((8, 10), (11, 10), (9, 13), (1, 1, 1, 9, 10)):
        for layer, images in ((ours, x), (theirs, their_x)):
            with pytest.raises(ValueError, match=r"output.size"):
                layer(images, output_size=wrong)


def test_first_weights_are_spread_as_in_pytorch() -> None:
    torch.manual_seed(0)
    for name, arguments in (
        ("Conv2d", (8, 320, 3, 1, 0, 1, 2)),
        ("ConvTranspose2d", (8, 320, 3)),
        ("Linear", (40, 300)),
    ):
        ours = getattr(nn, name)(*arguments, rng=0).state_dict()
        theirs = getattr(torch.nn, name)(*arguments).state_dict()
        for key, value in theirs.items():
            bound = float(value.abs().max())
            assert np.abs(ours[key]).max() == pytest.approx(bound, rel=0.15), (name, key)
            assert abs(ours[key].mean()) < 0.15 * bound


INITIALIZERS: list[tuple[str, dict[str, Any]]] = [
    ("kaiming_uniform", {}),
    ("kaiming_uniform", {"a": 0.2, "mode": "fan_out"}),
    ("kaiming_normal", {"nonlinearity": "relu"}),
    ("kaiming_normal", {"nonlinearity": "tanh", "mode": "fan_out"}),
    ("xavier_uniform", {"gain": 2.0}),
    ("xavier_normal", {}),
]


@pytest.mark.parametrize(("name", "options"), INITIALIZERS)
def test_initializers_spread_as_in_pytorch(name: str, options: dict[str, Any]) -> None:
    shape = (64, 32, 3, 5)
    torch.manual_seed(0)
    ours = getattr(nn.init, name)(shape, np.random.default_rng(0), **options)
    theirs = getattr(torch.nn.init, name + "_")(torch.empty(shape), **options)
    assert (ours.shape, ours.dtype) == (shape, np.float32)
    assert ours.std() == pytest.approx(float(theirs.std()), rel=0.02)
    assert abs(ours.mean()) < 0.02 * ours.std()
    if "uniform" in name:
        assert np.abs(ours).max() == pytest.approx(float(theirs.abs().max()), rel=1e-3)
    np.testing.assert_array_equal(ours, getattr(nn.init, name)(shape, 0, **options))


def test_states_of_tensors() -> None:
    theirs, ours = torch.nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    ours.load_state_dict(dict(theirs.named_parameters()))  # which require a gradient
    np.testing.assert_array_equal(ours.weight.value, theirs.weight.detach().numpy())
    state = {name: value.half() for name, value in theirs.state_dict().items()}
    with pytest.raises(ValueError, match=r"weight must be float32 .*got float16"):
        ours.load_state_dict(state)
    for wrong in (value.bfloat16() for value in theirs.state_dict().values()):
        with pytest.raises(TypeError, match="bias in state must be an array, or a tensor on"):
            ours.load_state_dict({"bias": wrong})
    meta = torch.nn.Conv2d(2, 3, 3, device="meta").state_dict()
    with pytest.raises(TypeError, match="weight in state must be an array, or a tensor on"):
        ours.load_state_dict(meta)


# Losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", ["classes", "probabilities", "one-hot"])
@pytest.mark.parametrize("places", [(6,), (2, 3, 4)])
def test_cross_entropy(
    places: tuple[int, ...], target: str, weighted: bool, smoothing: float, reduction: str
) -> None:
    rng = np.random.default_rng(2)
    shape = (places[0], 5, *places[1:])
    logits = 3 * rng.standard_normal(shape)
    weight = rng.random(5) + 0.1 if weighted else None
    wanted: Array = rng.integers(0, 5, places)
    if target == "probabilities":
        wanted = np.exp(rng.standard_normal(shape))
        wanted /= wanted.sum(axis=1, keepdims=True)
    elif target == "one-hot":
        wanted = np.moveaxis(np.eye(5)[wanted], -1, 1)
    ours = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    theirs = torch.nn.CrossEntropyLoss(
        None if weight is None else torch.from_numpy(weight),
        reduction=reduction,
        label_smoothing=smoothing,
    )
    their_logits = torch.from_numpy(logits).requires_grad_()
    value = theirs(their_logits, torch.from_numpy(np.ascontiguousarray(wanted)))
    value.backward()
    assert ours(logits, wanted) == pytest.approx(float(value.detach()), rel=1e-12)
    np.testing.assert_allclose(ours.backward(), their_logits.grad.numpy(), rtol=0, atol=1e-12)


def test_cross_entropy_of_extreme_logits() -> None:
    logits = np.array([[1e30, -1e30, 0], [-np.inf, 0, 0], [5e3, 5e3, -5e3]], np.float32)
    loss = nn.CrossEntropyLoss()
    with np.errstate(all="raise", under="ignore"):
        value = loss(logits, [0, 1, 1])
        grad = loss.backward()
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor([0, 1, 1]))
    assert value == pytest.approx(float(wanted), rel=1e-6)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mean_squared_error(reduction: str) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 4, 5))
    their_a = torch.from_numpy(a).requires_grad_()
    value = torch.nn.MSELoss(reduction=reduction)(their_a, torch.from_numpy(b))
    value.backward()
    loss = nn.MSELoss(reduction=reduction)
    assert loss(a, b) == pytest.approx(float(value.detach()), rel=1e-12)
    np.testing.assert_allclose(loss.backward(), their_a.grad.numpy(), rtol=1e-12)


# Training --------------------------------------------------------------------------------

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
]
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("CosineAnnealingLR", {"T_max": 20, "eta_min": 1e-4}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 50}),
    (
        "OneCycleLR",
        {
            "max_lr": 0.05,
            "epochs": 10,
            "steps_per_epoch": 5,
            "three_phase": True,
            "anneal_strategy": "linear",
        },
    ),
]
TRAININGS: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]] | None, Any]] = [
    *((optimizer, None, None) for optimizer in OPTIMIZERS),
    *((OPTIMIZERS[i], schedule, None) for schedule in SCHEDULES for i in (1, 6)),
    (OPTIMIZERS[1], None, ("norm", 0.5)),
    (OPTIMIZERS[1], None, ("value", 0.01)),
]


def net(library: Any) -> Any:
    return library.Sequential(
        library.Conv2d(2, 6, 3, padding=1, bias=False),
        library.BatchNorm2d(6),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(6, 8, 3, 2, 1),
        library.SiLU(),
        library.AdaptiveAvgPool2d(1),
        library.Flatten(),
        library.Linear(8, 3),
    )


@pytest.mark.parametrize(("optimizer", "schedule", "clip"), TRAININGS, ids=str)
def test_fifty_steps(optimizer: Any, schedule: Any, clip: Any) -> None:
    rng = np.random.default_rng(4)
    torch.manual_seed(0)
    ours, theirs = net(nn), net(torch.nn)
    ours.load_state_dict(theirs.state_dict())
    (name, options), loss = optimizer, nn.CrossEntropyLoss()
    our_steps = getattr(nn, name)(ours.parameters(), **options)
    their_steps = getattr(torch.optim, name)(theirs.parameters(), **options)
    if schedule:
        our_rates = getattr(nn, schedule[0])(our_steps, **schedule[1])
        their_rates = getattr(torch.optim.lr_scheduler, schedule[0])(their_steps, **schedule[1])
    for step in range(50):
        x = rng.standard_normal((8, 2, 8, 8)).astype(np.float32)
        target = (x.mean(axis=(1, 2, 3)) * 20).astype(int) % 3
        value = loss(ours(x), target)
        ours.zero_grad()
        ours.backward(loss.backward())
        their_steps.zero_grad()
        wanted = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(target)
        )
        wanted.backward()
        assert value == pytest.approx(float(wanted.detach()), abs=1e-4), step
        if clip and clip[0] == "norm":
            norm = nn.clip_grad_norm_(ours.parameters(), clip[1])
            their_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip[1])
            assert norm == pytest.approx(float(their_norm), rel=1e-3)
        elif clip:
            nn.clip_grad_value_(ours.parameters(), clip[1])
            torch.nn.utils.clip_grad_value_(theirs.parameters(), clip[1])
        our_steps.step()
        their_steps.step()
        if schedule:
            our_rates.step()
            their_rates.step()
            assert our_rates.get_last_lr() == pytest.approx(their_rates.get_last_lr(), rel=1e-9)
            for key in {"momentum", "betas"} & our_steps.param_groups[0].keys():
                assert our_steps.param_groups[0][key] == pytest.approx(
                    their_steps.param_groups[0][key]
                )


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_steps_in_float64(name: str, options: dict[str, Any]) -> None:
    # 70,000 numbers are several pieces of work.
    rng = np.random.default_rng(5)
    start = [rng.standard_normal(shape) for shape in ((70_000,), (3, 4))]
    ours = [nn.Parameter(value) for value in start]
    theirs = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    groups = [{"params": [ours[0]]}, {"params": [ours[1]], "lr": 0.3}]
    their_groups = [{"params": [theirs[0]]}, {"params": [theirs[1]], "lr": 0.3}]
    our_steps = getattr(nn, name)(groups, **options)
    their_steps = getattr(torch.optim, name)(their_groups, **options)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = rng.standard_normal(p.shape)
            q.grad = torch.from_numpy(p.grad.copy())
        our_steps.step()
        their_steps.step()
        again = getattr(nn, name)(groups, **options)  # and go on from a saved state
        again.load_state_dict(our_steps.state_dict())
        our_steps = again
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.value, q.detach().numpy(), rtol=1e-12, atol=1e-12)


# Files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [lambda model: model, lambda model: model.eval()])
def test_files_both_ways(tmp_path: Path, convert: Callable[[Any], Any]) -> None:
    pytest.importorskip("safetensors")
    from safetensors.torch import load_file, save_file

    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
    ours, theirs, path = net(nn), net(torch.nn), tmp_path / "model.safetensors"
    scramble(ours, rng)
    nn.save(ours, path)
    theirs.load_state_dict(load_file(path))
    wanted = convert(theirs)(torch.from_numpy(x)).detach().numpy()
    # Training has changed the statistics of theirs: give them back.
    save_file(theirs.state_dict(), path)
    other = nn.load(convert(net(nn)), path)
    if not other.training:
        np.testing.assert_allclose(other(x), wanted, atol=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value.numpy())
