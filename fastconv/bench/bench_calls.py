"""From (layer, direction, algorithm) to a function without arguments that can be timed.

Everything a user pays for once is outside of it: the data, the result's memory, and the
preparation of the weights. What is left is the call that `fastconv.conv2d` and its gradients
make after they have checked their arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from fastconv.bench import image_suite
from fastconv.bench.suites import Layer
from fastconv.convolution.algorithm import Algorithm, Epilogue
from fastconv.core.arguments import Array, as_computed
from fastconv.core.conv_problem import Conv2dProblem, Direction


class Tensors(NamedTuple):
    """Everything the three directions of a convolution read; read-only, C-contiguous."""

    x: Array
    weight: Array
    bias: Array
    grad_output: Array

    def astype(self, dtype: str) -> Tensors:
        """Return them in another dtype."""
        return Tensors(*(as_computed(array, dtype) for array in self))


class Call(NamedTuple):
    """A function to be timed, and the array that it fills."""

    run: Callable[[], None]
    out: Array


def make_tensors(problem: Conv2dProblem, layer: Layer | None = None) -> Tensors:
    """Return the layer's real images, or else standard normal numbers; the same every time."""
    rng = np.random.default_rng(0)
    if layer is not None and layer.suite == "images":
        x = image_suite.image_batch(layer, problem)
        weight = image_suite.filters(layer, problem, rng)
    else:
        x = rng.standard_normal(problem.input_shape, np.float32)
        weight = rng.standard_normal(problem.weight_shape, np.float32)
    grad = rng.standard_normal(problem.output_shape, np.float32)
    return Tensors(x, weight, np.zeros(problem.K), grad).astype(problem.dtype)


def make_call(
    problem: Conv2dProblem, direction: Direction, algorithm: Algorithm, tensors: Tensors
) -> Call:
    """Bind an algorithm to its arguments; forward, its weights are prepared here."""
    # NaN, so that an element that is never written cannot pass for a result.
    out = np.full(problem.result_shape(direction), np.nan, problem.dtype)
    x, weight, bias, grad_output = tensors
    if direction == "forward":
        run = algorithm.forward.bind(problem, weight, bias, Epilogue())
        return Call(partial(run, x, None, out), out)
    if direction == "input_grad":
        return Call(partial(algorithm.input_grad.run, problem, weight, grad_output, out), out)
    return Call(partial(algorithm.weight_grad.run, problem, x, grad_output, out), out)
