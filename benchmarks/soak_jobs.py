"""Random work for the soak: each job draws a problem, computes it, and returns its error.

Kernels are compiled for sizes of kernels, strides and types, so these come from short lists: after
a while every kernel is there. Shapes of data are drawn anew each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import soak_truth as truth
from numpy.random import Generator
from soak_truth import Array, Geometry

import fastconv
from fastconv import nn
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.select import conv_registry

#: Name, error and allowed error of a result.
Finding = tuple[str, float, float]
Job = Callable[[Generator, bool], Iterator[Finding]]

KERNELS = ((1, 1), (3, 3), (3, 3), (5, 5))
POOLS = ((2, 2), (3, 2), (3, 1))  # kernel, stride
CHANNELS = (3, 8, 16)
DTYPES = ("float32", "float32", "float32", "float64")
#: Elements of the images: from 64 KiB to 1 MiB in float32, small ones as often as large ones.
LEAST, MOST = 2**14, 2**18
# The loops in Python would take all the time.
_TOO_SLOW = ("reference",)


def finding(name: str, result: Array, wanted: Array, terms: int, dtype: str) -> Finding:
    """Compare a result with the truth, relative to its largest number.

    `terms` products a sum explain an error of ``16 eps (16 + sqrt(terms))``, as
    `fastconv.bench.verify.tolerance` tells.
    """
    if result.shape != wanted.shape or not np.isfinite(result).all():
        return name, math.inf, 0.0
    largest = float(np.abs(wanted).max()) or 1.0
    most = 16 * float(np.finfo(dtype).eps) * (16 + math.sqrt(terms))
    return name, float(np.abs(result - wanted).max()) / largest, most


def numbers(rng: Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Return normal numbers, sometimes not contiguous in memory."""
    array = rng.standard_normal(shape, np.dtype(dtype))
    if rng.random() < 0.1:
        return np.asfortranarray(array)
    return array[..., ::-1] if rng.random() < 0.1 else array


