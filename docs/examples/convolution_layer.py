"""A convolution layer alone: its shapes, its parameters, its work, and how fast it can be done."""

from __future__ import annotations

import time

import numpy as np
from common import options, picture

import fastconv

N, C, H, W = 8, 3, 64, 64  # a batch of colour images
K, R, S = 5, 3, 3  # five filters of 3 x 3
PADDING = 1


def main() -> None:
    """Explain the layer, compare algorithms on it, and draw its filters and im2col."""
    arguments = options(__doc__)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W), dtype=np.float32)

    # He initialization: variance 2 / fan_in keeps the size of activations through ReLU layers.
    fan_in = C * R * S
    weight = rng.standard_normal((K, C, R, S), dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
    bias = np.zeros(K, np.float32)

    y = fastconv.conv2d(x, weight, bias, padding=PADDING)

    print(f"input    {x.shape}: N images, C channels, H rows, W columns")
    print(f"weight   {weight.shape}: K filters of C x R x S, with a standard deviation of")
    print(f"         sqrt(2 / (C*R*S)) = sqrt(2 / {fan_in}) = {np.sqrt(2 / fan_in):.3f}")
    print(f"bias     {bias.shape}: one for each filter")
    print(f"output   {y.shape}: N, K, OH, OW")

    rows = H + 2 * PADDING - R + 1
    print(f"\noutput rows = H + 2 * padding - R + 1 = {H} + 2 * {PADDING} - {R} + 1 = {rows}")
    assert y.shape == (N, K, rows, W + 2 * PADDING - S + 1)

    parameters = weight.size + bias.size
    print(f"parameters  = K * C * R * S + K = {K} * {C} * {R} * {S} + {K} = {parameters}")
    products = y.size * fan_in
    print(f"products    = N * K * OH * OW * C * R * S = {products:,}")
    print(f"operations  = 2 * products (multiply and add) = {2 * products:,}")
    dense = C * H * W * K * rows * y.shape[3]
    print(f"a dense layer between the same sizes would need {dense:,} weights")

    print(f"\nthe input has the variance {x.var():.2f}, the output {y.var():.2f} (2 on the average")
    print(f"of many draws); after ReLU its mean square is {np.square(np.maximum(y, 0)).mean():.2f}")
    print("(1 on the average): activations neither fade nor grow from layer to layer")

    compare(x, weight, bias, 2 * products)

    if arguments.out:
        from fastconv import plots

        figure = plots.filters(weight, "Five filters of a layer 3 -> 5, He initialization")
        picture(figure, arguments.out, "layer_filters")
        picture(plots.im2col(rng.integers(0, 10, (5, 5)), 3), arguments.out, "im2col")


def compare(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, operations: int) -> None:
    """Time three ways to compute the layer, after checking that they agree."""
    expected = fastconv.conv2d(
        x.astype(float), weight.astype(float), bias.astype(float), padding=PADDING
    )
    chosen = fastconv.plan_conv2d(x.shape, weight, bias, padding=PADDING).algorithm
    print(f"\nhow fast (auto is {chosen} here):")
    slowest = 0.0
    for name in ("naive", "im2col", "auto"):
        y = fastconv.conv2d(x, weight, bias, padding=PADDING, algorithm=name)
        error = np.abs(y - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{name} is wrong"
        seconds = best_of(10, x, weight, bias, name)
        slowest = max(slowest, seconds)
        print(
            f"  {name:8s} {1e3 * seconds:7.3f} ms  {operations / seconds / 1e9:6.1f} GFLOP/s  "
            f"{slowest / seconds:5.1f} x naive  largest error {error:.0e}"
        )
    print("all agree with a convolution in float64")


def best_of(rounds: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, name: str) -> float:
    """Return the shortest time of some rounds: what the machine can do when left alone."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        fastconv.conv2d(x, weight, bias, padding=PADDING, algorithm=name)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
