"""Random filters that are never trained, and a last layer that is.

Conv (4 filters, 3 x 3) - ReLU - MaxPool 2 - Dense 10. The filters stay as they were drawn and only
the dense layer learns; beside it the same network with everything trained.
"""

import copy

import numpy as np
from common import SEED, Digits, Result, accuracies, accuracy, options, picture, show, table

from fastconv import nn


def build():
    """Return the network: without padding, 8 x 8 becomes 6 x 6, which is pooled to 3 x 3."""
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 10, rng=rng),
    )


def train_all(model, digits, epochs, lr):
    """Train every layer."""
    history = fit(model, digits.images, digits.test_images, digits, epochs, lr)
    return Result(model, history, accuracy(model, digits))


def train_last(model, digits, epochs, lr):
    """Train the last layer only.

    The layers before it are fixed, so what they make of the images is computed once.
    """
    fixed = nn.Sequential(*(model[i] for i in range(len(model) - 1))).eval()
    features, test_features = fixed(digits.images), fixed(digits.test_images)
    history = fit(model[-1], features, test_features, digits, epochs, lr)
    return Result(model, history, accuracy(model, digits))


def fit(model, inputs, test_inputs, digits, epochs, lr):
    """Train by plain gradient descent, one image after another, testing after every epoch."""
    return nn.fit(
        model,
        inputs,
        digits.labels,
        optimizer=nn.SGD(model.parameters(), lr=lr),
        epochs=epochs,
        batch_size=1,
        validation=(test_inputs, digits.test_labels),
        seed=SEED,
        progress="silent",
    )


def main():
    """Train both and compare."""
    arguments = options(__doc__)
    digits = Digits.load(arguments.quick)
    epochs, lr = (3 if arguments.quick else 50), 0.01
    print(f"{digits}; {epochs} epochs, learning rate {lr}, one image at a time\n")
    model = build()
    before = copy.deepcopy(model[0].weight.value)
    results = {
        "last layer trained": train_last(copy.deepcopy(model), digits, epochs, lr),
        "all layers trained": train_all(copy.deepcopy(model), digits, epochs, lr),
    }
    for result, fixed in zip(results.values(), (True, False), strict=True):
        assert np.array_equal(before, result.model[0].weight.value) == fixed
    accuracies(results)
    print()
    head = model[-1].weight.size + model[-1].bias.size
    table(
        ("network", "learned numbers", "s/epoch", "accuracy"),
        [
            (name, learned, f"{r.seconds:.3f}", f"{r.accuracy:.1%}")
            for (name, r), learned in zip(
                results.items(), (head, head + before.size + len(before)), strict=True
            )
        ],
    )

    if arguments.out:
        from fastconv import plots

        trained = results["all layers trained"].model[0].weight.value
        both = np.concatenate([before, trained])
        figure = plots.filters(both, "Filters 0 to 3 as drawn, 4 to 7 after training")
        picture(figure, arguments.out, "random_filters")
        show(results["last layer trained"], digits, arguments.out, "random_filters")


if __name__ == "__main__":
    main()
