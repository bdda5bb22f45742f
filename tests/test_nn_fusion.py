"""Evaluation, fused: the same numbers as layer by layer, and only what fuses is fused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from nn_cases import assert_fused_right, images, scrambled, small_net
from reference import Array

from fastconv import nn


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network(dtype: str) -> None:
    model = scrambled(small_net(), dtype)
    assert_fused_right(model, images(dtype=dtype))
    assert_fused_right(model, images((1, 3, 9, 9), dtype))
    assert_fused_right(model, images((0, 3, 9, 9), dtype))


ACTIVATIONS: list[Callable[[], list[nn.Module]]] = [
    list,
    lambda: [nn.ReLU()],
    lambda: [nn.LeakyReLU(0.2)],
    lambda: [nn.SiLU()],
    lambda: [nn.ReLU(), nn.SiLU()],
    lambda: [nn.Identity(), nn.ReLU6()],
    lambda: [nn.Hardtanh(-0.5, 0.1)],
    lambda: [nn.Hardswish()],
]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("affine", [None, True, False])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_norm_activation(
    bias: bool, affine: bool | None, activation: Callable[[], list[nn.Module]]
) -> None:
    norm = [] if affine is None else [nn.BatchNorm2d(4, affine=affine)]
    for conv in (
        nn.Conv2d(3, 4, 3, bias=bias),
        nn.Conv2d(3, 4, (3, 2), (2, 1), "valid", (1, 2), bias=bias),
        nn.DepthwiseSeparableConv2d(3, 4, 3, padding=1, bias=bias),
    ):
        assert_fused_right(scrambled(nn.Sequential(conv, *norm, *activation())), images())


class Doubled(nn.Module):
    """A layer of a user's own."""

    def forward(self, x: Any) -> Array:
        """Return twice the input."""
        return np.asarray(2 * x)


BODIES: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(),
    lambda: nn.Conv2d(3, 3, 3, padding=1),
    lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)),
    lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()),
    lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 1, 1)),
    lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(), nn.Conv2d(3, 3, 1))),
    lambda: nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Residual(nn.Conv2d(3, 3, 1)))),
    lambda: nn.Sequential(nn.Residual(nn.Conv2d(3, 3, 1)), nn.SiLU()),
    Doubled,
]


@pytest.mark.parametrize("after", ACTIVATIONS)
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_residual(
    body: Callable[[], nn.Module], shortcut: bool, after: Callable[[], list[nn.Module]]
) -> None:
    around = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) if shortcut else None
    block = nn.Residual(body(), around)
    assert_fused_right(scrambled(block), images())
    assert_fused_right(scrambled(nn.Sequential(block, *after())), images())


def test_as_pytorch_evaluates() -> None:
    torch = pytest.importorskip("torch")

    class Residual(torch.nn.Module):
        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.shortcut(x)

    def convert(layer: nn.Module) -> Any:
        name = type(layer).__name__
        if isinstance(layer, nn.Residual):
            assert layer.shortcut is not None
            return Residual(convert(layer.body), convert(layer.shortcut))
        if isinstance(layer, nn.Sequential):
            return torch.nn.Sequential(*map(convert, layer))
        if isinstance(layer, nn.DepthwiseSeparableConv2d):
            parts = {"depthwise": layer.depthwise, "pointwise": layer.pointwise}
            built = torch.nn.Sequential()
            for part, conv in parts.items():
                built.add_module(part, convert(conv))
            return built
        call = repr(layer).replace(name, f"torch.nn.{name}", 1)
        return eval(call, {"torch": torch})

    model = scrambled(small_net())
    theirs = convert(model)
    state = {name: torch.from_numpy(value) for name, value in model.state_dict().items()}
    theirs.load_state_dict(state)
    wanted = theirs.eval()(torch.from_numpy(images())).detach().numpy()
    np.testing.assert_allclose(model.eval()(images()), wanted, rtol=1e-5, atol=1e-5)


def test_nothing_but_plans_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_net().eval()

    def refuse(*_: Any) -> None:
        raise AssertionError("a layer that should be fused ran by itself")

    for name in ("Conv2d", "BatchNorm2d", "ReLU", "LeakyReLU", "SiLU", "Residual", "Dropout"):
        kind = getattr(nn, name)
        # The class where forward is defined, so that the layers still are what they were.
        owner = next(c for c in kind.__mro__ if "forward" in vars(c))
        monkeypatch.setattr(owner, "forward", refuse)
    model(images())


@pytest.mark.parametrize("kind", [nn.ReLU6, nn.Hardtanh, nn.Hardswish])
def test_activations_of_mobile_networks_run_in_plans(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity(), kind(), nn.Dropout2d())
    model = nn.Sequential(body, nn.Residual(nn.Conv2d(3, 3, 1)), kind()).eval()

    def refuse(*_: Any) -> None:
        raise AssertionError("an activation that should be fused ran by itself")

    monkeypatch.setattr(kind, "_activate", refuse)
    model(images())


def test_plans_are_kept_for_a_few_shapes() -> None:
    model = small_net().eval()
    model(images())
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    first = list(conv.plans.values())
    model(images())
    assert list(conv.plans.values()) == first
    for n in range(1, 9):
        model(images((n, 3, 8, 8)))
    assert len(conv.plans) == 4
    model.train()
    assert not conv.plans


