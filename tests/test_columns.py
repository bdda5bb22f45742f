"""im2col, col2im and sliding windows: shapes, values, memory, and being each other's adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from cases import CONV_CASES, ConvCase, make_inputs, make_integer_inputs
from checks import assert_identical, refused
from numpy.typing import DTypeLike
from reference import PairLike

import fastconv

EVERY = pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
X = np.arange(2 * 3 * 5 * 6, dtype=np.float64).reshape(2, 3, 5, 6)


def rule(case: ConvCase) -> dict[str, Any]:
    """Return the arguments that im2col and col2im share."""
    return {
        "kernel_size": case.weight_shape[2:],
        "dilation": case.dilation,
        "padding": case.padding,
        "stride": case.stride,
    }


@TYPES
@EVERY
def test_im2col(case: ConvCase, dtype: DTypeLike) -> None:
    x = make_inputs(case, dtype).x
    n, c, r, s = *case.input_shape[:2], *case.weight_shape[2:]
    oh, ow = case.output_shape[2:]
    cols = fastconv.im2col(x, **rule(case))
    assert cols.shape == (n, c * r * s, oh * ow)
    # Nothing is computed, so every bit must arrive.
    assert_identical(cols, reference.im2col(x, **rule(case)), dtype)


@TYPES
@EVERY
def test_col2im(case: ConvCase, dtype: DTypeLike) -> None:
    rng = np.random.default_rng(1)
    shape = reference.im2col(make_inputs(case).x, **rule(case)).shape
    cols = rng.integers(-9, 10, shape).astype(dtype)
    size = case.input_shape[2:]
    expected = reference.col2im(cols, size, **rule(case))
    assert_identical(fastconv.col2im(cols, size, **rule(case)), expected, dtype)


@EVERY
def test_col2im_is_the_adjoint_of_im2col(case: ConvCase) -> None:
    # <im2col(x), y> = <x, col2im(y)>, exactly, because all of it is integers.
    x = make_integer_inputs(case, np.float64).x
    cols = fastconv.im2col(x, **rule(case))
    y = np.random.default_rng(2).integers(-9, 10, cols.shape).astype(np.float64)
    back = fastconv.col2im(y, case.input_shape[2:], **rule(case))
    assert back.shape == x.shape
    assert np.vdot(cols, y) == np.vdot(x, back)


def test_layout_by_hand() -> None:
    x = [[[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]]
    cols = fastconv.im2col(x, 2)
    # Rows: channel, then kernel row, then kernel column. Columns: windows, row by row.
    rows = [[1, 2], [2, 3], [4, 5], [5, 6], [7, 8], [8, 9], [10, 11], [11, 12]]
    assert_identical(cols, np.array([rows], np.float64), np.float64)
    back = fastconv.col2im(cols, (2, 3), 2)
    assert_identical(back, np.array(x) * [1.0, 2.0, 1.0], np.float64)


def test_columns_are_fresh_memory() -> None:
    x = np.ones((1, 1, 1, 1))
    cols = fastconv.im2col(x, 1)
    assert not np.shares_memory(x, cols)
    assert not np.shares_memory(cols, fastconv.col2im(cols, (1, 1), 1))
    assert cols.flags.writeable


@pytest.mark.parametrize(
    ("given", "result"),
    [(np.float16, np.float16), (np.int16, np.float64), (np.bool_, np.float64)],
)
def test_types(given: DTypeLike, result: DTypeLike) -> None:
    x = (np.arange(24).reshape(1, 2, 3, 4) % 5).astype(given)
    cols = fastconv.im2col(x, 2, padding=1)
    assert_identical(cols, reference.im2col(x, 2, padding=1), result)
    back = fastconv.col2im(cols.astype(given), (3, 4), 2, padding=1)
    expected = reference.col2im(cols, (3, 4), 2, padding=1)
    if given is not np.bool_:
        assert_identical(back, expected, result)


# Sliding windows --------------------------------------------------------------------------------

WINDOWS: tuple[tuple[PairLike, PairLike, PairLike], ...] = (
    (1, 1, 1),
    (3, 1, 1),
    ((2, 3), 1, 1),
    (2, 1, (2, 3)),
    (2, (3, 1), 1),
    ((3, 2), (2, 3), (1, 2)),
    ((5, 6), 1, 1),
    (1, 1, 7),
)


@pytest.mark.parametrize(("kernel", "dilation", "stride"), WINDOWS)
def test_sliding_windows(kernel: PairLike, dilation: PairLike, stride: PairLike) -> None:
    layouts = {
        "plain": X,
        "float32": X.astype(np.float32),
        "int8": X.astype(np.int8),
        "reversed": X[:, ::-1, ::-1, ::-1],
        "spaced": np.repeat(X, 2, axis=3)[..., ::2],
        "fortran": np.asfortranarray(X),
        "swapped": X.astype(X.dtype.newbyteorder()),
    }
    for name, x in layouts.items():
        windows = fastconv.sliding_windows(x, kernel, dilation, stride)
        assert_identical(windows, reference.sliding_windows(x, kernel, dilation, stride), x.dtype)
        assert np.shares_memory(windows, x), name
        assert not windows.flags.writeable, name
        assert x.flags.writeable, name


def test_sliding_windows_see_later_changes() -> None:
    x = X.copy()
    windows = fastconv.sliding_windows(x, 2)
    x[1, 2, 3, 4] = -1
    assert windows[1, 2, 3, 4, 0, 0] == windows[1, 2, 2, 3, 1, 1] == -1
    with pytest.raises(ValueError, match="read-only"):
        windows[0, 0, 0, 0, 0, 0] = 1


def test_sliding_windows_of_read_only_and_empty_arrays() -> None:
    x = X.copy()
    x.flags.writeable = False
    expected = reference.sliding_windows(x, 3)
    assert_identical(fastconv.sliding_windows(x, 3), expected, np.float64)
    assert fastconv.sliding_windows(X[:0], 3).shape == (0, 3, 3, 4, 3, 3)
    assert fastconv.sliding_windows(X.tolist(), 3).shape == (2, 3, 3, 4, 3, 3)


# Refusals ---------------------------------------------------------------------------------------

BAD = [
    ("kernel_size", 0, 0),
    ("kernel_size", -2, -2),
    ("kernel_size", 2.0, 2.0),
    ("kernel_size", (2, 2, 2), (2, 2, 2)),
    ("kernel_size", True, True),
    ("kernel_size", 9, 9),
    ("kernel_size", 10**12, 10**12),
    ("dilation", 0, 0),
    ("dilation", "2", 2),
    ("dilation", (1, -1), -1),
    ("stride", 0, 0),
    ("stride", float("nan"), "nan"),
    ("stride", (1, None), None),
]
BAD_PADDING = [
    ("padding", -1, -1),
    ("padding", "full", "full"),
    ("padding", 10**12, 10**12),
    ("padding", (1, 2, 3), (1, 2, 3)),
]


@pytest.mark.parametrize(("argument", "value", "shown"), BAD)
def test_sliding_windows_refuses(argument: str, value: object, shown: object) -> None:
    with refused(argument, shown):
        fastconv.sliding_windows(X, **{"kernel_size": 2, argument: value})


@pytest.mark.parametrize(("argument", "value", "shown"), BAD + BAD_PADDING)
def test_im2col_refuses(argument: str, value: object, shown: object) -> None:
    with refused(argument, shown):
        fastconv.im2col(X, **{"kernel_size": 2, argument: value})


@pytest.mark.parametrize(("argument", "value", "shown"), BAD + BAD_PADDING)
def test_col2im_refuses(argument: str, value: object, shown: object) -> None:
    cols = np.zeros((2, 12, 20))
    if (argument, value) == ("kernel_size", 9):
        cols = np.zeros((2, 3 * 81, 20))
    with refused(argument, shown):
        fastconv.col2im(cols, (5, 6), **{"kernel_size": 2, argument: value})


@pytest.mark.parametrize("function", ["sliding_windows", "im2col"])
def test_bad_arrays_are_refused(function: str) -> None:
    call = getattr(fastconv, function)
    for shape in ((6,), (5, 6), (1, 2, 3, 5, 6)):
        with refused("x", shape):
            call(np.zeros(shape), 2)
    for dtype in ("complex128", "object", "<U1"):
        with refused("x", dtype):
            call(np.zeros((1, 1, 3, 3), dtype), 2)


@pytest.mark.parametrize(
    "shape", [(2, 12, 19), (2, 12, 21), (2, 13, 20), (12, 19), (20,), (2, 12, 4, 5)]
)
def test_col2im_refuses_columns_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with refused("cols", shape):
        fastconv.col2im(np.zeros(shape), (5, 6), 2)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((5,), (5,)),
        ((5, 6, 7), (5, 6, 7)),
        ((0, 6), 0),
        ((-5, 6), -5),
        ((5.0, 6), 5.0),
        ((10**12, 6), 10**12),
        ("5x6", "5x6"),
    ],
)
def test_col2im_refuses_bad_output_size(size: object, shown: object) -> None:
    with refused("output_size", shown):
        fastconv.col2im(np.zeros((2, 12, 20)), size, 2)
