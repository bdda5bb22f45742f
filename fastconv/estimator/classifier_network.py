"""The network of `fastconv.CNNClassifier`, and the shape and scale of its images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.core.arguments import Array


def small_network(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    filters: tuple[int, ...],
    dense: int,
    batch_norm: bool,
    dropout: float,
    rng: np.random.Generator,
) -> nn.Sequential:
    """Return a network for images (C, H, W) that gives a logit for each class."""
    channels, height, width = image_shape
    layers: list[nn.Module] = []
    for count in filters:
        layers.append(nn.Conv2d(channels, count, 3, padding=1, bias=not batch_norm, rng=rng))
        if batch_norm:
            layers.append(nn.BatchNorm2d(count))
        layers.append(nn.ReLU())
        window = (2 if height >= 8 else 1, 2 if width >= 8 else 1)
        if window != (1, 1):
            layers.append(nn.MaxPool2d(window))
        channels, height, width = count, height // window[0], width // window[1]
    layers.append(nn.Flatten())
    units = channels * height * width
    if dense:
        layers += [nn.Linear(units, dense, rng=rng), nn.ReLU()]
        units = dense
    layers += [nn.Dropout(dropout, rng=rng), nn.Linear(units, classes, rng=rng)]
    return nn.Sequential(*layers)


def mean_and_scale(images: Array) -> tuple[Array, Array]:
    """Return what to subtract from each channel of images (N, C, H, W), and to divide it by.

    >>> mean_and_scale(np.array([-1e200, 3e200]).reshape(2, 1, 1, 1))
    (array([1.e+200]), array([2.e+200]))
    """
    # Squares of numbers as large or as small as that would be infinite or 0. A power of two
    # changes no other digit.
    _, exponent = np.frexp(np.abs(images).max(axis=(0, 2, 3)))
    unit = 2.0 ** (exponent - 1)
    mean, deviation = (
        f(images / unit[:, None, None], axis=(0, 2, 3)) * unit for f in (np.mean, np.std)
    )
    return mean, np.where(deviation > 0, deviation, 1.0)


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of nested lists or of any library's array, () of whatever else."""
    if not isinstance(X, list | tuple):
        return tuple(map(int, getattr(X, "shape", ())))
    try:
        return np.shape(X)
    except ValueError:
        raise ValueError("X must hold images of one shape, got some of different shapes") from None
