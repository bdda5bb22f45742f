"""Plans with activations and residuals: what they compute, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from cases import ConvCase, make_inputs, make_integer_inputs
from checks import LESS_EXACT, assert_identical, refused, same_integers
from numpy.typing import DTypeLike
from reference import Array
from test_plans import fitting, make_plan

import fastconv

# As PyTorch defines them.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda y: np.where(y < 0, 0, y),
    "relu6": lambda y: np.where(y < 0, 0, np.where(y > 6, 6, y)),
    "leaky_relu": lambda y: np.where(y < 0, 0.01 * y, y),
    "silu": lambda y: y / (1 + np.exp(-y)),
    "hard_swish": lambda y: y * np.clip(y + 3, 0, 6) / 6,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("algorithm", ["auto", *fastconv.algorithms()])
def test_activations(algorithm: str, activation: str, dtype: DTypeLike) -> None:
    case = fitting(algorithm, ConvCase("plain", (2, 3, 7, 9), (5, 3, 3, 3), padding=1))
    data = make_inputs(case, dtype)
    arguments = case.input_shape, data.weight, data.bias, *case.geometry
    try:
        plan = fastconv.plan_conv2d(*arguments, activation=activation, algorithm=algorithm)
        plain = fastconv.plan_conv2d(*arguments, algorithm=algorithm)
    except ValueError as error:
        refusal = str(error)
        assert algorithm in refusal
        return
    y = plain(data.x)
    assert y.min() < -6
    assert y.max() > 6
    expected = ACTIVATIONS[activation](y.astype(np.float64))
    actual = plan(data.x)
    assert actual.dtype == dtype
    # A handful of roundings, and an exponential that is good to a few more.
    np.testing.assert_allclose(actual, expected, rtol=16 * np.finfo(dtype).eps, atol=1e-30)
    x = data.x.copy()
    x[0, :, 3, 4] = np.nan
    np.testing.assert_array_equal(np.isnan(plan(x)), np.isnan(plain(x)))


def test_activations_at_infinity() -> None:
    x = np.array([[[[np.inf, -np.inf, 1e30, -1e30, 0.0]]]], np.float32)
    limits = {
        "relu": [np.inf, 0, 1e30, 0, 0],
        "relu6": [6, 0, 6, 0, 0],
        "leaky_relu": [np.inf, -np.inf, 1e30, -1e28, 0],
    }
    for activation, expected in limits.items():
        plan = fastconv.plan_conv2d(
            x.shape, np.ones((1, 1, 1, 1), np.float32), activation=activation
        )
        np.testing.assert_allclose(plan(x), np.array([[[expected]]]), rtol=1e-6)
    # Far from zero the exponential overflows: no warning, and the limits of the function.
    for activation in ("silu", "hard_swish"):
        plan = fastconv.plan_conv2d(
            x.shape, np.ones((1, 1, 1, 1), np.float32), activation=activation
        )
        result = plan(np.where(np.isinf(x), 0, x))
        np.testing.assert_allclose(result, [[[[0, 0, 1e30, 0, 0]]]], rtol=1e-6)


# An activation as it is passed, its meaning, and whether integers stay exact.
WITH_NUMBERS: tuple[tuple[Any, Callable[[Array], Array], bool], ...] = (
    (None, lambda y: y, True),
    ("relu", ACTIVATIONS["relu"], True),
    ("relu6", ACTIVATIONS["relu6"], True),
    (("clip", -2, 3.5), lambda y: np.where(y < -2, -2, np.where(y > 3.5, 3.5, y)), True),
    (("clip", -np.inf, 1), lambda y: np.where(y > 1, 1, y), True),
    (("clip", 2, 2), lambda y: np.full_like(y, 2), True),
    (("leaky_relu", 0.25), lambda y: np.where(y < 0, 0.25 * y, y), True),
    (("leaky_relu", -2), lambda y: np.where(y < 0, -2 * y, y), True),
    (("leaky_relu", np.float32(0)), lambda y: np.where(y < 0, 0, y), True),
    (("leaky_relu",), ACTIVATIONS["leaky_relu"], False),
    (("relu",), ACTIVATIONS["relu"], True),
    ("silu", ACTIVATIONS["silu"], False),
    ("hard_swish", ACTIVATIONS["hard_swish"], False),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["auto", *fastconv.algorithms()])
def test_residual_then_activation(algorithm: str, dtype: DTypeLike) -> None:
    case = ConvCase("residual", (2, 4, 9, 23), (10, 2, 3, 2), stride=(2, 1), padding=1, groups=2)
    case = fitting(algorithm, case)
    data = make_integer_inputs(case, dtype)
    residual = np.random.default_rng(5).integers(-40, 41, case.output_shape).astype(dtype)
    residual.flags.writeable = False
    before = residual.copy()
    arguments = data.x, data.weight, data.bias, *case.geometry
    convolved = reference.conv2d(*arguments)
    if algorithm in LESS_EXACT:  # what follows the sum rounds once, whatever the sum is
        convolved = fastconv.conv2d(*arguments, algorithm=algorithm)
    for activation, apply, exact in WITH_NUMBERS:
        try:
            plan = fastconv.plan_conv2d(
                *(case.input_shape, data.weight, data.bias, *case.geometry),
                activation=activation,
                algorithm=algorithm,
            )
        except ValueError as error:
            refusal = str(error)
            assert algorithm in refusal
            return
        for added in (None, residual):
            total = convolved if added is None else convolved + added
            expected = apply(total.astype(np.float64))
            out = np.full(case.output_shape, np.nan, dtype)
            assert plan(data.x, out, added) is out
            actual = plan(data.x, residual=added)
            assert_identical(actual, out, dtype)
            if exact:
                same_integers(algorithm)(actual, expected, dtype)
            else:
                rtol = 16 * np.finfo(dtype).eps
                np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-30)
    np.testing.assert_array_equal(residual, before)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_residual_that_is_not_finite(algorithm: str) -> None:
    case = fitting(algorithm)
    data = make_integer_inputs(case)
    plan = make_plan(case, algorithm=algorithm, activation="relu6")
    residual = np.zeros(case.output_shape, np.float32)
    flat = residual.reshape(-1)
    flat[[0, 7, -1]] = np.nan, np.inf, -np.inf
    clean, actual = plan(data.x), plan(data.x, residual=residual).reshape(-1)
    assert np.isnan(actual[0])
    assert (actual[7], actual[-1]) == (6, 0)
    wanted = clean.reshape(-1).copy()
    wanted[[0, 7, -1]] = np.nan, 6, 0
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_residual_of_any_layout_and_fitting_type(algorithm: str) -> None:
    case = fitting(algorithm)
    data, plan = make_integer_inputs(case), make_plan(case, algorithm=algorithm)
    residual = np.random.default_rng(5).integers(-9, 10, case.output_shape).astype(np.float32)
    expected = plan(data.x, residual=residual)
    assert not np.array_equal(expected, plan(data.x))
    for same in (
        np.asfortranarray(residual),
        residual[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
        np.repeat(residual, 2, axis=3)[..., ::2],
        residual.astype(">f4"),
        residual.astype(np.float16),
        residual.astype(np.int8),
    ):
        assert_identical(plan(data.x, residual=same), expected, np.float32)
    wide = fastconv.plan_conv2d(case.input_shape, data.weight.astype(float), None, *case.geometry)
    summed = reference.conv2d(data.x, data.weight, None, *case.geometry) + residual
    assert_identical(wide(data.x, residual=residual.tolist()), summed, np.float64)
    one = np.broadcast_to(np.float32(3), case.output_shape)
    assert_identical(plan(data.x, residual=one), plan(data.x) + 3, np.float32)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_residual_may_be_the_input(algorithm: str) -> None:
    shape = (2, 5, 6, 19)
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(np.float32)
    groups = 5 if algorithm == "depthwise" else 1
    weight_shape = (5, 5 // groups, 3, 3)
    weight = np.random.default_rng(1).integers(-3, 4, weight_shape).astype(np.float32)
    plan = fastconv.plan_conv2d(
        shape, weight, padding=1, groups=groups, activation="relu", algorithm=algorithm
    )
    before = x.copy()
    expected = np.maximum(reference.conv2d(x, weight, padding=1, groups=groups) + x, 0)
    same_integers(algorithm)(plan(x, residual=x), expected, np.float32)
    same_integers(algorithm)(plan(x, residual=x.view()[:]), expected, np.float32)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_wrong_residual_is_refused(algorithm: str) -> None:
    case = fitting(algorithm)
    plan, x = make_plan(case, algorithm=algorithm), make_inputs(case).x
    n, k, oh, ow = case.output_shape
    out = np.full(case.output_shape, 7, np.float32)
    for shape in ((n, k, oh, ow + 1), (n, k, ow, oh), (1, k, oh, ow), (n, k, 1, 1), (k, oh, ow)):
        with refused("residual", shape):
            plan(x, out, np.zeros(shape, np.float32))
    with refused("residual", ()):
        plan(x, out, 1.0)
    for dtype in ("float64", "int32", "complex64", "object", "<U1"):
        with refused("residual", dtype):
            plan(x, out, np.zeros(case.output_shape, dtype))
    with pytest.raises(TypeError, match=r"residual must not be a masked array"):
        plan(x, out, np.ma.zeros(case.output_shape, np.float32))
    assert (out == 7).all()


def test_out_that_overlaps_the_residual_is_refused() -> None:
    shape = (1, 2, 4, 4)
    plan = fastconv.plan_conv2d(shape, np.ones((2, 2, 1, 1), np.float32))
    x, memory = np.ones(shape, np.float32), np.zeros(3 * 32, np.float32)
    residual = memory[32:64].reshape(shape)
    for start in (32, 1, 31, 33, 63):
        out = memory[start : start + 32].reshape(shape)
        with pytest.raises(ValueError, match=r"\bout\b.*\bresidual\b"):
            plan(x, out, residual)
        assert not memory.any()
    for start in (0, 64):
        out = memory[start : start + 32].reshape(shape)
        assert plan(x, out, residual) is out


def test_empty_batch_with_residual() -> None:
    plan = fastconv.plan_conv2d((0, 2, 4, 4), np.ones((3, 2, 1, 1)), activation="silu")
    empty = np.zeros((0, 3, 4, 4))
    assert plan(np.zeros((0, 2, 4, 4)), residual=empty).shape == empty.shape
    with refused("residual", (0, 3, 4, 5)):
        plan(np.zeros((0, 2, 4, 4)), residual=np.zeros((0, 3, 4, 5)))


UNKNOWN = (
    "softplus",
    "RELU",
    "",
    b"relu",
    0,
    True,
    (),
    [],
    ["relu"],
    ("softplus", 1),
    (("relu",),),
)
WRONG_COUNT: tuple[Any, ...] = (
    *("clip", ("clip",), ("clip", 1), ("clip", 0, 1, 2), ("clip", (0, 1)), ("relu", 1)),
    *(("relu6", 6), ("leaky_relu", 0.1, 0.2), ("silu", 1.0), ("hard_swish", 0, 6)),
)
NOT_A_NUMBER: tuple[Any, ...] = (
    *("1", None, True, np.True_, 1j, np.complex64(1), [0.1], (0.1,), np.zeros(()), b"1"),
)


@pytest.mark.parametrize("activation", UNKNOWN, ids=repr)
def test_unknown_activation_is_refused(activation: Any) -> None:
    with pytest.raises(ValueError, match=r"activation must be None or one of 'relu', .*, got") as e:
        make_plan(activation=activation)
    assert repr(activation) in str(e.value)


@pytest.mark.parametrize("activation", WRONG_COUNT, ids=repr)
def test_activation_with_a_wrong_number_of_numbers(activation: Any) -> None:
    name = activation if isinstance(activation, str) else activation[0]
    with pytest.raises(ValueError, match=f"activation '{name}' must be given as .*, got") as e:
        make_plan(activation=activation)
    assert str(e.value).endswith(repr(activation))


@pytest.mark.parametrize("value", NOT_A_NUMBER, ids=repr)
def test_activation_with_something_else_than_numbers(value: Any) -> None:
    for activation in (("leaky_relu", value), ("clip", value, 5), ("clip", -5, value)):
        with pytest.raises(TypeError, match=r"activation .* takes real numbers, got") as e:
            make_plan(activation=activation)
        assert str(e.value).endswith(repr(value))


def test_activation_with_nan_or_reversed_bounds() -> None:
    for nan in (np.nan, np.float32("nan"), -np.nan):
        for activation in (("leaky_relu", nan), ("clip", nan, 5), ("clip", 5, nan)):
            with pytest.raises(ValueError, match=r"takes .*\bno NaN, got"):
                make_plan(activation=activation)
    for beyond in (10**400, -(10**400)):
        with pytest.raises(ValueError, match="takes numbers that a float holds"):
            make_plan(activation=("clip", beyond, beyond))
    for low, high in ((1, 0), (np.inf, -np.inf), (1e-30, 0), (-1, -1.5)):
        with pytest.raises(ValueError, match="'clip' must have low <= high, got"):
            make_plan(activation=("clip", low, high))
