"""Modules as such: names, modes, looks, the table; and every refusal says what would be right."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_cases import small_net
from reference import Array

import fastconv
from fastconv import nn

X = np.zeros((1, 3, 4, 4), np.float32)


class Branching(nn.Module):
    """A model of a user's own: attributes, a list, and a shared parameter."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(3, 2, 1, rng=0)
        self.heads = [nn.Linear(2, 1, rng=1), nn.Linear(2, 1, rng=2)]
        self.heads[1].weight = self.heads[0].weight
        self.scale = nn.Parameter(np.ones(1))

    def forward(self, x: Any) -> Array:
        """Return the heads' outputs side by side."""
        y = self.first(x).mean(axis=(2, 3))
        return np.concatenate([head(y) for head in self.heads], axis=1)


def test_names_of_a_model_of_ones_own() -> None:
    model = Branching()
    assert list(model.state_dict()) == [
        "scale",
        "first.weight",
        "first.bias",
        "heads.0.weight",
        "heads.0.bias",
        "heads.1.weight",
        "heads.1.bias",
    ]
    assert len(list(model.parameters())) == 6  # the shared one once
    assert model.eval()(X).shape == (1, 2)
    assert not any(m.training for m in model.modules())
    assert "(heads.1): Linear(in_features=2, out_features=1, bias=True)" in repr(model)


def test_sequential_as_a_list_and_with_names() -> None:
    a, b, c = nn.ReLU(), nn.SiLU(), nn.Flatten()
    model = nn.Sequential({"a": a, "b": b}).append(c)
    assert list(model) == [a, b, c]
    assert (model["a"], model[-1], len(model)) == (a, c, 3)
    assert list(model[1:]) == [b, c]
    assert repr(model).splitlines()[1] == "  (a): ReLU()"
    assert nn.Sequential()(X) is X


@pytest.mark.parametrize("wrong", ["same name", "attribute", "same layer", "itself", "no layer"])
def test_append_adds_a_layer_or_changes_nothing(wrong: str) -> None:
    taken = "2" if wrong == "same name" else "1"
    model = nn.Sequential({"0": nn.ReLU(), taken: nn.Sequential(nn.SiLU())})
    if wrong == "attribute":  # which would have the same name in a state
        setattr(model, "2", nn.Flatten())
    given: dict[str, Any] = {"same layer": model[-1][0], "itself": model, "no layer": nn.ReLU}
    before = list(model.named_modules())
    with pytest.raises((TypeError, ValueError), match=r"name of its own|distinct objects|a Module"):
        model.append(given.get(wrong, nn.Flatten()))
    assert list(model.named_modules()) == before


def test_modules_that_a_subclass_of_sequential_adds_are_found() -> None:
    class WithHead(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(1, 1, 3))
            self.head = nn.Linear(4, 3)

    names = [name for name, _ in WithHead().named_parameters()]
    assert names == ["0.weight", "0.bias", "head.weight", "head.bias"]


def test_states_are_copies() -> None:
    layer = nn.Linear(2, 2, rng=0)
    state = layer.state_dict()
    state["weight"][...] = 9
    assert not np.any(layer.weight.value == 9)
    source = np.ones((2, 2), np.float32)
    layer.weight.data = source
    source[...] = 5
    np.testing.assert_array_equal(layer.weight.value, 1)


def test_the_same_seed_gives_the_same_weights() -> None:
    for name, value in small_net(3).state_dict().items():
        np.testing.assert_array_equal(value, small_net(3).state_dict()[name])
    assert np.any(nn.Linear(3, 3).weight.value != nn.Linear(3, 3).weight.value)


def test_summary() -> None:
    model = small_net().eval()
    model[0].train()
    modes = [(m.training, m.keeping) for m in model.modules()]
    table = model.summary((2, 3, 12, 10))
    assert modes == [(m.training, m.keeping) for m in model.modules()]
    assert all("forward" not in vars(m) for m in model.modules())
    assert table.parameters == sum(p.size for p in model.parameters())
    rows = {row.name: row for row in table.rows}
    first = rows["0"]
    assert first.output_shape == (2, 8, 12, 10)
    assert first.flops == 2 * 2 * 8 * 12 * 10 * 27
    assert first.algorithm in fastconv.algorithms()
    assert first.output_bytes == 4 * 2 * 8 * 12 * 10
    assert rows["10"].flops == 2 * 2 * 5 * 10
    assert rows["6.0.depthwise"].output_shape == (2, 12, 3, 3)
    assert table.flops > first.flops
    lines = str(table).splitlines()
    assert " ".join(lines[0].split()) == "layer kind output parameters MFLOP KiB algorithm"
    assert len(lines) == len(rows) + 2
    assert f"{table.parameters:,}" in lines[-1]
    assert nn.ReLU().summary((2, 2)).rows[0].name == "ReLU"
    layer = nn.ConvTranspose2d(2, 3, 3, 2)
    assert layer.summary((1, 2, 4, 5)).flops == 2 * 4 * 5 * 2 * 3 * 9


