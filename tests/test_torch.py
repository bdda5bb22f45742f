"""Random cases against PyTorch in float64, every algorithm taking its turn.

FASTCONV_TORCH_CASES sets how many cases each test draws (200 unless told).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from reference import Array, Pair

import fastconv

torch = pytest.importorskip("torch")
functional = torch.nn.functional

CASES = int(os.environ.get("FASTCONV_TORCH_CASES", "200"))
Tensor = Any


def pair(rng: Generator, low: int, high: int) -> Pair:
    """Draw two integers from low to high, both included."""
    first, second = rng.integers(low, high + 1, 2)
    return int(first), int(second)


def whole(rng: Generator, low: int, high: int) -> int:
    """Draw one integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def normal(rng: Generator, *shape: int) -> Tensor:
    """Draw a standard normal float64 tensor."""
    return torch.from_numpy(np.asarray(rng.standard_normal(shape)))


def assert_near(actual: Array, wanted: Tensor, what: object) -> None:
    """Compare to 1e-11: a thousand float64 roundings of sums below a hundred."""
    expected = wanted.detach().numpy()
    assert actual.shape == expected.shape, what
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11, err_msg=str(what))


def drawn_algorithm(rng: Generator, direction: str, run: Callable[..., Array]) -> Array:
    """Run an algorithm drawn at random, the next one if it refuses."""
    for drawn in rng.permutation(["auto", *fastconv.algorithms(direction)]):
        algorithm = str(drawn)
        try:
            return run(algorithm=algorithm)
        except ValueError as error:
            reason = str(error)
            if algorithm not in reason:
                raise
    raise AssertionError("no algorithm accepted the case")


