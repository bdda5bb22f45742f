"""A small residual network, and the same without its shortcuts.

A residual block gives x + f(x): its layers learn only what to change, and the gradient always has
a way around them. A deep network without shortcuts has to send it through every layer instead.
"""

import numpy as np
from common import SEED, Digits, accuracies, options, show, table, train

from fastconv import nn

BLOCKS, CHANNELS = 6, 16


def build(shortcuts):
    """Return a first convolution, blocks of two convolutions each, and a dense layer."""
    rng = np.random.default_rng(SEED)

    def block():
        body = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, rng=rng),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, rng=rng),
        )
        return [nn.Residual(body) if shortcuts else body, nn.ReLU()]

    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1, rng=rng),
        nn.ReLU(),
        *(layer for _ in range(BLOCKS) for layer in block()),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(CHANNELS * 4, 10, rng=rng),
    )


def first_gradient(model, digits):
    """Return the size of the gradient that reaches the first filters, before any training."""
    loss = nn.CrossEntropyLoss()
    loss(model(digits.images[:64]), digits.labels[:64])
    model.zero_grad()
    model.backward(loss.backward())
    size = float(np.linalg.norm(model[0].weight.grad))
    model.zero_grad()
    return size


def main():
    """Train both and compare."""
    arguments = options(__doc__)
    digits = Digits.load(arguments.quick)
    epochs = 3 if arguments.quick else 15
    print(f"{digits}; {epochs} epochs in batches of 32")
    print(f"{2 * BLOCKS + 1} convolutions, {BLOCKS} residual blocks\n")
    models = {"without shortcuts": build(False), "with shortcuts": build(True)}
    gradients = {name: first_gradient(model, digits) for name, model in models.items()}
    results = {name: train(model, digits, epochs) for name, model in models.items()}
    accuracies(results)
    print()
    table(
        ("network", "parameters", "first gradient", "ms/epoch", "accuracy"),
        [
            (
                name,
                f"{r.parameters:,}",
                f"{gradients[name]:.1e}",
                f"{r.seconds * 1e3:.0f}",
                f"{r.accuracy:.1%}",
            )
            for name, r in results.items()
        ],
    )

    if arguments.out:
        show(results["with shortcuts"], digits, arguments.out, "residual")


if __name__ == "__main__":
    main()
