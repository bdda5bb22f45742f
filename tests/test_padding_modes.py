"""Padding by an image's own pixels: against NumPy, as a step with an adjoint, and in layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_identical, refused
from hypothesis import given
from hypothesis import strategies as st
from reference import Array

from fastconv import nn

MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
EVERY = pytest.mark.parametrize("mode", MODES)


def numpy_padded(x: Array, margins: Any, mode: str) -> Array:
    """Pad images (..., H, W) as NumPy does."""
    around = [(0, 0)] * (x.ndim - 2) + list(margins)
    return np.pad(x, around, mode=MODES[mode])  # type: ignore[call-overload,no-any-return]


def identity(margins: Any, mode: str) -> nn.Conv2d:
    """Return a layer that pads and changes nothing else."""
    layer = nn.Conv2d(1, 1, 1, padding=margins, padding_mode=mode, bias=False).astype("float64")
    layer.weight.data[...] = 1
    return layer


@given(st.data())
@EVERY
def test_padding_and_its_adjoint(mode: str, data: st.DataObject) -> None:
    """<pad(x), g> = <x, adjoint(g)>, exactly, because all of it is integers."""
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    most = [{"reflect": n - 1, "circular": n, "replicate": 9}[mode] for n in size]
    margins = tuple((data.draw(st.integers(0, m)), data.draw(st.integers(0, m))) for m in most)
    leading = data.draw(st.sampled_from([(2, 1), (1, 1), (1,), (0, 1)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.integers(-9, 10, (*leading, *size)).astype(float)
    layer = identity(margins, mode)
    y = layer(x)
    assert_identical(y, numpy_padded(x, margins, mode), np.float64)
    grad = rng.integers(-9, 10, y.shape).astype(float)
    before = grad.copy()
    back = layer.backward(grad)
    assert back is not None
    assert back.shape == x.shape
    assert np.vdot(y, grad) == np.vdot(x, back)
    np.testing.assert_array_equal(grad, before)


@EVERY
@pytest.mark.parametrize("padding", ["same", "same_lower", ((2, 0), (1, 3)), (2,), 1])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_layers_against_the_oracle(mode: str, padding: Any, stride: Any) -> None:
    rng = np.random.default_rng(1)
    layer = nn.Conv2d(2, 4, (3, 4), stride, padding, (1, 2), 2, padding_mode=mode)
    state = {k: rng.integers(-3, 4, v.shape) for k, v in layer.state_dict().items()}
    layer.astype("float64").load_state_dict({k: v.astype(float) for k, v in state.items()})
    x = rng.integers(-4, 5, (2, 2, 7, 9)).astype(float)
    y = layer(x)
    given = (padding[0], padding[0]) if padding == (2,) else padding
    margins = reference.resolve_padding(given, (7, 9), (3, 4), reference.pair(stride), (1, 2))
    padded, geometry = numpy_padded(x, margins, mode), (stride, 0, (1, 2), 2)
    weight = state["weight"]
    assert_identical(y, reference.conv2d(padded, weight, state["bias"], *geometry), np.float64)
    grad = rng.integers(-4, 5, y.shape).astype(float)
    back = layer.backward(grad)
    wanted = reference.conv2d_weight_grad(padded, weight.shape, grad, *geometry)
    np.testing.assert_array_equal(layer.weight.grad, wanted)
    # What the copies of a pixel receive is summed, one copy at a time.
    spread = reference.conv2d_input_grad(padded.shape, weight, grad, *geometry)
    places = numpy_padded(np.arange(63).reshape(7, 9), margins, mode)
    summed = np.zeros((2, 2, 63))
    for place, values in zip(
        places.ravel(), spread.reshape(2, 2, -1).transpose(2, 0, 1), strict=True
    ):
        summed[..., place] += values
    assert_identical(back, summed.reshape(x.shape), np.float64)


@EVERY
@pytest.mark.parametrize("shape", [(2, 3, 12, 10), (1, 3, 9, 9), (0, 3, 9, 9), (3, 9, 8)])
@pytest.mark.parametrize("after", ["nothing", "norm", "all", "pool", "relu"])
def test_what_follows_is_fused_all_the_same(mode: str, shape: tuple[int, ...], after: str) -> None:
    following: dict[str, list[nn.Module]] = {
        "nothing": [],
        "norm": [nn.BatchNorm2d(4)],
        "all": [nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2)],
        "pool": [nn.MaxPool2d(2)],
        "relu": [nn.ReLU()],
    }
    if len(shape) == 3 and after in ("norm", "all", "pool"):
        return
    rng = np.random.default_rng(2)
    conv = nn.Conv2d(3, 4, 3, padding=2, padding_mode=mode, rng=rng)
    model = nn.Sequential(nn.Conv2d(3, 3, 1, rng=rng), conv, *following[after])
    x = rng.standard_normal(shape).astype(np.float32)
    wanted = model.eval(keep=True)(x)
    for _ in range(2):
        scale = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(model.eval()(x), wanted, rtol=0, atol=2e-6 * scale)
    assert list(conv.plans)


@EVERY
def test_training_with_a_rectifier_is_fused_right(mode: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 6, 5))
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode, rng=0).astype("float64")
    model = nn.Sequential(conv, nn.ReLU())
    y = model(x)
    grad = rng.standard_normal(y.shape)
    back, gradients = model.backward(grad), [p.grad for p in model.parameters()]
    model.zero_grad()
    alone = conv(x)
    np.testing.assert_array_equal(y, np.maximum(alone, 0))
    assert_identical(back, conv.backward(grad * (alone > 0)), np.float64)
    for p, wanted in zip(model.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(p.grad, wanted)


def test_a_mode_that_changes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False, rng=0)).eval()
    x, conv = np.random.default_rng(4).random((1, 1, 5, 5), np.float32), model[0]
    seen = []
    for mode in ("zeros", *MODES):
        conv.padding_mode = mode
        seen.append(model(x))
        np.testing.assert_allclose(seen[-1], conv(x), atol=1e-6)
    assert all(np.any(a != b) for i, a in enumerate(seen) for b in seen[:i])
    conv.padding_mode = "mirror"
    for run in (model, conv):
        with refused("padding_mode", "'mirror'"):
            run(x)


@pytest.mark.parametrize("value", ["mirror", "ZEROS", "", None, 0, ["zeros"]], ids=repr)
def test_unknown_modes_are_refused(value: Any) -> None:
    for layer in (nn.Conv2d, nn.ConvTranspose2d):
        with refused("padding_mode", repr(value)):
            layer(1, 1, 3, padding_mode=value)
    with pytest.raises(ValueError, match="'zeros', 'reflect', 'replicate', 'circular'"):
        nn.Conv2d(1, 1, 3, padding_mode=value)


@EVERY
def test_transposed_convolution_knows_zeros_only(mode: str) -> None:
    assert nn.ConvTranspose2d(1, 1, 3, padding_mode="zeros").padding_mode == "zeros"
    with refused("padding_mode", repr(mode)):
        nn.ConvTranspose2d(1, 1, 3, padding_mode=mode)


@pytest.mark.parametrize(
    ("mode", "padding", "largest"),
    [
        ("reflect", 3, 2),
        ("reflect", ((0, 0), (0, 5)), 4),
        ("circular", 4, 3),
        ("circular", ((0, 0), (6, 0)), 5),
    ],
)
def test_images_too_small_for_their_padding(mode: str, padding: Any, largest: int) -> None:
    layer = nn.Conv2d(1, 1, 3, padding=padding, padding_mode=mode)
    with refused("padding", largest):
        layer(np.zeros((1, 1, 3, 5), np.float32))


@pytest.mark.parametrize("mode", ["zeros", *MODES])
def test_images_without_pixels(mode: str) -> None:
    # There is nothing to copy: what comes out must not be memory that nobody wrote to.
    for padding in (0, 1, 3):
        layer = nn.Conv2d(1, 1, 1, padding=padding, padding_mode=mode)
        for axis, shape in (("H", (1, 1, 0, 4)), ("W", (1, 1, 4, 0)), ("W", (1, 4, 0))):
            with pytest.raises(ValueError, match=rf"^x must have .*{axis}\b.* of at least 1, got"):
                layer(np.zeros(shape, np.float32))


def test_padding_too_large_to_compute() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=2**30, padding_mode="replicate")
    with refused("padding", 2**30):
        layer(np.zeros((1, 1, 3, 3), np.float32))
