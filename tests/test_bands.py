"""The bands of input that a thread copies are small, or the problem is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_identical
from test_tiling import LANES, MEBIBYTE, cut

import fastconv
from fastconv.bench.suites import load_suite, suite_names
from fastconv.convolution.algorithm import Algorithm
from fastconv.convolution.blocking import tile_search
from fastconv.convolution.direct import DIRECT
from fastconv.convolution.implicit_gemm import IMPLICIT_GEMM
from fastconv.core.conv_problem import Conv2dProblem


def test_a_band_stays_in_the_cache() -> None:
    compared = 0
    for name in suite_names():
        for layer in load_suite(name):
            for dtype in ("float32", "float64"):
                problem = tile_search.as_rows(layer.problem(dtype=dtype))
                for over in LANES:
                    for threads in (1, 2, 3, 8):
                        found = cut(problem, over, threads)
                        assert found.band_bytes <= 4 * MEBIBYTE, (layer, over, threads)
                        compared += 1
    assert compared > 100


@pytest.mark.parametrize("over", LANES)
@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "padding"),
    [
        ((1, 64, 1, 100000), (64, 64, 1, 5), (0, 2)),
        ((1, 3, 1, 100000), (8, 3, 1, 9), (0, 4)),
        ((1, 64, 100000, 1), (64, 64, 5, 1), (2, 0)),
        ((1, 3, 20000, 20000), (8, 3, 3, 3), 1),
        ((1, 20000, 7, 7), (32, 20000, 3, 3), 1),
        ((1, 20000, 14, 14), (8, 20000, 1, 1), 1),
    ],
)
def test_a_band_of_a_monstrous_image_is_small_too(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    padding: Any,
    over: tile_search.Over,
) -> None:
    problem = Conv2dProblem.from_shapes(input_shape, weight_shape, padding=padding)
    for threads in range(1, 10):
        assert cut(problem, over, threads).band_bytes <= 4 * MEBIBYTE


# Monstrous problems, as input shape, weight shape, stride, padding and dilation: C x 33 x 33 is
# what networks with pyramids of dilations see.
MONSTROUS = (
    *(((1, 2048, 33, 33), (256, 2048, 3, 3), 1, d, d) for d in range(1, 37, 5)),
    *(((1, 2048, 33, 33), (256, 2048, 3, 3), 1, d, d) for d in (12, 18, 24)),
    ((1, 4096, 20, 2000), (64, 4096, 7, 7), 1, 3, 1),
    ((1, 4096, 20, 2000), (64, 4096, 7, 7), 2, 3, 1),
    ((1, 20000, 56, 56), (64, 20000, 3, 3), 2, 1, 1),
    ((1, 20000, 56, 56), (1, 20000, 3, 3), 2, 1, 1),
    ((1, 30000, 9, 9), (2, 30000, 5, 5), 1, 2, 1),
    ((1, 120000, 5, 5), (2, 120000, 3, 3), 1, 1, 1),
    ((1, 3, 9, 2**21), (8, 3, 3, 3), (1, 3), 1, (1, 2**19)),
    ((1, 3, 2**21, 9), (8, 3, 3, 3), (3, 1), 1, (2**19, 1)),
    ((1, 1, 3000, 3000), (1, 1, 2001, 1001), 1, 7, 1),
    ((1, 64, 40, 70), (8, 64, 3, 3), (16, 16), 1, 1),
    ((1, 64, 40, 70), (8, 64, 3, 3), (17, 17), 1, 1),
    ((1, 64, 40, 70), (8, 64, 3, 3), (1, 17), 1, 1),
    ((1, 64, 40, 70), (8, 64, 3, 3), (999, 1), 500, 9),
)


def enormous_problem(rng: np.random.Generator) -> Conv2dProblem:
    """Return a problem with sizes of every magnitude; nothing of it is ever allocated."""

    def size(most: float) -> int:
        return int(np.exp(rng.uniform(0, np.log(most))))

    kernel = size(12), size(12)
    stride, dilation = (size(6), size(6)), (size(50), size(50))
    padding = tuple((size(40) - 1, size(40) - 1) if rng.random() < 0.7 else (0, 0) for _ in "hw")
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    image = (
        max(1, span - sum(sides)) + size(3000) - 1
        for span, sides in zip(spans, padding, strict=True)
    )
    groups, c = int(rng.choice([1, 1, 2, 32])), size(30000)
    return Conv2dProblem.from_shapes(
        (size(20), groups * c, *image),
        (groups * size(1000), c, *kernel),
        *(stride, padding, dilation, groups, str(rng.choice(["float32", "float64"]))),
    )


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


def check_memory(problem: Conv2dProblem, algorithm: Algorithm, num_threads: int) -> bool:
    """Return whether a problem is refused; it is if its bands are too large, and only then."""
    what = (problem, algorithm.name, num_threads)
    fastconv.set_num_threads(num_threads)
    refusal = algorithm.forward.refusal(problem)
    over: tile_search.Over = "channels" if algorithm is IMPLICIT_GEMM else "width"
    rows = tile_search.as_rows(problem)
    found = tile_search.best_blocking(rows, over, num_threads)
    band = found.band_bytes
    if refusal is None:
        assert band <= 4 * MEBIBYTE, what
        assert 0 <= algorithm.forward.workspace_bytes(problem) <= 4 * MEBIBYTE, what
        assert algorithm.forward.estimated_seconds(problem, num_threads) < 1e9, what
        # The tile of a plan stays what it is, whatever the number of threads is later.
        for other in (1, 64):
            again = tile_search.blocking_with(rows, found.shape, other)
            assert again.band_bytes <= 4 * MEBIBYTE, (*what, other)
    elif "stride" in refusal:
        assert problem.stride[1] > 16, what
        assert str(problem.stride) in refusal, what
    else:
        assert band > 4 * MEBIBYTE, what
        assert f"{band / MEBIBYTE:.1f} MiB" in refusal, what
        assert "band of the input" in refusal, what
        assert refusal.endswith("most is 4"), what
    return refusal is not None


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("algorithm", [IMPLICIT_GEMM, DIRECT], ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bands_of_monstrous_problems_are_small_or_refused(dtype: str, algorithm: Algorithm) -> None:
    refused = 0
    for input_shape, weight_shape, *geometry in MONSTROUS:
        problem = Conv2dProblem.from_shapes(input_shape, weight_shape, *geometry, dtype=dtype)
        answers = {check_memory(problem, algorithm, threads) for threads in (1, 16)}
        assert len(answers) == 1, problem  # what is refused does not depend on threads
        refused += answers.pop()
    assert 1 <= refused < len(MONSTROUS) / 2


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("algorithm", [IMPLICIT_GEMM, DIRECT], ids=lambda a: a.name)
def test_bands_of_any_problem_are_small_or_refused(algorithm: Algorithm) -> None:
    rng = np.random.default_rng(23)
    refused = sum(check_memory(enormous_problem(rng), algorithm, 1 + n % 9) for n in range(300))
    assert 5 < refused < 150


@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "stride", "padding"),
    [
        # Refused by both kinds of tiles: few pixels, but very many channels.
        ((1, 120000, 5, 5), (2, 120000, 3, 3), 1, 1),
        ((1, 110000, 4, 4), (1, 110000, 3, 4), 2, ((1, 1), (2, 0))),
    ],
)
def test_auto_computes_what_tiles_refuse(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: int, padding: Any
) -> None:
    rng = np.random.default_rng(3)
    # Sums of whole numbers are exact, in whatever order.
    x, weight = (
        rng.integers(-2, 3, shape).astype(np.float32) for shape in (input_shape, weight_shape)
    )
    for name in ("implicit_gemm", "direct"):
        with pytest.raises(ValueError, match=rf"{name!r} refuses .*\bMiB\b.*band of the input"):
            fastconv.conv2d(x, weight, None, stride, padding, algorithm=name)
    plan = fastconv.plan_conv2d(input_shape, weight, None, stride, padding)
    assert plan.algorithm not in ("implicit_gemm", "direct")
    assert plan.explain().count("band of the input") == 2
    expected = reference.conv2d(x, weight, None, stride, padding)
    assert_identical(plan(x), expected, np.float32)
    assert_identical(fastconv.conv2d(x, weight, None, stride, padding), expected, np.float32)