def images(rng: Generator, channels: int, dtype: str) -> Array:
    """Return images of any size."""
    size = round(math.exp(rng.uniform(math.log(LEAST), math.log(MOST))))
    height, width = map(int, rng.integers(7, 64, 2))
    return numbers(rng, (size // (channels * height * width) or 1, channels, height, width), dtype)


def _layer(rng: Generator, channels: int) -> tuple[tuple[int, ...], Geometry]:
    """Return the shape of weights, and how the kernel slides."""
    kernel = KERNELS[rng.integers(len(KERNELS))]
    filters = int(rng.choice(CHANNELS))
    groups = 1
    if rng.random() < 0.25:
        groups = filters = channels
    elif rng.random() < 0.2 and channels % 2 == filters % 2 == 0:
        groups = 2
    stride = (int(rng.integers(1, 3)),) * 2
    dilation = (2, 2) if kernel == (3, 3) and rng.random() < 0.1 else (1, 1)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    return (filters, channels // groups, *kernel), Geometry(stride, padding, dilation, groups)


def _algorithm(rng: Generator, problem: Conv2dProblem, direction: Direction) -> str:
    """Return "auto" half the time, else any algorithm that takes the problem."""
    if rng.random() < 0.5:
        return "auto"
    able = [
        a.name for a in conv_registry.offering(direction) if a[direction].refusal(problem) is None
    ]
    return str(rng.choice([name for name in able if name not in _TOO_SLOW]))


def _problem(rng: Generator) -> tuple[Array, Array, Geometry, Conv2dProblem, str]:
    dtype = str(rng.choice(DTYPES))
    x = images(rng, int(rng.choice(CHANNELS)), dtype)
    shape, g = _layer(rng, x.shape[1])
    problem = Conv2dProblem.from_shapes(x.shape, shape, *g, dtype)
    return x, numbers(rng, shape, dtype), g, problem, dtype


def forward(rng: Generator, check: bool) -> Iterator[Finding]:
    """Convolve."""
    x, weight, g, problem, dtype = _problem(rng)
    bias = numbers(rng, (len(weight),), dtype) if rng.random() < 0.5 else None
    y = fastconv.conv2d(x, weight, bias, *g, algorithm=_algorithm(rng, problem, "forward"))
    if check:
        yield finding("forward", y, truth.conv2d(x, weight, bias, g), problem.taps, dtype)


def input_grad(rng: Generator, check: bool) -> Iterator[Finding]:
    """Return a gradient to the input."""
    x, weight, g, problem, dtype = _problem(rng)
    grad = numbers(rng, problem.output_shape, dtype)
    how = {"algorithm": _algorithm(rng, problem, "input_grad")}
    dx = fastconv.conv2d_input_grad(x.shape, weight, grad, *g, **how)
    if check:
        terms = problem.K_per_group * problem.R * problem.S
        wanted = truth.conv2d_input_grad(x.shape, weight, grad, g)
        yield finding("input_grad", dx, wanted, terms, dtype)


def weight_grad(rng: Generator, check: bool) -> Iterator[Finding]:
    """Return a gradient to the weights."""
    x, weight, g, problem, dtype = _problem(rng)
    grad = numbers(rng, problem.output_shape, dtype)
    how = {"algorithm": _algorithm(rng, problem, "weight_grad")}
    dw = fastconv.conv2d_weight_grad(x, weight.shape, grad, *g, **how)
    if check:
        terms = problem.N * problem.P
        wanted = truth.conv2d_weight_grad(x, weight.shape, grad, g)
        yield finding("weight_grad", dw, wanted, terms, dtype)


def transposed(rng: Generator, check: bool) -> Iterator[Finding]:
    """Convolve the transposed way: what is the gradient of an input."""
    x, weight, g, problem, dtype = _problem(rng)
    small = numbers(rng, problem.output_shape, dtype)
    y = fastconv.conv_transpose2d(small, weight, None, g.stride, g.padding, 0, g.groups, g.dilation)
    if check:
        wanted = truth.conv2d_input_grad((*x.shape[:2], *y.shape[2:]), weight, small, g)
        terms = problem.K_per_group * problem.R * problem.S
        yield finding("transposed", y, wanted, terms, dtype)


def plan(rng: Generator, check: bool) -> Iterator[Finding]:
    """Run a plan several times, into the same memory or new one, with a ReLU."""
    x, weight, g, problem, dtype = _problem(rng)
    how = {"activation": "relu", "algorithm": _algorithm(rng, problem, "forward")}
    prepared = fastconv.plan_conv2d(x.shape, weight, None, *g, **how)
    out = np.empty(problem.output_shape, dtype)
    for _ in range(3):
        x = numbers(rng, x.shape, dtype)
        y = prepared(x, out) if rng.random() < 0.5 else prepared(x)
    if check:
        wanted = np.maximum(truth.conv2d(x, weight, None, g), 0)
        yield finding("plan", y, wanted, problem.taps, dtype)


def pooling(rng: Generator, check: bool) -> Iterator[Finding]:
    """Pool by maxima and by means, and send gradients back."""
    dtype = str(rng.choice(DTYPES))
    x = images(rng, int(rng.choice(CHANNELS)), dtype)
    size, step = POOLS[rng.integers(len(POOLS))]
    edge = int(rng.integers(0, size // 2 + 1))
    pairs = (size, size), (step, step), (edge, edge)
    y, argmax = fastconv.max_pool2d(x, size, step, edge, return_indices=True)
    mean = fastconv.avg_pool2d(x, size, step, edge)
    grad = numbers(rng, y.shape, dtype)
    back = fastconv.max_pool2d_grad(grad, argmax, x.shape)
    spread = fastconv.avg_pool2d_grad(grad, x.shape, size, step, edge)
    if check:
        maxima, positions = truth.max_pool2d(x, *pairs)
        wanted = truth.max_pool2d_grad(grad, positions, x.shape)
        for name, result, right in (
            ("max_pool", y, maxima),
            ("max_pool", argmax, positions),
            ("max_pool_grad", back, wanted),
            ("avg_pool", mean, truth.avg_pool2d(x, *pairs)),
            ("avg_pool_grad", spread, truth.avg_pool2d_grad(grad, x.shape, *pairs)),
        ):
            yield finding(name, result, right, size * size, dtype)


def training(rng: Generator, check: bool) -> Iterator[Finding]:
    """Train a small network for one step. It is smooth, so that errors stay small on the way."""
    x = images(rng, int(rng.choice(CHANNELS)), "float32")
    conv = nn.Conv2d(x.shape[1], 8, 3, 1, 1, rng=rng)
    layers = (conv, nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(8, 4, rng=rng))
    weight, last = conv.weight.value.copy(), model[-1].weight.value.copy()
    bias, offset = conv.bias.value.copy(), model[-1].bias.value.copy()
    y = model(x)
    grad = numbers(rng, y.shape, "float32")
    dx = model.backward(grad)
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    if not check:
        return
    g, pixels = Geometry(padding=(1, 1)), x.shape[2] * x.shape[3]
    first = truth.conv2d(x, weight, bias, g)
    normal, scale = truth.batch_norm(first, 1e-5)
    smooth, slope = truth.silu(normal)
    right = smooth.mean(axis=(2, 3)) @ last.T.astype(float) + offset
    back = (grad.astype(float) @ last)[:, :, None, None] / pixels * slope
    back = truth.batch_norm_grad(back, normal, scale)
    steps = truth.conv2d_weight_grad(x, weight.shape, back, g)
    terms = len(x) * pixels
    yield finding("network", y, right, terms, "float32")
    sent = truth.conv2d_input_grad(x.shape, weight, back, g)
    yield finding("network_input_grad", dx, sent, terms, "float32")
    yield finding("network_step", conv.weight.value, weight - 0.1 * steps, terms, "float32")


def evaluation(rng: Generator, check: bool) -> Iterator[Finding]:
    """Evaluate a network whose convolution, normalization, ReLU and maxima run as one."""
    x = images(rng, int(rng.choice(CHANNELS)), "float32")
    conv = nn.Conv2d(x.shape[1], 16, 3, 1, 1, rng=rng)
    model = nn.Sequential(conv, nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)).eval()
    y = model(x)
    if check:
        first = truth.conv2d(x, conv.weight.value, conv.bias.value, Geometry(padding=(1, 1)))
        activated = np.maximum(first / np.sqrt(1 + 1e-5), 0)
        right, _ = truth.max_pool2d(activated, (2, 2), (2, 2), (0, 0))
        yield finding("fused", y, right, 9 * x.shape[1], "float32")


#: Each job, and how often it is drawn.
JOBS: dict[Job, int] = {
    forward: 5,
    input_grad: 4,
    weight_grad: 4,
    transposed: 2,
    plan: 3,
    pooling: 3,
    training: 2,
    evaluation: 2,
}
