"""What several networks are built of: blocks with PyTorch's names, and initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from numpy.random import Generator

from fastconv.core.arguments import Array
from fastconv.nn.init import kaiming_normal, kaiming_uniform, normal
from fastconv.nn.layers.containers import Concat, Residual
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.module import Module


class NamedResidual(Residual):
    """A residual block whose body and shortcut have other names in the state."""

    def __init__(
        self, body: Module, shortcut: Module | None = None, *, names: tuple[str, str]
    ) -> None:
        self.names = names
        super().__init__(body, shortcut)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the body, then the shortcut if there is one."""
        children = (child for _, child in super().named_children())
        yield from zip(self.names, children, strict=False)


class UnnamedConcat(Concat):
    """Branches that add nothing to the names of the layers in them."""

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the branches."""
        yield from (("", branch) for branch in self)


def draw_he_normal(model: Module, rng: Generator) -> None:
    """Draw convolutions from He's normal distribution by fan-out, dense layers with std 0.01."""
    for layer in model.modules():
        if isinstance(layer, Conv2d):
            draw = partial(kaiming_normal, mode="fan_out", nonlinearity="relu")
            set_weight(layer, draw(layer.weight.shape, rng))
        elif isinstance(layer, Linear):
            set_weight(layer, normal(layer.weight.shape, 0.01, rng))


def draw_he_uniform(model: Module, rng: Generator, last: Conv2d) -> None:
    """Draw convolutions from He's uniform distribution; the last, normally, with std 0.01."""
    for layer in model.modules():
        if isinstance(layer, Conv2d):
            shape = layer.weight.shape
            set_weight(
                layer, normal(shape, 0.01, rng) if layer is last else kaiming_uniform(shape, rng)
            )


def set_weight(layer: Conv2d | Linear, weight: Array) -> None:
    """Set the weights of a layer, and its bias to zeros."""
    layer.weight.data = weight
    if layer.bias is not None:
        layer.bias.data[...] = 0