def test_several_threads_at_once() -> None:
    model = scrambled(small_net()).eval()
    batches = [images((n, 3, 8, 8)) for n in range(1, 9)]
    wanted = [model(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for y, right in zip(pool.map(model, batches), wanted, strict=True):
                np.testing.assert_array_equal(y, right)


# Poolings --------------------------------------------------------------------------------


def pooled_plans(model: nn.Module) -> list[Any]:
    """Return whether the plans that a model has made take maxima."""
    convs = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return [plan.max_pool for conv in convs for _, plan in conv.plans.values()]


@pytest.mark.parametrize("between", [(), (nn.BatchNorm2d(5),), (nn.BatchNorm2d(5), nn.SiLU())])
def test_maxima_of_squares_are_taken_into_the_plan(between: tuple[nn.Module, ...]) -> None:
    def build(ceil_mode: bool) -> nn.Module:
        pool = nn.MaxPool2d((2, 2), 2, ceil_mode=ceil_mode)
        conv = nn.Conv2d(3, 5, 3, padding=1, rng=0)
        return scrambled(nn.Sequential(conv, *copy.deepcopy(between), pool, nn.ReLU())).eval()

    fused, other = build(False), build(True)  # alike where sizes are even
    x = images((2, 3, 12, 34))
    np.testing.assert_array_equal(fused(x), other(x))
    assert pooled_plans(fused) == [2]
    assert pooled_plans(other) == [None]
    assert_fused_right(fused, images((2, 3, 9, 7)))


@pytest.mark.parametrize(
    "pool",
    [
        *(nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, 2, 1), nn.MaxPool2d((2, 1))),
        *(nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)),
    ],
    ids=repr,
)
def test_other_poolings_are_not(pool: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), copy.deepcopy(pool)).eval()
    assert_fused_right(model, images())
    assert 2 not in pooled_plans(model)


def test_a_pooling_at_the_end_of_a_block() -> None:
    """What is added to a block is added to the maxima."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    around = nn.Conv2d(3, 4, 1, stride=2)
    model = scrambled(nn.Sequential(nn.Residual(body, around), nn.ReLU(), nn.MaxPool2d(2)))
    assert_fused_right(model, images((2, 3, 8, 12)))
    assert pooled_plans(body) == [2]


def test_a_pooling_that_changes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)).eval()
    x, pool = images((1, 3, 12, 12)), model[1]
    assert isinstance(pool, nn.MaxPool2d)
    assert model(x).shape[2:] == (6, 6)
    pool.stride = 1
    assert model(x).shape[2:] == (11, 11)
    pool.stride = 2
    assert model(x).shape[2:] == (6, 6)


def test_an_output_too_small_to_pool() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)).eval()
    with pytest.raises(ValueError, match="at least 2 x 2 pixels, got 1 x 6"):
        model(images((1, 3, 3, 8)))


# Mixed modes -----------------------------------------------------------------------------


def test_a_layer_in_training_is_not_fused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    model[1].train()
    y = model(images())
    np.testing.assert_array_equal(model[1].num_batches_tracked, 1)
    conv = model[0](images())
    wanted = np.maximum(
        (conv - conv.mean((0, 2, 3), keepdims=True)) / conv.std((0, 2, 3), keepdims=True), 0
    )
    np.testing.assert_allclose(y, wanted, atol=1e-4)


def test_fine_tuning_with_frozen_statistics() -> None:
    model = small_net()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval(keep=True)
    before = [b.copy() for b in model.buffers()]
    y = model(images())
    model.backward(np.ones_like(y))
    for buffer, old in zip(model.buffers(), before, strict=True):
        np.testing.assert_array_equal(buffer, old)


def test_a_layer_of_ones_own_is_not_fused() -> None:
    class Shifted(nn.ReLU):
        def forward(self, x: Any) -> Array:
            return super().forward(x) + 1

    assert_fused_right(scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), Shifted())), images())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Shifted())
    assert model(images()).min() >= 1
    assert model.eval()(images()).min() >= 1


def test_a_layer_called_in_a_way_of_its_own_is_not_fused() -> None:
    class Shifted(nn.ReLU):
        def __call__(self, x: Any) -> Array:
            return super().__call__(x) + 1

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Shifted())
    assert model(images()).min() >= 1
    assert model.eval()(images()).min() >= 1


def test_results_are_nobody_elses() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 5)).eval()
    first, second = images((1, 3, 12, 10)), 2 * images((1, 3, 12, 10))
    y = model(first)
    kept = y.copy()
    model(second)
    np.testing.assert_array_equal(y, kept)


def test_what_has_run_can_be_copied() -> None:
    model = scrambled(small_net()).eval()
    y = model(images())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(images()), y)
        twin[0].weight.data[...] = 0
        assert np.any(twin(images()) != y)
    np.testing.assert_array_equal(model(images()), y)


def test_evaluation_keeps_nothing() -> None:
    model = small_net()
    model(images())
    model.eval()
    model(images())
    assert all(module._kept is None for module in model.modules())
    with pytest.raises(RuntimeError, match=r"Linear\.backward needs a forward.*eval\(keep=True\)"):
        model.backward(np.zeros((2, 5)))
