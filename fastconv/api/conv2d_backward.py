"""All gradients of a convolution at once, also behind its bias and ReLU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.conv2d import problem_of
from fastconv.core.arguments import (
    Array,
    as_batch,
    as_computed,
    as_filters,
    as_returned,
    check_batched_alike,
    check_shape,
    result_dtypes,
)
from fastconv.core.geometry import IntPair, Padding
from fastconv.kernels.channel_loops import BLOCK, bias_grad, relu_grad
from fastconv.runtime import output_memory
from fastconv.select.choice import choose
from fastconv.select.conv_registry import InputGradAlgorithm, WeightGradAlgorithm

#: What gradients there are.
Gradient: TypeAlias = Literal["input", "weight", "bias"]
GRADIENTS: tuple[Gradient, ...] = get_args(Gradient)


class Conv2dGradients(NamedTuple):
    """The gradients that `fastconv.conv2d_backward` computed; None for the others.

    Attributes
    ----------
    input : ndarray, (N, C, H, W), of one image (C, H, W), or None
    weight : ndarray, (K, C / groups, R, S), or None
    bias : ndarray, (K,), or None

    Examples
    --------
    >>> x, weight = np.ones((1, 1, 2, 2)), np.full((1, 1, 2, 2), 3.0)
    >>> grad_x, grad_weight, grad_bias = conv2d_backward(x, weight, np.ones((1, 1, 1, 1)))
    >>> grad_weight, grad_bias
    (array([[[[1., 1.],
             [1., 1.]]]]), array([1.]))
    """

    input: Array | None
    weight: Array | None
    bias: Array | None


def conv2d_backward(
    x: ArrayLike,
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    need: Collection[Gradient] = GRADIENTS,
    relu_output: ArrayLike | None = None,
    algorithm: InputGradAlgorithm | WeightGradAlgorithm = "auto",
) -> Conv2dGradients:
    """Return the gradients of ``sum(conv2d(x, weight, bias) * grad_output)``.

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
    weight : array-like, (K, C / groups, R, S)
    grad_output : array-like, (N, K, OH, OW) or (K, OH, OW)
        Gradient of the loss with respect to the convolution's output.
    stride, padding, dilation, groups, algorithm
        As in `conv2d`; an algorithm that is named must have both of the gradients needed.
    need : collection of str
        Which gradients: at least one of "input", "weight" and "bias".
    relu_output : array-like, of `grad_output`'s shape, optional
        What ``conv2d(..., activation="relu")`` returned: the gradients are then those of
        ``sum(relu(conv2d(x, weight, bias)) * grad_output)``.

    Returns
    -------
    Conv2dGradients
        A tuple ``(input, weight, bias)`` with names; None for what is not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[[[1.0, 10.0, 100.0]]]]), np.array([[[[1.0, 2.0]]]])
    >>> gradients = conv2d_backward(x, weight, np.ones((1, 1, 1, 2)))
    >>> gradients.input, gradients.weight, gradients.bias
    (array([[[[1., 3., 2.]]]]), array([[[[ 11., 110.]]]]), array([2.]))
    >>> conv2d_backward(x, weight, np.ones((1, 1, 1, 2)), need=["bias"])
    Conv2dGradients(input=None, weight=None, bias=array([2.]))
    """
    wanted = _checked(need)
    images, single = as_batch("x", x)
    filters = as_filters(weight)
    grad, single_grad = as_batch("grad_output", grad_output)
    check_batched_alike(x=single, grad_output=single_grad)
    dtype, returned = result_dtypes(images, filters, grad)
    geometry = stride, padding, dilation, groups, dtype
    problem = problem_of(images.shape, filters.shape, *geometry)
    check_shape("grad_output", grad, problem.output_shape, "the convolution's output", single)
    to_weight = choose(problem, "weight_grad", algorithm) if "weight" in wanted else None
    to_input = choose(problem, "input_grad", algorithm) if "input" in wanted else None
    ready = as_computed(grad, dtype)
    if relu_output is not None:
        output, single_output = as_batch("relu_output", relu_output)
        check_batched_alike(x=single, relu_output=single_output)
        check_shape("relu_output", output, grad.shape, "the convolution's output", single)
        ready = as_computed(relu_gradient(ready, output), dtype)
    images, filters = as_computed(images, dtype), as_computed(filters, dtype)
    found = {"bias": bias_gradient(ready)} if "bias" in wanted else {}
    if to_weight is not None:
        found["weight"] = np.zeros(problem.weight_shape, dtype)
        if problem.N:
            to_weight.weight_grad.run(problem, images, ready, found["weight"])
    if to_input is not None:
        found["input"] = output_memory.empty(problem.input_shape, dtype)
        if problem.N:
            to_input.input_grad.run(problem, filters, ready, found["input"])
    for name, gradient in found.items():
        found[name] = as_returned(gradient, returned, single and name == "input")
    return Conv2dGradients(*(found.get(name) for name in GRADIENTS))


def relu_gradient(grad: Array, output: Array) -> Array:
    """Return `grad` with zeros where `output`, that of a ReLU, is 0."""
    out = output_memory.empty(grad.shape, grad.dtype)
    if output.dtype != out.dtype:  # in which it might become 0
        output = output != 0
    flat = (as_computed(array, out.dtype).reshape(-1) for array in (grad, output))
    relu_grad.small(out.size, -(-out.size // BLOCK), *flat, out.reshape(-1))
    return out


def bias_gradient(grad: Array) -> Array:
    """Return the sum of every channel of a gradient, (N, K, OH, OW) or (K, OH, OW)."""
    K, OH, OW = grad.shape[-3:]
    totals = np.zeros(K)
    bias_grad.small(grad.size, K, as_computed(grad, grad.dtype).reshape(-1), OH * OW, totals)
    return totals.astype(grad.dtype)


def _checked(need: Collection[Gradient]) -> frozenset[str]:
    names = ", ".join(map(repr, GRADIENTS))
    if isinstance(need, str | np.ndarray) or not isinstance(need, Collection):
        raise TypeError(f"need must be a collection of some of {names}, got {need!r}")
    unknown = [name for name in need if not (isinstance(name, str) and name in GRADIENTS)]
    if unknown:
        raise ValueError(f"need must hold only {names}, got {unknown[0]!r}")
    if not need:
        raise ValueError(f"need must name at least one of {names}, got {need!r}")
    return frozenset(need)
