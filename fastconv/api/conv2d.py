"""Convolution and its two gradients, as a user calls them.

The outermost level: it checks what a user passes and returns arrays. Everything below trusts
its arguments.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike

from fastconv.convolution.algorithm import Call
from fastconv.convolution.fused_max_pool import SIDE
from fastconv.core.activation import ActivationLike, as_activation
from fastconv.core.arguments import (
    Array,
    as_batch,
    as_batch_shape,
    as_bias,
    as_computed,
    as_filters,
    as_numbers,
    as_returned,
    check_batched_alike,
    check_shape,
    result_dtypes,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import IntPair, Padding
from fastconv.core.hints import NoOthers, unexpected
from fastconv.runtime import output_memory
from fastconv.select.choice import Circumstances, call_of, choose, circumstances, decide
from fastconv.select.conv_registry import (
    ForwardAlgorithm,
    InputGradAlgorithm,
    WeightGradAlgorithm,
)
from fastconv.select.plan import Conv2dPlan


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    activation: ActivationLike = None,
    algorithm: ForwardAlgorithm = "auto",
    **unknown: Unpack[NoOthers],
) -> Array:
    """Convolve images with filters (cross-correlation, as in every deep-learning library).

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
        Images, or one image. float32 and float64 keep their type, float16 is computed in float32
        and comes back as float16, integers and booleans become float64; mixed types follow NumPy.
    weight : array-like, (K, C / groups, R, S)
        Filters.
    bias : array-like, (K,), optional
        Added to every pixel of an output channel.
    stride, dilation : int or (int, int)
        For height and width, in pixels.
    padding : int, (int, int), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Zeros around the images, in pixels. "same" gives ceil(H / stride) rows; where their number
        is odd, one more is at the bottom, with "same_lower" at the top (ONNX's SAME_UPPER and
        SAME_LOWER). "valid" is 0.
    groups : int
        Output channel k sees only the C / groups input channels of its group.
    activation : str or tuple, optional
        Applied to the output before it is stored; see `plan_conv2d`.
    algorithm : str
        "auto", or one of ``fastconv.algorithms()``.

    Returns
    -------
    ndarray, (N, K, OH, OW), of one image (K, OH, OW)

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it was, and what would be right.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> edges = np.array([[[[-1.0, 0.0, 1.0]]]])
    >>> conv2d(image, edges)[0, 0]
    array([[2., 2.],
           [2., 2.],
           [2., 2.],
           [2., 2.]])
    """
    if unknown:
        raise unexpected(conv2d, unknown)
    arguments = stride, padding, dilation, groups, activation, algorithm
    arrays: tuple[Any, Any, Any] = x, weight, bias
    kept: list[_Ready] = []
    # Asked once: what is kept for some circumstances must not be chosen by those of later.
    now = circumstances()
    if {*map(type, arrays)} <= _ARRAYS and all(map(_is_plain, arguments)):
        sizes = [None if a is None else (a.shape, a.dtype) for a in arrays]
        kept = _kept(*sizes, *arguments, now)
    else:
        arrays = _as_arrays(*arrays)
    if not kept:
        kept.append(_make_ready(now, *arrays, *arguments))
    return kept[0].run(*arrays)


class _Ready(NamedTuple):
    """A convolution whose arguments are checked, all but the elements of its arrays."""

    problem: Conv2dProblem
    call: Call
    dtype: np.dtype[Any]
    returned: np.dtype[Any]
    single: bool
    zeros: Array

    def run(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Convolve arrays of the shapes and dtypes that were checked."""
        problem, call, dtype, returned, single, zeros = self
        y = output_memory.empty(problem.output_shape, dtype)
        if problem.N:
            images = as_computed(x[np.newaxis] if single else x, dtype)
            offsets = zeros if bias is None else as_computed(bias, dtype)
            call(images, as_computed(weight, dtype), offsets, y)
        if returned is not dtype:
            y = y.astype(returned)
        return y[0] if single else y


_ARRAYS = {np.ndarray, type(None)}
_PLAIN = {int, str, type(None)}


def _is_plain(value: Any) -> bool:
    """Return whether a value is known by its hash: True, 1.0 and 1 would be one key."""
    kind = type(value)
    return kind in _PLAIN or (kind is tuple and all(map(_is_plain, value)))


