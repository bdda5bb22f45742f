"""Winograd's method: its matrices, its promises about errors, and what it leaves alone."""

from __future__ import annotations

import re
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import reference
from cases import ConvCase, make_inputs, make_integer_inputs
from checks import LESS_EXACT, assert_identical, assert_integers
from numpy.typing import DTypeLike

import fastconv
from fastconv.codegen import winograd_matrices
from fastconv.convolution import winograd
from fastconv.convolution.blocking import winograd_search
from fastconv.convolution.weight_grad import winograd_weight_grad
from fastconv.runtime import output_memory, workspace
from fastconv.select import choice, conv_registry

NAMES = ("winograd_2x2", "winograd_4x4")
# F(m, r) of convolutions, and F(r, m) of the weights' gradients.
FORMS = [(2, 3), (4, 3), (2, 5), (4, 5), (3, 2), (3, 4), (5, 2), (5, 4)]


@pytest.mark.parametrize(("m", "r"), FORMS)
def test_matrices_give_the_convolution_exactly(m: int, r: int) -> None:
    """The coefficient of d[l] * g[k] in y[j] is 1 where l = j + k, else 0."""
    matrices, alpha = winograd_matrices.winograd(m, r), m + r - 1
    assert len(matrices.outputs) == m
    assert len(matrices.weights) == len(matrices.inputs) == alpha
    for j in range(m):
        for k in range(r):
            for left in range(alpha):
                total = sum(
                    matrices.outputs[j][i] * matrices.weights[i][k] * matrices.inputs[i][left]
                    for i in range(alpha)
                )
                assert total == (left == j + k)


@pytest.mark.parametrize("points", [("0", "1", "-1", "2", "-2"), ("1/3", "-7", "2", "5/4", "9")])
def test_any_points_do(points: tuple[str, ...]) -> None:
    a, g, b = winograd_matrices.from_points(3, 4, tuple(map(Fraction, points)))
    rng = np.random.default_rng(0)
    data = [Fraction(int(v)) for v in rng.integers(-9, 10, 6)]
    taps = [Fraction(int(v)) for v in rng.integers(-9, 10, 4)]

    def times(matrix: winograd_matrices.Matrix, values: list[Fraction]) -> list[Fraction]:
        return [
            sum((x * y for x, y in zip(row, values, strict=True)), Fraction(0)) for row in matrix
        ]

    products = [x * y for x, y in zip(times(g, taps), times(b, data), strict=True)]
    expected = [sum(data[j + k] * taps[k] for k in range(4)) for j in range(3)]
    assert times(a, products) == expected


