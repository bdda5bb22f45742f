"""Arrays of every memory layout work, none is written to, empty batches and NaN go through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
from cases import ConvCase, ConvInputs, make_inputs, make_integer_inputs
from checks import assert_identical, whole
from reference import Array
from test_convolution import DIRECTIONS, EVERY, UNIVERSAL, compute, expect, refuses

import fastconv

CASE = ConvCase("layouts", (2, 4, 6, 7), (6, 2, 3, 2), (2, 1), ((1, 0), (1, 2)), (1, 2), 2)


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a: Array) -> Array:
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = memory.view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def spaced(a: Array) -> Array:
    wide = np.full((*a.shape[:-1], 3 * a.shape[-1] + 1), np.nan, a.dtype)
    wide[..., 1::3] = a
    return wide[..., 1::3]


def reversed_axes(a: Array) -> Array:
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def channels_last(a: Array) -> Array:
    return np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim == 4 else a.copy()


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "fortran": np.asfortranarray,
    "channels_last": channels_last,
    "spaced": spaced,
    "reversed": reversed_axes,
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read_only": read_only,
    "unaligned": unaligned,
    "list": lambda a: a.tolist(),
    "memoryview": memoryview,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
def test_layouts(direction: str, algorithm: str, layout: str) -> None:
    if algorithm not in UNIVERSAL and refuses(direction, CASE, algorithm):
        return
    data = make_integer_inputs(CASE, np.float64)
    laid_out = ConvInputs(*map(LAYOUTS[layout], data))
    actual = compute(direction, CASE, laid_out, algorithm)
    rounded = whole(actual, algorithm)
    assert_identical(rounded, expect(direction, CASE, data), np.float64)
    assert actual.flags.c_contiguous
    assert actual.flags.writeable


@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
def test_broadcast_arrays(direction: str, algorithm: str) -> None:
    # One number in memory, every stride zero.
    if algorithm not in UNIVERSAL and refuses(direction, CASE, algorithm):
        return
    shapes = (a.shape for a in make_inputs(CASE))
    data = ConvInputs(*(np.broadcast_to(np.float32(3), shape) for shape in shapes))
    actual = whole(compute(direction, CASE, data, algorithm), algorithm)
    assert_identical(actual, expect(direction, CASE, data), np.float32)


def test_arrays_that_are_the_same_memory() -> None:
    x = make_integer_inputs(ConvCase("self", (2, 3, 4, 4), (2, 3, 4, 4))).x
    assert_identical(fastconv.conv2d(x, x), reference.conv2d(x, x), np.float32)
    assert_identical(
        fastconv.conv2d(x, x, padding=2), reference.conv2d(x, x, padding=2), np.float32
    )


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_subclasses_come_back_as_plain_arrays() -> None:
    class Tagged(np.ndarray):
        """A subclass without a meaning of its own."""

    data = make_integer_inputs(CASE)
    actual = fastconv.conv2d(data.x.view(Tagged), data.weight.view(Tagged), None, *CASE.geometry)
    assert type(actual) is np.ndarray
    assert_identical(actual, expect("forward", CASE, data), np.float32)
    matrix = np.asmatrix(data.x[0, 0])
    with pytest.raises(ValueError, match=r"\bx\b"):
        fastconv.conv2d(matrix, data.weight)


@pytest.mark.parametrize(("direction", "algorithm"), EVERY)
def test_inputs_are_never_written_to(direction: str, algorithm: str) -> None:
    # A 1x1 kernel tempts to work in place: input, columns and output have one layout.
    for case in (CASE, ConvCase("pointwise", (2, 3, 4, 5), (3, 3, 1, 1))):
        if algorithm not in UNIVERSAL and refuses(direction, case, algorithm):
            continue
        data = make_inputs(case)
        kept = ConvInputs(*(a.copy() for a in data))
        result = compute(direction, case, data, algorithm)
        result[...] = np.nan
        for before, after in zip(kept, data, strict=True):
            assert after.flags.writeable
            assert_identical(after, before, np.float32)


def test_pooling_inputs_are_never_written_to() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 4))
    kept = x.copy()
    for algorithm in fastconv.pool_algorithms():
        # Windows of one pixel tempt to hand the input back.
        for kernel in (1, 2):
            values, indices = fastconv.max_pool2d(
                x, kernel, return_indices=True, algorithm=algorithm
            )
            before = indices.copy()
            back = fastconv.max_pool2d_grad(values, indices, x.shape, algorithm=algorithm)
            average = fastconv.avg_pool2d(x, kernel, algorithm=algorithm)
            spread = fastconv.avg_pool2d_grad(average, x.shape, kernel, algorithm=algorithm)
            adaptive = fastconv.adaptive_avg_pool2d(x, 4 // kernel, algorithm=algorithm)
            assert_identical(indices, before, np.int64)
            for result in (values, back, average, spread, adaptive):
                result[...] = np.nan
            assert_identical(x, kept, np.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_pooling_and_columns(layout: str) -> None:
    change = LAYOUTS[layout]
    x = np.random.default_rng(2).integers(-9, 10, (2, 3, 6, 8)).astype(np.float64)
    values, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    for algorithm in fastconv.pool_algorithms():
        actual = fastconv.max_pool2d(change(x), 2, return_indices=True, algorithm=algorithm)
        assert_identical(actual[0], values, np.float64)
        assert_identical(actual[1], indices, np.int64)
        places = change(indices) if layout != "spaced" else np.repeat(indices, 2, 3)[..., ::2]
        back = fastconv.max_pool2d_grad(change(values), places, x.shape, algorithm=algorithm)
        expected = fastconv.max_pool2d_grad(values, indices, x.shape)
        assert_identical(back, expected, np.float64)
        average = fastconv.avg_pool2d(change(x), 2, algorithm=algorithm)
        assert_identical(average, fastconv.avg_pool2d(x, 2), np.float64)
        spread = fastconv.avg_pool2d_grad(change(average), x.shape, 2, algorithm=algorithm)
        assert_identical(spread, fastconv.avg_pool2d_grad(average, x.shape, 2), np.float64)
    cols = fastconv.im2col(x, (3, 2))
    assert_identical(fastconv.im2col(change(x), (3, 2)), cols, np.float64)
    back = fastconv.col2im(change(cols), (6, 8), (3, 2))
    assert_identical(back, reference.col2im(cols, (6, 8), (3, 2)), np.float64)
    weight = np.ones((3, 2, 2, 2))
    enlarged = fastconv.conv_transpose2d(change(x), change(weight), change(np.ones(2)), stride=2)
    assert_identical(enlarged, reference.conv_transpose2d(x, weight, np.ones(2), 2), np.float64)


# Empty batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "algorithm"), [*EVERY, *((d, "auto") for d in DIRECTIONS)])
def test_empty_batch(direction: str, algorithm: str) -> None:
    case = ConvCase("empty", (0, 2, 5, 6), (4, 1, 2, 3), groups=2)
    if "winograd" in algorithm:
        case = ConvCase("empty", (0, 2, 6, 6), (4, 1, 3, 3), groups=2)
    if algorithm not in ("auto", *UNIVERSAL) and refuses(direction, case, algorithm):
        return
    actual = compute(direction, case, make_inputs(case), algorithm)
    shapes = (case.output_shape, case.input_shape, case.weight_shape)
    # A sum over no images is zero.
    assert_identical(
        actual, np.zeros(dict(zip(DIRECTIONS, shapes, strict=True))[direction]), np.float32
    )


def test_empty_batch_elsewhere() -> None:
    x = np.zeros((0, 3, 4, 6), np.float32)
    assert fastconv.im2col(x, 2).shape == (0, 12, 15)
    assert fastconv.col2im(np.zeros((0, 12, 15)), (4, 6), 2).shape == (0, 3, 4, 6)
    assert fastconv.conv_transpose2d(x, np.zeros((3, 2, 2, 2))).shape == (0, 2, 5, 7)
    plan = fastconv.plan_conv2d(x.shape, np.zeros((5, 3, 2, 2), np.float32))
    assert plan(x).shape == (0, 5, 3, 5)
    for algorithm in ("auto", *fastconv.pool_algorithms()):
        values, indices = fastconv.max_pool2d(x, 2, return_indices=True, algorithm=algorithm)
        assert values.shape == indices.shape == (0, 3, 2, 3)
        assert indices.dtype == np.int64
        back = fastconv.max_pool2d_grad(values, indices, x.shape, algorithm=algorithm)
        assert back.shape == x.shape
        assert fastconv.avg_pool2d(x, 2, algorithm=algorithm).shape == (0, 3, 2, 3)
        assert fastconv.avg_pool2d_grad(values, x.shape, 2, algorithm=algorithm).shape == x.shape


# NaN and infinity -------------------------------------------------------------------------------

NONFINITE = (
    ConvCase("padded", (2, 3, 6, 7), (4, 3, 3, 3), padding=1),
    ConvCase("strided", (1, 4, 9, 8), (6, 2, 3, 2), (2, 3), ((2, 0), (1, 3)), groups=2),
    ConvCase("dilated_same", (1, 2, 7, 8), (3, 2, 2, 3), 1, "same", 2),
    ConvCase("depthwise", (1, 5, 6, 9), (5, 1, 3, 3), padding=2, groups=5),
    ConvCase("pointwise", (2, 6, 3, 5), (7, 6, 1, 1)),
    ConvCase("tail", (1, 3, 5, 19), (9, 3, 3, 3)),
)


@pytest.mark.parametrize("place", ["x", "weight", "grad_output"])
@pytest.mark.parametrize("case", NONFINITE, ids=lambda case: case.name)
@pytest.mark.parametrize(("direction", "algorithm"), [*EVERY, *((d, "auto") for d in DIRECTIONS)])
def test_nan_and_infinity(direction: str, algorithm: str, case: ConvCase, place: str) -> None:
    """They come through as in the plain sum over the zero-padded input.

    There infinity times a zero of the padding is NaN, and what no tap reads stays clean.
    """
    if "winograd" in algorithm:
        return  # a whole tile is spoiled: `test_winograd` says which
    if algorithm not in ("auto", *UNIVERSAL) and refuses(direction, case, algorithm):
        return
    for value in (np.nan, np.inf, -np.inf):
        data = make_integer_inputs(case, np.float32)
        spoiled = getattr(data, place)
        flat = spoiled.reshape(-1)
        # The first, the last and a middle one: corners meet the padding.
        flat[[0, flat.size // 2, -1]] = value, -value, value
        with np.errstate(invalid="ignore"):
            actual = whole(compute(direction, case, data, algorithm), algorithm)
            expected = expect(direction, case, data)
        assert_identical(actual, expected, np.float32)


@pytest.mark.parametrize(("direction", "algorithm"), [e for e in EVERY if e[1] != "reference"])
def test_error_state_reaches_every_thread(direction: str, algorithm: str) -> None:
    # Large enough for several threads. What numpy.errstate silences must be silent in all of them:
    # a warning is an error in these tests.
    case = ConvCase("threads", (4, 16, 32, 32), (16, 16, 3, 3), padding=1)
    if algorithm not in UNIVERSAL and refuses(direction, case, algorithm):
        return
    data = make_inputs(case)
    for array in data:
        array.reshape(-1)[::2] = 0
        array.reshape(-1)[1::2] = np.inf
    for _ in range(5):
        with np.errstate(all="ignore"):
            assert np.isnan(compute(direction, case, data, algorithm)).any()
