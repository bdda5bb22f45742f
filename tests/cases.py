"""The named shapes that tests and benchmarks share, and the data to fill them with.

Each family comes plain, with a tail (sizes that no vector width divides) and strided. The cases
are small enough for loops in plain Python; a benchmark enlarges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from reference import Array, Padding, PairLike, output_size
from reference_pooling import axes

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class ConvCase:
    """One convolution: input (N, C, H, W), weight (K, C / groups, R, S)."""

    name: str
    input_shape: Shape4
    weight_shape: Shape4
    stride: PairLike = 1
    padding: Padding = 0
    dilation: PairLike = 1
    groups: int = 1

    @property
    def geometry(self) -> tuple[PairLike, Padding, PairLike, int]:
        """The arguments that follow the arrays in every convolution function."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def output_shape(self) -> Shape4:
        """(N, K, OH, OW)."""
        oh, ow = output_size(
            self.input_shape[2:], self.weight_shape[2:], self.stride, self.padding, self.dilation
        )
        return self.input_shape[0], self.weight_shape[0], oh, ow

    @property
    def taps(self) -> int:
        """How many products one output element sums."""
        return int(np.prod(self.weight_shape[1:]))


@dataclass(frozen=True)
class PoolCase:
    """One pooling."""

    name: str
    input_shape: Shape4
    kernel_size: PairLike
    stride: PairLike | None = None
    padding: Padding = 0
    dilation: PairLike = 1
    ceil_mode: bool = False

    @property
    def output_shape(self) -> Shape4:
        """(N, C, OH, OW)."""
        rows, columns = axes(
            self.input_shape[2:],
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )
        return *self.input_shape[:2], rows.count, columns.count


C, P = ConvCase, PoolCase

