"""Transposed convolution against the oracle that scatters input pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_identical, assert_sum, refused
from numpy.typing import DTypeLike
from reference import Array, PairLike

import fastconv


@dataclass(frozen=True)
class Case:
    """One transposed convolution: input (N, C, H, W), weight (C, K / groups, R, S)."""

    name: str
    input_shape: tuple[int, int, int, int]
    weight_shape: tuple[int, int, int, int]
    stride: PairLike = 1
    padding: PairLike = 0
    output_padding: PairLike = 0
    groups: int = 1
    dilation: PairLike = 1

    @property
    def geometry(self) -> tuple[PairLike, PairLike, PairLike, int, PairLike]:
        """The arguments that follow the arrays."""
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation


CASES = (
    Case("plain", (2, 3, 5, 6), (3, 4, 3, 3)),
    Case("pointwise", (1, 5, 4, 3), (5, 7, 1, 1)),
    Case("pointwise_strided", (1, 3, 4, 3), (3, 2, 1, 1), stride=(2, 3)),
    Case("doubling", (1, 4, 5, 7), (4, 3, 2, 2), stride=2),
    Case("doubling_4x4", (2, 3, 4, 4), (3, 5, 4, 4), stride=2, padding=1),
    Case("doubling_3x3", (1, 3, 5, 4), (3, 2, 3, 3), stride=2, padding=1, output_padding=1),
    Case("holes", (1, 2, 4, 5), (2, 3, 2, 2), stride=(4, 3)),
    Case("holes_filled", (1, 2, 3, 4), (2, 3, 2, 2), stride=(4, 3), output_padding=(3, 1)),
    Case("uneven", (2, 2, 5, 4), (2, 3, 3, 2), stride=(3, 1), padding=(1, 0), dilation=(1, 2)),
    Case("dilated", (1, 3, 4, 5), (3, 2, 3, 3), padding=2, dilation=2),
    # More output padding than stride is right as long as it is below the dilation.
    Case("dilated_extra", (1, 2, 4, 5), (2, 3, 2, 2), output_padding=2, dilation=3),
    Case("dilated_uneven_extra", (2, 2, 3, 4), (2, 2, 3, 2), 2, 1, (3, 1), 1, (4, 3)),
    Case("grouped", (1, 6, 4, 5), (6, 2, 3, 3), stride=2, padding=1, groups=3),
    Case("depthwise", (2, 4, 5, 3), (4, 1, 3, 3), stride=2, output_padding=1, groups=4),
    Case("depthwise_multiplier", (1, 3, 4, 4), (3, 2, 2, 3), groups=3),
    Case("padding_over_kernel", (1, 2, 7, 8), (2, 3, 2, 2), padding=3),
    Case("one_pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    Case("one_pixel_out", (1, 2, 1, 1), (2, 3, 3, 3), padding=1),
    Case("empty_batch", (0, 3, 4, 4), (3, 2, 2, 2), stride=2),
)


def fill(case: Case, dtype: DTypeLike, integers: bool) -> tuple[Array, Array, Array]:
    """Return x, weight and bias."""
    rng = np.random.default_rng(1)
    shapes = case.input_shape, case.weight_shape, (case.weight_shape[1] * case.groups,)
    make = (lambda s: rng.integers(-4, 5, s)) if integers else rng.standard_normal
    x, weight, bias = (np.asarray(make(shape)).astype(dtype) for shape in shapes)
    return x, weight, bias


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_oracle(case: Case, dtype: DTypeLike) -> None:
    x, weight, bias = fill(case, dtype, integers=True)
    for offsets in (None, bias):
        expected = reference.conv_transpose2d(x, weight, offsets, *case.geometry)
        actual = fastconv.conv_transpose2d(x, weight, offsets, *case.geometry)
        assert_identical(actual, expected, dtype)

    x, weight, bias = fill(case, dtype, integers=False)
    expected = reference.conv_transpose2d(x, weight, bias, *case.geometry)
    sizes = reference.conv_transpose2d(abs(x), abs(weight), abs(bias), *case.geometry)
    # Every tap of every channel of the group, and the bias.
    terms = case.input_shape[1] // case.groups * case.weight_shape[2] * case.weight_shape[3] + 1
    actual = fastconv.conv_transpose2d(x, weight, bias, *case.geometry)
    assert_sum(actual, expected, sizes, terms, dtype)


def test_by_hand() -> None:
    x = [[[[1, 2], [3, 4]]]]
    weight = [[[[1, 10]]]]
    expected = np.array([[[[1.0, 10, 2, 20], [0, 0, 0, 0], [3, 30, 4, 40]]]])
    assert_identical(fastconv.conv_transpose2d(x, weight, stride=2), expected, np.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_size_stands_for_output_padding(case: Case) -> None:
    x, weight, bias = fill(case, np.float64, integers=True)
    stride, padding, _, groups, dilation = case.geometry
    rule: dict[str, Any] = {"stride": stride, "padding": padding}
    rule |= {"groups": groups, "dilation": dilation}
    step = reference.pair(stride)
    for extra in itertools.product(range(step[0]), range(step[1])):
        wanted = fastconv.conv_transpose2d(x, weight, bias, **rule, output_padding=extra)
        for size in (wanted.shape[2:], list(wanted.shape)):
            actual = fastconv.conv_transpose2d(x, weight, bias, **rule, output_size=size)
            assert_identical(actual, wanted, np.float64)
    # One more than a convolution with that stride brings back.
    height, width = wanted.shape[2:]
    for size in ((height + 1, width), (height, width + 1), (height - step[0], width)):
        with pytest.raises(ValueError, match="output_size"):
            fastconv.conv_transpose2d(x, weight, bias, **rule, output_size=size)


def test_output_size_of_another_convolution() -> None:
    x, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"from 6 to 7 in height, .* got \(8, 6\)"):
        fastconv.conv_transpose2d(x, weight, stride=2, output_size=(8, 6))


def test_output_size_as_a_shape() -> None:
    # One rule for all that take an output_size: a pair, or a shape of which only H and W count.
    x, weight = np.ones((2, 3, 3, 4)), np.ones((3, 5, 2, 2))
    indices = np.zeros(x.shape, int)

    def transposed(size: Any, batched: bool) -> tuple[int, ...]:
        images = x if batched else x[0]
        return fastconv.conv_transpose2d(images, weight, None, 2, output_size=size).shape

    def unpooled(size: Any, batched: bool) -> tuple[int, ...]:
        images, where = (x, indices) if batched else (x[0], indices[0])
        return fastconv.max_unpool2d(images, where, 2, output_size=size).shape

    for call, C in ((transposed, 5), (unpooled, 3)):
        for size in ((7, 9), [7, 9], np.array([7, 9])):
            assert call(size, True) == (2, C, 7, 9)
            assert call(size, False) == (C, 7, 9)
        assert call((2, C, 7, 9), True) == (2, C, 7, 9)
        assert call((2, 64, 7, 9), True) == (2, C, 7, 9)  # of what it is to be joined to
        assert call((C, 7, 9), False) == (C, 7, 9)
        for size, batched in (
            *(((C, 7, 9), True), ((7,), True), ((2, C, 0, 9), True), ((0, 9), True)),
            *(((2, C, 7, 9), False), ((1, 2, C, 7, 9), True)),
        ):
            with refused("output_size", 0 if 0 in size else size if len(size) > 2 else size[0]):
                call(size, batched)
        with refused("output_size", 7):
            call(7, True)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (6, 6),
        ((-1, 6), -1),
        ((6, 6.0), 6.0),
        ((True, 6), True),
        ("66", 66),
        ((6, None), None),
        ((6, 6, 6), (6, 6, 6)),
        ((1, 1, 6, 0), 0),
        ((1, 1, 1, 6, 6), (1, 1, 1, 6, 6)),
    ],
)
def test_bad_output_sizes_are_refused(size: Any, shown: object) -> None:
    with refused("output_size", shown):
        fastconv.conv_transpose2d(
            np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), stride=2, output_size=size
        )


def test_output_size_and_output_padding_exclude_each_other() -> None:
    with refused("output_padding", 1):
        fastconv.conv_transpose2d(X, WEIGHT, stride=2, output_padding=1, output_size=(12, 14))
    # Padding that leaves nothing is what is wrong, whatever the size.
    with refused("padding", (4, 4)):
        fastconv.conv_transpose2d(X, WEIGHT, padding=4, output_size=(1, 1))


def test_uneven_padding_cuts_that_many_rows_and_columns() -> None:
    x, weight, bias = fill(CASES[0], np.float32, integers=True)
    whole = reference.conv_transpose2d(x, weight, bias)
    cut = fastconv.conv_transpose2d(x, weight, bias, padding=((1, 2), (0, 3)))
    assert_identical(cut, whole[:, :, 1:-2, :-3], np.float32)


@pytest.mark.parametrize(
    ("types", "result"),
    [
        ((np.float16, np.float16, np.float16), np.float16),
        ((np.float32, np.float64, np.float32), np.float64),
        ((np.float32, np.float32, np.float64), np.float64),
        ((np.int32, np.int8, np.bool_), np.float64),
    ],
)
def test_types(types: tuple[DTypeLike, ...], result: DTypeLike) -> None:
    case = CASES[3]
    data = [abs(a) for a in fill(case, np.int64, integers=True)]
    x, weight, bias = (a.astype(t) for a, t in zip(data, types, strict=True))
    actual = fastconv.conv_transpose2d(x, weight, bias, *case.geometry)
    expected = reference.conv_transpose2d(x, weight, bias, *case.geometry)
    assert_identical(actual, expected, result)


X, WEIGHT = np.zeros((2, 4, 5, 6), np.float32), np.zeros((4, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("argument", "value", "shown"),
    [
        ("x", np.zeros((5, 6)), (5, 6)),
        ("x", np.zeros((2, 3, 5, 6)), 3),
        ("x", np.zeros((2, 4, 0, 6)), (2, 4, 0, 6)),
        ("weight", np.zeros((3, 4, 3, 3)), (3, 4, 3, 3)),
        ("weight", np.zeros((4, 3, 3)), (4, 3, 3)),
        ("weight", np.zeros((4, 3, 0, 3)), 0),
        ("bias", np.zeros(4), (4,)),
        ("bias", np.zeros((3, 1)), (3, 1)),
        ("stride", 0, 0),
        ("stride", (2, -1), -1),
        ("stride", 1.0, 1.0),
        ("dilation", 0, 0),
        ("padding", -1, -1),
        ("padding", "same", "same"),
        ("padding", "same_lower", "same_lower"),
        ("padding", "full", "full"),
        ("padding", 4, 4),
        ("padding", 10**12, 10**12),
        ("output_padding", 1, 1),
        ("output_padding", -1, -1),
        ("output_padding", 10**12, 10**12),
        ("output_padding", 0.5, 0.5),
        ("groups", 0, 0),
        ("groups", 3, 3),
        ("groups", True, True),
    ],
)
def test_bad_arguments_are_refused(argument: str, value: object, shown: object) -> None:
    arguments = {"x": X, "weight": WEIGHT, argument: value}
    # A wrong channel count can be seen as the fault of either array.
    name = "weight" if shown == 3 and argument == "x" else argument
    with refused(name, shown):
        fastconv.conv_transpose2d(**arguments)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(
    ("weight_shape", "groups", "named"),
    [((3, 2, 3, 3), 2, "groups"), ((3, 0, 3, 3), 1, "weight"), ((3, 2, 0, 3), 1, "weight")],
)
def test_refusals_do_not_depend_on_the_batch(
    batch: int, weight_shape: tuple[int, ...], groups: int, named: str
) -> None:
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        fastconv.conv_transpose2d(np.zeros((batch, 3, 4, 4)), np.zeros(weight_shape), groups=groups)
