"""Products of matrices: `Gemm`, with constant weights a dense layer, and `MatMul`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.core.arguments import as_computed
from fastconv.dense.dense_product import dense, product_of
from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    Operator,
    Step,
    Type,
    into,
    one_type,
    register,
    type_of,
)


def _transposed(node: Node) -> tuple[bool, bool]:
    return bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))


def _infer_gemm(node: Node) -> Sequence[Type]:
    dtype, a, b = one_type(node), type_of(node, 0)[1], type_of(node, 1)[1]
    if a is None or b is None:
        return [(dtype, None)]
    first, second = _transposed(node)
    if len(a) != 2 or len(b) != 2 or a[1 - first] != b[second]:
        raise ValueError(f"matrices of {a} and {b} cannot be multiplied")
    shape = a[first], b[1 - second]
    added = None if node.input(2) is None else type_of(node, 2)[1]
    if added is not None and np.broadcast_shapes(added, shape) != shape:
        raise ValueError(f"an array of {added} cannot be added to {shape}")
    return [(dtype, shape)]


def _compute_gemm(node: Node, inputs: Sequence[Any]) -> Array:
    a, b, c = (*inputs, None)[:3]
    first, second = _transposed(node)
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    y = _product(a.T if first else a, b.T if second else b)
    y = y if alpha == 1 else y * y.dtype.type(alpha)
    if c is None or beta == 0:
        return y
    return np.asarray(y + (c if beta == 1 else c * c.dtype.type(beta)))


def _product(a: Array, b: Array) -> Array:
    """Return the product of two matrices, floating-point ones in register tiles."""
    if a.dtype.name not in ("float32", "float64") or a.dtype != b.dtype:
        return np.asarray(a @ b)
    left, right = (as_computed(each, a.dtype) for each in (a, b))
    return product_of(left, right)


def _bind_gemm(node: Node) -> Step:
    a, b = type_of(node, 0)[0], node.constant(1)
    c = node.constant(2)
    first, second = _transposed(node)
    scaled = {node.attributes.get(name, 1.0) for name in ("alpha", "beta")} != {1.0}
    width = node.output.shape[-1]  # type: ignore[index]
    no_vector = node.input(2) is not None and (c is None or c.shape not in ((width,), (1, width)))
    if b is None or first or scaled or no_vector or a.name not in ("float32", "float64"):
        return into(_compute_gemm)(node)
    weight = as_computed(b if second else b.T, a)
    bias = None if c is None else as_computed(c.reshape(-1), a)

    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        outputs[0][...] = dense(as_computed(inputs[0], a), weight, bias)

    return step


def _infer_matmul(node: Node) -> Sequence[Type]:
    dtype, a, b = one_type(node), type_of(node, 0)[1], type_of(node, 1)[1]
    if a is None or b is None:
        return [(dtype, None)]
    row, column = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    if not (a and b) or row[-1] != column[-2]:
        raise ValueError(f"arrays of {a} and {b} cannot be multiplied")
    batch = np.broadcast_shapes(row[:-2], column[:-2])
    ends = ((row[-2],) if len(a) > 1 else ()) + ((column[-1],) if len(b) > 1 else ())
    return [(dtype, (*batch, *ends))]


def _compute_matmul(node: Node, inputs: Sequence[Any]) -> Array:
    a, b = inputs
    if b.ndim == 2 and a.ndim >= 2:
        return _product(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    return np.asarray(a @ b)


register("Gemm", Operator(_infer_gemm, _compute_gemm, _bind_gemm))
register("MatMul", Operator(_infer_matmul, _compute_matmul, into(_compute_matmul)))
