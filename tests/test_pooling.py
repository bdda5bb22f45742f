"""Every pooling algorithm, values, indices and gradients, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference_pooling
from cases import POOL_CASES, PoolCase, make_integer_pool_inputs
from checks import assert_identical, assert_sum, refused
from numpy.typing import DTypeLike
from pooling_answers import MAKERS, max_grads, max_rule, maxima, window
from reference import Array

import fastconv
from fastconv.api.max_pool_training import max_pool2d_training, max_pool2d_training_grad
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.pooling.compiled_pooling import Jit

ALGORITHMS = fastconv.pool_algorithms()
NAMES = pytest.mark.parametrize("algorithm", ALGORITHMS)
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NAN, INF = np.nan, np.inf


def test_list_of_algorithms() -> None:
    assert {"jit", "windows", "reference"} <= set(ALGORITHMS)
    assert len(set(ALGORITHMS)) == len(ALGORITHMS)
    assert ALGORITHMS[-1] == "reference"


# Maximum ----------------------------------------------------------------------------------------


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_max_pool2d(algorithm: str, case: PoolCase, dtype: DTypeLike) -> None:
    # Few different integers make ties, where the first position must win.
    for make in MAKERS:
        x, _, values, indices = maxima(make, case, dtype)
        actual = fastconv.max_pool2d(x, *max_rule(case), return_indices=True, algorithm=algorithm)
        assert isinstance(actual, tuple)
        assert_identical(actual[0], values, dtype)
        assert_identical(actual[1], indices, np.int64)
        alone = fastconv.max_pool2d(x, *max_rule(case), algorithm=algorithm)
        assert_identical(alone, values, dtype)


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_max_pool2d_grad(algorithm: str, case: PoolCase, dtype: DTypeLike) -> None:
    for make in MAKERS:
        _, grad, _, indices = maxima(make, case, dtype)
        actual = fastconv.max_pool2d_grad(grad, indices, case.input_shape, algorithm=algorithm)
        expected, sizes = max_grads(make, case, dtype)
        if make is make_integer_pool_inputs:
            assert_identical(actual, expected, dtype)
        # At most every window that covers a position adds to it, and no more than `window` do.
        assert_sum(actual, expected, sizes, window(case), dtype)


@NAMES
def test_max_pool2d_of_negative_numbers_ignores_padding(algorithm: str) -> None:
    x = np.full((1, 1, 3, 3), -7.0)
    values = fastconv.max_pool2d(x, 3, 1, 1, algorithm=algorithm)
    assert_identical(values, x, np.float64)


@TYPES
@NAMES
def test_max_pool2d_nan_and_infinity(algorithm: str, dtype: DTypeLike) -> None:
    # Windows of three, each with its maximum and where that is.
    rows = [
        ((1, NAN, 2), (NAN, 1)),
        ((NAN, 9, 1), (NAN, 0)),
        ((NAN, 9, NAN), (NAN, 2)),
        ((1, INF, NAN), (NAN, 2)),
        ((NAN, NAN, NAN), (NAN, 2)),
        ((-INF, -INF, -INF), (-INF, 0)),
        ((-INF, -5, -INF), (-5, 1)),
        ((-INF, -INF, NAN), (NAN, 2)),
        ((1, INF, INF), (INF, 1)),
        ((3, 3, 1), (3, 0)),
        ((0.0, -0.0, -1), (0.0, 0)),
        ((-0.0, 0.0, -1), (-0.0, 0)),
    ]
    x = np.array([row for row, _ in rows], dtype)[None, None]
    values, indices = fastconv.max_pool2d(x, (1, 3), return_indices=True, algorithm=algorithm)
    expected = np.array([answer for _, answer in rows])
    assert_identical(values, expected[None, None, :, :1], dtype)
    # The value is the element that the index names, in the sign of its zero too.
    zeros = values == 0
    np.testing.assert_array_equal(
        np.signbit(values[zeros]), np.signbit(expected[None, None, :, :1][zeros])
    )
    # Positions count the whole plane, in which row i begins at 3 * i.
    assert_identical(
        indices[0, 0, :, 0], 3 * np.arange(len(rows)) + expected[:, 1].astype(int), np.int64
    )


@NAMES
def test_max_pool2d_of_windows_that_step_over_the_input(algorithm: str) -> None:
    # One row of input; a window's rows -1 and 1 pass by above and below it. There is no maximum.
    x = np.zeros((1, 1, 1, 3))
    with pytest.raises(ValueError, match=r"padding|dilation|kernel_size"):
        fastconv.max_pool2d(x, (2, 1), 1, padding=(1, 0), dilation=(2, 1), algorithm=algorithm)


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@NAMES
def test_max_pool2d_nan_and_infinity_anywhere(
    algorithm: str, case: PoolCase, dtype: DTypeLike
) -> None:
    rng = np.random.default_rng(3)
    special = np.array([NAN, INF, -INF, -INF, -INF, 0, 1], dtype)
    x = rng.choice(special, case.input_shape)
    actual = fastconv.max_pool2d(x, *max_rule(case), return_indices=True, algorithm=algorithm)
    values, indices = reference_pooling.max_pool2d(x, *max_rule(case))
    assert_identical(actual[0], values, dtype)
    assert_identical(actual[1], indices, np.int64)


@NAMES
@pytest.mark.parametrize("bad", [-1, -(2**40), 12, 13, 2**31, 2**32, 2**62])
def test_max_pool2d_grad_refuses_indices_outside_the_plane(algorithm: str, bad: int) -> None:
    for place in ((0, 0, 0, 0), (1, 2, 1, 1)):
        indices = np.zeros((2, 3, 2, 2), np.int64)
        indices[place] = bad
        grad = np.ones(indices.shape)
        with refused("indices", bad):
            fastconv.max_pool2d_grad(grad, indices, (2, 3, 3, 4), algorithm=algorithm)


@NAMES
def test_max_pool2d_grad_accepts_other_integers(algorithm: str) -> None:
    indices = np.array([[[[0, 5], [11, 5]]]])
    expected = np.zeros((1, 1, 3, 4))
    expected.flat[[0, 5, 11]] = 1, 6, 3
    grad = np.array([[[[1, 2], [3, 4]]]])
    for kind in (np.int8, np.int32, np.uint64):
        actual = fastconv.max_pool2d_grad(
            grad, indices.astype(kind), (1, 1, 3, 4), algorithm=algorithm
        )
        assert_identical(actual, expected, np.float64)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, np.bool_])
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@NAMES
def test_max_pool2d_of_integers(algorithm: str, case: PoolCase, dtype: DTypeLike) -> None:
    # Those that no float64 can hold too, and windows of nothing but the least.
    rng = np.random.default_rng(5)
    least, most = (0, 1) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    some = np.array([least, least, least, least, least + 1, most - 1, most], dtype)
    x = rng.choice(some, case.input_shape)
    values, indices = reference_pooling.max_pool2d(x, *max_rule(case))
    actual = fastconv.max_pool2d(x, *max_rule(case), return_indices=True, algorithm=algorithm)
    assert_identical(actual[0], values, dtype)
    assert_identical(actual[1], indices, np.int64)
    alone = fastconv.max_pool2d(x, *max_rule(case), algorithm=algorithm)
    assert_identical(alone, values, dtype)


def test_max_pool2d_of_other_integers() -> None:
    x = np.arange(-9, 23).reshape(1, 2, 4, 4)
    for dtype in (">i2", "int32", ">u4"):
        given = x.astype(dtype)
        values = reference_pooling.max_pool2d(given, 2)[0]
        native = np.dtype(dtype).newbyteorder("=")
        assert_identical(fastconv.max_pool2d(given, 2), values, native)
        assert_identical(fastconv.adaptive_max_pool2d(given, 2), values, native)


@NAMES
def test_max_pool2d_grad_of_an_empty_plane(algorithm: str) -> None:
    grad, indices = np.ones((1, 2, 1, 1)), np.zeros((1, 2, 1, 1), np.int64)
    for shape in ((1, 2, 0, 4), (1, 2, 4, 0)):
        with pytest.raises(ValueError, match=r"indices .*it has no positions: got 0 \.\. 0"):
            fastconv.max_pool2d_grad(grad, indices, shape, algorithm=algorithm)
        back = fastconv.max_pool2d_grad(
            grad[:, :, :0], indices[:, :, :0], shape, algorithm=algorithm
        )
        assert_identical(back, np.zeros(shape), np.float64)


# Larger than any image --------------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("taps", [41, 2**30])
def test_time_follows_what_is_inside(algorithm: str, taps: int) -> None:
    # Of these windows, along both axes, the first sees position 0 and the second all others.
    wide = {"kernel_size": taps, "stride": taps, "padding": taps - 1, "wide_padding": True}
    x = np.array([[[[9.0, 1, 2, 3], [4, 8, 0, 7], [6, 1, 3, 2], [5, 5, 3, 3]]]])
    options = {**wide, "algorithm": algorithm}
    values, indices = fastconv.max_pool2d(x, **options, return_indices=True)
    assert_identical(values, np.array([[[[9.0, 3], [6, 8]]]]), np.float64)
    assert_identical(indices, np.array([[[[0, 3], [8, 5]]]]), np.int64)
    assert_identical(fastconv.max_pool2d(x, **options), values, np.float64)
    layer = fastconv.nn.MaxPool2d(**wide)
    assert_identical(layer(x), values, np.float64)
    back = fastconv.max_pool2d_grad(values, indices, x.shape, algorithm=algorithm)
    assert_identical(layer.backward(values), back, np.float64)
    means = fastconv.avg_pool2d(x, **options, count_include_pad=False)
    assert_identical(means, np.array([[[[9.0, 2], [5, 32 / 9]]]]), np.float64)
    spread = fastconv.avg_pool2d_grad(
        np.array([[[[1.0, 3], [6, 9]]]]), x.shape, **options, count_include_pad=False
    )
    expected = np.ones((4, 4))
    expected[1:, 0] = 2
    assert_identical(spread, expected[None, None], np.float64)


@NAMES
def test_windows_of_any_size(algorithm: str) -> None:
    x, rule = np.arange(1.0, 17).reshape(1, 1, 4, 4), (2**31 - 1, 2**30, 2**30 - 1)
    assert fastconv.max_pool2d(x, *rule, algorithm=algorithm) == [[[[16]]]]
    assert fastconv.avg_pool2d(x, *rule, False, False, algorithm=algorithm) == [[[[8.5]]]]
    # Taps so far apart that only one of the first window, or of the second, is inside.
    far = 2**29 + 3
    options = {"dilation": far, "wide_padding": True, "algorithm": algorithm}
    values = fastconv.max_pool2d(x, 2, far, far, **options)
    assert_identical(values, np.ones((1, 1, 2, 2)), np.float64)
    means = fastconv.avg_pool2d(x, 2, far, far, **options)
    assert_identical(means, np.full((1, 1, 2, 2), 0.25), np.float64)
    with pytest.raises(ValueError, match=r"step over the whole input .* or wide_padding=True"):
        fastconv.max_pool2d(x, 2, 1, 2**29, dilation=2**30, algorithm=algorithm)


# Maximum, with an argmax of one byte ------------------------------------------------------


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
def test_maxima_for_training_and_their_gradients(case: PoolCase, dtype: DTypeLike) -> None:
    problem = Pool2dProblem.from_shapes(case.input_shape, *max_rule(case), np.dtype(dtype).name)
    for make in MAKERS:
        x, grad, values, indices = maxima(make, case, dtype)
        actual, argmax = max_pool2d_training(x, problem)
        assert_identical(actual, values, dtype)
        back = max_pool2d_training_grad(grad, argmax)
        if make is make_integer_pool_inputs:
            assert_identical(back, max_grads(make, case, dtype)[0], dtype)
        # Each pixel adds its windows in their order, as a loop over the windows does.
        scattered = fastconv.max_pool2d_grad(grad, indices, case.input_shape)
        np.testing.assert_array_equal(back, scattered)


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
def test_maxima_for_training_of_nan_and_infinity(case: PoolCase, dtype: DTypeLike) -> None:
    special = np.array([NAN, INF, -INF, -INF, -INF, -0.0, 0, 1], dtype)
    x = np.random.default_rng(3).choice(special, case.input_shape)
    _, grad = make_integer_pool_inputs(case, dtype)
    problem = Pool2dProblem.from_shapes(case.input_shape, *max_rule(case), np.dtype(dtype).name)
    values, argmax = max_pool2d_training(x, problem)
    expected, indices = fastconv.max_pool2d(
        x, *max_rule(case), return_indices=True, algorithm="reference"
    )
    assert_identical(values, expected, dtype)
    np.testing.assert_array_equal(np.signbit(values), np.signbit(expected))
    alone = fastconv.max_pool2d(x, *max_rule(case))
    np.testing.assert_array_equal(np.signbit(alone), np.signbit(expected))
    back = reference_pooling.max_pool2d_grad(grad, indices, case.input_shape)
    assert_identical(max_pool2d_training_grad(grad, argmax), back, dtype)


@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
def test_maxima_after_a_relu_and_their_gradients(case: PoolCase, dtype: DTypeLike) -> None:
    problem = Pool2dProblem.from_shapes(case.input_shape, *max_rule(case), np.dtype(dtype).name)
    special = np.array([NAN, INF, -INF, -0.0, 0, 1, -1, 2, -2, -3, -4], dtype)
    rng = np.random.default_rng(4)
    for x in (rng.choice(special, case.input_shape), rng.normal(size=case.input_shape)):
        x = x.astype(dtype)
        values, argmax = max_pool2d_training(x, problem)
        grad = rng.normal(size=values.shape).astype(dtype)
        expected = np.maximum(values, 0)
        passed = np.where(expected != 0, grad, 0).astype(dtype)
        activated, others = max_pool2d_training(x, problem, relu=True)
        assert_identical(activated, expected, dtype)
        back = max_pool2d_training_grad(grad, others)
        assert_identical(back, max_pool2d_training_grad(passed, argmax), dtype)


def test_an_argmax_is_a_byte_where_windows_are_small() -> None:
    x = np.zeros((2, 3, 28, 28), np.float32)
    for rule in ((2, 2), (3, 2, 1), (3, 1, 1), (5, 3, 2)):
        values, argmax = max_pool2d_training(x, Pool2dProblem.from_shapes(x.shape, *rule))
        assert argmax.where.nbytes < 2.5 * values.size + 64


def test_indices_nobody_asked_for_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        Jit, "maximum", lambda self, x, axes, out, indices: asked.append(indices is not None)
    )
    x = np.zeros((1, 1, 4, 4))
    fastconv.max_pool2d(x, 2)
    fastconv.max_pool2d(x, 2, return_indices=True)
    assert asked == [False, True]


# All of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (np.float16, np.float16),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int16, np.float64),
        (np.uint8, np.float64),
        (np.bool_, np.float64),
    ],
)
def test_types(given: DTypeLike, result: DTypeLike) -> None:
    # A maximum is one of the elements, of whatever type. Two by two windows: every mean is exact.
    x: Array = (np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6) % 7).astype(given)
    values, indices = reference_pooling.max_pool2d(x, 2)
    grad = x[:, :, :2, :3]
    for algorithm in ("auto", *ALGORITHMS):
        actual = fastconv.max_pool2d(x, 2, return_indices=True, algorithm=algorithm)
        assert_identical(actual[0], values, given)
        assert_identical(actual[1], indices, np.int64)
        average = reference_pooling.avg_pool2d(x, 2)
        assert_identical(fastconv.avg_pool2d(x, 2, algorithm=algorithm), average, result)
        adaptive = fastconv.adaptive_avg_pool2d(x, (2, 3), algorithm=algorithm)
        assert_identical(adaptive, average, result)
        back = fastconv.max_pool2d_grad(grad, indices, x.shape, algorithm=algorithm)
        expected = reference_pooling.max_pool2d_grad(grad, indices, x.shape)
        assert_identical(back, expected, result)
        back = fastconv.avg_pool2d_grad(grad, x.shape, 2, algorithm=algorithm)
        expected = reference_pooling.avg_pool2d_grad(grad, x.shape, 2)
        assert_identical(back, expected, result)
        back = fastconv.adaptive_avg_pool2d_grad(grad, x.shape, algorithm=algorithm)
        assert_identical(back, expected, result)
