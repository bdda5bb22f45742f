"""What is to be pooled: the shapes and parameters of one maximum or average pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.core.arguments import as_flag
from fastconv.core.cached import cached_property
from fastconv.core.geometry import (
    IntPair,
    Padding,
    PaddingPairs,
    as_image_shape,
    as_pair,
    extent,
    require_tensor,
    require_windows,
    resolve_padding,
)
from fastconv.core.pool_axis import Axes, even_axis
from fastconv.core.window_problem import Shape4, WindowProblem

_DTYPES = (
    *("float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
)


@dataclass(frozen=True)
class Pool2dProblem(WindowProblem):
    """One pooling: every output is the maximum or the mean of a window of one plane.

    Build it with `from_shapes`. Attributes as in `Conv2dProblem`; the kernel is (R, S). With
    `wide_padding` a window may be wholly in the padding.

    Examples
    --------
    >>> Pool2dProblem.from_shapes((1, 3, 8, 8), 3, stride=2, ceil_mode=True).output_shape
    (1, 3, 4, 4)
    """

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    stride: tuple[int, int]
    padding: PaddingPairs
    dilation: tuple[int, int]
    ceil_mode: bool
    dtype: str
    wide_padding: bool = False

    @classmethod
    def from_shapes(
        cls,
        input_shape: Any,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: Padding = 0,
        dilation: IntPair = 1,
        ceil_mode: bool = False,
        dtype: str = "float32",
        *,
        name: str = "input_shape",
        wide_padding: bool = False,
    ) -> Pool2dProblem:
        """Build a problem from the shape of the input; `stride` defaults to the kernel size.

        `name` is what error messages call the argument that gives the shape.

        Raises
        ------
        TypeError, ValueError
            As in `Conv2dProblem.from_shapes`; also where a side's padding is over half the window,
            because a window could then be wholly in the padding, unless `wide_padding` is True.
        """
        N, C, H, W = as_image_shape(name, input_shape)
        R, S = as_pair("kernel_size", kernel_size, 1)
        step = (R, S) if not_given(stride) else as_pair("stride", stride, 1)
        gap = as_pair("dilation", dilation, 1)
        pads = resolve_padding(padding, (H, W), (R, S), step, gap)
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
        as_flag("ceil_mode", ceil_mode)
        as_flag("wide_padding", wide_padding)
        if not wide_padding:
            _require_half("height", pads[0], extent(R, gap[0]), padding)
            _require_half("width", pads[1], extent(S, gap[1]), padding)
        problem = cls(
            *(N, C, H, W, R, S, step, pads, gap, bool(ceil_mode), dtype, bool(wide_padding))
        )
        if problem.OH < 1 or problem.OW < 1:
            require_windows("kernel_size", (H, W), (R, S), gap, pads)
        require_tensor(f"padding {pads}", problem.output_shape)
        return problem

    @cached_property
    def maximum_axes(self) -> Axes:
        """The windows of a maximum along height and width."""
        return pooling_axes(self, count_include_pad=False)

    @property
    def _ceil_mode(self) -> bool:
        return self.ceil_mode

    @cached_property
    def output_shape(self) -> Shape4:
        """(N, C, OH, OW)."""
        return self.N, self.C, self.OH, self.OW

    @property
    def flops(self) -> int:
        """Comparisons or additions, one an element of a window."""
        return self.N * self.C * self.OH * self.OW * self.R * self.S

    @property
    def arithmetic_intensity(self) -> float:
        """Operations a byte, when each array crosses the memory bus once."""
        return self.flops / (self.input_bytes + self.output_bytes)


@lru_cache(maxsize=256)
def pooling_axes(
    problem: Pool2dProblem, count_include_pad: bool, divisor: int | None = None
) -> Axes:
    """Return the windows of `problem` along height and width.

    Means divide by the positions of a window, or else by `divisor`.

    Raises
    ------
    ValueError
        If dilation makes a window step over an input too small to stop it.
    """
    p = problem
    rows = even_axis(p.H, p.OH, p.R, p.stride[0], p.dilation[0], p.padding[0], count_include_pad)
    columns = even_axis(p.W, p.OW, p.S, p.stride[1], p.dilation[1], p.padding[1], count_include_pad)
    for axis in (rows, columns):
        if axis.some_empty and not p.wide_padding:
            raise ValueError(
                f"padding {p.padding} with dilation {p.dilation} makes a window step over the "
                f"whole input of {axis.size}: use less padding or dilation, or wide_padding=True"
            )
    if divisor is not None:
        rows = replace(rows, divisor=np.full_like(rows.divisor, divisor))
        columns = replace(columns, divisor=np.ones_like(columns.divisor))
    return rows, columns


def problem_of(x: NDArray[Any], dtype: str, *geometry: Any) -> Pool2dProblem:
    """Return the problem of a checked array; one that came before is not checked anew.

    `geometry` is kernel size, stride, padding, dilation, ceil_mode and wide_padding.
    """
    # Only for arguments whose types the key tells: within a tuple, True, 1.0 and 1 are the same.
    build = _problem_again if all(map(_plain, geometry)) else _problem
    return build(x.shape, dtype, *geometry)


def _problem(shape: Any, dtype: str, *geometry: Any) -> Pool2dProblem:
    kernel_size, stride, padding, dilation, ceil_mode, wide_padding = geometry
    return Pool2dProblem.from_shapes(
        *(shape, kernel_size, stride, padding, dilation, ceil_mode, dtype),
        name="x",
        wide_padding=wide_padding,
    )


_problem_again = lru_cache(maxsize=1024, typed=True)(_problem)


def _plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(type(part) is int for part in value)
    return value is None or type(value) in (int, bool, str)


# What a user may pass ------------------------------------------------------------------------


def not_given(stride: Any) -> bool:
    """Return whether the stride is the kernel size: None, or PyTorch's empty sequence."""
    return stride is None or (isinstance(stride, tuple | list) and not stride)


def _require_half(axis: str, pads: tuple[int, int], span: int, padding: Any) -> None:
    if max(pads) > span // 2:
        raise ValueError(
            f"padding must be at most half the window, {span // 2} in {axis} for a window of "
            f"{span}, got {max(pads)} (padding={padding!r}): wide_padding=True lets through more"
        )
