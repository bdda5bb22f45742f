"""What is to be computed: the shapes and parameters of one convolution.

A problem is a frozen, hashable value. It knows every size that follows from it and nothing
about how the result will be computed.

Symbols, here and everywhere: N batch, C input channels, K output channels, H W input size,
R S kernel size, OH OW output size, P = OH * OW pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from fastconv.core.array_hints import common_divisors, other_layout
from fastconv.core.cached import cached_property
from fastconv.core.geometry import (
    IntPair,
    Padding,
    PaddingPairs,
    as_image_shape,
    as_int,
    as_ints,
    as_pair,
    require_tensor,
    require_windows,
    resolve_padding,
    tap_range,
)
from fastconv.core.records import record_of, record_type
from fastconv.core.window_problem import Shape4, WindowProblem

Direction = Literal["forward", "input_grad", "weight_grad"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True)
class Conv2dProblem(WindowProblem):
    """One two-dimensional convolution (cross-correlation), as deep learning means it.

    ``out[n, k, i, j] = bias[k] + sum over c, r, s of x[n, c, h, w] * weight[k, c, r, s]``
    with ``h = i * stride + r * dilation - top``, ``w = j * stride + s * dilation - left``.

    Build it with `from_shapes`, which checks what it is given.

    Attributes
    ----------
    N, C, H, W : int
        Batch, input channels, input height and width.
    K, R, S : int
        Output channels, kernel height and width.
    stride, dilation : (int, int)
        For height and width.
    padding : ((int, int), (int, int))
        Zeros added: ((top, bottom), (left, right)).
    groups : int
        Output channel k sees only the C / groups input channels of its group.
    dtype : str
        What is computed in, "float32" or "float64".

    Examples
    --------
    >>> p = Conv2dProblem.from_shapes((1, 3, 8, 8), (5, 3, 3, 3), padding=1)
    >>> p.output_shape
    (1, 5, 8, 8)
    >>> p.flops
    17280
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: tuple[int, int]
    padding: PaddingPairs
    dilation: tuple[int, int]
    groups: int
    dtype: str

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Of integers alone: the hash of a string differs in the process that unpickles it.
        sizes = self.N, self.C, self.H, self.W, self.K, self.R, self.S, self.itemsize
        return hash((*sizes, self.stride, self.padding, self.dilation, self.groups))

    @classmethod
    def from_shapes(
        cls,
        input_shape: Any,
        weight_shape: Any,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        dtype: str = "float32",
        *,
        names: tuple[str, str] = ("input_shape", "weight_shape"),
    ) -> Conv2dProblem:
        """Build a problem from the shapes of its arrays.

        Parameters
        ----------
        input_shape : (N, C, H, W)
        weight_shape : (K, C / groups, R, S)
        stride, dilation : int or (int, int)
        padding : int, (int, int), "same", "valid" or ((top, bottom), (left, right))
        groups : int
        dtype : {"float32", "float64"}
        names : (str, str)
            What error messages call the arguments that give the two shapes.

        Raises
        ------
        TypeError
            Where something is not an integer.
        ValueError
            Where sizes do not fit each other; the message says which and what would be right.
        """
        numbers = *_as_tuple(stride), *_as_tuple(padding), *_as_tuple(dilation), groups
        given = input_shape, weight_shape, stride, padding, dilation, groups, dtype, names
        # The usual case, all plain integers, is checked once.
        plain = (
            type(input_shape) is type(weight_shape) is tuple
            and {int}.issuperset(map(type, (*input_shape, *weight_shape, *numbers)))
            and type(dtype) is str
        )
        return (_checked_once if plain else _checked)(*given)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what follows from them is made anew where it is needed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    # Sizes -------------------------------------------------------------------------------

    @property
    def P(self) -> int:
        """Pixels of one output plane."""
        return self.OH * self.OW

    @property
    def C_per_group(self) -> int:
        """Input channels that one output channel sees."""
        return self.C // self.groups

    @property
    def K_per_group(self) -> int:
        """Output channels of one group."""
        return self.K // self.groups

    @property
    def taps(self) -> int:
        """Products summed for one output element: C / groups * R * S."""
        return self.C_per_group * self.R * self.S

    @property
    def weight_shape(self) -> Shape4:
        """(K, C / groups, R, S)."""
        return self.K, self.C_per_group, self.R, self.S

    @property
    def output_shape(self) -> Shape4:
        """(N, K, OH, OW)."""
        return self.N, self.K, self.OH, self.OW

    @property
    def padded_shape(self) -> Shape4:
        """Shape of the input with its padding."""
        (top, bottom), (left, right) = self.padding
        return self.N, self.C, self.H + top + bottom, self.W + left + right

    @property
    def column_shape(self) -> tuple[int, int, int]:
        """Shape of the whole column matrix, (N, C * R * S, P)."""
        return self.N, self.C * self.R * self.S, self.P

    # Costs -------------------------------------------------------------------------------

    @cached_property
    def flops(self) -> int:
        """Floating-point operations, a multiplication and an addition a product.

        The same for all three directions; products with the zeros of the padding count.
        """
        return 2 * self.N * self.K * self.P * self.taps

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return self.K * self.taps * self.itemsize

    @property
    def column_bytes(self) -> int:
        """Bytes of the whole column matrix, which no algorithm here ever holds at once."""
        return self.N * self.C * self.R * self.S * self.P * self.itemsize

    @property
    def arithmetic_intensity(self) -> float:
        """Floating-point operations a byte, when each array crosses the memory bus once."""
        return self.flops / (self.input_bytes + self.weight_bytes + self.output_bytes)

    # For the algorithms ------------------------------------------------------------------

    def result_shape(self, direction: Direction) -> Shape4:
        """Return the shape of what `direction` computes."""
        if direction == "forward":
            return self.output_shape
        return self.input_shape if direction == "input_grad" else self.weight_shape

    def rows_of_tap(self, r: int) -> tuple[int, int]:
        """Return the output rows [start, stop) for which kernel row `r` is inside the input."""
        offset = r * self.dilation[0] - self.padding[0][0]
        return tap_range(self.H, self.OH, self.stride[0], offset)

    def columns_of_tap(self, s: int) -> tuple[int, int]:
        """Return the output columns [start, stop) for which kernel column `s` is inside."""
        offset = s * self.dilation[1] - self.padding[1][0]
        return tap_range(self.W, self.OW, self.stride[1], offset)

    @cached_property
    def record(self) -> NDArray[Any]:
        """The numbers above as a one-element record array: how a kernel receives them."""
        return record_of(
            _RECORD,
            self,
            stride_h=self.stride[0],
            stride_w=self.stride[1],
            dilation_h=self.dilation[0],
            dilation_w=self.dilation[1],
            pad_top=self.padding[0][0],
            pad_left=self.padding[1][0],
        )


