"""How far a network's outputs move by the rounding of its convolutions, and whether it matters."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import numpy as np
from layer_errors import photograph_pixels
from methods import (
    TORCH,
    Array,
    Method,
    by_algorithm,
    by_precision,
    digits,
    error,
    less_exact,
    table,
)
from methods import methods as all_methods

import fastconv
from fastconv import data, nn
from fastconv.core.precision import PRECISIONS, Precision

SEED = 42
# VGG-16's convolutions between poolings, K. Simonyan, A. Zisserman, arXiv:1409.1556.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CLASSES = 1000


# A network of random weights on photographs ------------------------------------------------


def vgg(stages: tuple[tuple[int, ...], ...], side: int) -> nn.Sequential:
    """Return VGG-16's convolutions and one dense layer, with He's random weights."""
    rng, channels = np.random.default_rng(SEED), 3
    layers: list[nn.Module] = []
    for stage in stages:
        for count in stage:
            conv = nn.Conv2d(channels, count, 3, padding=1, bias=False, rng=rng)
            conv.weight.data = nn.init.kaiming_normal(conv.weight_shape, rng, nonlinearity="relu")
            layers, channels = [*layers, conv, nn.ReLU()], count
        layers.append(nn.MaxPool2d(2))
    units = channels * (side // 2 ** len(stages)) ** 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(units, CLASSES, bias=False, rng=rng)
    ).eval()


def outputs(model: nn.Sequential, x: Array, convolve: Method) -> tuple[Array, Array]:
    """Return the last feature map and the logits, with a method for all convolutions."""
    features = x
    for layer in model:
        if isinstance(layer, nn.Flatten):
            features = x
        result = convolve(x, layer.weight.value) if isinstance(layer, nn.Conv2d) else layer(x)
        assert result is not None, "a method for a network must take all of its layers"
        x = result
    return features, x


def wherever_it_can(name: str) -> Method:
    """Return a method that runs an algorithm by name and, where that is refused, an exact one."""
    named, other = by_algorithm(name), by_precision("highest")

    def convolve(x: Array, weight: Array) -> Array | None:
        result = named(x, weight)
        return other(x, weight) if result is None else result

    return convolve


def photographs_table(stages: tuple[tuple[int, ...], ...], side: int) -> str:
    """Return what `auto` ran, and how far features and logits are from those in float64."""
    model = vgg(stages, side)
    pixels = photograph_pixels()
    top, left = ((size - side) // 2 for size in pixels.shape[2:])
    x = np.ascontiguousarray(pixels[:, :, top : top + side, left : left + side])
    truth = outputs(deepcopy(model).astype("float64"), x.astype(float), by_precision("highest"))
    tried: dict[str, Method] = {f'`auto`, "{one}"': by_precision(one) for one in PRECISIONS}
    tried |= {f"`{name}` wherever it can": wherever_it_can(name) for name in less_exact()}
    tried |= {name: method for name, method in all_methods().items() if name == TORCH}
    rows = []
    for name, convolve in tried.items():
        found = outputs(model, x, convolve)
        errors = [error(*pair) for pair in zip(found, truth, strict=True)]
        cells = (digits(part / 1e-7) for e in errors for part in e)
        same = int((found[1].argmax(1) == truth[1].argmax(1)).sum())
        rows.append((name, *cells, f"{same} of {len(x)}"))
    told = (f"{what}, {how}" for what in ("features", "logits") for how in ("largest", "RMS"))
    ordered = np.sort(truth[1], axis=1)
    lead = (ordered[:, -1] - ordered[:, -2]).min() / np.abs(truth[1]).max()
    ran = "; ".join(f'"{one}" ran {algorithms(model, x.shape, one)}' for one in PRECISIONS)
    return "\n\n".join(
        (
            table(("", *told, "same class"), rows),
            f"With `auto`, {ran}. The first class leads the second by {lead:.1%} of the largest "
            "logit at least.",
        )
    )


def algorithms(model: nn.Sequential, shape: tuple[int, ...], precision: Precision) -> str:
    """Return which algorithms `auto` runs in the convolutions of a network, and how often."""
    ran: Counter[str] = Counter()
    x = np.zeros(shape, np.float32)
    with fastconv.at_precision(precision):
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                ran[layer.algorithm(x.shape)] += 1
            x = layer(x)
    total = ran.total()
    return ", ".join(f"`{name}` in {count} of {total} layers" for name, count in ran.most_common())


# A network that learns digits --------------------------------------------------------------


def digits_network() -> nn.Sequential:
    """Return a network whose layers are large enough for `auto` to prefer Winograd's method."""
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, rng=rng), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 10, rng=rng)),
    )


def digits_table(images: int | None, epochs: int) -> str:
    """Train at each precision, test each network at each, and compare them."""
    x, labels = (array[:images] for array in data.load_digits(size=28))
    train, test, y, y_test = data.train_test_split(x, labels, test_size=0.2, seed=SEED)
    rows, ran = [], ""
    # The last one is a yardstick: how much does training amplify the smallest change there is?
    for precision, nudged in (
        (PRECISIONS[0], False),
        (PRECISIONS[1], False),
        (PRECISIONS[0], True),
    ):
        model = digits_network()
        if nudged:
            weight = next(model.parameters()).data
            weight.flat[0] = np.nextafter(weight.flat[0], np.float32(1))
        with fastconv.at_precision(precision):
            history = fit(model, train, y, epochs)
        model.eval()
        found = {one: probabilities(model, test, one) for one in PRECISIONS}
        truth = probabilities(deepcopy(model).astype("float64"), test.astype(float), "highest")
        classes = {one: p.argmax(1) for one, p in found.items()}
        right = (f"{np.mean(classes[one] == y_test):.2%}" for one in PRECISIONS)
        moved = (f"{np.abs(found[one] - truth).max():.1e}" for one in PRECISIONS)
        differ = int((classes["high"] != classes["highest"]).sum())
        told = f'"{precision}"' + (", one weight moved by its last bit" if nudged else "")
        rows.append((told, f"{history.loss[-1]:.4f}", *right, f"{differ} of {len(test)}", *moved))
        ran = "; ".join(f'"{one}" ran {algorithms(model, test.shape, one)}' for one in PRECISIONS)
    head = (
        *("trained at", "last loss", *(f'accuracy at "{one}"' for one in PRECISIONS)),
        *("classes that differ", *(f'error of a probability at "{one}"' for one in PRECISIONS)),
    )
    return table(head, rows) + f"\n\nIn the test {ran}."


def fit(model: nn.Sequential, x: Array, y: Array, epochs: int) -> Any:
    """Train by stochastic gradient descent with momentum; the same batches every time."""
    optimizer = nn.SGD(model.parameters(), lr=0.02, momentum=0.9)
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 32, "seed": SEED}
    return nn.fit(model, x, y, optimizer=optimizer, progress="silent", **options)


def probabilities(model: nn.Sequential, x: Array, precision: Precision) -> Array:
    """Return the softmax of the network's outputs, taken in float64."""
    with fastconv.at_precision(precision):
        logits = model(x).astype(float)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
