"""Train a convolutional network one sample at a time, as a textbook does, and in mini-batches.

The network: Conv 8 - ReLU - MaxPool - Conv 16 - ReLU - MaxPool - Dense 128 - ReLU - Dense 10. Both
trainings start from the same weights and see the same images equally often.
"""

import copy
import time

import numpy as np
from common import (
    SEED,
    Digits,
    Result,
    accuracies,
    accuracy,
    one_step,
    options,
    picture,
    show,
    table,
    warm_up,
)
from common import train as train_in_batches

from fastconv import nn


def build():
    """Return the network. The digits are 8 x 8: pooling makes them 4 x 4, then 2 x 2."""
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 128, rng=rng),
        nn.ReLU(),
        nn.Linear(128, 10, rng=rng),
    )


def train_one_by_one(model, digits, epochs, lr=0.01):
    """Stochastic gradient descent, literally: after every image each weight moves a little."""
    warm_up(model, digits, 1)
    order = np.random.default_rng(SEED)
    loss, history = nn.CrossEntropyLoss(), nn.History()
    for _ in range(epochs):
        start, losses = time.perf_counter(), []
        model.train()
        for i in order.permutation(len(digits.images)):
            losses.append(one_step(model, loss, digits.images[i : i + 1], digits.labels[i : i + 1]))
            for parameter in model.parameters():
                parameter.data -= lr * parameter.grad
        seconds = time.perf_counter() - start
        tested = accuracy(model, digits)
        history.append(loss=np.mean(losses), val_accuracy=tested, seconds=seconds)
    return Result(model, history, tested)


def main():
    """Train both ways and compare."""
    arguments = options(__doc__)
    digits = Digits.load(arguments.quick)
    epochs = 8 if arguments.quick else 15
    print(f"{digits}; {epochs} epochs\n")
    model = build()
    print(model.summary((1, 1, 8, 8)), "\n")

    single = train_one_by_one(copy.deepcopy(model), digits, epochs)
    batched = train_in_batches(copy.deepcopy(model), digits, epochs)
    ways = {"one by one": single, "batches of 32": batched}

    accuracies(ways)
    print()
    table(
        ("training", "s/epoch", "images/s", "accuracy"),
        [
            (
                name,
                f"{way.seconds:.3f}",
                f"{len(digits.images) / way.seconds:,.0f}",
                f"{way.accuracy:.1%}",
            )
            for name, way in ways.items()
        ],
    )
    print(f"\nBatches are {single.seconds / batched.seconds:.1f} times as fast")

    if arguments.out:
        from fastconv import plots

        show(batched, digits, arguments.out, "train_cnn")
        picture(plots.filters(batched.model[0].weight.value), arguments.out, "train_cnn_filters")


if __name__ == "__main__":
    main()
