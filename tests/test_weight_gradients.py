"""Gradients of the weights by register tiles: geometries, cuts, threads, exactness, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import ConvCase, make_inputs, make_integer_inputs
from checks import assert_identical
from numpy.typing import DTypeLike

import fastconv
from fastconv.convolution.weight_grad import (
    direct_1x1_weight_grad,
    direct_weight_grad,
    implicit_gemm_weight_grad,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.runtime import cpu

needs_masks = pytest.mark.skipif(
    not cpu.describe().instructions.masks, reason="direct's weight gradient needs loads by mask"
)

#: What decides how a gradient is cut: many images, long rows, few and many channels, strides.
CASES = (
    ConvCase("many_images", (70, 3, 9, 7), (5, 3, 3, 3), padding=1),
    ConvCase("one_channel", (11, 1, 28, 28), (8, 1, 3, 3), padding=1),
    ConvCase("wide", (1, 3, 9, 1301), (17, 3, 3, 3), padding=1),
    ConvCase("high", (2, 3, 803, 6), (7, 3, 3, 3), padding=((0, 3), (2, 1))),
    ConvCase("margins", (2, 5, 6, 7), (8, 5, 3, 3), padding=((9, 4), (0, 11))),
    ConvCase("first", (2, 3, 45, 46), (20, 3, 7, 7), stride=2, padding=3),
    ConvCase("long_kernel", (2, 2, 19, 40), (3, 2, 11, 9), padding=5),
    ConvCase("long_kernel_strided", (1, 2, 30, 61), (3, 2, 4, 13), stride=(1, 2), padding=3),
    ConvCase("dilated", (2, 4, 17, 40), (6, 4, 3, 3), padding=2, dilation=2),
    ConvCase("dilated_rows_strided", (2, 4, 27, 40), (6, 4, 3, 3), (2, 2), 2, (3, 1)),
    ConvCase("pointwise", (3, 40, 13, 11), (35, 40, 1, 1)),
    ConvCase("pointwise_small", (5, 19, 2, 3), (9, 19, 1, 1)),
    ConvCase("pointwise_strided", (3, 40, 13, 35), (70, 40, 1, 1), stride=2),
    ConvCase("pointwise_strided_by_columns", (2, 33, 5, 66), (18, 33, 1, 1), stride=(1, 2)),
    ConvCase("pointwise_strided_in_groups", (2, 36, 7, 34), (40, 18, 1, 1), (3, 2), groups=2),
    ConvCase("pointwise_far_strides", (3, 4, 25, 61), (3, 4, 1, 1), stride=(6, 5)),
    ConvCase("pointwise_padded_strided", (2, 9, 7, 8), (5, 9, 1, 1), stride=2, padding=1),
    ConvCase("depthwise", (3, 21, 15, 33), (21, 1, 3, 3), padding=1, groups=21),
    ConvCase("depthwise_strided", (2, 9, 31, 33), (18, 1, 5, 5), 2, 2, groups=9),
    ConvCase("deep", (2, 130, 9, 10), (70, 130, 3, 3), padding=1),
)

#: Those that are products of planes.
PLANES = (
    *("pointwise", "pointwise_small", "pointwise_strided", "pointwise_strided_by_columns"),
    *("pointwise_strided_in_groups", "pointwise_far_strides"),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["implicit_gemm", pytest.param("direct", marks=needs_masks)])
def test_geometries(algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    data = make_integer_inputs(case, dtype)
    arguments = data.x, case.weight_shape, data.grad_output, *case.geometry
    expected = reference.conv2d_weight_grad(*arguments)
    before = fastconv.get_num_threads()
    try:
        for threads in (1, 2, 8):
            fastconv.set_num_threads(threads)
            actual = fastconv.conv2d_weight_grad(*arguments, algorithm=algorithm)
            assert_identical(actual, expected, dtype)
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["implicit_gemm", pytest.param("direct", marks=needs_masks)])
def test_bits_do_not_depend_on_threads(algorithm: str, case: ConvCase) -> None:
    data = make_inputs(case)
    arguments = data.x, case.weight_shape, data.grad_output, *case.geometry
    before = fastconv.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 8):
            fastconv.set_num_threads(threads)
            results.append(fastconv.conv2d_weight_grad(*arguments, algorithm=algorithm))
    finally:
        fastconv.set_num_threads(before)
    for other in results[1:]:
        assert_identical(other, results[0], np.float32)


@needs_masks
@pytest.mark.parametrize(("sums", "vectors"), [(1, 1), (2**12, 7), (2**21, 10_000)])
def test_any_cut_into_pieces_and_chunks(
    sums: int, vectors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_weight_grad, "SUMS_BYTES", sums)
    monkeypatch.setattr(direct_weight_grad, "PIXEL_BLOCK_VECTORS", vectors)
    for case in (CASES[0], CASES[2], CASES[5], CASES[17]):
        direct_weight_grad.cut_of.cache_clear()
        data = make_integer_inputs(case)
        problem = Conv2dProblem.from_shapes(case.input_shape, case.weight_shape, *case.geometry)
        out = np.full(case.weight_shape, np.nan, np.float32)
        direct_weight_grad.DirectAnyWeightGrad().run(problem, data.x, data.grad_output, out)
        arguments = data.x, case.weight_shape, data.grad_output, *case.geometry
        assert_identical(out, reference.conv2d_weight_grad(*arguments), np.float32)
    direct_weight_grad.cut_of.cache_clear()


@needs_masks
@pytest.mark.parametrize(
    ("sums", "picked", "vectors"),
    [(1, 1, (1, 1)), (2**12, 2**14, (2, 3)), (2**21, 2**30, (99, 99))],
)
def test_any_cut_of_planes(
    sums: int, picked: int, vectors: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_1x1_weight_grad, "SUMS_BYTES", sums)
    monkeypatch.setattr(direct_1x1_weight_grad, "SUBSAMPLED_BYTES", picked)
    monkeypatch.setattr(direct_1x1_weight_grad, "FEWEST_VECTORS", vectors[0])
    monkeypatch.setattr(direct_1x1_weight_grad, "MOST_VECTORS", vectors[1])
    for case in (case for case in CASES if case.name in PLANES):
        direct_1x1_weight_grad.cut_of.cache_clear()
        data = make_integer_inputs(case)
        problem = Conv2dProblem.from_shapes(case.input_shape, case.weight_shape, *case.geometry)
        out = np.full(case.weight_shape, np.nan, np.float32)
        direct_1x1_weight_grad.Direct1x1WeightGrad().run(problem, data.x, data.grad_output, out)
        arguments = data.x, case.weight_shape, data.grad_output, *case.geometry
        assert_identical(out, reference.conv2d_weight_grad(*arguments), np.float32)
    direct_1x1_weight_grad.cut_of.cache_clear()


@pytest.mark.parametrize("algorithm", ["implicit_gemm", pytest.param("direct", marks=needs_masks)])
def test_errors_of_long_sums_stay_small(algorithm: str) -> None:
    """Sums in runs: 300,000 products a weight, beside float64."""
    case = ConvCase("long", (8, 3, 192, 192), (8, 3, 3, 3), padding=1)
    data = make_inputs(case)
    geometry = case.weight_shape, data.grad_output, *case.geometry
    exact = fastconv.conv2d_weight_grad(data.x.astype(np.float64), *geometry, algorithm="im2col")
    actual = fastconv.conv2d_weight_grad(data.x, *geometry, algorithm=algorithm)
    assert np.abs(actual - exact).max() < 2e-6 * np.abs(exact).max()


@needs_masks
def test_nothing_beside_the_image_is_multiplied() -> None:
    """Zero times infinity is not zero: margins and row ends must not reach what lies beyond."""
    x = np.zeros((1, 1, 5, 19), np.float32)
    grad = np.ones((1, 1, 5, 17), np.float32)
    x[0, 0, :, 18] = np.inf  # seen by the last column of the kernel alone
    with np.errstate(invalid="ignore"):
        actual = fastconv.conv2d_weight_grad(x, (1, 1, 1, 3), grad, algorithm="direct")
    np.testing.assert_array_equal(actual, [[[[0, 0, np.inf]]]])


@needs_masks
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stride": (1, 3)}, r"horizontal stride of at most 2, got \(1, 3\)"),
        ({"stride": 2, "dilation": 2}, r"horizontal dilation 1 at stride 2, got \(2, 2\)"),
    ],
)
def test_refusals_of_direct_say_why(options: dict, reason: str) -> None:
    x, weight = np.ones((1, 3, 16, 16), np.float32), np.ones((4, 3, 3, 3), np.float32)
    grad = fastconv.conv2d(x, weight, **options)
    with pytest.raises(ValueError, match=f"direct.*{reason}"):
        fastconv.conv2d_weight_grad(x, weight.shape, grad, algorithm="direct", **options)


def test_only_wanted_pixels_of_a_strided_pointwise_kernel_are_laid_out() -> None:
    problem = Conv2dProblem.from_shapes((2, 40, 13, 35), (70, 40, 1, 1), 2)
    wanted = implicit_gemm_weight_grad.subsampled_problem(problem)
    assert wanted.input_shape == (2, 40, 7, 18)
    assert wanted.output_shape == problem.output_shape
    for other in ({"padding": 1, "stride": 2}, {"stride": 3}, {"stride": 1}):
        problem = Conv2dProblem.from_shapes((2, 40, 13, 35), (70, 40, 1, 1), **other)
        assert implicit_gemm_weight_grad.subsampled_problem(problem) is problem