def draw_convolution(rng: Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Draw x, weight, bias and the geometry of a convolution that has an output."""
    while True:
        groups = whole(rng, 1, 3) if rng.random() < 0.5 else 1
        c, k = whole(rng, 1, 4), whole(rng, 1, 4)
        size, kernel, stride, dilation = (pair(rng, 1, top) for top in (12, 5, 3, 3))
        margins = pair(rng, 0, 4), pair(rng, 0, 4)
        spans = [d * (r - 1) + 1 for d, r in zip(dilation, kernel, strict=True)]
        if all(h + sum(m) >= e for h, m, e in zip(size, margins, spans, strict=True)):
            break
    geometry = {"stride": stride, "padding": margins, "dilation": dilation, "groups": groups}
    n = whole(rng, 1, 3)
    x, weight = normal(rng, n, c * groups, *size), normal(rng, k * groups, c, *kernel)
    return x, weight, normal(rng, k * groups), geometry


def test_convolution_and_its_gradients() -> None:
    rng = np.random.default_rng(1)
    for number in range(CASES):
        x, weight, bias, geometry = draw_convolution(rng)
        # PyTorch pads both ends alike; uneven margins are padded before.
        (top, bottom), (left, right) = geometry["padding"]
        rest = {**geometry, "padding": 0}
        x.requires_grad_()
        weight.requires_grad_()
        y = functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, bias, **rest)
        grad = normal(rng, *y.shape)
        wanted_x, wanted_weight = torch.autograd.grad(y, (x, weight), grad)
        x_, weight_, bias_, grad_ = (t.detach().numpy() for t in (x, weight, bias, grad))
        what = number, x_.shape, weight_.shape, geometry

        for direction, run, wanted in (
            ("forward", partial(fastconv.conv2d, x_, weight_, bias_), y),
            ("input_grad", partial(fastconv.conv2d_input_grad, x_.shape, weight_, grad_), wanted_x),
            (
                "weight_grad",
                partial(fastconv.conv2d_weight_grad, x_, weight_.shape, grad_),
                wanted_weight,
            ),
        ):
            actual = drawn_algorithm(rng, direction, partial(run, **geometry))
            assert_near(actual, wanted, (direction, *what))


# PyTorch warns that it copies the input where "same" needs one pixel more at the end.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_padding_that_torch_spells_alike() -> None:
    rng = np.random.default_rng(2)
    for number in range(CASES // 4 + 1):
        x, weight, bias, geometry = draw_convolution(rng)
        margin = pair(rng, 4, 6)
        for padding in ("same", "valid", margin):
            stride = 1 if padding == "same" else geometry["stride"]
            options = {**geometry, "stride": stride, "padding": padding}
            if padding == "valid" and any(
                h < d * (r - 1) + 1
                for h, r, d in zip(x.shape[2:], weight.shape[2:], geometry["dilation"], strict=True)
            ):
                continue
            wanted = functional.conv2d(x, weight, bias, **options)
            actual = fastconv.conv2d(x.numpy(), weight.numpy(), bias.numpy(), **options)
            assert_near(actual, wanted, (number, options))


def test_transposed_convolution() -> None:
    rng = np.random.default_rng(3)
    compared = 0
    while compared < CASES:
        groups, c, k = whole(rng, 1, 3), whole(rng, 1, 4), whole(rng, 1, 4)
        size, kernel, stride, dilation = (pair(rng, 1, top) for top in (8, 5, 4, 3))
        padding = pair(rng, 0, 3)
        extra = tuple(whole(rng, 0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        x = normal(rng, whole(rng, 1, 3), c * groups, *size)
        weight, bias = normal(rng, c * groups, k, *kernel), normal(rng, k * groups)
        arguments = bias, stride, padding, extra, groups, dilation
        sizes = [
            (size[a] - 1) * stride[a]
            + dilation[a] * (kernel[a] - 1)
            + extra[a]
            + 1
            - 2 * padding[a]
            for a in (0, 1)
        ]
        if min(sizes) < 1:
            continue
        compared += 1
        wanted = functional.conv_transpose2d(x, weight, *arguments)
        actual = fastconv.conv_transpose2d(x.numpy(), weight.numpy(), bias.numpy(), *arguments[1:])
        assert_near(actual, wanted, (x.shape, weight.shape, arguments[1:]))


def test_columns() -> None:
    rng = np.random.default_rng(4)
    for number in range(CASES // 4 + 1):
        x, weight, _, geometry = draw_convolution(rng)
        padding = pair(rng, 4, 6)
        rule = weight.shape[2:], geometry["dilation"], padding, geometry["stride"]
        wanted = functional.unfold(x, *rule)
        cols = fastconv.im2col(x.numpy(), tuple(rule[0]), *rule[1:])
        np.testing.assert_array_equal(cols, wanted.numpy(), str((number, rule)))
        back = fastconv.col2im(cols, tuple(x.shape[2:]), tuple(rule[0]), *rule[1:])
        assert_near(back, functional.fold(wanted, x.shape[2:], *rule), (number, rule))


def draw_pooling(rng: Generator) -> tuple[Tensor, Pair, dict[str, Any]]:
    """Draw x, a kernel and the rest of a pooling in which every window meets the input."""
    while True:
        size, kernel = pair(rng, 1, 14), pair(rng, 1, 5)
        padding = whole(rng, 0, kernel[0] // 2), whole(rng, 0, kernel[1] // 2)
        dilation = pair(rng, 1, 3) if rng.random() < 0.5 else (1, 1)
        axes = list(zip(size, kernel, padding, dilation, strict=True))
        fits = all(h + 2 * p >= d * (r - 1) + 1 for h, r, p, d in axes)
        # A dilated window that starts in the padding may step over a narrow input.
        meets = all(any(0 <= t * d - p < h for t in range(r)) for h, r, p, d in axes)
        if fits and meets:
            break
    options = {
        "stride": None if rng.random() < 0.2 else pair(rng, 1, 5),
        "padding": padding,
        "ceil_mode": bool(rng.random() < 0.5),
        "dilation": dilation,
    }
    return normal(rng, whole(rng, 1, 2), whole(rng, 1, 3), *size), kernel, options


def compare_max_pooling(rng: Generator, x: Tensor, kernel: Pair, options: dict[str, Any]) -> None:
    """Compare values, indices and gradient of one maximum pooling."""
    x.requires_grad_()
    name = str(rng.choice(["auto", *fastconv.pool_algorithms()]))
    what = name, x.shape, kernel, options
    wanted, wanted_indices = functional.max_pool2d(x, kernel, **options, return_indices=True)
    x_ = x.detach().numpy()
    values, indices = fastconv.max_pool2d(
        x_, kernel, **options, return_indices=True, algorithm=name
    )
    np.testing.assert_array_equal(values, wanted.detach().numpy(), str(what))
    np.testing.assert_array_equal(indices, wanted_indices.numpy(), str(what))
    grad = normal(rng, *wanted.shape)
    (wanted_grad,) = torch.autograd.grad(wanted, x, grad)
    back = fastconv.max_pool2d_grad(grad.numpy(), indices, x_.shape, algorithm=name)
    assert_near(back, wanted_grad, what)


def test_max_pooling() -> None:
    rng = np.random.default_rng(5)
    for number in range(CASES):
        x, kernel, options = draw_pooling(rng)
        # Every other case in a few integers, which tie.
        compare_max_pooling(rng, x.round() if number % 2 else x, kernel, options)


def test_max_pooling_of_nan_and_infinity() -> None:
    rng = np.random.default_rng(6)
    for _ in range(CASES):
        x, kernel, options = draw_pooling(rng)
        special = [np.nan, np.inf, -np.inf, -np.inf, 0.0, 1.0]
        x = torch.from_numpy(rng.choice(special, tuple(x.shape)))
        compare_max_pooling(rng, x, kernel, options)


def test_average_pooling() -> None:
    rng = np.random.default_rng(7)
    for _ in range(CASES):
        x, kernel, options = draw_pooling(rng)
        options = {**options, "count_include_pad": bool(rng.random() < 0.5)}
        del options["dilation"]
        if any(
            h + 2 * p < r for h, p, r in zip(x.shape[2:], options["padding"], kernel, strict=True)
        ):
            continue
        name = str(rng.choice(["auto", *fastconv.pool_algorithms()]))
        what = name, x.shape, kernel, options
        x.requires_grad_()
        wanted = functional.avg_pool2d(x, kernel, **options)
        x_ = x.detach().numpy()
        assert_near(fastconv.avg_pool2d(x_, kernel, **options, algorithm=name), wanted, what)
        grad = normal(rng, *wanted.shape)
        (wanted_grad,) = torch.autograd.grad(wanted, x, grad)
        back = fastconv.avg_pool2d_grad(grad.numpy(), x_.shape, kernel, **options, algorithm=name)
        assert_near(back, wanted_grad, what)


def test_adaptive_average_pooling() -> None:
    rng = np.random.default_rng(8)
    for _ in range(CASES):
        x = normal(rng, whole(rng, 1, 2), whole(rng, 1, 3), *pair(rng, 1, 14))
        output_size = pair(rng, 1, 14)
        name = str(rng.choice(["auto", *fastconv.pool_algorithms()]))
        what = name, x.shape, output_size
        x.requires_grad_()
        wanted = functional.adaptive_avg_pool2d(x, output_size)
        x_ = x.detach().numpy()
        actual = fastconv.adaptive_avg_pool2d(x_, output_size, algorithm=name)
        assert_near(actual, wanted, what)
        grad = normal(rng, *wanted.shape)
        (wanted_grad,) = torch.autograd.grad(wanted, x, grad)
        back = fastconv.adaptive_avg_pool2d_grad(grad.numpy(), x_.shape, algorithm=name)
        assert_near(back, wanted_grad, what)


def test_convolution_of_nan_and_infinity() -> None:
    """What is not finite reaches the outputs that read it, and no others, as in PyTorch."""
    rng = np.random.default_rng(9)
    for number in range(CASES // 2):
        x, weight, bias, geometry = draw_convolution(rng)
        geometry["padding"] = pair(rng, 4, 6)
        flat = x.view(-1)
        for place in rng.integers(0, flat.numel(), 2):
            flat[place] = float(rng.choice([np.nan, np.inf, -np.inf]))
        wanted = functional.conv2d(x, weight, bias, **geometry)
        run = partial(fastconv.conv2d, x.numpy(), weight.numpy(), bias.numpy(), **geometry)
        with np.errstate(invalid="ignore"):
            actual = drawn_algorithm(rng, "forward", run)
        assert_near(actual, wanted, (number, x.shape, weight.shape, geometry))
