"""Programs that need all kernels of a purpose: training, inference, or the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

import fastconv
from fastconv import nn
from fastconv.bench.suites import Layer, load_suite
from fastconv.convolution.blocking.tile_shapes import all_shapes
from fastconv.core.activation import ActivationLike
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.kernels.conv_microkernels import microkernel_address
from fastconv.pooling.pool_registry import PoolAlgorithmName
from fastconv.select import conv_registry

#: What may be warmed up for.
PURPOSES = ("train", "inference", "bench")

#: What is compiled: its name, and a function without arguments that runs it.
Program = tuple[str, Callable[[], Any]]

# Images of the README's digits: for training, for testing.
_SAMPLES, _TESTED = 1437, 360

# Problems so small that they take no time, of every kind that some algorithm is made for:
# (input shape, weight shape, stride, padding, dilation, groups).
_CONVOLUTIONS: tuple[tuple[Any, ...], ...] = (
    ((2, 4, 12, 12), (4, 4, 3, 3), 1, 1, 1, 1),
    ((2, 4, 12, 12), (4, 4, 3, 3), 2, 1, 1, 1),
    ((2, 4, 12, 12), (4, 4, 3, 3), 1, 2, 2, 1),
    ((2, 4, 12, 12), (4, 1, 3, 3), 1, 1, 1, 4),
    ((2, 4, 12, 12), (4, 1, 3, 3), 2, 1, 1, 4),
    ((2, 4, 12, 12), (4, 2, 3, 3), 1, 1, 1, 2),
    ((2, 4, 12, 12), (8, 4, 1, 1), 1, 0, 1, 1),
    ((2, 4, 12, 12), (8, 4, 1, 1), 2, 0, 1, 1),
    ((2, 4, 12, 12), (4, 4, 5, 5), 1, 2, 1, 1),
    ((2, 3, 16, 16), (8, 3, 7, 7), 2, 3, 1, 1),
    ((1, 32, 12, 40), (64, 32, 3, 3), 1, 1, 1, 1),
)


def programs(purpose: str, dtype: str) -> Iterator[Program]:
    """Yield what compiles all that one of `PURPOSES` needs, in arrays of one type."""
    yield from {"train": _training, "inference": _inference, "bench": _benchmark}[purpose](dtype)


# Training -----------------------------------------------------------------------------------


def _training(dtype: str) -> Iterator[Program]:
    optimizers: tuple[Callable[..., nn.Optimizer], ...] = (
        *(nn.Adam, nn.SGD, partial(nn.SGD, momentum=0.9)),
    )
    for optimizer in optimizers:
        yield (
            f"training digits {dtype}",
            partial(_train, _digits_network, (1, 8, 8), optimizer, dtype),
        )
    for image, filters, norm in (((1, 28, 28), (8, 16), False), ((3, 32, 32), (32, 64, 128), True)):
        network = partial(_network, image, filters, norm)
        momentum = optimizers[-1]
        yield f"training {image} {dtype}", partial(_train, network, image, momentum, dtype, 128)
    yield "CNNClassifier", _classify


def _digits_network() -> nn.Sequential:
    """Return the network of the README."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)),
    )


