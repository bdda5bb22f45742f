"""Rounding: the same bits for any number of threads, nothing lost at the edges of a type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference
from cases import ConvCase, make_inputs, make_integer_inputs
from checks import LESS_EXACT, assert_identical
from numpy.typing import DTypeLike

import fastconv

TILED = ("implicit_gemm", "direct")
ALGORITHMS = (*TILED, "depthwise")

# Bands, parts and tiles of several kinds, and something left over of each.
AWKWARD = (
    ConvCase("wide", (1, 20, 9, 151), (37, 20, 3, 2), (1, 3), ((2, 0), (1, 3)), (2, 1)),
    ConvCase("tall", (1, 7, 300, 5), (19, 7, 5, 4), padding=((4, 0), (0, 0))),
    ConvCase("depthwise", (2, 41, 13, 29), (41, 1, 3, 3), (2, 1), 1, groups=41),
    ConvCase("multiplied", (1, 5, 31, 70), (15, 1, 5, 4), (1, 2), ((9, 0), (3, 7)), groups=5),
    ConvCase("narrow", (2, 9, 40, 3), (9, 1, 5, 5), padding=2, groups=9),
    ConvCase("small", (1, 7, 1, 1), (14, 1, 2, 3), (2, 2), ((5, 3), (20, 1)), groups=7),
    ConvCase("grouped", (3, 30, 11, 17), (51, 10, 3, 3), 2, "same", groups=3),
    ConvCase("pointwise", (1, 200, 13, 11), (70, 200, 1, 1)),
    ConvCase("one_row", (1, 3, 1, 997), (5, 3, 1, 7), (1, 4), padding=(0, 9)),
    ConvCase("one_pixel", (1, 333, 3, 3), (67, 333, 3, 3)),
    ConvCase("dilated", (2, 5, 23, 37), (33, 5, 3, 3), padding=6, dilation=(6, 5)),
)


#: Algorithms with the cases they take.
BOTH = [
    pytest.param(algorithm, case, id=f"{algorithm}-{case.name}")
    for algorithm in ALGORITHMS
    for case in AWKWARD
    if algorithm in TILED or case.groups == case.input_shape[1]
]


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("algorithm", "case"), BOTH)
def test_threads_change_no_bits(algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    data = make_inputs(case, dtype)
    residual = np.random.default_rng(9).standard_normal(case.output_shape).astype(dtype)
    plan = fastconv.plan_conv2d(
        *(case.input_shape, data.weight, data.bias, *case.geometry),
        activation="silu",
        algorithm=algorithm,
    )
    results = []
    for count in (1, 2, 3, 8):
        fastconv.set_num_threads(count)
        summed = fastconv.conv2d(
            data.x, data.weight, data.bias, *case.geometry, algorithm=algorithm
        )
        results.append((summed.tobytes(), plan(data.x, residual=residual).tobytes()))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", [a for a in fastconv.algorithms() if "winograd" not in a])
def test_denormals_are_numbers(algorithm: str, dtype: DTypeLike) -> None:
    """On every thread: a processor can be told to take them for zeros."""
    least = np.finfo(dtype).smallest_subnormal
    case = ConvCase("denormals", (2, 3, 12, 40), (5, 3, 3, 3), padding=1)
    if algorithm == "depthwise":
        case = ConvCase("denormals", (2, 3, 12, 40), (6, 1, 3, 3), padding=1, groups=3)
    data = make_integer_inputs(case, dtype)
    # Integers times the least number: their sums are exact, and denormal all of them.
    integers = reference.conv2d(data.x, data.weight, None, *case.geometry)
    expected = integers.astype(dtype) * least
    assert (expected != 0).sum() > expected.size / 2
    for count in (1, 3):
        fastconv.set_num_threads(count)
        for x, weight in ((data.x * least, data.weight), (data.x, data.weight * least)):
            actual = fastconv.conv2d(x, weight, None, *case.geometry, algorithm=algorithm)
            if algorithm in LESS_EXACT:  # of many roundings, each by half of the least number
                np.testing.assert_allclose(actual, expected, rtol=0, atol=32 * least)
                continue
            assert_identical(actual, expected, dtype)


@pytest.mark.parametrize(("algorithm", "case"), BOTH)
def test_nan_and_infinity_reach_their_windows_alone(algorithm: str, case: ConvCase) -> None:
    """In whole tiles, in tails and across bands; `test_arrays` has small maps."""
    rng = np.random.default_rng(4)
    fastconv.set_num_threads(3)
    data = make_integer_inputs(case)
    for array in (data.x, data.weight):
        clean = array.copy()
        places = rng.integers(0, array.size, 3)
        array.reshape(-1)[places] = np.nan, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            expected = reference.conv2d(data.x, data.weight, data.bias, *case.geometry)
            actual = fastconv.conv2d(
                data.x, data.weight, data.bias, *case.geometry, algorithm=algorithm
            )
        assert not np.isfinite(expected).all()
        assert_identical(actual, expected, np.float32)
        array[...] = clean


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("algorithm", "case"), BOTH)
def test_weights_that_are_not_finite_meet_the_margins(
    algorithm: str, case: ConvCase, dtype: DTypeLike
) -> None:
    """Zero times infinity is NaN, in the margins too, with every call and every plan."""
    fastconv.set_num_threads(2)
    data = make_integer_inputs(case, dtype)
    taps = int(np.prod(case.weight_shape[2:]))
    for value in (np.inf, -np.inf, np.nan):
        # The first and the last tap of a filter: one of them, or both, see margins.
        data.weight.reshape(-1)[[0, -1, taps - 1]] = value
        with np.errstate(invalid="ignore"):
            expected = reference.conv2d(data.x, data.weight, data.bias, *case.geometry)
            actual = fastconv.conv2d(
                data.x, data.weight, data.bias, *case.geometry, algorithm=algorithm
            )
            plan = fastconv.plan_conv2d(
                *(case.input_shape, data.weight, data.bias, *case.geometry),
                algorithm=algorithm,
            )
            assert plan.algorithm == algorithm
            planned = plan(data.x)
        assert np.isnan(expected).any() or case.padding == 0
        assert_identical(actual, expected, dtype)
        assert_identical(planned, expected, dtype)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_overflow_and_underflow(algorithm: str) -> None:
    """A sum may leave the range of its type: infinity, not a wrapped or clipped number."""
    x = np.full((1, 2, 3, 40), 2e38, np.float32)
    weight = np.ones((3, 2, 1, 1), np.float32)
    weight[1] = -1
    weight[2, 1] = -1
    groups = 1
    if algorithm == "depthwise":  # of one channel: the taps of a column
        x = np.full((1, 3, 4, 40), 2e38, np.float32)
        weight, groups = weight.reshape(3, 1, 2, 1), 3
    out = fastconv.conv2d(x, weight, groups=groups, algorithm=algorithm)
    wanted = np.array([np.inf, -np.inf, 0], np.float32)[:, None, None]
    assert_identical(out, np.broadcast_to(wanted, (1, 3, 3, 40)), np.float32)
    tiny = np.full((1, 1, 3, 40), 1e-30, np.float32)
    out = fastconv.conv2d(tiny, np.full((1, 1, 1, 1), 1e-30, np.float32), algorithm=algorithm)
    assert_identical(out, np.zeros((1, 1, 3, 40)), np.float32)


DEPTHS = {
    27: ((1, 3, 56, 56), (64, 3, 3, 3), 1),
    576: ((1, 64, 28, 28), (64, 64, 3, 3), 1),
    2048: ((1, 2048, 14, 14), (64, 2048, 1, 1), 0),
    4608: ((1, 512, 14, 14), (64, 512, 3, 3), 1),
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("algorithm", TILED)
def test_rounding_errors_beside_pytorch(algorithm: str, depth: int) -> None:
    """Sums of many products err about as much as PyTorch's, at the worst half again as much."""
    torch = pytest.importorskip("torch")
    _, weight_shape, padding = DEPTHS[depth]
    rng = np.random.default_rng(depth)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in DEPTHS[depth][:2])
    assert np.prod(weight_shape[1:]) == depth
    exact = reference.conv2d(x, weight, padding=padding)
    ours = fastconv.conv2d(x, weight, padding=padding, algorithm=algorithm)
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    theirs = torch.nn.functional.conv2d(*tensors, padding=padding).numpy()
    our_error, their_error = (np.abs(y.astype(float) - exact) for y in (ours, theirs))
    assert np.sqrt((our_error**2).mean()) <= 1.25 * np.sqrt((their_error**2).mean())
    assert our_error.max() <= 1.5 * their_error.max()