#: Maps smaller than a tile, tails in both axes, wide and high ones, several images in a block.
CASES = (
    ConvCase("one_output", (1, 1, 3, 3), (1, 1, 3, 3)),
    ConvCase("less_than_a_tile", (5, 3, 4, 3), (2, 3, 3, 3)),
    ConvCase("images_in_a_block", (9, 6, 7, 5), (33, 6, 3, 3), padding=1),
    ConvCase("wide", (1, 3, 9, 301), (17, 3, 3, 3), padding=1),
    ConvCase("high", (2, 3, 203, 6), (7, 3, 3, 3), padding=((0, 3), (2, 1))),
    ConvCase("margins", (2, 5, 6, 7), (8, 5, 3, 3), padding=((9, 4), (0, 11))),
    ConvCase("groups", (2, 12, 17, 19), (15, 4, 3, 3), padding=1, groups=3),
    ConvCase("deep", (1, 130, 9, 10), (70, 130, 3, 3), padding=1),
    ConvCase("five", (2, 7, 23, 37), (20, 7, 5, 5), padding=2),
    ConvCase("five_in_groups", (1, 6, 8, 41), (6, 2, 5, 5), padding=((4, 0), (1, 5)), groups=3),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", NAMES)
def test_geometries(algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    data = make_integer_inputs(case, dtype)
    expected = reference.conv2d(data.x, data.weight, data.bias, *case.geometry)
    arguments = data.x, data.weight, data.bias, *case.geometry
    before = fastconv.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 8):
            fastconv.set_num_threads(threads)
            results.append(fastconv.conv2d(*arguments, algorithm=algorithm))
            assert_integers(results[-1], expected, dtype)
    finally:
        fastconv.set_num_threads(before)
    for other in results[1:]:
        assert_identical(other, results[0], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", NAMES)
def test_filters_are_the_same_wherever_they_are_transformed(
    algorithm: str, case: ConvCase, dtype: DTypeLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All before, or fresh ones for each block: the bits are those of a plan."""
    data = make_inputs(case, dtype)
    forward = data.weight, data.bias, *case.geometry
    backward = case.input_shape, data.weight, data.grad_output, *case.geometry
    prepared = fastconv.plan_conv2d(case.input_shape, *forward, algorithm=algorithm)
    expected = prepared(data.x), None
    before = fastconv.get_num_threads()
    try:
        for fresh in (False, True):
            monkeypatch.setattr(winograd, "cheapest", cheapest_if(fresh))
            for threads in (1, 2, 8):
                fastconv.set_num_threads(threads)
                y = fastconv.conv2d(data.x, *forward, algorithm=algorithm)
                dx = fastconv.conv2d_input_grad(*backward, algorithm=algorithm)
                expected = expected[0], dx if expected[1] is None else expected[1]
                for actual, wanted in zip((y, dx), expected, strict=True):
                    assert_identical(actual, wanted, dtype)
    finally:
        fastconv.set_num_threads(before)
    exact = reference.conv2d_input_grad(*backward)
    limit = LESS_EXACT[algorithm] * np.finfo(dtype).eps
    assert np.abs(expected[1] - exact).max() <= limit * np.abs(exact).max()


def cheapest_if(fresh: bool) -> Any:
    """Return what finds the cheapest cut, with fresh filters or without, where used once."""

    def cheapest(problem: Any, m: int, num_threads: int, once: bool = False) -> Any:
        shapes = winograd_search.product_tiles(problem, m)
        arguments = num_threads, fresh and once
        return min(winograd_search.cheapest_with(problem, m, s, *arguments) for s in shapes)

    return cheapest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", NAMES)
def test_geometries_of_weight_gradients(
    algorithm: str, case: ConvCase, dtype: DTypeLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_integer_inputs(case, dtype)
    expected = reference.conv2d_weight_grad(
        data.x, case.weight_shape, data.grad_output, *case.geometry
    )
    arguments = data.x, case.weight_shape, data.grad_output, *case.geometry
    before = fastconv.get_num_threads()
    try:
        # Many bands too: of some images, and of some rows.
        for most in (winograd_weight_grad.BAND_BYTES, 2**18):
            monkeypatch.setattr(winograd_weight_grad, "BAND_BYTES", most)
            winograd_weight_grad.bands_of.cache_clear()
            results = []
            for threads in (1, 2, 8):
                fastconv.set_num_threads(threads)
                results.append(fastconv.conv2d_weight_grad(*arguments, algorithm=algorithm))
                assert_integers(results[-1], expected, dtype)
            for other in results[1:]:
                assert_identical(other, results[0], dtype)
    finally:
        fastconv.set_num_threads(before)
        winograd_weight_grad.bands_of.cache_clear()


@pytest.mark.parametrize("side", [7, 28, 56])
@pytest.mark.parametrize(("algorithm", "size"), [(name, size) for name in NAMES for size in (3, 5)])
def test_errors_of_weight_gradients_stay_within_what_is_promised(
    algorithm: str, size: int, side: int
) -> None:
    """Beside float64, relative to the largest, on standard-normal data."""
    case = ConvCase("error", (4, 32, side, side), (32, 32, size, size), padding=size // 2)
    data = make_inputs(case)
    geometry = case.weight_shape, data.grad_output, *case.geometry
    exact = fastconv.conv2d_weight_grad(data.x.astype(np.float64), *geometry, algorithm="im2col")
    actual = fastconv.conv2d_weight_grad(data.x, *geometry, algorithm=algorithm)
    error = np.abs(actual - exact).max() / np.abs(exact).max()
    assert 1e-8 < error < LESS_EXACT[algorithm] * np.finfo(np.float32).eps


def test_weight_gradients_refuse_a_band_that_is_too_large() -> None:
    x, grad = np.ones((1, 64, 3, 20_000), np.float32), np.ones((64, 64, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"winograd_4x4.*MiB, most is 8"):
        fastconv.conv2d_weight_grad(
            x, grad.shape, np.ones((1, 64, 1, 19_998), np.float32), algorithm="winograd_4x4"
        )


@pytest.mark.parametrize("algorithm", NAMES)
def test_an_image_comes_out_alike_in_every_batch(algorithm: str) -> None:
    case = ConvCase("batch", (6, 20, 14, 13), (40, 20, 3, 3), padding=1)
    data = make_inputs(case)
    arguments = data.weight, data.bias, *case.geometry
    together = fastconv.conv2d(data.x, *arguments, algorithm=algorithm)
    for n in range(6):
        alone = fastconv.conv2d(data.x[n : n + 1], *arguments, algorithm=algorithm)
        assert_identical(alone[0], together[n], np.float32)


@pytest.mark.parametrize("channels", [3, 64, 512])
@pytest.mark.parametrize(
    ("algorithm", "size", "most"),
    [("winograd_2x2", 3, 3e-6), ("winograd_4x4", 3, 1e-5), ("winograd_2x2", 5, 5e-6),
     ("winograd_4x4", 5, 1e-5)],
)  # fmt: skip
def test_errors_stay_within_what_is_promised(
    algorithm: str, size: int, most: float, channels: int
) -> None:
    """Beside float64, relative to the largest output, on standard-normal data."""
    case = ConvCase("error", (1, channels, 24, 24), (16, channels, size, size), padding=1)
    data = make_inputs(case)
    exact = fastconv.conv2d(
        data.x.astype(np.float64), data.weight, None, *case.geometry, algorithm="im2col"
    )
    actual = fastconv.conv2d(data.x, data.weight, None, *case.geometry, algorithm=algorithm)
    error = np.abs(actual - exact).max() / np.abs(exact).max()
    assert error < most
    assert most <= LESS_EXACT[algorithm] * np.finfo(np.float32).eps
    # It is less exact than a sum, and says so: not a plain sum under another name.
    assert error > 1e-8


@pytest.mark.parametrize("algorithm", NAMES)
def test_what_is_not_finite_stays_in_the_tiles_that_read_it(algorithm: str) -> None:
    case = ConvCase("not_finite", (2, 3, 40, 41), (5, 3, 3, 3), padding=1)
    data, m = make_integer_inputs(case), int(algorithm[-1])
    expected = reference.conv2d(data.x, data.weight, None, *case.geometry)
    data.x[0, 1, 20, 18] = np.nan
    data.x[1, 2, 3, 4] = np.inf
    with np.errstate(invalid="ignore"):
        actual = fastconv.conv2d(data.x, data.weight, None, *case.geometry, algorithm=algorithm)
    # Outputs 19 to 21 see row 20; their tiles are no larger than m.
    for n, i, j in ((0, 20, 18), (1, 3, 4)):
        lines = slice((i - 1) // m * m, (i + 1) // m * m + m)
        columns = slice((j - 1) // m * m, (j + 1) // m * m + m)
        assert not np.isfinite(actual[n, :, i - 1 : i + 2, j - 1 : j + 2]).any()
        actual[n, :, lines, columns] = expected[n, :, lines, columns]
    assert_integers(actual, expected, np.float32)


@pytest.mark.parametrize(
    ("input_shape", "weight_shape"),
    [
        ((1, 3, 8000, 8000), (64, 3, 5, 5)),
        ((256, 1, 56, 56), (1, 1, 3, 3)),
        ((64, 1, 28, 28), (1, 1, 5, 5)),
        ((1, 64, 64, 100_000), (64, 64, 3, 3)),
    ],
)
def test_no_thread_borrows_more_than_four_mebibytes(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> None:
    """Large images and batches are cut so that buffers stay small, whatever the layer."""
    problem = fastconv.Conv2dProblem.from_shapes(input_shape, weight_shape, padding=1)
    before = fastconv.get_num_threads()
    try:
        for algorithm in (a for a in conv_registry.ALGORITHMS if a.name in NAMES):
            assert algorithm.forward.refusal(problem) is None
            for threads in (1, 2, 3, 8, 16, 64):
                fastconv.set_num_threads(threads)
                assert 0 < algorithm.forward.workspace_bytes(problem) <= 4 * 2**20
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("batch", "channels", "side"), [(8, 512, 7), (2, 512, 14), (1, 256, 28)])
@pytest.mark.parametrize("algorithm", NAMES)
def test_a_call_borrows_little_for_transformed_weights(
    algorithm: str, batch: int, channels: int, side: int, threads: int
) -> None:
    """No more than 8 MiB a thread and one copy of the weights."""
    case = ConvCase("deep", (batch, channels, side, side), (512, channels, 3, 3), padding=1)
    data = make_inputs(case)
    calls = (
        lambda: fastconv.conv2d(data.x, data.weight, padding=1, algorithm=algorithm),
        lambda: fastconv.conv2d_input_grad(
            case.input_shape, data.weight, data.grad_output, padding=1, algorithm=algorithm
        ),
    )
    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(threads)
        for call in calls:
            size = call().nbytes  # whatever is made once is there now
            workspace._idle.__dict__.clear()
            output_memory.release()
            tracemalloc.start()
            call()
            peak = tracemalloc.get_traced_memory()[1] - size
            tracemalloc.stop()
            assert peak <= threads * 8 * 2**20 + data.weight.nbytes
    finally:
        tracemalloc.stop()
        fastconv.set_num_threads(before)


@pytest.mark.parametrize(
    ("weight_shape", "options", "reason"),
    [
        ((2, 3, 1, 1), {}, "3 x 3 or 5 x 5, got 1 x 1"),
        ((2, 3, 3, 5), {}, "3 x 3 or 5 x 5, got 3 x 5"),
        ((2, 3, 3, 3), {"stride": 2}, r"stride 1, got \(2, 2\)"),
        ((2, 3, 3, 3), {"dilation": (1, 2)}, r"dilation 1, got \(1, 2\)"),
    ],
)
def test_refusals_say_why(weight_shape: tuple[int, ...], options: dict, reason: str) -> None:
    x, weight = np.ones((1, 3, 12, 12), np.float32), np.ones(weight_shape, np.float32)
    for algorithm in NAMES:
        with pytest.raises(ValueError, match=f"{algorithm}.*{reason}"):
            fastconv.conv2d(x, weight, algorithm=algorithm, **options)


def test_auto_takes_it_for_deep_small_maps_too() -> None:
    """Transforming the weights takes a part of such a call, which may be worth it."""
    problem = fastconv.Conv2dProblem.from_shapes((8, 512, 7, 7), (512, 512, 3, 3), padding=1)
    with fastconv.at_precision("high"):
        for direction in ("forward", "input_grad"):
            assert choice.choose(problem, direction, once=direction == "forward").name in NAMES


def test_auto_takes_it_unless_every_bit_counts() -> None:
    weight = np.ones((64, 64, 3, 3), np.float32)
    with fastconv.at_precision("high"):
        assert fastconv.plan_conv2d((1, 64, 56, 56), weight, padding=1).algorithm in NAMES
    with fastconv.at_precision("highest"):
        exact = fastconv.plan_conv2d((1, 64, 56, 56), weight, padding=1)
    assert exact.algorithm not in NAMES
    assert re.search(r"winograd_4x4 +less exact", exact.explain())