class Scaled(nn.Module):
    """A parameter beside layers: one runs twice, one shares its weights, one never runs."""

    def __init__(self) -> None:
        self.scale = self.same_scale = nn.Parameter(np.ones(4, np.float32))
        self.layer, self.twin, self.unused = (nn.Linear(4, 4, rng=i) for i in range(3))
        self.twin.weight = self.layer.weight

    def forward(self, x: Any) -> Array:
        """Return the scaled output of three steps with the same weights."""
        return self.twin(self.layer(self.layer(x))) * self.scale.value


def test_summary_counts_every_parameter_once() -> None:
    model = nn.Sequential({"body": nn.Residual(Scaled()), "last": nn.Linear(4, 2, rng=0)})
    table = model.summary((3, 4))
    assert [(row.name, row.parameters, row.parameter_bytes // 4) for row in table.rows] == [
        ("body.body.layer", 20, 20),
        ("body.body.layer", 0, 0),
        ("body.body.twin", 4, 4),
        ("body.body", 4, 4),
        ("last", 10, 10),
        ("body.body.unused", 20, 20),
    ]
    assert table.parameters == sum(p.size for p in model.parameters()) == 58
    assert table.rows[3].output_shape == (3, 4)
    assert table.rows[-1].output_shape is None
    assert "not used" in str(table).splitlines()[-2]


def test_schedules_go_on_from_a_state() -> None:
    for name, arguments in (
        ("StepLR", (2,)),
        ("CosineAnnealingLR", (7,)),
        ("OneCycleLR", (0.1, 20)),
    ):
        optimizers = [nn.Adam([nn.Parameter([1.0])], lr=0.01) for _ in range(2)]
        first, second = (getattr(nn, name)(each, *arguments) for each in optimizers)
        for _ in range(5):
            first.step()
        second.load_state_dict(first.state_dict())
        assert first.get_last_lr() == second.get_last_lr()
        first.step()
        second.step()
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]
        assert optimizers[0].param_groups[0]["betas"] == optimizers[1].param_groups[0]["betas"]


@pytest.mark.parametrize("name", nn.__all__)
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(nn, name)
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()[0]) > 10 or name == "ReLU"
    if name in ("init", "models", "Loss", "Optimizer", "Schedule", "Summary"):
        return
    assert "Examples\n--------" in text
    parameters = set(inspect.signature(thing).parameters) - {"layers", "branches", "args", "kwargs"}
    section = text.partition("Parameters\n")[2].partition("\n\n")[0]
    text = text.partition("Parameters\n")[2]
    for parameter in parameters:
        assert re.search(rf"\b{parameter}\b", text), f"{parameter} of {name}: {section}"


def test_the_guide_runs() -> None:
    result = doctest.testmod(nn)
    assert result.attempted > 5
    assert result.failed == 0


# Refusals --------------------------------------------------------------------------------


def after(model: nn.Module, x: Array) -> nn.Module:
    model(x)
    return model


