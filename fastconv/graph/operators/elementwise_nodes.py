"""Operators that compute each element from the elements at its place, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from fastconv.graph.ir import Node, Shape
from fastconv.graph.operators.graph_operator import (
    Operator,
    Step,
    Type,
    into,
    one_type,
    register,
    same_type,
    scalar,
    type_of,
)

Elements = Callable[..., Any]


def broadcast(node: Node) -> Shape:
    """Return the shape of all inputs together."""
    shapes = [type_of(node, i)[1] for i, value in enumerate(node.inputs) if value is not None]
    if any(shape is None for shape in shapes):
        return None
    try:
        return np.broadcast_shapes(*shapes)  # type: ignore[arg-type]
    except ValueError:
        raise ValueError(f"the shapes of the inputs do not broadcast: {shapes}") from None


def _first_type(node: Node) -> Sequence[Type]:
    """Infer the type of the first input, broadcast."""
    return [(type_of(node, 0)[0], broadcast(node))]


def _common_type(node: Node) -> Sequence[Type]:
    """Infer the one type of all inputs, broadcast."""
    return [(one_type(node), broadcast(node))]


def _truth(node: Node) -> Sequence[Type]:
    return [(np.dtype(bool), _common_type(node)[0][1])]


def ufunc(
    name: str, function: np.ufunc, infer: Callable[[Node], Sequence[Type]] = _common_type
) -> None:
    """Register an operator that is a universal function of NumPy's."""

    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        return np.asarray(function(*inputs))

    def bind(node: Node) -> Step:
        def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            function(*inputs, out=outputs[0])

        return step

    register(name, Operator(infer, compute, bind))


def elements(
    name: str, function: Elements, infer: Callable[[Node], Sequence[Type]] = _first_type
) -> None:
    """Register ``function(*inputs, **attributes)``, whose result gets the inferred type."""

    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        dtype = np.dtype(bool) if infer is _truth else inputs[0].dtype
        return np.asarray(function(*inputs, **node.attributes)).astype(dtype, copy=False)

    register(name, Operator(infer, compute, into(compute)))


# Universal functions ----------------------------------------------------------------------

for _name, _function in {
    "Abs": np.absolute,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Add": np.add,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseNot": np.bitwise_not,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Tan": np.tan,
    "Tanh": np.tanh,
}.items():
    ufunc(_name, _function)
for _name, _function in {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "IsNaN": np.isnan,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}.items():
    ufunc(_name, _function, _truth)


# Activations ------------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)); exp(-x) = infinity gives the right limit, 0."""
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _selu(x: Any, alpha: float = _SELU_ALPHA, gamma: float = _SELU_GAMMA) -> Any:
    return gamma * _elu(x, alpha)


def _celu(x: Any, alpha: float = 1.0) -> Any:
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def _hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


# NumPy has no error function; the mathematical one is exact, and slow.
_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Any) -> Any:
    """Return the error function."""
    return np.asarray(_erf(x)).astype(x.dtype)


def _gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    for bound, nearer in ((low, np.maximum), (high, np.minimum)):
        if bound is not None:
            x = nearer(x, np.asarray(bound).astype(x.dtype))
    return x


_ACTIVATIONS: dict[str, Elements] = {
    "Celu": _celu,
    "Clip": _clip,
    "Elu": _elu,
    "Erf": erf,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Relu": lambda x: np.maximum(x, 0),
    "Selu": _selu,
    "Sigmoid": sigmoid,
    "Silu": lambda x: x * sigmoid(x),
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Swish": lambda x, alpha=1.0: x * sigmoid(alpha * x),
    "ThresholdedRelu": lambda x, alpha=1.0: np.where(x > alpha, x, 0),
}
for _name, _rule in _ACTIVATIONS.items():
    elements(_name, _rule)


# Arithmetic of two and more ---------------------------------------------------------------


def _divide(a: Any, b: Any) -> Any:
    """Return a / b, of integers rounded towards zero."""
    if a.dtype.kind == "f":
        return a / b
    quotient = a // b
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0)))


def _power(base: Any, exponent: Any) -> Any:
    """Return powers; negative ones of integers are computed in floating point."""
    integral = base.dtype.kind in "iu" and exponent.dtype.kind in "iu"
    if integral and (exponent < 0).any():
        return np.power(base.astype(np.float64), exponent)
    return np.power(base, exponent)


def _modulo(a: Any, b: Any, fmod: int = 0) -> Any:
    return np.fmod(a, b) if fmod else np.mod(a, b)


def _is_infinite(x: Any, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    return np.isinf(x) & np.where(x < 0, bool(detect_negative), bool(detect_positive))


elements("Div", _divide, _common_type)
elements("Mod", _modulo, _common_type)
elements("IsInf", _is_infinite, _truth)
elements("Pow", _power)
elements("Max", lambda *terms: reduce(np.maximum, terms), _common_type)
elements("Mean", lambda *terms: reduce(np.add, terms) / len(terms), _common_type)
elements("Min", lambda *terms: reduce(np.minimum, terms), _common_type)
elements("Sum", lambda *terms: reduce(np.add, terms), _common_type)


# Types and choices ------------------------------------------------------------------------


def _infer_where(node: Node) -> Sequence[Type]:
    return [(type_of(node, 1)[0], broadcast(node))]


def _where(node: Node, inputs: Sequence[Any]) -> Any:
    return np.where(*inputs)


def _infer_cast(node: Node) -> Sequence[Type]:
    return [(np.dtype(node.attributes["to"]), type_of(node, 0)[1])]


def _infer_cast_like(node: Node) -> Sequence[Type]:
    return [(type_of(node, 1)[0], type_of(node, 0)[1])]


def _cast(node: Node, inputs: Sequence[Any]) -> Any:
    dtype = node.attributes["to"] if node.operator == "Cast" else inputs[1].dtype
    return inputs[0].astype(dtype)


register("Where", Operator(_infer_where, _where, into(_where)))
register("Cast", Operator(_infer_cast, _cast, into(_cast)))
register("CastLike", Operator(_infer_cast_like, _cast, into(_cast)))


def _infer_dropout(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    return [(dtype, shape), (np.dtype(bool), shape)]


def _dropout(node: Node, inputs: Sequence[Any]) -> Any:
    """Return the input and a mask that keeps all."""
    if scalar(inputs, 2, False) and scalar(inputs, 1, 0.5) > 0:
        raise ValueError("a network for training cannot be run: training_mode is true")
    return inputs[0], np.ones(inputs[0].shape, bool)


register("Dropout", Operator(_infer_dropout, _dropout))
register("Identity", Operator(same_type, lambda _, inputs: inputs[0], view=True))