@lru_cache(maxsize=256)
def _kept(*key: Any) -> list[_Ready]:
    """Return what was made ready for such shapes, dtypes and arguments: at first an empty list."""
    return []


def _as_arrays(x: Any, weight: Any, bias: Any) -> tuple[Array, Array, Array | None]:
    offsets = None if bias is None else as_numbers("bias", bias)
    return as_numbers("x", x), as_numbers("weight", weight), offsets


def _make_ready(
    now: Circumstances, x: Array, weight: Array, bias: Array | None, *arguments: Any
) -> _Ready:
    """Check the arguments of `conv2d`, and find out what computes it."""
    *geometry, activation, algorithm = arguments
    applied = as_activation(activation)
    array, single = as_batch("x", x)
    filters, offsets = _parameters(weight, bias)
    dtype, returned = map(np.dtype, result_dtypes(array, filters, *offsets))
    problem = problem_of(array.shape, filters.shape, *geometry, dtype.name)
    chosen = choose(problem, "forward", algorithm, once=True, now=now)
    call = call_of(problem, chosen, applied)
    return _Ready(problem, call, dtype, returned, single, _bias_of(problem, ()))


def plan_conv2d(
    input_shape: tuple[int, ...],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    activation: ActivationLike = None,
    max_pool: Literal[2] | None = None,
    algorithm: ForwardAlgorithm = "auto",
) -> Conv2dPlan:
    """Make a convolution ready once, to be run on many inputs of one shape.

    Parameters
    ----------
    input_shape : (N, C, H, W) or (C, H, W)
        The plan then takes one image without the batch axis, and returns one.
    weight, bias, stride, padding, dilation, groups, algorithm
        As in `conv2d`. The weights and the bias are copied: changing them afterwards does not
        change the plan. The plan computes in the dtype that they give, float32 for float16.
    activation : str or tuple, optional
        Applied to the output: "relu", "relu6", ("clip", low, high), "leaky_relu" (slope 0.01) or
        ("leaky_relu", slope), "silu", "hard_swish".
    max_pool : 2, optional
        Return the maxima of 2 x 2 windows, shape (N, K, OH // 2, OW // 2): the bits that
        `max_pool2d` makes of the activated output. Where the algorithm can, the whole output is
        never stored; ``plan.explain()`` says whether it can.

    Returns
    -------
    Conv2dPlan
        Call it as ``plan(x, out=None, residual=None)``; see also ``plan.algorithm``,
        ``plan.workspace_bytes`` and ``plan.explain()``. It may be called from several threads at
        once.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> plan = plan_conv2d((1, 3, 8, 8), np.ones((5, 3, 3, 3), np.float32), padding=1)
    >>> plan(np.ones((1, 3, 8, 8), np.float32)).shape
    (1, 5, 8, 8)
    """
    applied = as_activation(activation)
    shape, single = as_batch_shape("input_shape", input_shape)
    filters, offsets = _parameters(weight, bias)
    dtype, _ = result_dtypes(filters, *offsets)
    geometry = stride, padding, dilation, groups, dtype
    problem = problem_of(shape, filters.shape, *geometry, names=("input_shape", "weight"))
    _check_max_pool(max_pool, problem)
    choice = decide(problem, "forward", algorithm)
    copy = as_computed(filters.astype(dtype), dtype)
    # Read-only again, as in `conv2d`: kernels are then the same.
    offset = as_computed(_bias_of(problem, offsets).copy(), dtype)
    return Conv2dPlan(problem, choice, copy, offset, applied, max_pool, single)


def _check_max_pool(max_pool: Any, problem: Conv2dProblem) -> None:
    """Refuse windows that no plan pools, and outputs without a single window."""
    if max_pool is None:
        return
    if isinstance(max_pool, bool) or not isinstance(max_pool, int | np.integer):
        raise TypeError(f"max_pool must be None or {SIDE}, got {max_pool!r}")
    if max_pool != SIDE:
        raise ValueError(
            f"max_pool must be None or {SIDE}, for windows of {SIDE} x {SIDE} at stride {SIDE}, "
            f"got {max_pool!r}: others are fastconv.max_pool2d's"
        )
    if problem.OH < SIDE or problem.OW < SIDE:
        raise ValueError(
            f"max_pool={SIDE} needs an output of at least {SIDE} x {SIDE} pixels, got "
            f"{problem.OH} x {problem.OW}"
        )