def schedule(name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(nn, name)(nn.SGD([nn.Parameter([1.0])]), *arguments, **options)


def beyond_the_cycle() -> None:
    cycle = schedule("OneCycleLR", 0.1, 2)
    for _ in range(3):
        cycle.step()


REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (lambda: nn.Conv2d(4, 4, 3)(X), r"x must have 4 channels for this Conv2d.*\(1, 3, 4, 4\)"),
    (lambda: nn.Conv2d(4, 4, 3).eval()(X), r"x must have 4 channels"),
    (lambda: nn.Sequential(nn.Conv2d(4, 4, 3)).eval()(X), r"x must have 4 channels"),
    (lambda: nn.Conv2d(3, 4, 3)(X[0, 0]), r"x must have 4 dim.*or 3 for one image.*\(4, 4\)"),
    (lambda: nn.Conv2d(1, 4, 3)(X[0]), r"1 channels.*\(1, H, W\) of one image, got.*\(3, 4, 4\)"),
    (lambda: nn.Conv2d(3, 4, 3)(X.astype(int)), r"x must be float32.*got int64: convert x"),
    (lambda: nn.Conv2d(3, 4, 5)(X), r"must fit the padded input"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), r"groups must divide.*groups=2 with in_channels=3"),
    (lambda: nn.Conv2d(3, 4, 0), r"kernel_size must be between 1"),
    (lambda: nn.Conv2d(3, 4, 3, padding="some"), r"padding must be .* got 'some'"),
    (lambda: nn.Conv2d(3, 4, 3, padding=-1), r"padding must be between 0"),
    (lambda: nn.Conv2d(3, 4, 3, rng="seed"), r"rng must be a numpy.random.Generator.*'seed'"),
    (lambda: nn.ConvTranspose2d(4, 4, 3)(X), r"x must have 4 channels for this ConvTranspose2d"),
    (lambda: nn.BatchNorm2d(4)(X), r"x must have 4 channels for this BatchNorm2d"),
    (lambda: nn.BatchNorm2d(3)(X[:, :, :1, :1]), r"more than one value a channel"),
    (lambda: nn.BatchNorm2d(3, eps=-1), r"eps must be at least 0, got -1"),
    (lambda: nn.Linear(5, 2)(X), r"\(\.\.\., 5\).*\(1, 3, 4, 4\): put Flatten\(\) before"),
    (lambda: nn.Linear(5, 2)(np.zeros((2, 5))), r"x\.astype\('float32'\).*model\.astype"),
    (lambda: nn.ReLU()([1, 2]), r"x must be float32 or float64 for this ReLU, got int64"),
    (lambda: nn.Softmax(4)(X), r"dim must be an axis of x, got 4"),
    (lambda: nn.Dropout(1.5), r"p must be at least 0 and at most 1, got 1.5"),
    (lambda: nn.MaxPool2d(0), r"kernel_size"),
    (lambda: nn.PReLU(4)(X), r"x must have 4 channels for this PReLU.*\(1, 3, 4, 4\)"),
    (lambda: nn.PReLU(0), r"num_parameters must be between 1"),
    (lambda: nn.Hardtanh(1, 1), r"max_val must be above min_val=1, got 1"),
    (lambda: nn.GELU("erf"), r"approximate must be 'none' or 'tanh', got 'erf'"),
    (lambda: nn.BatchNorm1d(3)(X), r"\(N, 3\) or \(N, 3, L\) for this BatchNorm1d.*4, 4\)"),
    (lambda: nn.GroupNorm(2, 3), r"num_groups must divide num_channels=3, got 2"),
    (lambda: nn.GroupNorm(2, 4)(X), r"x must have 4 channels for this GroupNorm"),
    (lambda: nn.LayerNorm(5)(X), r"ends in \(5,\) for this LayerNorm, got \(1, 3, 4, 4\)"),
    (lambda: nn.LayerNorm(()), r"normalized_shape must have 1 entries, got 0"),
    (lambda: nn.Upsample(), r"size or scale_factor must be given, and not both"),
    (lambda: nn.Upsample(2, 2), r"and not both, got size=2 and scale_factor=2"),
    (lambda: nn.Upsample(2, mode="cubic"), r"mode must be 'nearest' or 'bilinear', got 'cubic'"),
    (lambda: nn.Upsample(2, align_corners=True), r"align_corners must be None with mode='nearest'"),
    (lambda: nn.Upsample(scale_factor=0), r"scale_factor must be at least"),
    (lambda: nn.Upsample(scale_factor=(1, 2, 3)), r"scale_factor must be a number or a pair"),
    (lambda: nn.Upsample(scale_factor=0.1)(X), r"must leave at least one pixel of \(4, 4\)"),
    (lambda: nn.Upsample(scale_factor=1e9)(X), r"scale_factor"),
    (lambda: nn.Upsample(2)(X[0]), r"x must have 4 dimensions, got shape \(3, 4, 4\)"),
    (lambda: nn.PixelShuffle(2)(X), r"multiple of 4 channels for upscale_factor=2"),
    (lambda: nn.PixelUnshuffle(3)(X), r"height and width that downscale_factor=3 divides"),
    (lambda: nn.ChannelShuffle(2)(X), r"multiple of groups=2 channels.*\(1, 3, 4, 4\)"),
    (lambda: nn.ZeroPad2d((1, 2)), r"padding must have 4 entries, got 2"),
    (lambda: nn.ZeroPad2d(-1), r"padding\[0\] must be between 0"),
    (lambda: nn.ZeroPad2d(2**30)(X), r"padding"),
    (lambda: nn.Dropout2d(0.5)(X[0, 0]), r"x must have 4 dim.*or 3 for one image"),
    (lambda: nn.Flatten(2, 1)(X), r"start_dim and end_dim must be axes of x in this order"),
    (lambda: nn.Sequential(nn.ReLU), r"layer '0' must be a Module.*did you mean ReLU\(\)"),
    (lambda: nn.Sequential(*[nn.ReLU()] * 2), r"got one ReLU as '0' and as '1'"),
    (lambda: nn.Residual(3), r"body must be a Module, got 3"),
    (lambda: nn.Residual(nn.Conv2d(3, 4, 1))(X), r"shortcut must return .*\(1, 4, 4, 4\), got"),
    (lambda: nn.Residual(nn.Conv2d(3, 4, 1)).eval()(X), r"shortcut must return .*\(1, 4, 4, 4\)"),
    (lambda: nn.Conv2d(3, 4, 1).backward(X), r"Conv2d\.backward needs a forward pass before"),
    (lambda: after(nn.ReLU(), X).backward(X[0]), r"grad must have shape \(1, 3, 4, 4\)"),
    (lambda: small_net().backward(X), r"Linear\.backward needs a forward pass before"),
    (lambda: nn.Module()(X), r"Module must define forward"),
    (lambda: nn.ReLU().summary(4), r"input_shape must be .* got 4"),
    (lambda: nn.Module().backward(X), r"Module must define backward"),
    (lambda: nn.ReLU().astype("int32"), r"dtype must be 'float32' or 'float64', got 'int32'"),
    (lambda: nn.Parameter([1, 2]), r"data must be float32 or float64, got int64"),
    (lambda: setattr(nn.Parameter([1.0]), "data", [1.0, 2.0]), r"shape \(1,\), got \(2,\)"),
    (lambda: setattr(nn.Parameter([1.0]), "data", [1j]), r"must fit .* got complex128"),
    (lambda: nn.CrossEntropyLoss()(X[0, 0], [0, 1, 2, 4]), r"target must hold classes from 0 to 3"),
    (lambda: nn.CrossEntropyLoss()(X[0, 0], [0]), r"target must be integers of shape \(4,\)"),
    (lambda: nn.CrossEntropyLoss()(X[0, 0], [0.0] * 4), r"integers.*got float64"),
    (lambda: nn.CrossEntropyLoss()(X[0, 0, 0], 0), r"pred must have shape \(N, C\)"),
    (lambda: nn.CrossEntropyLoss([1, 2])(X[0, 0], [0] * 4), r"weight must have one .* 4 classes"),
    (lambda: nn.CrossEntropyLoss([-1]), r"weight must be a list of numbers of at least 0"),
    (lambda: nn.CrossEntropyLoss(reduction="none"), r"reduction must be 'mean' or 'sum'"),
    (lambda: nn.CrossEntropyLoss().backward(), r"CrossEntropyLoss\.backward needs a call"),
    (lambda: nn.MSELoss()(X, X[0]), r"target must have the shape of pred"),
    (lambda: nn.SGD([]), r"params must hold at least one Parameter"),
    (lambda: nn.SGD(nn.Linear(2, 2)), r"params must be an iterable, such as model\.parameters\(\)"),
    (lambda: nn.SGD([np.ones(2)]), r"params must hold Parameters, as model\.parameters\(\)"),
    (lambda: nn.SGD([nn.Parameter([1.0])] * 2), r"each parameter once"),
    (lambda: nn.SGD([{"params": [], "speed": 1}]), r"params must be given with lr, .*got speed"),
    (lambda: nn.SGD([nn.Parameter([1.0])], lr=-1), r"lr must be at least 0, got -1"),
    (lambda: nn.SGD([nn.Parameter([1.0])], nesterov=True), r"nesterov must be with a momentum"),
    (lambda: nn.Adam([nn.Parameter([1.0])], betas=(0.9, 1.0)), r"betas\[1\] must be below 1"),
    (lambda: nn.Adam([nn.Parameter([1.0])], betas=0.9), r"betas must be two numbers"),
    (lambda: nn.SGD([nn.Parameter([1.0])], lr=float("inf")), r"lr must be .* and finite, got inf"),
    (lambda: nn.SGD([nn.Parameter([1.0])], lr=10**400), r"lr must be at least 0 and finite"),
    (lambda: nn.SGD([nn.Parameter([1.0])], momentum=9), r"momentum must be at least 0 and at"),
    (lambda: nn.SGD([{"lr": 0.1}]), r"params must hold Parameters, or only dicts with 'params'"),
    (lambda: schedule("StepLR", 0), r"step_size must be between 1"),
    (lambda: nn.StepLR(3, 1), r"optimizer must be an Optimizer, got 3"),
    (lambda: schedule("OneCycleLR", 0.1), r"total_steps must be given, or epochs and"),
    (lambda: schedule("OneCycleLR", 0.1, 5, anneal_strategy="up"), r"anneal_strategy must be"),
    (lambda: schedule("OneCycleLR", 0.1, 5, max_momentum=1), r"max_momentum must be below 1"),
    (lambda: schedule("CosineAnnealingLR", 5, -1), r"eta_min must be at least 0, got -1"),
    (beyond_the_cycle, r"step must be called at most total_steps = 2 times"),
    (lambda: nn.clip_grad_norm_([], -1), r"max_norm must be at least 0"),
    (lambda: nn.init.kaiming_normal((3,)), r"shape must have at least 2 entries"),
    (lambda: nn.init.kaiming_normal((3, 3), mode="fan"), r"mode must be 'fan_in' or"),
    (lambda: nn.init.kaiming_normal((3, 3), nonlinearity="x"), r"nonlinearity must be one of"),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS)