def test_the_choice_does_not_depend_on_the_number_of_threads() -> None:
    before = fastconv.get_num_threads()
    rng = np.random.default_rng(31)
    names = set()
    try:
        for _ in range(150):
            c, k = (int(2 ** rng.integers(0, 7)) for _ in range(2))
            size, kernel = int(rng.integers(1, 30)), int(rng.choice([1, 3]))
            shape, filters = (int(rng.integers(1, 4)), c, size, size), (k, c, kernel, kernel)
            stride = int(rng.integers(1, 3))
            chosen = set()
            for threads in (1, 2, 3, 16, 64):
                fastconv.set_num_threads(threads)
                weight = np.zeros(filters, np.float32)
                plan = fastconv.plan_conv2d(shape, weight, stride=stride, padding=kernel // 2)
                chosen.add(plan.algorithm)
            assert len(chosen) == 1, (shape, filters, stride, chosen)
            names |= chosen
    finally:
        fastconv.set_num_threads(before)
    assert len(names) > 1


@pytest.mark.parametrize("algorithm", ["im2col", "im2col_jit", "naive", "implicit_gemm", "direct"])
def test_activations_and_residuals_raise_nothing(algorithm: str) -> None:
    x = np.full((1, 1, 2, 2), 3e38, np.float32)
    weight = np.full((1, 1, 1, 1), 1, np.float32)
    with np.errstate(all="raise"):
        for activation in (("clip", -1e300, 1e300), ("leaky_relu", 3e38), "silu", "hard_swish"):
            plan = fastconv.plan_conv2d(x.shape, weight, activation=activation, algorithm=algorithm)
            plan(-x)
            plan(x, residual=x)
        # Finite weights whose sum is not.
        large = np.full((16, 8, 3, 3), 3e38, np.float32)
        zeros = np.zeros((1, 8, 4, 4), np.float32)
        out = fastconv.conv2d(zeros, large, padding=1, algorithm=algorithm)
    assert not out.any()
