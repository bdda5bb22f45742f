"""Batch normalization: Conv - BatchNorm - ReLU - MaxPool, twice, beside the same without.

The network is that of train_cnn.py. BatchNorm brings each channel to mean 0 and variance 1 over the
batch, then scales and shifts it by two learned numbers. The bias of the convolution before it would
only be subtracted again, so it is left out.
"""

import numpy as np
from common import SEED, Digits, compare, milliseconds, options, show, train

from fastconv import nn


def block(channels, filters, norm, rng):
    """Return Conv - BatchNorm - ReLU - MaxPool, or the same without BatchNorm."""
    conv = nn.Conv2d(channels, filters, 3, padding=1, bias=not norm, rng=rng)
    return [conv, *([nn.BatchNorm2d(filters)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]


def build(norm):
    """Return the network of train_cnn.py, with or without normalization."""
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        *block(1, 8, norm, rng),
        *block(8, 16, norm, rng),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 128, rng=rng),
        nn.ReLU(),
        nn.Linear(128, 10, rng=rng),
    )


def main():
    """Train both and compare."""
    arguments = options(__doc__)
    digits = Digits.load(arguments.quick)
    epochs = 3 if arguments.quick else 15
    print(f"{digits}; {epochs} epochs in batches of 32\n")
    results = {
        "without BatchNorm": train(build(norm=False), digits, epochs),
        "with BatchNorm": train(build(norm=True), digits, epochs),
    }
    compare(results, digits)

    # In evaluation the mean and variance are fixed, so normalization is a scaling and a shift. It
    # is computed together with the convolution, by changing its weights: fused, it costs nothing.
    model, images = results["with BatchNorm"].model, digits.test_images
    model.eval(keep=True)
    alone, slow = model(images), milliseconds(lambda: model(images))
    model.eval()
    fused, fast = model(images), milliseconds(lambda: model(images))
    print(f"\nAll {len(images)} test digits: {slow:.2f} ms layer by layer, {fast:.2f} ms fused,")
    print(f"with the same results up to {np.abs(alone - fused).max():.1e}")

    if arguments.out:
        show(results["with BatchNorm"], digits, arguments.out, "batch_norm")


if __name__ == "__main__":
    main()