def test_refusals_teach(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError), match=f"(?s){message}"):
        call()


@pytest.mark.parametrize("kind", [nn.Adam, lambda params: nn.SGD(params, momentum=0.9)])
@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a.astype(">f4"),
        lambda a: a.astype(float),
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a.tolist(),
    ],
)
def test_states_in_any_layout_go_on(kind: Any, change: Callable[[Array], Any]) -> None:
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal((6, 5)).astype(np.float32), rng.standard_normal((5, 6, 5))
    one, other = nn.Parameter(start), nn.Parameter(start)
    first, second = kind([one]), kind([other])
    for number, grad in enumerate(grads):
        one.grad, other.grad = np.asfortranarray(grad), grad.astype(np.float32)
        first.step()
        second.step()
        if number == 1:
            state = first.state_dict()
            for name, value in state["state"][0].items():
                if isinstance(value, np.ndarray):
                    state["state"][0][name] = change(value)
            first = kind([one])
            first.load_state_dict(state)
    np.testing.assert_array_equal(one.value, other.value)


def test_a_mean_of_which_nothing_is_kept_is_the_gradient() -> None:
    p = nn.Parameter(np.zeros(2, np.float32))
    optimizer = nn.Adam([p], lr=1, betas=(0.0, 0.0), eps=0)
    for grad in (1e8, 1.0):
        p.grad = np.full(2, grad, np.float32)
        optimizer.step()
    np.testing.assert_array_equal(p.value, [-2, -2])


