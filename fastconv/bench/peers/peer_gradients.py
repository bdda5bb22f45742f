"""Gradients of a convolution as other libraries compute them, ready to be timed.

Each function returns one without arguments that gives the gradient. The two arrays are those that
the direction reads: weights and the output's gradient, or the input and the output's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.core.conv_problem import Conv2dProblem, Direction

Array = NDArray[Any]


def of_fastconv(
    problem: Conv2dProblem, direction: Direction, first: Array, second: Array, algorithm: str
) -> Callable[[], Any]:
    """Return the public function: a gradient has no plan, its weights change with each step."""
    import fastconv

    p = problem
    how = p.stride, p.padding, p.dilation, p.groups
    if direction == "input_grad":
        return lambda: fastconv.conv2d_input_grad(
            p.input_shape, first, second, *how, algorithm=algorithm
        )
    return lambda: fastconv.conv2d_weight_grad(
        first, p.weight_shape, second, *how, algorithm=algorithm
    )


def of_torch(
    problem: Conv2dProblem,
    direction: Direction,
    first: Any,
    second: Any,
    margins: tuple[int, ...],
    layout: Any,
) -> Callable[[], Any]:
    """Return the operator that PyTorch's own backward pass calls, asked for one gradient."""
    import torch

    p, which = problem, 0 if direction == "input_grad" else 1
    # Of the tensor whose gradient is wanted, only the shape is looked at.
    shape = p.input_shape if which == 0 else p.weight_shape
    wanted = torch.empty(shape, memory_format=layout)
    x, weight = (wanted, first) if which == 0 else (first, wanted)
    how = (list(p.stride), list(margins), list(p.dilation), False, [0, 0], p.groups)
    mask = [which == 0, which == 1, False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(second, x, weight, None, *how, mask)[which]


def of_jax(
    problem: Conv2dProblem,
    direction: Direction,
    first: Any,
    second: Any,
    convolution: Callable[[Any, Any], Any],
) -> Callable[[], Any]:
    """Return the compiled transpose of the convolution, which is linear in either argument."""
    import jax

    shape = problem.result_shape(direction)
    unknown = jax.ShapeDtypeStruct(shape, np.dtype(problem.dtype))

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def gradient(known: Any, grad_output: Any) -> Any:
        if direction == "input_grad":
            transposed = jax.linear_transpose(lambda image: convolution(image, known), unknown)
        else:
            transposed = jax.linear_transpose(lambda filters: convolution(known, filters), unknown)
        return transposed(grad_output)[0]

    return lambda: gradient(first, second).block_until_ready()
