"""Evaluation, fused, never uses parameters, statistics or layers of before a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_cases import assert_fused_right, images, scramble, small_net

from fastconv import nn


def by_step(model: Any) -> None:
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = np.ones(p.shape, p.dtype)
    optimizer.step()


def by_state(model: Any) -> None:
    model.load_state_dict({k: v + np.ones_like(v) for k, v in model.state_dict().items()})


def by_item(model: Any) -> None:
    model[0].weight.data[0, 0, 0, 0] += 3


def by_augmented(model: Any) -> None:
    model[0].weight.data *= 2


def by_assignment(model: Any) -> None:
    model[0].weight.data = 2 * model[0].weight.value


def by_bias(model: Any) -> None:
    model[0].bias.data[:] += 5


def by_another_parameter(model: Any) -> None:
    model[0].weight = nn.Parameter(2 * model[0].weight.value)


def by_statistics(model: Any) -> None:
    model[1].running_mean += 1


def by_a_view_of_statistics(model: Any) -> None:
    model[1].running_var[1:] *= 4


def by_norm_weight(model: Any) -> None:
    model[1].weight.data[0] += 9


def by_eps(model: Any) -> None:
    model[1].eps = 0.5


def by_slope(model: Any) -> None:
    model[2].negative_slope = 0.7


def by_stride(model: Any) -> None:
    model[0].padding = (0, 0)


def by_training(model: Any) -> None:
    model.train()(images())
    model.eval()


def by_refresh(model: Any) -> None:
    weight = model[0].weight.data
    model.refresh()
    weight += 1


CHANGES = [
    *(by_step, by_state, by_item, by_augmented, by_assignment, by_bias, by_another_parameter),
    *(by_statistics, by_a_view_of_statistics, by_norm_weight, by_eps, by_slope, by_stride),
    *(by_training, by_refresh),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change: Callable[[Any], None]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.1))
    scramble(model, np.random.default_rng(3))
    model.eval()
    for _ in range(2):
        before = model(images())
        change(model)
        after = model(images())
        assert after.shape != before.shape or np.any(after != before)
        assert_fused_right(model, images())
        if change in (by_another_parameter, by_stride, by_eps, by_slope):
            break


def test_changes_of_the_type_are_noticed() -> None:
    model = small_net().eval()
    y = model(images())
    np.testing.assert_allclose(model.astype("float64")(images(dtype=float)), y, rtol=1e-4)
    with pytest.raises(TypeError, match=r"x\.astype\('float64'\).*model\.astype\('float32'\)"):
        model(images())


def test_an_array_held_from_before_cannot_be_written_to() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    held = model[0].weight.data
    held[...] = 1
    y = model(images())
    with pytest.raises(ValueError, match="read-only"):
        held[...] = 2
    np.testing.assert_array_equal(model(images()), y)
    model[0].weight.data[...] = 2
    assert np.any(model(images()) != y)
    model.train()
    held[...] = 1
    np.testing.assert_allclose(model.eval()(images()), y)


def test_a_view_held_from_before_needs_a_refresh() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    view = model[0].weight.data[0]
    model(images())
    view[...] = 7
    model.refresh()
    assert_fused_right(model, images())


def test_reading_a_value_makes_no_new_plan() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    model(images())
    plans = list(model[0].plans.values())
    model.state_dict()
    assert model[0].weight.value.flags.writeable is False
    model(images())
    assert list(model[0].plans.values()) == plans


# Layers ---------------------------------------------------------------------------------


def hooked(model: Any) -> None:
    forward = model[3].forward
    model[3].forward = lambda x: forward(x) + 1


def inner_training(model: Any) -> None:
    model[4][1].train()


def inner_layer(model: Any) -> None:
    model[4].append(nn.LeakyReLU(-1.0))


def longer(model: Any) -> None:
    model.append(nn.LeakyReLU(-1.0))


def another_slope(model: Any) -> None:
    model[6].negative_slope = -2.0


def another_pooling(model: Any) -> None:
    model[2].kernel_size = model[2].stride = 3


def another_weight(model: Any) -> None:
    model[9].weight.data[0] += 1


@pytest.mark.parametrize(
    "change",
    [hooked, inner_training, inner_layer, longer, another_slope, another_pooling, another_weight],
)
def test_steps_known_from_before_are_those_of_now(change: Callable[[Any], None]) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv2d(3, 4, 3, rng=0), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, rng=1), nn.BatchNorm2d(4)),
            *(nn.Conv2d(4, 4, 1, rng=2), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(16, 3, rng=3)),
        )

    model, other = build().eval(), build().eval()
    x = images()
    before = model(x)
    change(model)
    change(other)  # which has never run
    actual, wanted = model(x), other(x)
    assert np.any(actual != before)
    np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(model(x), other(x))