def conv2d_input_grad(
    input_shape: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algorithm: InputGradAlgorithm = "auto",
) -> Array:
    """Return the gradient of ``sum(conv2d(x, weight) * grad_output)`` with respect to x.

    Parameters
    ----------
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of x.
    weight : array-like, (K, C / groups, R, S)
    grad_output : array-like, (N, K, OH, OW) or (K, OH, OW)
        Gradient of the loss with respect to the convolution's output.
    stride, padding, dilation, groups, algorithm
        As in `conv2d`.

    Returns
    -------
    ndarray, of `input_shape`

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_input_grad((1, 1, 1, 3), np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 1, 2)))
    array([[[[1., 3., 2.]]]])
    """
    shape, single = as_batch_shape("input_shape", input_shape)
    filters = as_filters(weight)
    grad, single_grad = as_batch("grad_output", grad_output)
    check_batched_alike(input_shape=single, grad_output=single_grad)
    dtype, returned = result_dtypes(filters, grad)
    geometry = stride, padding, dilation, groups, dtype
    problem = problem_of(shape, filters.shape, *geometry, names=("input_shape", "weight"))
    check_shape("grad_output", grad, problem.output_shape, "the convolution's output", single)
    chosen = choose(problem, "input_grad", algorithm)
    out = output_memory.empty(problem.input_shape, dtype)
    if problem.N:
        chosen.input_grad.run(problem, as_computed(filters, dtype), as_computed(grad, dtype), out)
    return as_returned(out, returned, single)


def conv2d_weight_grad(
    x: ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: ArrayLike,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algorithm: WeightGradAlgorithm = "auto",
) -> Array:
    """Return the gradient of ``sum(conv2d(x, weight) * grad_output)`` for the weights.

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
    weight_shape : (K, C / groups, R, S)
        Shape of the weights.
    grad_output : array-like, (N, K, OH, OW) or (K, OH, OW)
        Gradient of the loss with respect to the convolution's output.
    stride, padding, dilation, groups, algorithm
        As in `conv2d`.

    Returns
    -------
    ndarray, (K, C / groups, R, S)
        Zeros for an empty batch.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 10.0, 100.0]]]])
    >>> conv2d_weight_grad(x, (1, 1, 1, 2), np.ones((1, 1, 1, 2)))
    array([[[[ 11., 110.]]]])
    """
    array, single = as_batch("x", x)
    grad, single_grad = as_batch("grad_output", grad_output)
    check_batched_alike(x=single, grad_output=single_grad)
    dtype, returned = result_dtypes(array, grad)
    geometry = stride, padding, dilation, groups, dtype
    problem = problem_of(array.shape, weight_shape, *geometry, names=("x", "weight_shape"))
    check_shape("grad_output", grad, problem.output_shape, "the convolution's output", single)
    chosen = choose(problem, "weight_grad", algorithm)
    out = np.zeros(problem.weight_shape, dtype)
    if problem.N:
        chosen.weight_grad.run(problem, as_computed(array, dtype), as_computed(grad, dtype), out)
    return out.astype(returned, copy=False)


def problem_of(
    input_shape: Any, weight_shape: Any, *geometry: Any, names: tuple[str, str] = ("x", "weight")
) -> Conv2dProblem:
    """Return a problem; `geometry` ends with the dtype, `names` are those of the arguments."""
    return Conv2dProblem.from_shapes(input_shape, weight_shape, *geometry, names=names)


def _parameters(weight: ArrayLike, bias: ArrayLike | None) -> tuple[Array, tuple[Array, ...]]:
    """Return the weights and, in a tuple of none or one, the bias: both checked as arrays."""
    filters = as_filters(weight)
    if bias is None:
        return filters, ()
    offsets = as_bias(bias)
    check_shape("bias", offsets, filters.shape[:1], "one for each output channel")
    return filters, (offsets,)


def _bias_of(problem: Conv2dProblem, offsets: tuple[Array, ...]) -> Array:
    if offsets:
        return as_computed(offsets[0], problem.dtype)
    return as_computed(np.zeros(problem.K, problem.dtype), problem.dtype)
