"""`conv2d_backward`: all gradients of a convolution, its ReLU and its bias at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
from cases import CONV_CASES, ConvCase
from checks import assert_identical, refused
from numpy.typing import DTypeLike
from reference import Array

import fastconv


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Let sums of whole numbers come out as they are."""
    with fastconv.at_precision("highest"):
        yield


def arrays(case: ConvCase, dtype: DTypeLike = float) -> tuple[Array, Array, Array]:
    """Return input, weights and gradient of a case, whole numbers."""
    rng = np.random.default_rng(0)
    shapes = case.input_shape, case.weight_shape, case.output_shape
    x, weight, grad = (rng.integers(-4, 5, shape).astype(dtype) for shape in shapes)
    return x, weight, grad


def assert_gradients(found: Any, case: ConvCase, x: Array, weight: Array, grad: Array) -> None:
    """Compare with the oracle."""
    wanted_x = reference.conv2d_input_grad(x.shape, weight, grad, *case.geometry)
    wanted_weight = reference.conv2d_weight_grad(x, weight.shape, grad, *case.geometry)
    assert_identical(found.input, wanted_x, x.dtype)
    assert_identical(found.weight, wanted_weight, x.dtype)
    assert_identical(found.bias, grad.sum(axis=(0, 2, 3), dtype=float), x.dtype)


@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
def test_gradients(case: ConvCase) -> None:
    x, weight, grad = arrays(case)
    assert_gradients(
        fastconv.conv2d_backward(x, weight, grad, *case.geometry), case, x, weight, grad
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
def test_behind_a_relu(case: ConvCase, dtype: DTypeLike) -> None:
    x, weight, grad = arrays(case, dtype)
    y = fastconv.conv2d(x, weight, None, *case.geometry, activation="relu")
    found = fastconv.conv2d_backward(x, weight, grad, *case.geometry, relu_output=y)
    passed = grad * (reference.conv2d(x, weight, None, *case.geometry) > 0)
    assert_gradients(found, case, x, weight, passed)


CASE = ConvCase("one", (2, 3, 9, 8), (4, 3, 3, 3), padding=1)


@pytest.mark.parametrize("need", [("bias",), ["weight"], {"input", "bias"}])
def test_only_what_is_needed(need: Any) -> None:
    x, weight, grad = arrays(CASE)
    everything = fastconv.conv2d_backward(x, weight, grad, padding=1)
    found = fastconv.conv2d_backward(x, weight, grad, padding=1, need=need)
    for name in ("input", "weight", "bias"):
        if name in need:
            np.testing.assert_array_equal(getattr(found, name), getattr(everything, name))
        else:
            assert getattr(found, name) is None


def test_arguments_stay_as_they_are() -> None:
    given = arrays(CASE)
    y = fastconv.conv2d(*given[:2], padding=1, activation="relu")
    before = [array.copy() for array in (*given, y)]
    fastconv.conv2d_backward(*given, padding=1, relu_output=y)
    for array, old in zip((*given, y), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_any_layout_and_type() -> None:
    x, weight, grad = arrays(CASE)
    wanted = fastconv.conv2d_backward(x, weight, grad, padding=1, relu_output=np.abs(grad))
    swapped = [a.transpose(3, 1, 2, 0).copy().transpose(3, 1, 2, 0) for a in (x, weight, grad)]
    big_endian = [a.astype(">f8") for a in swapped]
    for arguments in (swapped, big_endian, [a.tolist() for a in (x, weight, grad)]):
        output = np.abs(np.asarray(arguments[2]))
        found = fastconv.conv2d_backward(*arguments, padding=1, relu_output=output)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    halves = fastconv.conv2d_backward(*(a.astype(np.float16) for a in (x, weight, grad)), padding=1)
    assert {array.dtype.name for array in halves if array is not None} == {"float16"}


def test_nan_passes_a_relu() -> None:
    x, weight, grad = arrays(CASE)
    y = np.zeros_like(grad)
    y[0, 0, 0, 0] = np.nan  # as after the ReLU of NaN
    grad[0, 1, 0, 0] = np.nan  # where nothing passes
    bias = fastconv.conv2d_backward(x, weight, grad, padding=1, need=["bias"], relu_output=y).bias
    np.testing.assert_array_equal(bias, [grad[0, 0, 0, 0], 0, 0, 0])


def test_outputs_too_small_for_the_type_of_the_gradient_pass() -> None:
    x, weight, grad = arrays(CASE, np.float32)
    y = np.full(grad.shape, 1e-60)
    bias = fastconv.conv2d_backward(x, weight, grad, padding=1, need=["bias"], relu_output=y).bias
    np.testing.assert_array_equal(bias, grad.sum(axis=(0, 2, 3)))


@pytest.mark.parametrize("shape", [(2, 3, 300, 301), (1, 1, 1, 1), (3, 2, 1, 5000)])
def test_sums_of_long_channels(shape: tuple[int, ...]) -> None:
    grad = np.random.default_rng(0).random(shape, np.float32)
    x, weight = np.zeros((shape[0], 1, *shape[2:])), np.zeros((shape[1], 1, 1, 1))
    found = fastconv.conv2d_backward(x, weight, grad, need=["bias"]).bias
    np.testing.assert_allclose(found, grad.sum(axis=(0, 2, 3), dtype=float), rtol=1e-6)


def test_refusals() -> None:
    x, weight, grad = arrays(CASE)
    with refused("need", "gamma"):
        fastconv.conv2d_backward(x, weight, grad, padding=1, need=["weight", "gamma"])
    with refused("need", "array"):
        fastconv.conv2d_backward(x, weight, grad, padding=1, need=[np.array(["bias", "input"])])
    with refused("need", "bias"):
        fastconv.conv2d_backward(x, weight, grad, padding=1, need="bias")
    for nothing in ([], (), set()):
        with pytest.raises(ValueError, match="need must name at least one of 'input', 'weight'"):
            fastconv.conv2d_backward(x, weight, grad, padding=1, need=nothing)
    with refused("grad_output", grad.shape):
        fastconv.conv2d_backward(x, weight, grad)
    with refused("relu_output", (1, 4, 9, 8)):
        fastconv.conv2d_backward(x, weight, grad, padding=1, relu_output=grad[:1])
    with refused("relu_output", "complex128"):
        fastconv.conv2d_backward(x, weight, grad, padding=1, relu_output=grad + 1j)
    with pytest.raises(ValueError, match="algorithm must be one of"):
        fastconv.conv2d_backward(x, weight, grad, padding=1, algorithm="quick")
