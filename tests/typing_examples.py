# pyright: strict
# ruff: noqa: D102
"""Programs as users write them: type checkers pass them, and what is asserted holds when they run.

`tests/test_typing.py` runs mypy and pyright on this file, and then the file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastconv
from fastconv import data, nn, plots
from fastconv.typing import ActivationLike, ForwardAlgorithm, Padding

Floats = NDArray[np.float32]

rng = np.random.default_rng(0)


def convolve() -> None:
    x = rng.standard_normal((2, 4, 8, 8), dtype=np.float32)
    weight = rng.standard_normal((6, 4, 3, 3), dtype=np.float32)
    y = fastconv.conv2d(x, weight, padding="same", activation="relu")
    assert_type(y, NDArray[np.float32])
    doubles = weight.astype(np.float64)
    assert_type(fastconv.conv2d(x.astype(np.float64), doubles), NDArray[np.float64])
    half = np.ones((1, 1, 4, 4), np.float16)
    assert_type(fastconv.conv2d(half, half), NDArray[np.float16])
    # Where types are mixed, or not known, NumPy's promotion decides.
    assert_type(fastconv.conv2d(x, doubles), NDArray[Any])
    assert_type(fastconv.conv2d(x, weight, [0.0] * 6), NDArray[Any])
    assert_type(fastconv.conv2d([[[1, 2]]], np.ones((1, 1, 1, 1), np.int64)), NDArray[Any])

    gradients = fastconv.conv2d_backward(x, weight, y, padding=1, relu_output=y)
    grad_x, grad_weight, grad_bias = gradients
    assert_type(grad_x, NDArray[np.float32])
    weight -= 0.1 * grad_weight
    assert_type(gradients.bias, NDArray[np.float32])
    print(grad_bias.sum(), fastconv.conv2d_backward(x, weight, y, padding=1, need=["bias"]).input)
    shape = (6, 4, 3, 3)
    assert_type(fastconv.conv2d_input_grad(x.shape, weight, y, 1, "same"), NDArray[np.float32])
    assert_type(fastconv.conv2d_weight_grad(x, shape, y, padding=(1, 1)), NDArray[np.float32])
    assert_type(fastconv.conv_transpose2d(y, weight, stride=2), NDArray[np.float32])

    columns = fastconv.im2col(x, 3, stride=(2, 2))
    assert_type(columns, NDArray[np.float32])
    assert_type(fastconv.col2im(columns, (8, 8), 3, stride=2), NDArray[np.float32])
    assert_type(fastconv.sliding_windows(x.astype(np.int16), (3, 3)), NDArray[np.int16])


def plan() -> None:
    weight = np.ones((8, 3, 3, 3), np.float32)
    plan = fastconv.plan_conv2d((1, 3, 8, 8), weight, activation=("clip", 0, 6), max_pool=2)
    out = np.empty((1, 8, 3, 3), np.float32)
    assert_type(plan(np.ones((1, 3, 8, 8), np.float32), out=out), NDArray[np.float32])
    print(plan.algorithm, plan.problem.flops, plan.explain())
    second = fastconv.plan_conv2d(plan.output_shape, np.ones((4, 8, 1, 1), np.float32))
    assert_type(second(out), NDArray[np.float32])
    exact: fastconv.Conv2dPlan[np.float64] = fastconv.plan_conv2d(
        (3, 8, 8), weight.astype(np.float64)
    )
    assert_type(exact(np.ones((3, 8, 8))), NDArray[np.float64])
    unknown: fastconv.Conv2dPlan = fastconv.plan_conv2d((1, 2, 2), [[[[1]]]])
    assert_type(unknown([[[1, 2], [3, 4]]]), NDArray[Any])


def pool() -> None:
    x = rng.standard_normal((2, 4, 8, 8), dtype=np.float32)
    assert_type(fastconv.max_pool2d(x, 2), NDArray[np.float32])
    values, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    assert_type(values, NDArray[np.float32])
    assert_type(indices, NDArray[np.int64])
    assert_type(fastconv.max_pool2d_grad(values, indices, x.shape), NDArray[np.float32])
    assert_type(fastconv.max_unpool2d(values, indices, 2), NDArray[np.float32])
    assert_type(fastconv.max_unpool2d_grad(x, indices), NDArray[np.float32])
    assert_type(fastconv.max_pool2d(x > 0, (2, 3), padding=(0, 1)), NDArray[np.bool])
    assert_type(fastconv.max_pool2d([[[1, 2], [3, 4]]], 2), NDArray[Any])
    means = fastconv.avg_pool2d(x.astype(np.float64), 3, 2, ceil_mode=True)
    assert_type(means, NDArray[np.float64])
    grad = fastconv.avg_pool2d_grad(means, x.shape, 3, 2, ceil_mode=True)
    assert_type(grad, NDArray[np.float64])
    mean = fastconv.adaptive_avg_pool2d(x, 1)
    assert_type(fastconv.adaptive_avg_pool2d_grad(mean, x.shape), NDArray[np.float32])
    most, where = fastconv.adaptive_max_pool2d(x, (None, 4), return_indices=True)
    assert_type(most, NDArray[np.float32])
    assert_type(where, NDArray[np.int64])


def compare() -> None:
    x, weight = np.ones((1, 2, 8, 8)), np.ones((2, 2, 3, 3))
    for name in fastconv.algorithms():
        if name != "depthwise":
            assert_type(fastconv.conv2d(x, weight, algorithm=name), NDArray[np.float64])
    for name in fastconv.algorithms("weight_grad"):
        fastconv.conv2d_weight_grad(x, (2, 2, 3, 3), np.ones((1, 2, 6, 6)), algorithm=name)
    for pooling in fastconv.pool_algorithms():
        fastconv.avg_pool2d(x, 2, algorithm=pooling)
    with fastconv.at_precision("highest"), fastconv.set_precision("high"):
        print(fastconv.get_precision(), fastconv.get_num_threads())


def layer(
    x: Floats,
    weight: Floats,
    padding: Padding = "valid",
    activation: ActivationLike = "relu",
    algorithm: ForwardAlgorithm = "auto",
) -> Floats:
    how: Mapping[str, Any] = {"stride": 2}
    y = fastconv.conv2d(x, weight, None, 1, padding, activation=activation, algorithm=algorithm)
    return fastconv.avg_pool2d(y, 2, **how)


class Scale(nn.Module):
    """A layer of one's own."""

    def __init__(self, channels: int) -> None:
        self.factor = nn.Parameter(np.ones((channels, 1, 1), np.float32))

    def forward(self, x: ArrayLike) -> Floats:
        images = np.asarray(x, np.float32)
        y = images * self.factor.value
        self.keep(y, images)
        return y

    def backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        grad, x = self.recall(grad)
        self.factor.accumulate((grad * x).sum(axis=(0, 2, 3), keepdims=True)[0])
        return grad * self.factor.value


