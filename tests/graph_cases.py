"""Small graphs for tests: what they compute is plain NumPy's and the reference loops' to say."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Value

FLOAT = np.dtype(np.float32)


class Builder:
    """Makes graphs of convolutions and elementwise nodes with random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = Value("x", FLOAT)
        self.graph = Graph([self.x], "case")

    def array(self, *shape: int) -> np.ndarray[Any, Any]:
        """Return normal numbers."""
        return self.rng.standard_normal(shape).astype(np.float32)

    def node(self, operator: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Add a node and return its output."""
        return self.graph.add(operator, inputs, None, attributes, name=operator.lower()).output

    def conv(self, x: Value, channels: int, filters: int, kernel: int = 3, **more: Any) -> Value:
        """Add a convolution that keeps the size."""
        weight = self.array(filters, channels, kernel, kernel) / np.float32(channels**0.5 * kernel)
        inputs = x, self.graph.constant(weight), self.graph.constant(self.array(filters))
        return self.node("Conv", *inputs, pads=(kernel // 2,) * 4, **more)

    def batch_norm(self, x: Value, channels: int) -> Value:
        """Add a batch normalization."""
        numbers = [self.array(channels) for _ in range(3)]
        numbers.append(self.rng.uniform(0.5, 2, channels).astype(np.float32))
        return self.node("BatchNormalization", x, *map(self.graph.constant, numbers))

    def done(self, *outputs: Value) -> Graph:
        """Return the graph with these outputs."""
        self.graph.outputs = list(outputs)
        return self.graph


def residual_network() -> Graph:
    """Return a network of all that is fused: norms, activations, a sum, max pooling."""
    b = Builder()
    stem = b.node("Relu", b.batch_norm(b.conv(b.x, 3, 8), 8))
    pooled = b.node("MaxPool", stem, kernel_shape=(2, 2), strides=(2, 2))
    left = b.node("Relu", b.batch_norm(b.conv(pooled, 8, 8), 8))
    right = b.batch_norm(b.conv(left, 8, 8), 8)
    joined = b.node("Relu", b.node("Add", right, pooled))
    both = b.node("Concat", joined, b.conv(joined, 8, 4, 1), axis=1)
    means = b.node("Flatten", b.node("GlobalAveragePool", both))
    weight, bias = b.graph.constant(b.array(12, 5)), b.graph.constant(b.array(5))
    return b.done(b.node("Softmax", b.node("Gemm", means, weight, bias)))
