"""Depthwise separable convolution in place of full convolution.

A full 3 x 3 convolution from C to K channels has 9 C K weights: it looks at neighbours and mixes
channels at once. A separable one does the two after each other: 9 weights for each channel alone,
then C K weights that mix. That is 1/K + 1/9 of the weights, and of the operations.
"""

import numpy as np
from common import SEED, Digits, compare, options, show, train

from fastconv import nn


def build(separable):
    """Return a network of three convolutions; the first, of one channel, is full in both."""
    rng = np.random.default_rng(SEED)
    kind = nn.DepthwiseSeparableConv2d if separable else nn.Conv2d
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        kind(16, 32, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        kind(32, 64, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10, rng=rng),
    )


def main():
    """Train both and compare."""
    arguments = options(__doc__)
    digits = Digits.load(arguments.quick)
    epochs = 3 if arguments.quick else 15
    print(f"{digits}; {epochs} epochs in batches of 32\n")
    results = {
        "full": train(build(separable=False), digits, epochs),
        "separable": train(build(separable=True), digits, epochs),
    }
    compare(results, digits, "convolutions")
    last = [result.model[7] for result in results.values()]
    full, separable = (sum(p.size for p in layer.parameters()) for layer in last)
    print(f"\nThe last convolution, 32 to 64 channels: {full:,} and {separable:,} weights,")
    print(f"{separable / full:.1%} of them; 1/64 + 1/9 is {1 / 64 + 1 / 9:.1%}")

    if arguments.out:
        show(results["separable"], digits, arguments.out, "depthwise_separable")


if __name__ == "__main__":
    main()