def test_what_steps_cannot_use_is_refused() -> None:
    p = nn.Parameter(np.ones(3, np.float32))
    optimizer = nn.SGD([p], momentum=0.9)
    for wrong in ([1, 2, 3], np.ones(3) * 1j):
        p.grad = wrong  # type: ignore[assignment]
        with pytest.raises(TypeError, match="grad must be an array of real numbers"):
            optimizer.step()
    p.grad = np.ones(3)
    optimizer.step()
    optimizer.state[p]["momentum_buffer"] = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"momentum_buffer must have shape \(3,\), got \(2,\)"):
        optimizer.step()


def test_optimizers_refuse_states_of_others() -> None:
    model = small_net()
    optimizer = nn.SGD(model.parameters(), momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="state must be of parameters numbered"):
        nn.SGD(nn.Linear(2, 2).parameters()).load_state_dict(state)
    with pytest.raises(ValueError, match="state must have the settings lr, betas"):
        nn.Adam(model.parameters()).load_state_dict(state)
    state["state"][0] = {"momentum_buffer": np.zeros(3)}
    with pytest.raises(ValueError, match="momentum_buffer of parameter 0 must have shape"):
        optimizer.load_state_dict(state)
    assert not optimizer.state
    model[0].weight.grad = np.zeros(3)
    with pytest.raises(ValueError, match="grad must have its parameter's shape"):
        optimizer.step()
    optimizer.zero_grad()
    assert model[0].weight.grad is None
    assert "momentum: 0.9" in repr(optimizer)
