"""One image without the batch axis: the bits of a batch of one, and no axis in the result."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from cases import CONV_CASES, ConvCase, make_inputs
from checks import assert_identical, refused
from hypothesis import given
from hypothesis import strategies as st
from reference import Array

import fastconv
from fastconv import nn

# The first image of each case; a batch of none has none.
SINGLE = [case for case in CONV_CASES if case.input_shape[0]]
EVERY = pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@EVERY
def test_convolution_and_its_gradients(case: ConvCase, dtype: Any) -> None:
    x, weight, bias, grad = make_inputs(case, dtype)
    x, grad = x[:1], grad[:1]
    geometry = case.geometry
    y = fastconv.conv2d(x, weight, bias, *geometry, activation="relu")
    one = fastconv.conv2d(x[0], weight, bias, *geometry, activation="relu")
    assert_identical(one, y[0], dtype)
    dx = fastconv.conv2d_input_grad(x.shape, weight, grad, *geometry)
    one = fastconv.conv2d_input_grad(x[0].shape, weight, grad[0], *geometry)
    assert_identical(one, dx[0], dtype)
    dw = fastconv.conv2d_weight_grad(x, weight.shape, grad, *geometry)
    one = fastconv.conv2d_weight_grad(x[0], weight.shape, grad[0], *geometry)
    assert_identical(one, dw, dtype)
    every = fastconv.conv2d_backward(x, weight, grad, *geometry, relu_output=y)
    found = fastconv.conv2d_backward(x[0], weight, grad[0], *geometry, relu_output=y[0])
    assert every.input is not None
    for actual, wanted in zip(found, every._replace(input=every.input[0]), strict=True):
        assert actual is not None
        assert wanted is not None
        assert_identical(actual, wanted, dtype)


@pytest.mark.parametrize("max_pool", [None, 2])
@EVERY
def test_plans(case: ConvCase, max_pool: int | None) -> None:
    x, weight, bias, residual = make_inputs(case)
    if max_pool and min(case.output_shape[2:]) < 2:
        return
    options: Any = {"activation": "silu", "max_pool": max_pool}
    plan = fastconv.plan_conv2d((1, *x.shape[1:]), weight, bias, *case.geometry, **options)
    one = fastconv.plan_conv2d(x.shape[1:], weight, bias, *case.geometry, **options)
    assert one.algorithm == plan.algorithm
    assert one.output_shape == plan.output_shape[1:]
    wanted = plan(x[:1], residual=residual[:1])[0]
    assert_identical(one(x[0], residual=residual[0]), wanted, np.float32)
    out = np.empty(one.output_shape, np.float32)
    assert one(x[0], out) is out
    assert_identical(out, plan(x[:1])[0], np.float32)
    assert_identical(pickle.loads(pickle.dumps(one))(x[0]), out, np.float32)


@EVERY
def test_columns_and_windows(case: ConvCase) -> None:
    x, size = make_inputs(case).x[:1], case.input_shape[2:]
    rule = case.weight_shape[2:], case.dilation, case.padding, case.stride
    cols = fastconv.im2col(x, *rule)
    assert_identical(fastconv.im2col(x[0], *rule), cols[0], np.float32)
    back = fastconv.col2im(cols, size, *rule)
    assert_identical(fastconv.col2im(cols[0], size, *rule), back[0], np.float32)
    windows = fastconv.sliding_windows(x[0], 1, stride=case.stride)
    assert_identical(windows, fastconv.sliding_windows(x, 1, stride=case.stride)[0], np.float32)
    assert np.shares_memory(windows, x)
    assert not windows.flags.writeable


@given(st.data())
def test_transposed_convolution(data: st.DataObject) -> None:
    c, k, h, w, r, s = (data.draw(st.integers(1, 4)) for _ in range(6))
    stride = data.draw(st.integers(1, 3))
    extra = data.draw(st.integers(0, stride - 1))
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, c, h, w)), rng.standard_normal((c, k, r, s))
    rule = rng.standard_normal(k), stride, 0, extra
    y = fastconv.conv_transpose2d(x, weight, *rule)
    assert_identical(fastconv.conv_transpose2d(x[0], weight, *rule), y[0], np.float64)
    whole = fastconv.conv_transpose2d(x, weight, output_size=y.shape, stride=stride)
    one = fastconv.conv_transpose2d(x[0], weight, output_size=y.shape[1:], stride=stride)
    assert_identical(one, whole[0], np.float64)


# Layers -----------------------------------------------------------------------------------------


def layers() -> list[nn.Module]:
    return [
        nn.Conv2d(3, 4, 3, padding=1, rng=0),
        nn.Conv2d(3, 4, 3, 2, "same", padding_mode="reflect", rng=0),
        nn.ConvTranspose2d(3, 4, 3, 2, rng=0),
        nn.Sequential(nn.Conv2d(3, 4, 3, rng=0), nn.ReLU(), nn.Conv2d(4, 2, 1, rng=1)),
        nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 3, padding="same", rng=0), nn.ReLU())),
        nn.Residual(nn.Conv2d(3, 3, 1, rng=0), nn.Conv2d(3, 3, 1, rng=1)),
    ]


@pytest.mark.parametrize("number", range(len(layers())))
def test_layers(number: int) -> None:
    layer, other = layers()[number], layers()[number]
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 3, 6, 7)).astype(np.float32)
    y = layer(x)
    grad = rng.standard_normal(y.shape).astype(np.float32)
    assert_identical(other(x[0]), y[0], np.float32)
    dx = layer.backward(grad)
    one = other.backward(grad[0])
    assert dx is not None
    assert one is not None
    assert_identical(one, dx[0], np.float32)
    for mine, wanted in zip(other.parameters(), layer.parameters(), strict=True):
        np.testing.assert_array_equal(mine.grad, wanted.grad)
    for _ in range(2):  # fused
        assert_identical(other.eval()(x[0]), layer.eval()(x)[0], np.float32)
    assert layer.summary((3, 6, 7)).flops == layer.summary((1, 3, 6, 7)).flops > 0


def test_normalization_wants_a_batch_fused_or_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    x = np.zeros((3, 6, 6), np.float32)
    for mode in (model.train, lambda: model.eval(keep=True), model.eval):
        mode()
        with refused("x", (4, 4, 4)):
            model(x)


# Refusals ---------------------------------------------------------------------------------------

IMAGE, BATCH = np.zeros((2, 5, 6)), np.zeros((1, 2, 5, 6))
WEIGHT, GRAD = np.zeros((3, 2, 2, 2)), np.zeros((3, 4, 5))


@pytest.mark.parametrize("x", [IMAGE, BATCH], ids=["image", "batch"])
def test_all_or_none_have_a_batch_axis(x: Array) -> None:
    other = GRAD[np.newaxis] if x.ndim == 3 else GRAD
    with pytest.raises(ValueError, match=r"batch axis.*input_shape with.*grad_output with"):
        fastconv.conv2d_input_grad(x.shape, WEIGHT, other)
    with pytest.raises(ValueError, match=r"batch axis.*x with.*grad_output with"):
        fastconv.conv2d_weight_grad(x, WEIGHT.shape, other)
    with pytest.raises(ValueError, match=r"batch axis.*x with.*grad_output with"):
        fastconv.conv2d_backward(x, WEIGHT, other)
    same = other[0] if x.ndim == 3 else other[np.newaxis]
    with pytest.raises(ValueError, match=r"batch axis.*x with.*relu_output with"):
        fastconv.conv2d_backward(x, WEIGHT, same, relu_output=other)
    plan = fastconv.plan_conv2d(x.shape, WEIGHT)
    with refused("x", (IMAGE if x.ndim == 4 else BATCH).shape):
        plan(IMAGE if x.ndim == 4 else BATCH)
    with refused("residual", other.shape):
        plan(x, residual=other)
    with refused("out", other.shape):
        plan(x, other)


def test_messages_speak_of_the_image_that_was_given() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(3, 4, 5\) .*, got \(3, 4, 4\)"):
        fastconv.conv2d_input_grad(IMAGE.shape, WEIGHT, GRAD[:, :, 1:])
    with pytest.raises(ValueError, match=r"x must have 4 dimensions, .* or 3 for one image"):
        fastconv.conv2d(IMAGE[0], WEIGHT)
    with pytest.raises(ValueError, match=r"cols must have 3 dimensions, .* or 2 for one image"):
        fastconv.col2im(np.zeros(4), (2, 2), 1)
