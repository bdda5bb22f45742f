"""What the programs of this folder share: options, the digits, a stopwatch, tables, pictures."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastconv import data, nn

SEED = 42


def options(text: str) -> argparse.Namespace:
    """Read the command line: where pictures go, and whether this is only a test."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures there")
    parser.add_argument("--quick", action="store_true", help="few images and epochs, for tests")
    return parser.parse_args()


@dataclass
class Digits:
    """Real handwritten digits of 8 x 8 pixels, four fifths for training, one fifth for testing."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def load(cls, quick: bool = False) -> Digits:
        """Load and split them; with `quick`, 480 of the 1797."""
        images, labels = data.load_digits()
        if quick:
            images, labels = images[:480], labels[:480]
        train, test, train_labels, test_labels = data.train_test_split(
            images, labels, test_size=0.2, seed=SEED
        )
        return cls(train, train_labels, test, test_labels)

    def __str__(self) -> str:
        return f"{len(self.images)} training digits, {len(self.test_images)} test digits"


def predict(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the class with the largest output, for every image."""
    return model.eval()(images).argmax(axis=1)


def accuracy(model: nn.Module, digits: Digits) -> float:
    """Return the fraction of the test digits that are recognized."""
    return float(np.mean(predict(model, digits.test_images) == digits.test_labels))


def one_step(model: nn.Module, loss: nn.Loss, images: np.ndarray, labels: np.ndarray) -> float:
    """Compute the loss and all gradients: forward, then backward."""
    value = loss(model(images), labels)
    model.zero_grad()
    model.backward(loss.backward())
    return value


def warm_up(model: nn.Module, digits: Digits, batch_size: int) -> None:
    """Train a copy for one step, so that no time includes compiling kernels."""
    twin = copy.deepcopy(model).train()
    one_step(twin, nn.CrossEntropyLoss(), digits.images[:batch_size], digits.labels[:batch_size])
    twin.eval()(digits.test_images)


@dataclass
class Result:
    """A trained network, how training went, and how long it took."""

    model: nn.Module
    history: nn.History
    accuracy: float

    @property
    def seconds(self) -> float:
        """Return the median time of one epoch."""
        return float(np.median(self.history.seconds))

    @property
    def parameters(self) -> int:
        """Return the number of parameters."""
        return sum(p.size for p in self.model.parameters())


def train(
    model: nn.Module,
    digits: Digits,
    epochs: int,
    lr: float = 0.05,
    momentum: float = 0.9,
    batch_size: int = 32,
) -> Result:
    """Train by stochastic gradient descent in mini-batches, testing after every epoch."""
    warm_up(model, digits, batch_size)
    history = nn.fit(
        model,
        digits.images,
        digits.labels,
        optimizer=nn.SGD(model.parameters(), lr=lr, momentum=momentum),
        epochs=epochs,
        batch_size=batch_size,
        validation=(digits.test_images, digits.test_labels),
        seed=SEED,
        progress="silent",
    )
    return Result(model, history, accuracy(model, digits))


def milliseconds(run: Callable[[], object], repeats: int = 20) -> float:
    """Return the median time of a call, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of cells below a head: the first column to the left, the others to the right."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def compare(results: Mapping[str, Result], digits: Digits, what: str = "network") -> None:
    """Print the accuracy of some epochs; then parameters, operations, times and final accuracy."""
    accuracies(results)
    print()
    rows = []
    for name, result in results.items():
        model, images = result.model, digits.test_images
        flops = model.summary(digits.images[:1].shape).flops
        test = milliseconds(lambda model=model, images=images: model(images))
        rows.append(
            (
                *(name, f"{result.parameters:,}", f"{flops:,}"),
                *(f"{result.seconds * 1e3:.0f}", f"{test:.2f}", f"{result.accuracy:.1%}"),
            )
        )
    table((what, "parameters", "FLOPs/image", "ms/epoch", "ms/test", "accuracy"), rows)


def accuracies(results: Mapping[str, Result]) -> None:
    """Print the accuracy on the test digits after some of the epochs."""
    epochs = len(next(iter(results.values())).history)
    points = sorted({0, 1, min(4, epochs - 1), epochs // 2, epochs - 1})
    table(
        ("accuracy after epoch", *(str(i + 1) for i in points)),
        [
            (name, *(f"{result.history.val_accuracy[i]:.1%}" for i in points))
            for name, result in results.items()
        ],
    )


def show(result: Result, digits: Digits, folder: Path, name: str) -> None:
    """Write pictures of the training history and the confusion matrix."""
    from fastconv import plots

    predicted = predict(result.model, digits.test_images)
    picture(plots.history(result.history), folder, f"{name}_curves")
    picture(plots.confusion(digits.test_labels, predicted), folder, f"{name}_confusion")


def picture(figure: object, folder: Path, name: str, dpi: int = 100) -> None:
    """Write a figure of `fastconv.plots` as PNG."""
    from fastconv import plots

    folder.mkdir(parents=True, exist_ok=True)
    plots.save(figure, folder / f"{name}.png", dpi=dpi)
    print(f"picture: {name}.png")
