"""Every algorithm in every direction against the oracle; bias, types, threads and the lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import reference
from cases import CONV_CASES, LARGE_CASES, ConvCase, ConvInputs, make_inputs, make_integer_inputs
from checks import (
    LESS_EXACT,
    assert_close,
    assert_identical,
    assert_sum,
    assert_transformed,
    refused,
    same_integers,
)
from numpy.typing import DTypeLike
from reference import Array

import fastconv
from fastconv import nn
from fastconv.convolution.blocking.overlap_save import best_cut
from fastconv.core.conv_problem import Conv2dProblem

DIRECTIONS = ("forward", "input_grad", "weight_grad")
# These promise to compute whatever can be asked.
UNIVERSAL = ("reference", "naive", "im2col", "im2col_jit")
FORWARD = (*UNIVERSAL, "implicit_gemm")
EVERY = [(d, a) for d in DIRECTIONS for a in fastconv.algorithms(d)]
BY_NAME = {case.name: case for case in CONV_CASES}


def compute(direction: str, case: ConvCase, data: ConvInputs, algorithm: str = "auto") -> Array:
    """Run one direction of the library."""
    x, weight, _, grad = data
    if direction == "forward":
        return fastconv.conv2d(x, weight, None, *case.geometry, algorithm=algorithm)
    if direction == "input_grad":
        return fastconv.conv2d_input_grad(
            case.input_shape, weight, grad, *case.geometry, algorithm=algorithm
        )
    return fastconv.conv2d_weight_grad(
        x, case.weight_shape, grad, *case.geometry, algorithm=algorithm
    )


def expect(direction: str, case: ConvCase, data: ConvInputs) -> Array:
    """Run one direction of the oracle."""
    x, weight, _, grad = data
    if direction == "forward":
        return reference.conv2d(x, weight, None, *case.geometry)
    if direction == "input_grad":
        return reference.conv2d_input_grad(case.input_shape, weight, grad, *case.geometry)
    return reference.conv2d_weight_grad(x, case.weight_shape, grad, *case.geometry)


def terms(direction: str, case: ConvCase) -> int:
    """Count the most products that one element of the result sums."""
    n, k, oh, ow = case.output_shape
    if direction == "forward":
        return case.taps
    if direction == "input_grad":
        return k // case.groups * case.weight_shape[2] * case.weight_shape[3]
    return n * oh * ow


def magnitude(direction: str, case: ConvCase, data: ConvInputs) -> Array:
    """Sum the absolute values of those products."""
    return expect(direction, case, ConvInputs(*map(np.abs, data)))


def factors(direction: str, case: ConvCase, data: ConvInputs) -> tuple[Array, Array, int, int]:
    """Return the arrays that a direction convolves, how many planes it sums, in how many tiles."""
    n, k = case.output_shape[:2]
    if direction == "forward":
        return data.x, data.weight, case.weight_shape[1], 1
    if direction == "input_grad":
        return data.grad_output, data.weight, k // case.groups, 1
    problem = Conv2dProblem.from_shapes(case.input_shape, case.weight_shape, *case.geometry)
    cut = best_cut(problem, "weight_grad")
    assert cut is not None
    return data.x, data.grad_output, n, cut.down.tiles * cut.across.tiles


def computed(direction: str, case: ConvCase, data: ConvInputs, algorithm: str) -> Array | None:
    """Return a result, or None if the algorithm may refuse and does; only in words that name it."""
    try:
        return compute(direction, case, data, algorithm)
    except ValueError as error:
        if algorithm in UNIVERSAL:
            raise
        reason = str(error)
    assert algorithm in reason
    return None


def refuses(direction: str, case: ConvCase, algorithm: str) -> bool:
    """Tell whether an algorithm refuses a case."""
    return computed(direction, case, make_inputs(case), algorithm) is None


# The algorithms of one case and type follow each other, so that the oracle is asked once for all.
@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
def test_every_algorithm(direction: str, algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    check_against_oracle(direction, algorithm, case, dtype)


# The reference cuts nothing into blocks, and would take seconds.
@pytest.mark.parametrize(("direction", "algorithm"), [e for e in EVERY if e[1] != "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", LARGE_CASES, ids=lambda case: case.name)
def test_every_algorithm_on_large_cases(
    direction: str, algorithm: str, case: ConvCase, dtype: DTypeLike
) -> None:
    check_against_oracle(direction, algorithm, case, dtype)


@lru_cache(maxsize=2 * len(DIRECTIONS))
def answered(
    direction: str, case: ConvCase, dtype: DTypeLike, integers: bool
) -> tuple[ConvInputs, Array]:
    """Return data and what the oracle makes of them."""
    data = make_integer_inputs(case, dtype, 1) if integers else make_inputs(case, dtype, 2)
    return data, expect(direction, case, data)


@lru_cache(maxsize=len(DIRECTIONS))
def magnitude_of(direction: str, case: ConvCase, dtype: DTypeLike) -> Array:
    """Return the magnitude of the sums of normal numbers."""
    return magnitude(direction, case, answered(direction, case, dtype, False)[0])


def check_against_oracle(direction: str, algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    """Ask for equality on integers, and for the error bound of a sum on normal numbers."""
    data, expected = answered(direction, case, dtype, integers=True)
    found = computed(direction, case, data, algorithm)
    if found is None:
        return
    same_integers(algorithm)(found, expected, dtype)

    data, expected = answered(direction, case, dtype, integers=False)
    actual = compute(direction, case, data, algorithm)
    count = terms(direction, case)
    if algorithm == "fft":
        assert_transformed(actual, expected, *factors(direction, case, data), dtype)
    elif algorithm in LESS_EXACT:
        assert_close(actual, expected, algorithm, count, dtype)
    else:
        assert_sum(actual, expected, magnitude_of(direction, case, dtype), count, dtype)


@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
def test_every_algorithm_accepts_something(direction: str, algorithm: str) -> None:
    # Otherwise the test above would pass for an algorithm that refuses everything.
    assert not all(refuses(direction, case, algorithm) for case in CONV_CASES)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_list_of_algorithms(direction: str) -> None:
    names = list(fastconv.algorithms(direction))
    assert set(UNIVERSAL) <= set(names)
    assert len(set(names)) == len(names)
    assert names[-1] == "reference"
    assert "auto" not in names


def test_list_defaults_to_forward() -> None:
    assert list(fastconv.algorithms()) == list(fastconv.algorithms("forward"))


def test_unknown_direction_is_refused() -> None:
    with refused("direction", "sideways"):
        fastconv.algorithms("sideways")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_unknown_algorithm_is_told_the_names(direction: str) -> None:
    case = BY_NAME["3x3"]
    with refused("algorithm", "fastest"):
        compute(direction, case, make_inputs(case), "fastest")
    with pytest.raises(ValueError) as caught:
        compute(direction, case, make_inputs(case), "fastest")
    for name in (*fastconv.algorithms(direction), "auto"):
        assert name in str(caught.value)


@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_auto(direction: str, case: ConvCase) -> None:
    data = make_inputs(case, seed=3)
    actual = compute(direction, case, data)
    bound = magnitude(direction, case, data), terms(direction, case)
    assert_sum(actual, expect(direction, case, data), *bound, np.float32)
    # The same bits every time.
    assert_identical(compute(direction, case, data), actual, np.float32)


# Bias -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["3x3_tail", "grouped", "empty_batch", "one_pixel", "5x5_strided"])
@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_bias(algorithm: str, name: str, dtype: DTypeLike) -> None:
    case = BY_NAME[name]
    if algorithm not in UNIVERSAL and refuses("forward", case, algorithm):
        return
    data = make_integer_inputs(case, dtype, seed=4)
    arguments = data.x, data.weight, data.bias, *case.geometry
    actual = fastconv.conv2d(*arguments, algorithm=algorithm)
    same_integers(algorithm)(actual, reference.conv2d(*arguments), dtype)
    if algorithm in LESS_EXACT:
        return
    data = make_inputs(case, dtype, seed=5)
    arguments = data.x, data.weight, data.bias, *case.geometry
    bias = np.abs(data.bias.astype(np.float64))[:, None, None]
    assert_sum(
        fastconv.conv2d(*arguments, algorithm=algorithm),
        reference.conv2d(*arguments),
        magnitude("forward", case, data) + bias,
        case.taps + 1,
        dtype,
    )


# Types ------------------------------------------------------------------------------------------

MIXTURES = [
    (np.float32, np.float32, np.float32, np.float32),
    (np.float64, np.float64, np.float64, np.float64),
    (np.float32, np.float64, np.float32, np.float64),
    (np.float64, np.float32, np.float32, np.float64),
    (np.float32, np.float32, np.float64, np.float64),
    (np.float16, np.float16, np.float16, np.float16),
    (np.float16, np.float32, np.float16, np.float32),
    (np.float16, np.float16, np.float64, np.float64),
    (np.int64, np.int64, np.int64, np.float64),
    (np.int8, np.uint8, np.int16, np.float64),
    (np.int8, np.float32, np.float32, np.result_type(np.int8, np.float32)),
    (np.int32, np.float32, np.float32, np.result_type(np.int32, np.float32)),
    (np.float32, np.float32, np.int64, np.result_type(np.int64, np.float32)),
    (np.int8, np.float16, np.float16, np.result_type(np.int8, np.float16)),
    (np.bool_, np.bool_, np.bool_, np.float64),
    (np.bool_, np.float32, np.float32, np.float32),
]


@pytest.mark.parametrize(("x_type", "weight_type", "bias_type", "result"), MIXTURES)
def test_types_of_conv2d(
    x_type: DTypeLike, weight_type: DTypeLike, bias_type: DTypeLike, result: DTypeLike
) -> None:
    case = BY_NAME["first_rgb_tail"]
    # Non-negative, for the unsigned types; sums stay below 2048, which float16 holds exactly.
    data = [np.abs(a) for a in make_integer_inputs(case, np.int64, seed=6)]
    x, weight, bias = (
        a.astype(t) for a, t in zip(data, (x_type, weight_type, bias_type), strict=False)
    )
    assert_identical(fastconv.conv2d(x, weight, bias), reference.conv2d(x, weight, bias), result)


@pytest.mark.parametrize(("x_type", "weight_type", "grad_type", "result"), MIXTURES)
def test_types_of_the_gradients(
    x_type: DTypeLike, weight_type: DTypeLike, grad_type: DTypeLike, result: DTypeLike
) -> None:
    case = BY_NAME["grouped_strided"]
    data = ConvInputs(*map(np.abs, make_integer_inputs(case, np.int64, seed=7)))
    grad = data.grad_output.astype(grad_type)
    weight = data.weight.astype(weight_type)
    actual = fastconv.conv2d_input_grad(case.input_shape, weight, grad, *case.geometry)
    expected = reference.conv2d_input_grad(case.input_shape, weight, grad, *case.geometry)
    assert_identical(actual, expected, _promoted(weight, grad))
    x = data.x.astype(x_type)
    actual = fastconv.conv2d_weight_grad(x, case.weight_shape, grad, *case.geometry)
    expected = reference.conv2d_weight_grad(x, case.weight_shape, grad, *case.geometry)
    assert_identical(actual, expected, _promoted(x, grad))
    assert _promoted(x, weight, grad) == result


def _promoted(*arrays: Array) -> np.dtype:
    common = np.result_type(*arrays)
    return common if common.kind == "f" else np.dtype(np.float64)


def test_float16_sums_in_float32() -> None:
    # 4096 ones: a float16 sum would stop at 2048, where adding one changes nothing.
    x = np.ones((1, 4096, 1, 1), np.float16)
    weight = np.ones((1, 4096, 1, 1), np.float16)
    for algorithm in FORWARD:
        out = fastconv.conv2d(x, weight, algorithm=algorithm)
        assert_identical(out, np.full((1, 1, 1, 1), 4096.0), np.float16)


def test_python_lists() -> None:
    x = [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]
    weight = [[[[1, 0], [0, 2]]]]
    # By hand: 1 + 2*5, 2 + 2*6, 4 + 2*8, 5 + 2*9.
    expected = np.array([[[[11.0, 14.0], [20.0, 23.0]]]])
    assert_identical(fastconv.conv2d(x, weight), expected, np.float64)
    assert_identical(fastconv.conv2d(x, weight, [0.5]), expected + 0.5, np.float64)


@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_one_number_in_a_tuple(name: str) -> None:
    data = make_integer_inputs(ConvCase("plain", (2, 3, 9, 8), (4, 3, 3, 3)))
    for one in ((2,), [2]):
        rule: dict[str, Any] = {name: one}
        wanted = reference.conv2d(data.x, data.weight, **{name: 2})
        grad = wanted.astype(np.float32)
        with fastconv.at_precision("highest"):
            y = fastconv.conv2d(data.x, data.weight, **rule)
            dx, dw, _ = fastconv.conv2d_backward(data.x, data.weight, grad, **rule)
        assert_identical(y, wanted, np.float32)
        pair: dict[str, Any] = {name: (2, 2)}
        again = fastconv.conv2d_backward(data.x, data.weight, grad, **pair)
        np.testing.assert_array_equal(dx, again.input)
        np.testing.assert_array_equal(dw, again.weight)
        for layer in (nn.Conv2d, nn.ConvTranspose2d):
            assert getattr(layer(3, 4, 3, **rule), name) == (2, 2)
    options: dict[str, Any] = {"output_padding": (1,), name: (2,), "dilation": (2,)}
    assert nn.ConvTranspose2d(3, 4, 3, **options).output_padding == (1, 1)
    y = fastconv.conv_transpose2d(data.x, np.ones((3, 1, 2, 2)), **options)
    options = {key: value[0] for key, value in options.items()}
    np.testing.assert_array_equal(
        y, reference.conv_transpose2d(data.x, np.ones((3, 1, 2, 2)), **options)
    )


# Threads ----------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Give the function that sets the number of threads, and set them back afterwards."""
    before = fastconv.get_num_threads()
    yield fastconv.set_num_threads
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
def test_threads_do_not_change_bits(
    direction: str, algorithm: str, dtype: DTypeLike, threads: Callable[[int], None]
) -> None:
    case = ConvCase("threads", (3, 8, 21, 19), (9, 8, 3, 3), padding=1)
    data = make_inputs(case, dtype, seed=8)
    threads(1)
    alone = computed(direction, case, data, algorithm)
    if alone is None:
        return
    threads(2)
    assert_identical(compute(direction, case, data, algorithm), alone, dtype)
