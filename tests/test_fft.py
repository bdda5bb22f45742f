"""Convolution by Fourier transforms: transforms, tiles, errors, and what transforms cannot do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference
from cases import ConvCase, make_inputs
from checks import assert_identical, assert_transformed
from numpy.typing import DTypeLike
from reference import Array
from test_convolution import DIRECTIONS, compute, expect, factors

import fastconv
from fastconv.convolution.blocking.overlap_save import Reading, Writing, axis_of, best_cut, cuts
from fastconv.convolution.blocking.spectra import transform_of
from fastconv.convolution.fft import FFT
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels import fft_loops

MEBIBYTE = 2**20

CASES = (
    ConvCase("plain", (1, 3, 40, 44), (5, 3, 11, 9), padding=5),
    ConvCase("several_tiles", (2, 4, 150, 70), (6, 4, 15, 7)),
    ConvCase("strided", (2, 6, 50, 61), (4, 3, 12, 9), (2, 3), ((3, 0), (1, 9)), groups=2),
    ConvCase("dilated", (1, 3, 60, 60), (4, 3, 5, 7), padding=((20, 3), (0, 9)), dilation=(9, 7)),
    ConvCase("depthwise", (2, 37, 32, 30), (37, 1, 31, 31), padding=15, groups=37),
    ConvCase("multiplied", (1, 5, 20, 21), (15, 1, 13, 4), 2, "same", groups=5),
    ConvCase("over_image", (1, 2, 3, 5), (3, 2, 40, 70), padding=((50, 20), (90, 40))),
    ConvCase("far_outside", (1, 1, 2, 3), (2, 1, 4, 4), padding=300),
    ConvCase("one_pixel", (2, 3, 1, 1), (4, 3, 1, 1)),
    ConvCase("one_pixel_padded", (1, 3, 1, 1), (4, 3, 9, 9), padding=4),
    ConvCase("one_filter", (1, 9, 40, 40), (1, 9, 9, 9), padding=4),
    ConvCase("row", (1, 3, 1, 700), (4, 3, 1, 63), padding=(0, 31)),
    ConvCase("column", (1, 3, 700, 1), (4, 3, 63, 1), (5, 1), padding=(40, 0)),
    ConvCase("deep", (1, 90, 30, 30), (70, 90, 9, 9), padding=4),
    ConvCase("groups", (1, 60, 30, 30), (80, 3, 7, 9), padding=4, groups=20),
)


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_large_kernels(direction: str, case: ConvCase, dtype: DTypeLike) -> None:
    """Near the oracle, and of the same bits for any number of threads."""
    data, results = make_inputs(case, dtype), []
    for count in (1, 2, 3, 8):
        fastconv.set_num_threads(count)
        results.append(compute(direction, case, data, "fft"))
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    expected = expect(direction, case, data)
    assert_transformed(results[0], expected, *factors(direction, case, data), dtype)


# Transforms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2**k for k in range(8)])
def test_order_of_frequencies(n: int) -> None:
    assert sorted(fft_loops.order(n)) == list(range(n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (2, 4), (8, 1), (1, 128), (16, 32), (64, 8)])
def test_spectra_are_those_of_numpy(size: tuple[int, int], dtype: str) -> None:
    planes = 37  # two pairs of blocks with lanes left over, or several
    transform = transform_of(dtype, *size)
    images = np.random.default_rng(1).standard_normal((planes, *size)).astype(dtype)
    spectra = np.full((transform.frequencies, planes), np.nan, np.result_type(dtype, np.complex64))
    numbers, corner = np.arange(planes)[::-1].copy(), (np.zeros(1, np.int64),) * 2
    readings = Reading(0, 0, size[0], 1), Reading(0, 0, size[1], 1)
    for conjugate in (False, True):
        transform.spectra(images, numbers, corner, readings, spectra, conjugate)
        expected = np.fft.rfft2(images[::-1].astype(float)).reshape(planes, -1).T
        expected = expected.conj() if conjugate else expected
        tolerance = 8 * np.finfo(dtype).eps * np.abs(expected).max()
        np.testing.assert_allclose(spectra, 2 * expected, rtol=0, atol=2 * tolerance)
    # And back: products are those of two spectra twice as large.
    transform.spectra(images, numbers, corner, readings, spectra)
    back, bias = np.full_like(images, np.nan), np.arange(planes).astype(dtype)
    writings = Writing(size[0], 0, 1), Writing(size[1], 0, 1)
    transform.images(2 * spectra, back, numbers, corner, writings, bias)
    expected = images + np.arange(planes)[::-1, None, None]
    np.testing.assert_allclose(back, expected, rtol=0, atol=64 * np.finfo(dtype).eps)


# Tiles -------------------------------------------------------------------------------------------


def problems(count: int) -> Iterator[Conv2dProblem]:
    rng = np.random.default_rng(5)
    while count:
        kernel, stride, dilation = (int(rng.integers(1, most)) for most in (9, 5, 6))
        size, before, after = (int(rng.integers(low, 40)) for low in (1, 0, 0))
        if size + before + after <= dilation * (kernel - 1):
            continue
        shapes = (1, 1, size, 1), (1, 1, kernel, 1)
        padding = (before, after), (0, 0)
        yield Conv2dProblem.from_shapes(*shapes, (stride, 1), padding, (dilation, 1))
        count -= 1


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_tiles_cover_everything_once_and_no_ring_closes(direction: str) -> None:
    """Followed with single products in place of transforms: each meets its place, once."""
    for p in problems(150):
        reads, writes = {"forward": "xwy", "input_grad": "ywx", "weight_grad": "xyw"}[direction], 0
        sizes = {"x": p.H, "w": p.R, "y": p.OH}
        right = {
            (h, r, i)
            for i in range(p.OH)
            for r in range(p.R)
            if 0 <= (h := i * p.stride[0] + r * p.dilation[0] - p.padding[0][0]) < p.H
        }
        for n in (8, 32, 128):
            axis = axis_of(p, direction, 0, n)
            if axis is None:
                continue
            found, writes = [], writes + 1
            for tile in range(axis.tiles):
                held = [
                    {
                        i * reading.spread: first + i
                        for i in range(reading.length)
                        if 0 <= (first := reading.first + tile * reading.advance) + i < sizes[name]
                    }
                    for reading, name in zip((axis.source, axis.filter), reads, strict=False)
                ]
                assert all(0 <= place < n for places in held for place in places)
                result = axis.result
                own = tile if direction != "weight_grad" else 0
                for k in range(result.length):
                    number = own * result.length + k
                    if number >= sizes[reads[2]]:
                        continue
                    place = result.start + k * result.spread
                    assert 0 <= place < n
                    for at, source in held[0].items():
                        distance = place - at if direction == "input_grad" else at - place
                        other = held[1].get(distance % n)
                        if other is not None:
                            numbers = dict(zip(reads, (source, other, number), strict=True))
                            found.append((numbers["x"], numbers["w"], numbers["y"]))
            assert len(found) == len(set(found))
            assert set(found) == right
        assert writes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_thread_borrows_more_than_eight_mebibytes(direction: str, dtype: str) -> None:
    rng = np.random.default_rng(7)
    taken, algorithm = 0, FFT
    for _ in range(150):
        c, k, groups = (int(2 ** rng.integers(0, 10)) for _ in range(3))
        kernel, size = rng.integers(1, 80, 2), rng.integers(80, 3000, 2)
        problem = Conv2dProblem.from_shapes(
            (int(rng.integers(0, 9)), c * groups, *map(int, size)),
            (k * groups, c, *map(int, kernel)),
            *(int(rng.integers(1, 4)), 0, 1, groups, dtype),
        )
        refusal = algorithm[direction].refusal(problem)
        if refusal is not None:
            assert "MiB" in refusal
            continue
        taken += 1
        assert algorithm[direction].workspace_bytes(problem) <= 8 * MEBIBYTE
        assert 0 < algorithm[direction].estimated_seconds(problem, 4) < 1e9
    assert taken > 50


@pytest.mark.parametrize(
    ("weight_shape", "options", "reason"),
    [
        ((1, 1, 3, 129), {}, "tiles of 128 x 128"),
        ((1, 1, 3, 3), {"dilation": (64, 1)}, "tiles of 128 x 128"),
        ((1, 1, 3, 3), {"stride": 127}, "tiles of 128 x 128"),
    ],
)
def test_refusals(
    weight_shape: tuple[int, int, int, int], options: dict[str, object], reason: str
) -> None:
    x, weight = np.ones((1, 1, 260, 260)), np.ones(weight_shape)
    out = reference.conv2d(x, weight, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"'fft' refuses this problem: needs .*{reason}"):
        fastconv.conv2d_input_grad(x.shape, weight, out, algorithm="fft", **options)  # type: ignore[arg-type]
    many = np.broadcast_to(np.float32(0), (1000, 1000, 31, 31))
    with pytest.raises(ValueError, match=r"'fft' refuses .* MiB for the spectra"):
        fastconv.conv2d(np.zeros((1, 1000, 40, 40), np.float32), many, algorithm="fft")


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [9, 15, 31])
def test_errors_beside_pytorch(kernel: int) -> None:
    """No element errs by more, in proportion to the largest, than PyTorch's sums."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(kernel)
    x, weight = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((1, 64, 48, 48), (4, 64, kernel, kernel))
    )
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    exact = torch.nn.functional.conv2d(*(t.double() for t in tensors), padding=kernel // 2).numpy()
    theirs = torch.nn.functional.conv2d(*tensors, padding=kernel // 2).numpy()
    ours = fastconv.conv2d(x, weight, padding=kernel // 2, algorithm="fft")
    assert np.abs(ours - exact).max() <= np.abs(theirs - exact).max()
    assert np.abs(ours - exact).max() < 1e-6 * np.abs(exact).max()


def test_errors_are_those_of_the_largest_element_of_a_tile() -> None:
    """What `precision` warns of; far away there is no error."""
    rng = np.random.default_rng(6)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((1, 1, 9, 400), (1, 1, 9, 9)))
    exact = reference.conv2d(x, weight)
    x[..., 0] = 1e8
    error = np.abs(fastconv.conv2d(x, weight, algorithm="fft") - exact)[0, 0, 0]
    cut = best_cut(Conv2dProblem.from_shapes(x.shape, weight.shape), "forward")
    assert cut is not None
    tile = cut.across.result.length
    assert 1e-3 < error[1:tile].max() < 1e8 * 1e-6 * np.abs(weight).sum()
    assert error[tile:].max() < 1e-4


# What transforms cannot do -----------------------------------------------------------------------

LARGE = ConvCase("large", (2, 6, 40, 41), (4, 3, 9, 9), padding=4, groups=2)


def spoil(array: Array, value: float) -> None:
    array.reshape(-1)[array.size // 3] = value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", ["x", "weight", "grad_output"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_not_finite_is_left_to_im2col(direction: str, place: str, value: float) -> None:
    """NaN where a sum has NaN; finite where a transform overflows, but not a sum."""
    data = make_inputs(LARGE)
    spoil(getattr(data, place), value)
    if value == 3e38:  # a sum of products with this does not leave the range
        for array in data:
            array[np.abs(array) < 1e30] *= 1e-3
    if (
        place in ("grad_output", "weight", "x")
        and place
        in {
            "forward": ("x", "weight"),
            "input_grad": ("weight", "grad_output"),
            "weight_grad": ("x", "grad_output"),
        }[direction]
    ):
        with np.errstate(invalid="ignore", over="ignore"):
            expected = compute(direction, LARGE, data, "im2col")
            actual = compute(direction, LARGE, data, "fft")
        assert np.isfinite(expected).any()
        assert_identical(actual, expected, np.float32)


def test_a_plan_leaves_it_to_im2col_too() -> None:
    data = make_inputs(LARGE)
    options = {"activation": "relu"}
    plans = [
        fastconv.plan_conv2d(
            *(LARGE.input_shape, data.weight, data.bias, *LARGE.geometry), algorithm=name, **options
        )
        for name in ("fft", "im2col")
    ]
    before = plans[0](data.x)
    spoiled = data.x.copy()
    spoil(spoiled, np.nan)
    with np.errstate(invalid="ignore"):
        assert_identical(plans[0](spoiled), plans[1](spoiled), np.float32)
    assert_identical(plans[0](data.x), before, np.float32)


def test_errstate_is_for_results_alone() -> None:
    """Transforms of finite numbers may overflow inside; nobody is told of that."""
    x, weight = np.full((1, 1, 40, 40), 1e37, np.float32), np.zeros((1, 1, 9, 9), np.float32)
    weight[..., 4, 4] = 1
    with np.errstate(all="raise"):
        assert_identical(fastconv.conv2d(x, weight, padding=4, algorithm="fft"), x, np.float32)


# The choice --------------------------------------------------------------------------------------


def test_auto_takes_large_kernels_alone() -> None:
    def chosen(input_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> str:
        weight = np.zeros(weight_shape, np.float32)
        groups = input_shape[1] // weight_shape[1]
        plan = fastconv.plan_conv2d(
            input_shape, weight, padding=weight_shape[2] // 2, groups=groups
        )
        return str(plan.algorithm)

    assert chosen((1, 64, 64, 64), (64, 64, 11, 11)) == "fft"
    assert chosen((1, 16, 128, 128), (16, 16, 15, 15)) == "fft"
    assert chosen((4, 64, 64, 64), (64, 1, 31, 31)) == "fft"
    for size in (1, 3):
        for shape in ((1, 64, 56, 56), (8, 512, 7, 7), (1, 3, 224, 224)):
            assert chosen(shape, (64, shape[1], size, size)) != "fft"
    assert chosen((1, 3, 224, 224), (64, 3, 7, 7)) != "fft"


def test_the_smallest_of_equal_tiles_is_taken() -> None:
    p = Conv2dProblem.from_shapes((1, 2, 10, 10), (2, 2, 7, 7))
    assert {(cut.n_h, cut.n_w) for cut in cuts(p, "forward")} == {
        (a, b) for a in (8, 16) for b in (8, 16)
    }