def _network(image: tuple[int, int, int], filters: tuple[int, ...], norm: bool) -> nn.Sequential:
    """Return a network of 3x3 convolutions, each followed by maximum pooling."""
    channels, height, width = image
    layers: list[nn.Module] = []
    for count in filters:
        layers.append(nn.Conv2d(channels, count, 3, padding=1))
        layers += [nn.BatchNorm2d(count)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = count, height // 2, width // 2
    units = channels * height * width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(units, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def _train(
    network: Callable[[], nn.Sequential],
    image: tuple[int, ...],
    optimizer: Callable[..., nn.Optimizer],
    dtype: str,
    samples: int = _SAMPLES,
) -> None:
    model = network().astype(dtype)
    x, y = np.ones((samples, *image), dtype), np.arange(samples) % 10
    held = np.ones((_TESTED, *image), dtype), np.arange(_TESTED) % 10
    how: dict[str, Any] = {"optimizer": optimizer(model.parameters(), lr=0.001), "epochs": 1}
    model.eval()(held[0])
    model(held[0][:1])
    nn.fit(model, x, y, validation=held, progress="silent", **how)


def _classify() -> None:
    if find_spec("sklearn") is None:
        return
    x, y = np.ones((_SAMPLES, 8, 8)), np.arange(_SAMPLES) % 10
    x[:, 0, 0] = y
    fastconv.CNNClassifier(epochs=1, random_state=0).fit(x, y).predict_proba(x[:_TESTED])


# Inference ----------------------------------------------------------------------------------


def _inference(dtype: str) -> Iterator[Program]:
    yield f"the first ten lines {dtype}", partial(_ten_lines, dtype)
    for suite in ("resnet50", "mobilenet_v1", "vgg16"):
        for layer in load_suite(suite):
            yield f"{suite} {layer.id} {dtype}", partial(_plan, layer, dtype)
    yield f"the ends of networks {dtype}", partial(_ends, dtype)


def _ten_lines(dtype: str) -> None:
    """Run what the README begins with."""
    x, weight = np.ones((8, 3, 32, 32), dtype), np.ones((16, 3, 3, 3), dtype)
    y = fastconv.conv2d(x, weight, padding="same")
    fused: tuple[tuple[ActivationLike, Literal[2] | None], ...]
    fused = (None, None), ("relu", None), ("relu", 2)
    for activation, size in fused:
        plan = fastconv.plan_conv2d(
            x.shape, weight, padding="same", activation=activation, max_pool=size
        )
        plan(x)
    fastconv.conv2d_backward(x, weight, np.ones(y.shape, dtype), padding="same")
    largest, indices = fastconv.max_pool2d(y, 2, return_indices=True)
    fastconv.max_pool2d_grad(np.ones(largest.shape, dtype), indices, y.shape)


def _plan(layer: Layer, dtype: str) -> None:
    """Convolve as networks in evaluation do, and as single calls do."""
    problem = layer.problem(dtype=dtype)
    x, weight = np.ones(problem.input_shape, dtype), np.ones(problem.weight_shape, dtype)
    bias, residual = np.ones(problem.K, dtype), np.ones(problem.output_shape, dtype)
    how: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    fastconv.conv2d(x, weight, bias, **how)
    fastconv.plan_conv2d(x.shape, weight, bias, activation="relu", **how)(x)
    plan = fastconv.plan_conv2d(x.shape, weight, bias, activation="relu", **how)
    plan(x, residual=residual)


def _ends(dtype: str) -> None:
    """Run the poolings and dense layers of the same networks."""
    for x, layers in (
        ((1, 64, 112, 112), (nn.MaxPool2d(3, 2, 1),)),
        ((1, 64, 112, 112), (nn.MaxPool2d(2),)),
        ((1, 2048, 7, 7), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))),
        ((64, 2048, 7, 7), (nn.AvgPool2d(7), nn.Flatten(), nn.Linear(2048, 10))),
    ):
        nn.Sequential(*layers).astype(dtype).eval()(np.ones(x, dtype))


# The benchmark: every algorithm --------------------------------------------------------------


def _benchmark(dtype: str) -> Iterator[Program]:
    for direction in DIRECTIONS:
        for algorithm in conv_registry.algorithms(direction):
            for case in _CONVOLUTIONS:
                call = _convolution(dtype, direction, algorithm, case)
                if call is not None:
                    yield f"{algorithm} {direction} {dtype}", call
    for name in fastconv.pool_algorithms():
        yield f"{name} pooling {dtype}", partial(_pool, dtype, name)
    yield f"columns {dtype}", partial(_columns, dtype)
    for shape in all_shapes(dtype):
        yield shape.name, partial(microkernel_address, shape)


def _convolution(
    dtype: str, direction: Direction, name: str, case: tuple[Any, ...]
) -> Callable[[], Any] | None:
    """Return the call, None if the algorithm refuses the problem."""
    input_shape, weight_shape, stride, padding, dilation, groups = case
    problem = Conv2dProblem.from_shapes(
        input_shape, weight_shape, stride, padding, dilation, groups, dtype
    )
    algorithm = next(a for a in conv_registry.offering(direction) if a.name == name)
    if algorithm[direction].refusal(problem) is not None:
        return None
    x, weight, grad = (
        np.ones(shape, dtype) for shape in (input_shape, weight_shape, problem.output_shape)
    )
    how: dict[str, Any] = {
        **{"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        "algorithm": name,
    }
    if direction == "forward":
        return partial(fastconv.conv2d, x, weight, **how)
    if direction == "input_grad":
        return partial(fastconv.conv2d_input_grad, input_shape, weight, grad, **how)
    return partial(fastconv.conv2d_weight_grad, x, weight_shape, grad, **how)


def _pool(dtype: str, name: PoolAlgorithmName) -> None:
    x = np.ones((2, 3, 8, 8), dtype)
    for size, stride, padding in ((2, 2, 0), (3, 2, 1)):
        largest, indices = fastconv.max_pool2d(
            x, size, stride, padding, return_indices=True, algorithm=name
        )
        fastconv.max_pool2d(x, size, stride, padding, algorithm=name)
        fastconv.max_pool2d_grad(largest, indices, x.shape, algorithm=name)
        mean = fastconv.avg_pool2d(x, size, stride, padding, algorithm=name)
        fastconv.avg_pool2d_grad(mean, x.shape, size, stride, padding, algorithm=name)
    adaptive = fastconv.adaptive_avg_pool2d(x, 3, algorithm=name)
    fastconv.adaptive_avg_pool2d_grad(adaptive, x.shape, algorithm=name)


def _columns(dtype: str) -> None:
    x = np.ones((2, 3, 8, 8), dtype)
    fastconv.col2im(fastconv.im2col(x, 3), (8, 8), 3)
