"""A graph that grows by the nodes of layers, with their names in it and in errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.core.geometry import PaddingPairs
from fastconv.graph.ir import Graph, Value
from fastconv.graph.operators import operator_list
from fastconv.nn.layer_arguments import check_parameter
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter

# The methods in which a subclass may compute something else than its base.
_CODE = ("forward", "__call__", "_activate")
#: Nodes of one layer: ``rule(lowering, layer, x)`` returns its output.
Rule = Callable[["Lowering", Any, Value], Value]


class Lowering:
    """A graph that grows by the nodes of one layer after another."""

    def __init__(self, model: Module, x: Value, rules: Mapping[type, Rule]) -> None:
        self.graph = Graph([x], type(model).__name__)
        self._layer, self._rules = model, rules
        self._paths: dict[Module, str] = {}
        for path, module in model.named_modules():
            self._paths.setdefault(module, path)
        self._names = {"x", "y"}
        self._states: dict[Parameter, Value] = {}

    def run(self, layer: Module, x: Value) -> Value:
        """Add the nodes of a layer, and of all in it; return its output."""
        outer, self._layer = self._layer, layer
        y = self._rule(layer)(self, layer, x)
        self._layer = outer
        return y

    def _rule(self, layer: Module) -> Rule:
        exact = type(layer)
        for kind in exact.__mro__:
            if kind in self._rules:
                same = (getattr(exact, n, None) is getattr(kind, n, None) for n in _CODE)
                if all(same) and not {"forward", "__call__"} & vars(layer).keys():
                    return self._rules[kind]
        raise TypeError(
            f"{self.label} cannot become nodes of a graph, because its forward is code of its own: "
            "build it of fastconv.nn's layers, in Sequential, Residual and Concat"
        )

    @property
    def label(self) -> str:
        """What messages call the layer."""
        path, kind = self._paths.get(self._layer), type(self._layer).__name__
        return f"layer {path!r} ({kind})" if path else f"the model ({kind})"

    def name(self, word: str) -> str:
        """Return a new name for something of the layer."""
        path = self._paths.get(self._layer)
        stem = name = f"{path}.{word}" if path else word
        count = 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def add(self, operator: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Add a node with one output, and return that."""
        y = Value(name := self.name(operator))
        node = self.graph.add(operator, inputs, [y], attributes, name=name)
        try:
            y.dtype, y.shape = operator_list.of(node).infer(node)[0]
        except ValueError as error:
            raise self.refused(str(error)) from None
        return y

    def refused(self, reason: str) -> ValueError:
        """Return the error of a layer."""
        return ValueError(f"{self.label}: {reason}")

    def constant(self, elements: Any, word: str, dtype: Any = np.int64) -> Value:
        """Return a constant of the layer: integers, unless a dtype is given."""
        value = self.graph.constant(np.asarray(elements, dtype))
        value.name = self.name(word)
        return value

    def state(self, name: str, shape: Sequence[int] | None = None) -> Value | None:
        """Return a parameter of the layer, or a statistic, under its name in the state."""
        found = getattr(self._layer, name)
        if found is None:
            return None
        if shape is not None:
            check_parameter(self._layer, name, found, tuple(shape))
        if not isinstance(found, Parameter):
            return self.constant(found, name, found.dtype)
        if found not in self._states:
            self._states[found] = self.constant(found.value, name, found.dtype)
        return self._states[found]

    def scale_and_shift(self, shape: Sequence[int], dtype: Any) -> tuple[Value, Value]:
        """Return weight and bias of a normalization; ones and zeros without."""
        scale, shift = self.state("weight", shape), self.state("bias", shape)
        return (
            scale or self.constant(np.ones(shape), "scale", dtype),
            shift or self.constant(np.zeros(shape), "shift", dtype),
        )

    def images(self, x: Value, channels: int | None = None) -> tuple[int, int, int, int]:
        """Return the shape of images (N, C, H, W)."""
        shape = shape_of(x)
        if len(shape) != 4:
            raise self.refused(
                f"it takes images, of shape (N, C, H, W), got {shape}: input_shape must have the "
                "batch, (1, C, H, W) for one image"
            )
        N, C, H, W = self.batch(x, channels)
        return N, C, H, W

    def batch(self, x: Value, channels: int | None = None) -> tuple[int, ...]:
        """Return the shape of an array (N, channels, ...)."""
        shape = shape_of(x)
        if channels is not None and shape[1:2] != (channels,):
            raise self.refused(f"it takes {channels} channels, (N, {channels}, ...), got {shape}")
        return shape

    def pad(self, x: Value, padding: Any, mode: str = "constant", value: float = 0) -> Value:
        """Return padded images, `x` itself without padding."""
        if not np.any(padding):
            return x
        (top, bottom), (left, right) = padding
        pads = self.constant((0, 0, top, left, 0, 0, bottom, right), "pads")
        filled = [self.constant(value, "value", x.dtype)] if value else []
        return self.add("Pad", x, pads, *filled, mode=mode)

    def reshape(self, x: Value, *sizes: int) -> Value:
        """Return `x` in another shape, in which 0 is the size that `x` has there."""
        return self.add("Reshape", x, self.constant(sizes, "sizes"))


def shape_of(x: Value) -> tuple[int, ...]:
    """Return the shape of a value, which lowering always knows."""
    assert x.shape is not None
    return x.shape


def pads_of(padding: PaddingPairs) -> tuple[int, int, int, int]:
    """Return padding in ONNX's order: before both axes, then after both."""
    (top, bottom), (left, right) = padding
    return top, left, bottom, right