_RECORD = record_type(
    *("N", "C", "H", "W", "K", "R", "S", "OH", "OW", "C_per_group", "K_per_group"),
    *("stride_h", "stride_w", "dilation_h", "dilation_w", "pad_top", "pad_left"),
)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if type(value) is tuple else (value,)


def _checked(
    input_shape: Any,
    weight_shape: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    dtype: Any,
    names: tuple[str, str],
) -> Conv2dProblem:
    """Return the problem; raise as `Conv2dProblem.from_shapes`."""
    input_name, weight_name = names
    N, C, H, W = as_image_shape(input_name, input_shape)
    K, C_per_group, R, S = filters = as_ints(weight_name, weight_shape, 4, 0)
    groups = as_int("groups", groups, 1)
    step = as_pair("stride", stride, 1)
    gap = as_pair("dilation", dilation, 1)
    if 0 in filters:
        raise ValueError(f"{weight_name} must not have an empty dimension, got shape {filters}")
    layout = (input_name, (N, C, H, W)), (weight_name, filters), groups
    if C % groups or K % groups:
        raise ValueError(
            f"groups must divide the input channels and the output channels, got "
            f"groups={groups} with C={C} and K={K}"
            + (other_layout(*layout) or f": both are divisible by {common_divisors(C, K)}")
        )
    if C_per_group * groups != C:
        raise ValueError(
            f"{weight_name} must have C / groups = {C // groups} input channels "
            f"({input_name} has C={C}, groups={groups}), got {C_per_group} in shape {filters}"
            + other_layout(*layout)
        )
    pads = resolve_padding(padding, (H, W), (R, S), step, gap)
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    require_windows(weight_name, (H, W), (R, S), gap, pads)
    problem = Conv2dProblem(N, C, H, W, K, R, S, step, pads, gap, groups, dtype)
    require_tensor(f"padding {pads}", problem.output_shape)
    require_tensor(f"padding {pads}", problem.padded_shape)
    return problem


_checked_once = lru_cache(maxsize=1024)(_checked)
