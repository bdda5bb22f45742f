"""Properties that hold for every geometry, on geometries drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference
import reference_pooling
from cases import ConvCase, PoolCase, make_inputs, make_integer_inputs, make_integer_pool_inputs
from checks import growth, whole
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from pooling_answers import average_rule, max_rule
from reference import Array, Pair
from test_convolution import DIRECTIONS, compute, expect

import fastconv


def numbers(low: int, high: int) -> st.SearchStrategy[int]:
    """Draw whole numbers from low to high, both included."""
    return st.integers(low, high)


def pairs(low: int, high: int) -> st.SearchStrategy[Pair]:
    """Draw two whole numbers."""
    return st.tuples(numbers(low, high), numbers(low, high))


@st.composite
def conv_cases(draw: DrawFn) -> ConvCase:
    """Draw a convolution that has an output."""
    groups = draw(numbers(1, 3))
    n, per_group_in, per_group_out = draw(numbers(0, 3)), draw(numbers(1, 4)), draw(numbers(1, 4))
    size, kernel = draw(pairs(1, 11)), draw(pairs(1, 5))
    stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3))
    padding = draw(
        st.one_of(
            numbers(0, 4), pairs(0, 4), st.sampled_from(["same", "same_lower", "valid"]),
            st.tuples(pairs(0, 4), pairs(0, 4)),
        )
    )  # fmt: skip
    assume(min(reference.output_size(size, kernel, stride, padding, dilation)) > 0)
    return ConvCase(
        "drawn",
        (n, groups * per_group_in, *size),
        (groups * per_group_out, per_group_in, *kernel),
        stride,
        padding,
        dilation,
        groups,
    )


@st.composite
def pool_cases(draw: DrawFn, wide_padding: bool = False) -> PoolCase:
    """Draw a pooling, in which every window covers some input unless padding may be wide."""
    size, kernel = draw(pairs(1, 12)), draw(pairs(1, 5))
    stride = draw(st.none() | pairs(1, 5))
    most = (9, 9) if wide_padding else (kernel[0] // 2, kernel[1] // 2)
    padding = draw(numbers(0, most[0])), draw(numbers(0, most[1]))
    dilation = draw(pairs(1, 3))
    case = PoolCase(
        "drawn",
        (draw(numbers(0, 2)), draw(numbers(1, 3)), *size),
        kernel,
        stride,
        padding,
        dilation,
        ceil_mode=draw(st.booleans()),
    )
    for axis in reference_pooling.axes(size, kernel, stride, padding, dilation, case.ceil_mode):
        assume(axis.count > 0)
        assume(wide_padding or axis.all_meet_the_input())
    return case


def inner(a: Array, b: Array) -> float:
    """Inner product of two arrays."""
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


# Convolution ------------------------------------------------------------------------------------


@given(conv_cases(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_all_algorithms_agree_with_the_oracle(case: ConvCase, dtype: type, seed: int) -> None:
    # Integers: whatever the order of the sum, it must come out exactly.
    data = make_integer_inputs(case, dtype, seed)
    for direction in DIRECTIONS:
        expected = expect(direction, case, data)
        accepted = 0
        for algorithm in ("auto", *fastconv.algorithms(direction)):
            try:
                actual = compute(direction, case, data, algorithm)
            except ValueError as error:
                refusal = str(error)
                assert algorithm in refusal
                continue
            accepted += 1
            assert actual.dtype == dtype
            actual = whole(actual, algorithm)
            np.testing.assert_array_equal(actual, expected, f"{direction} by {algorithm}")
        assert accepted >= 5


@given(conv_cases(), st.integers(0, 2**32 - 1))
def test_the_three_directions_are_adjoint(case: ConvCase, seed: int) -> None:
    """<conv(x, w), y> = <x, input_grad(w, y)> = <w, weight_grad(x, y)>."""
    data = make_inputs(case, np.float64, seed)
    forward = inner(compute("forward", case, data), data.grad_output)
    to_input = inner(compute("input_grad", case, data), data.x)
    to_weight = inner(compute("weight_grad", case, data), data.weight)
    sizes = type(data)(*map(np.abs, data))
    products = inner(expect("forward", case, sizes), sizes.grad_output)
    # Each side sums the same products of three factors in two stages. No stage sums more numbers
    # than the three arrays hold together, plus the taps of one element.
    numbers_held = sum(a.size for a in (data.x, data.weight, data.grad_output))
    bound = 2 * growth(2 * numbers_held, np.float64) * products
    assert abs(forward - to_input) <= bound
    assert abs(forward - to_weight) <= bound


@given(conv_cases(), st.integers(0, 2**32 - 1))
def test_convolution_is_linear_in_both_arguments(case: ConvCase, seed: int) -> None:
    # Exact in integers; the four products stay below 2**53.
    a = make_integer_inputs(case, np.float64, seed)
    b = make_integer_inputs(case, np.float64, seed + 1)
    for mixed, first, second in (
        (a._replace(x=3 * a.x - 5 * b.x), a, a._replace(x=b.x)),
        (a._replace(weight=3 * a.weight - 5 * b.weight), a, a._replace(weight=b.weight)),
    ):
        parts = 3 * compute("forward", case, first) - 5 * compute("forward", case, second)
        np.testing.assert_array_equal(compute("forward", case, mixed), parts)


@given(conv_cases(), st.integers(0, 2**32 - 1))
def test_groups_are_convolutions_side_by_side(case: ConvCase, seed: int) -> None:
    data = make_integer_inputs(case, np.float64, seed)
    geometry = case.stride, case.padding, case.dilation
    inputs = np.split(data.x, case.groups, axis=1)
    weights = np.split(data.weight, case.groups, axis=0)
    parts = [fastconv.conv2d(x, w, None, *geometry) for x, w in zip(inputs, weights, strict=True)]
    whole = compute("forward", case, data)
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


@given(conv_cases(), st.integers(0, 2**32 - 1))
def test_convolution_is_a_product_with_columns(case: ConvCase, seed: int) -> None:
    data = make_integer_inputs(case, np.float64, seed)
    cols = fastconv.im2col(data.x, case.weight_shape[2:], case.dilation, case.padding, case.stride)
    n, k, *plane = case.output_shape
    blocks = cols.reshape(n, case.groups, case.taps, cols.shape[2])
    matrices = data.weight.reshape(case.groups, k // case.groups, case.taps)
    product = np.einsum("gkt,ngtp->ngkp", matrices, blocks).reshape(n, k, *plane)
    np.testing.assert_array_equal(compute("forward", case, data), product)


@given(conv_cases(), st.integers(0, 2**32 - 1))
def test_columns_are_adjoint(case: ConvCase, seed: int) -> None:
    rule = case.weight_shape[2:], case.dilation, case.padding, case.stride
    x = make_integer_inputs(case, np.float64, seed).x
    cols = fastconv.im2col(x, *rule)
    np.testing.assert_array_equal(cols, reference.im2col(x, *rule))
    y = np.random.default_rng(seed).integers(-9, 10, cols.shape).astype(np.float64)
    back = fastconv.col2im(y, case.input_shape[2:], *rule)
    np.testing.assert_array_equal(back, reference.col2im(y, case.input_shape[2:], *rule))
    assert inner(cols, y) == inner(x, back)


@given(
    size=numbers(1, 40),
    kernel=numbers(1, 7),
    stride=numbers(1, 9),
    dilation=numbers(1, 5),
    padding=pairs(0, 9),
)
def test_output_size_of_convolution(
    size: int, kernel: int, stride: int, dilation: int, padding: Pair
) -> None:
    """The last window fits into the padded input, one more would not."""
    window = dilation * (kernel - 1) + 1
    padded = size + sum(padding)
    assume(window <= padded)
    out = fastconv.conv2d(
        np.zeros((1, 1, size, 1), np.float32),
        np.zeros((1, 1, kernel, 1), np.float32),
        stride=(stride, 1),
        padding=(padding, (0, 0)),
        dilation=(dilation, 1),
    )
    count, across = out.shape[2:]
    assert across == 1
    assert count >= 1
    assert (count - 1) * stride + window <= padded
    assert count * stride + window > padded


@given(size=numbers(1, 30), kernel=numbers(1, 8), stride=numbers(1, 5), dilation=numbers(1, 4))
def test_same_padding(size: int, kernel: int, stride: int, dilation: int) -> None:
    """One output for each stride begun, with no more padding than that needs."""
    x, weight = np.ones((1, 1, 1, size)), np.ones((1, 1, 1, kernel))
    options = {"stride": (1, stride), "dilation": (1, dilation)}
    out = fastconv.conv2d(x, weight, padding="same", **options)
    count = out.shape[3]
    assert out.shape[2] == 1
    assert (count - 1) * stride < size <= count * stride
    # The same written out: the total that makes the last window end where the padding ends.
    total = max((count - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    before, after = total // 2, total - total // 2
    written = fastconv.conv2d(x, weight, padding=((0, 0), (before, after)), **options)
    np.testing.assert_array_equal(out, written)


# Pooling ----------------------------------------------------------------------------------------


@given(pool_cases(), st.integers(0, 2**32 - 1))
def test_max_pooling(case: PoolCase, seed: int) -> None:
    x, y = make_integer_pool_inputs(case, np.float64, seed)
    values, indices = reference_pooling.max_pool2d(x, *max_rule(case))
    back = reference_pooling.max_pool2d_grad(y, indices, x.shape)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        actual = fastconv.max_pool2d(x, *max_rule(case), return_indices=True, algorithm=algorithm)
        np.testing.assert_array_equal(actual[0], values, algorithm)
        np.testing.assert_array_equal(actual[1], indices, algorithm)
        grad = fastconv.max_pool2d_grad(y, indices, x.shape, algorithm=algorithm)
        np.testing.assert_array_equal(grad, back, algorithm)
        # Where the maxima are fixed, pooling is linear and this is its adjoint.
        assert inner(values, y) == inner(x, grad)


DIVISORS = st.none() | st.sampled_from([-3, 1, 7])


@given(pool_cases(), st.booleans(), DIVISORS, st.integers(0, 2**32 - 1))
def test_average_pooling(
    case: PoolCase, count_include_pad: bool, divisor: int | None, seed: int
) -> None:
    x, y = make_integer_pool_inputs(case, np.float64, seed)
    rule = {**average_rule(case, count_include_pad), "divisor_override": divisor}
    values = reference_pooling.avg_pool2d(x, **rule)
    back = reference_pooling.avg_pool2d_grad(y, x.shape, **rule)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        actual = fastconv.avg_pool2d(x, **rule, algorithm=algorithm)
        np.testing.assert_allclose(actual, values, rtol=1e-14, atol=1e-14, err_msg=algorithm)
        grad = fastconv.avg_pool2d_grad(y, x.shape, **rule, algorithm=algorithm)
        np.testing.assert_allclose(grad, back, rtol=1e-13, atol=1e-13, err_msg=algorithm)
        np.testing.assert_allclose(inner(actual, y), inner(x, grad), rtol=1e-12, atol=1e-11)


@given(pool_cases(wide_padding=True), st.booleans(), DIVISORS, st.integers(0, 2**32 - 1))
def test_pooling_with_wide_padding(
    case: PoolCase, count_include_pad: bool, divisor: int | None, seed: int
) -> None:
    x, y = make_integer_pool_inputs(case, np.float64, seed)
    values, indices = reference_pooling.max_pool2d(x, *max_rule(case), wide_padding=True)
    back = reference_pooling.max_pool2d_grad(
        np.where(indices < 0, 0, y), np.maximum(indices, 0), x.shape
    )
    rule = {**average_rule(case, count_include_pad), "divisor_override": divisor}
    means = reference_pooling.avg_pool2d(x, **rule)
    spread = reference_pooling.avg_pool2d_grad(y, x.shape, **rule)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        wide: dict[str, Any] = {"wide_padding": True, "algorithm": algorithm}
        actual = fastconv.max_pool2d(x, *max_rule(case), return_indices=True, **wide)
        np.testing.assert_array_equal(actual[0], values, algorithm)
        np.testing.assert_array_equal(actual[1], indices, algorithm)
        alone = fastconv.max_pool2d(x, *max_rule(case), **wide)
        np.testing.assert_array_equal(alone, values, algorithm)
        grad = fastconv.max_pool2d_grad(y, indices, x.shape, **wide)
        np.testing.assert_array_equal(grad, back, algorithm)
        mean = fastconv.avg_pool2d(x, **rule, **wide)
        np.testing.assert_allclose(mean, means, rtol=1e-14, atol=1e-14, err_msg=algorithm)
        grad = fastconv.avg_pool2d_grad(y, x.shape, **rule, **wide)
        np.testing.assert_allclose(grad, spread, rtol=1e-13, atol=1e-13, err_msg=algorithm)


@given(pairs(1, 12), pairs(1, 12), st.integers(0, 2**32 - 1))
def test_adaptive_maximum_pooling(size: Pair, output_size: Pair, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (1, 2, *size)).astype(np.float64)
    x[rng.random(x.shape) < 0.1] = np.nan
    values, indices = reference_pooling.adaptive_max_pool2d(x, output_size)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        actual = fastconv.adaptive_max_pool2d(x, output_size, True, algorithm=algorithm)
        np.testing.assert_array_equal(actual[0], values, algorithm)
        np.testing.assert_array_equal(actual[1], indices, algorithm)
        alone = fastconv.adaptive_max_pool2d(x, output_size, algorithm=algorithm)
        np.testing.assert_array_equal(alone, values, algorithm)


@given(pairs(1, 12), pairs(1, 12), st.integers(0, 2**32 - 1))
def test_adaptive_average_pooling(size: Pair, output_size: Pair, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, (1, 2, *size)).astype(np.float64)
    y = rng.integers(-9, 10, (1, 2, *output_size)).astype(np.float64)
    values = reference_pooling.adaptive_avg_pool2d(x, output_size)
    back = reference_pooling.adaptive_avg_pool2d_grad(y, x.shape)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        actual = fastconv.adaptive_avg_pool2d(x, output_size, algorithm=algorithm)
        np.testing.assert_allclose(actual, values, rtol=1e-13, atol=1e-13, err_msg=algorithm)
        grad = fastconv.adaptive_avg_pool2d_grad(y, x.shape, algorithm=algorithm)
        np.testing.assert_allclose(grad, back, rtol=1e-13, atol=1e-12, err_msg=algorithm)


@given(
    size=numbers(1, 40),
    kernel=numbers(1, 7),
    stride=numbers(1, 9),
    data=st.data(),
    ceil_mode=st.booleans(),
)
def test_output_size_of_pooling(
    size: int, kernel: int, stride: int, data: st.DataObject, ceil_mode: bool
) -> None:
    """The last window fits, one more would not; `ceil_mode` lets it hang over the end."""
    padding = data.draw(numbers(0, kernel // 2))
    end = size + 2 * padding
    assume(kernel <= end)
    x = np.zeros((1, 1, 1, size), np.float32)
    rule = (1, kernel), (1, stride), (0, padding)
    count = fastconv.max_pool2d(x, *rule, ceil_mode=ceil_mode).shape[3]
    assert count == fastconv.avg_pool2d(x, *rule, ceil_mode=ceil_mode).shape[3]
    last = (count - 1) * stride
    if not ceil_mode:
        assert last + kernel <= end < last + stride + kernel
        return
    # No window starts in the padding after the input, and either all of the padded input is
    # seen or the next window would start there.
    assert last < padding + size
    assert last + kernel >= end or last + stride >= padding + size
    # No window more than it takes to see everything.
    assert count == 1 or last - stride + kernel < end