class Network(nn.Module):
    """A network of one's own."""

    def __init__(self, classes: int) -> None:
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding="same", padding_mode="reflect", rng=0),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Residual(Scale(4)),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1, rng=1), nn.Linear(64, classes))

    def forward(self, x: Floats) -> NDArray[Any]:
        return self.head(self.body(x))

    def backward(self, grad: NDArray[Any]) -> NDArray[Any] | None:
        back = self.head.backward(grad)
        return None if back is None else self.body.backward(back)


class Report(nn.Callback):
    """A callback of one's own."""

    def on_epoch_end(self, run: nn.Run) -> None:
        run.stop = run.history.last["loss"] < 0.1


def train(folder: Path) -> None:
    images, labels = data.load_digits()
    assert_type(images, NDArray[np.float32])
    assert_type(labels, NDArray[np.int64])
    x, x_test, y, y_test = data.train_test_split(images[:300], labels[:300], seed=1)
    assert_type(x_test, NDArray[np.float32])
    assert_type(y, NDArray[np.int64])
    model = Network(10)
    optimizer = nn.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    history = nn.fit(
        model,
        x,
        y,
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer=optimizer,
        schedule=nn.OneCycleLR(optimizer, 0.1, epochs=1, steps_per_epoch=4, anneal_strategy="cos"),
        epochs=1,
        validation=(x_test, y_test),
        augment=data.Augment([data.flip]),
        callbacks=[Report(), nn.BestCheckpoint(folder / "best.safetensors"), lambda run: None],
        progress="silent",
    )
    assert_type(history.val_loss, list[float])
    print(nn.load(Network(10), folder / "best.safetensors").summary((1, 1, 8, 8)).parameters)
    loss = nn.CrossEntropyLoss()
    for some, targets in data.batches(x, y, 80, rng):
        assert_type(some, NDArray[np.float32])
        assert_type(loss(model.train()(some), targets), float)
        model.zero_grad()
        model.backward(loss.backward())
        print(nn.clip_grad_norm_(model.parameters(), 1.0), data.shift(some, 1, rng).shape)
        optimizer.step()
    plots.save(plots.history(history), folder / "history.png")
    plots.save(plots.filters(np.ones((4, 1, 3, 3))), folder / "filters.png")


def estimate() -> None:
    images, labels = data.load_digits()
    classifier = fastconv.CNNClassifier((4,), epochs=1, optimizer="adamw", augment=False)
    shares = classifier.fit(images[:100], labels[:100]).predict_proba(images[:10])
    assert_type(shares, NDArray[Any])
