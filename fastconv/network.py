"""The network of `fastconv.CNNClassifier`: convolutions, pooling, dense layers."""

from __future__ import annotations

import numpy as np

from fastconv import nn
from fastconv.geometry import as_int, as_ints


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
    for count in as_ints("filters", filters, len(filters), 1):
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
    if as_int("dense", dense, 0):
        layers += [nn.Linear(units, dense, rng=rng), nn.ReLU()]
        units = dense
    layers += [nn.Dropout(dropout, rng=rng), nn.Linear(units, classes, rng=rng)]
    return nn.Sequential(*layers)