CONV_CASES: tuple[ConvCase, ...] = (
    # The first layer of a network: few channels.
    C("first_gray", (2, 1, 12, 12), (4, 1, 3, 3)),
    C("first_gray_tail", (1, 1, 13, 11), (5, 1, 5, 5), padding=2),
    C("first_gray_strided", (2, 1, 11, 12), (3, 1, 3, 3), stride=2),
    C("first_rgb", (1, 3, 16, 16), (8, 3, 3, 3), padding=1),
    C("first_rgb_tail", (2, 3, 9, 11), (5, 3, 3, 3)),
    C("first_rgb_7x7_strided", (1, 3, 19, 17), (6, 3, 7, 7), stride=2, padding=3),
    # 1x1: a matrix product.
    C("pointwise", (2, 8, 6, 8), (16, 8, 1, 1)),
    C("pointwise_tail", (1, 7, 5, 7), (9, 7, 1, 1)),
    C("pointwise_strided", (2, 6, 7, 8), (5, 6, 1, 1), stride=2),
    C("pointwise_padded", (1, 4, 3, 5), (3, 4, 1, 1), padding=1),
    C("pointwise_padded_strided", (1, 3, 4, 5), (2, 3, 1, 1), stride=(2, 3), padding=(1, 2)),
    C("pointwise_grouped", (1, 6, 5, 5), (4, 3, 1, 1), groups=2),
    # 3x3: most of the work of most networks.
    C("3x3", (1, 8, 8, 8), (8, 8, 3, 3), padding=1),
    C("3x3_tail", (2, 5, 7, 9), (7, 5, 3, 3)),
    C("3x3_strided", (1, 4, 9, 9), (6, 4, 3, 3), stride=2, padding=1),
    C("3x3_stride_not_dividing", (2, 3, 10, 12), (5, 3, 3, 3), stride=(3, 2)),
    C("3x3_wide", (1, 2, 4, 37), (3, 2, 3, 3), padding=1),
    C("3x3_tall", (1, 2, 35, 3), (3, 2, 3, 3), padding=1),
    C("3x3_deep", (1, 17, 5, 5), (19, 17, 3, 3)),
    C("3x3_one_channel_out", (1, 6, 6, 7), (1, 6, 3, 3), padding=1),
    # 5x5.
    C("5x5", (1, 4, 8, 8), (8, 4, 5, 5), padding=2),
    C("5x5_tail", (2, 3, 9, 7), (5, 3, 5, 5)),
    C("5x5_strided", (1, 3, 11, 12), (4, 3, 5, 5), stride=2, padding=2),
    # Height and width differ in every way they can.
    C("1x5", (1, 3, 8, 9), (4, 3, 1, 5), padding=(0, 2)),
    C("5x1", (2, 3, 9, 8), (4, 3, 5, 1), padding=(2, 0)),
    C("2x4", (1, 3, 7, 9), (5, 3, 2, 4)),
    C("3x2_strided", (1, 2, 9, 8), (3, 2, 3, 2), stride=(1, 3), padding=(1, 0)),
    C("1x7_strided_tall", (1, 2, 6, 11), (3, 2, 1, 7), stride=(4, 1)),
    # Groups.
    C("grouped", (1, 8, 6, 8), (8, 4, 3, 3), padding=1, groups=2),
    C("grouped_tail", (2, 9, 5, 7), (6, 3, 3, 3), groups=3),
    C("grouped_strided", (1, 6, 9, 8), (4, 3, 3, 3), stride=2, padding=1, groups=2),
    C("depthwise", (1, 8, 8, 8), (8, 1, 3, 3), padding=1, groups=8),
    C("depthwise_tail", (2, 5, 7, 9), (5, 1, 3, 3), groups=5),
    C("depthwise_strided", (1, 4, 9, 10), (4, 1, 3, 3), stride=2, padding=1, groups=4),
    C("depthwise_5x5", (1, 3, 9, 11), (3, 1, 5, 5), padding=2, groups=3),
    C("depthwise_multiplier", (2, 3, 6, 7), (6, 1, 3, 3), padding=1, groups=3),
    C("depthwise_multiplier_tail", (1, 5, 6, 5), (15, 1, 2, 3), stride=(2, 1), groups=5),
    # Dilation.
    C("dilated", (1, 4, 9, 9), (4, 4, 3, 3), padding=2, dilation=2),
    C("dilated_tail", (2, 3, 11, 8), (5, 3, 3, 2), dilation=(3, 2)),
    C("dilated_strided", (1, 3, 12, 13), (4, 3, 3, 3), stride=2, padding=2, dilation=3),
    C("dilated_depthwise", (1, 4, 8, 9), (4, 1, 3, 3), padding=2, dilation=2, groups=4),
    C("dilated_over_image", (1, 2, 3, 4), (3, 2, 3, 3), padding=5, dilation=4),
    # Its input gradient has taps for odd columns alone.
    C("dilated_odd_columns", (2, 3, 8, 9), (1, 3, 2, 4), (3, 2), ((1, 4), (3, 0)), (1, 2)),
    # Strides that jump over input.
    C("stride_over_kernel", (2, 3, 10, 11), (4, 3, 2, 2), stride=3),
    C("stride_over_kernel_grouped", (1, 4, 9, 7), (4, 2, 1, 2), stride=(4, 3), groups=2),
    C("stride_over_input", (1, 2, 4, 5), (3, 2, 3, 3), stride=9),
    # Padding in all its spellings.
    C("asymmetric", (1, 3, 6, 7), (4, 3, 3, 3), padding=((1, 0), (2, 3))),
    C("asymmetric_strided", (2, 2, 7, 6), (3, 2, 3, 2), stride=2, padding=((0, 2), (1, 0))),
    C("asymmetric_grouped", (1, 4, 5, 6), (6, 2, 2, 3), padding=((2, 1), (0, 1)), groups=2),
    C("same", (1, 3, 7, 8), (4, 3, 3, 3), padding="same"),
    C("same_even", (1, 3, 7, 6), (4, 3, 2, 4), padding="same"),
    C("same_strided", (1, 3, 9, 10), (4, 3, 3, 3), stride=2, padding="same"),
    C("same_even_strided", (2, 2, 7, 8), (3, 2, 4, 2), stride=(2, 3), padding="same"),
    C("same_stride_over_kernel", (1, 2, 8, 7), (3, 2, 2, 1), stride=3, padding="same"),
    C("same_dilated", (1, 2, 8, 9), (3, 2, 3, 2), padding="same", dilation=(2, 3)),
    C("same_lower", (1, 3, 7, 6), (4, 3, 2, 4), padding="same_lower"),
    C("same_lower_strided", (2, 2, 7, 8), (3, 2, 4, 2), stride=(2, 3), padding="same_lower"),
    C("same_lower_dilated", (1, 2, 8, 9), (3, 2, 2, 4), padding="same_lower", dilation=(3, 1)),
    C("valid", (1, 3, 7, 8), (4, 3, 3, 3), padding="valid"),
    C("padding_over_kernel", (1, 2, 4, 5), (3, 2, 2, 2), padding=3),
    C("padding_over_kernel_strided", (1, 2, 3, 4), (3, 2, 2, 3), stride=2, padding=(5, 4)),
    # The edges of what makes sense.
    C("kernel_fills_input", (2, 3, 5, 6), (4, 3, 5, 6)),
    C("kernel_fills_padded_input", (1, 2, 3, 3), (3, 2, 5, 5), padding=1),
    C("one_pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    C("one_pixel_many_channels", (3, 5, 1, 1), (7, 5, 1, 1)),
    C("one_pixel_padded", (1, 2, 1, 1), (3, 2, 3, 3), padding=1),
    C("one_pixel_out", (2, 3, 4, 4), (5, 3, 4, 4), stride=2),
    C("empty_batch", (0, 3, 6, 6), (4, 3, 3, 3), padding=1),
    C("empty_batch_grouped", (0, 4, 5, 5), (4, 1, 2, 2), stride=2, groups=4),
    C(
        "everything",
        (2, 6, 11, 13),
        (9, 2, 3, 2),
        stride=(2, 3),
        padding=((2, 0), (1, 3)),
        dilation=(2, 3),
        groups=3,
    ),
)

# Large enough to be cut into blocks and spread over threads, whichever way an algorithm cuts.
LARGE_CASES: tuple[ConvCase, ...] = (
    C("large_plane", (2, 8, 66, 70), (5, 8, 3, 3), padding=1),
    C("large_width", (2, 2, 3, 3000), (3, 2, 2, 5), padding=(0, 2)),
    C("large_width_strided", (1, 3, 1, 5001), (4, 3, 1, 4), stride=(1, 3), padding=(0, 3)),
    C("large_height", (1, 2, 2500, 3), (3, 2, 5, 3), padding=((3, 1), (0, 1))),
    C("large_strided", (2, 3, 131, 133), (4, 3, 3, 2), (2, 3), ((2, 0), (1, 3)), (2, 3)),
    # More columns, and more weights, than one buffer of a few megabytes holds.
    C("large_columns", (2, 8, 262, 250), (2, 8, 3, 3)),
    C("large_weight", (1, 128, 25, 25), (136, 128, 3, 3), padding=1),
    C("large_depth", (1, 300, 9, 9), (70, 300, 3, 3), padding=1),
    C("large_depth_pointwise", (2, 260, 12, 13), (130, 260, 1, 1)),
    C("large_batch", (40, 3, 12, 11), (6, 3, 3, 3), stride=2, padding="same"),
    C("many_groups", (3, 40, 17, 19), (60, 2, 3, 3), padding=1, groups=20),
    C("many_groups_depthwise", (2, 37, 21, 23), (37, 1, 3, 3), padding=1, groups=37),
)

POOL_CASES: tuple[PoolCase, ...] = (
    P("2x2", (2, 3, 8, 8), 2),
    P("2x2_tail", (1, 3, 7, 9), 2),
    P("2x2_ceil", (1, 3, 7, 9), 2, ceil_mode=True),
    P("3x3_overlapping", (2, 2, 9, 11), 3, stride=2),
    P("3x3_padded", (1, 3, 8, 10), 3, stride=2, padding=1),
    P("3x3_padded_ceil", (1, 3, 8, 9), 3, stride=2, padding=1, ceil_mode=True),
    P("3x3_stride_one", (1, 2, 6, 17), 3, stride=1, padding=1),
    P("stride_not_dividing", (1, 2, 10, 12), 3, stride=(4, 5)),
    P("stride_not_dividing_ceil", (1, 2, 10, 12), 3, stride=(4, 5), ceil_mode=True),
    P("stride_over_kernel", (2, 2, 11, 10), 2, stride=(3, 4)),
    P("stride_over_kernel_ceil", (1, 2, 8, 9), 2, stride=(3, 5), ceil_mode=True),
    # The window that would start in the padding after the input must be left out.
    P("ceil_leaves_out_last", (1, 2, 5, 7), 2, stride=3, padding=1, ceil_mode=True),
    P("rectangular", (1, 3, 9, 8), (2, 4), stride=(3, 2), padding=(1, 2)),
    P("rectangular_ceil", (2, 1, 9, 7), (4, 3), stride=(3, 2), padding=(2, 0), ceil_mode=True),
    P("1x3", (1, 2, 5, 9), (1, 3), stride=(2, 1), padding=(0, 1)),
    P("3x1", (1, 2, 9, 5), (3, 1)),
    P("5x5", (1, 1, 12, 21), 5, stride=1, padding=2),
    P("dilated", (1, 2, 9, 10), 3, stride=1, padding=1, dilation=2),
    P("dilated_strided", (2, 2, 11, 9), (2, 3), stride=2, dilation=(3, 2)),
    P("dilated_ceil", (1, 2, 10, 9), 2, stride=3, padding=1, dilation=(2, 3), ceil_mode=True),
    P("asymmetric", (1, 2, 6, 7), 3, stride=2, padding=((1, 0), (0, 1))),
    P("asymmetric_ceil", (1, 2, 7, 8), 3, stride=3, padding=((0, 1), (1, 0)), ceil_mode=True),
    P("same", (1, 2, 7, 8), (3, 2), stride=2, padding="same"),
    P("same_lower", (1, 2, 7, 8), (3, 2), stride=2, padding="same_lower"),
    P("valid", (1, 2, 7, 8), 3, stride=2, padding="valid"),
    P("whole_plane", (2, 3, 5, 7), (5, 7)),
    # Rows of several vectors, maps of one row or column, windows wider than a vector.
    P("2x2_wide", (1, 2, 5, 75), 2),
    P("3x3_wide", (2, 1, 6, 83), 3, stride=2, padding=1),
    P("3x3_stride_one_wide", (1, 2, 9, 50), 3, stride=1, padding=1),
    P("3x3_stride_three", (1, 2, 10, 40), 3, ceil_mode=True),
    P("one_row", (1, 3, 1, 37), 3, stride=1, padding=1),
    P("one_column", (1, 3, 37, 1), 3, stride=2, padding=1),
    P("window_over_vectors", (1, 2, 23, 41), (20, 37), stride=(1, 2)),
    # Windows that span far more than the plane; with ceil_mode more than the padded plane.
    P("window_mostly_outside", (1, 2, 3, 7), (141, 130), stride=(1, 2), padding=(70, 65)),
    P("window_mostly_outside_dilated", (1, 2, 5, 4), 21, stride=2, padding=50, dilation=5),
    P("ceil_window_over_input", (2, 1, 3, 4), (4, 5), stride=2, ceil_mode=True),
    P("ceil_window_over_padded_input", (1, 2, 1, 2), 5, stride=3, padding=1, ceil_mode=True),
    P("one_pixel", (1, 1, 1, 1), 1),
    P("one_pixel_padded", (1, 2, 1, 1), 3, stride=1, padding=1),
    P("identity", (1, 2, 4, 5), 1),
    P("empty_batch", (0, 3, 6, 6), 2),
)


class ConvInputs(NamedTuple):
    """Everything the three directions of one case read."""

    x: Array
    weight: Array
    bias: Array
    grad_output: Array


def make_inputs(case: ConvCase, dtype: DTypeLike = np.float32, seed: int = 0) -> ConvInputs:
    """Fill a case with standard normal numbers."""
    rng = np.random.default_rng(seed)
    return ConvInputs(*(rng.standard_normal(shape).astype(dtype) for shape in _shapes(case)))


def make_integer_inputs(case: ConvCase, dtype: DTypeLike = np.float32, seed: int = 0) -> ConvInputs:
    """Fill a case with integers from -4 to 4, without zero.

    All their sums stay far below 2**24, so that float32 holds every one of them exactly in
    whatever order they are added. A zero would hide a tap that was forgotten.
    """
    rng = np.random.default_rng(seed)
    return ConvInputs(*(_integers(rng, shape).astype(dtype) for shape in _shapes(case)))


def make_pool_inputs(
    case: PoolCase, dtype: DTypeLike = np.float32, seed: int = 0
) -> tuple[Array, Array]:
    """Give a standard normal input and gradient of the output."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal(case.input_shape).astype(dtype),
        rng.standard_normal(case.output_shape).astype(dtype),
    )


def make_integer_pool_inputs(
    case: PoolCase, dtype: DTypeLike = np.float32, seed: int = 0
) -> tuple[Array, Array]:
    """Give few different integers: every window has ties, and all sums are exact."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, case.input_shape)
    return x.astype(dtype), _integers(rng, case.output_shape).astype(dtype)


def _shapes(case: ConvCase) -> tuple[tuple[int, ...], ...]:
    return case.input_shape, case.weight_shape, (case.weight_shape[0],), case.output_shape


def _integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values: Array = rng.integers(1, 5, shape) * rng.choice((-1, 1), shape)
    return values
