"""Random initial weights, drawn so that signals neither vanish nor explode from layer to layer.

A layer sums `fan_in` products for each output; weights with a variance of about ``1 / fan_in`` keep
the variance of the signal.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
networks", AISTATS 2010; K. He et al., "Delving deep into rectifiers", arXiv:1502.01852.

>>> from fastconv import nn
>>> layer = nn.Conv2d(64, 64, 3)
>>> layer.weight.data = nn.init.kaiming_normal(layer.weight.shape, rng=0)
>>> layer.weight.value.std().round(3)  # sqrt(2 / 576)
np.float32(0.059)
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from numpy.typing import DTypeLike

from fastconv.core.arguments import Array, as_flag
from fastconv.nn.layer_arguments import RngLike, as_generator
from fastconv.nn.parameter import Parameter

Fan = Literal["fan_in", "fan_out"]

#: Activations that weights can be drawn for.
Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"]

_GAINS: dict[Nonlinearity, float] = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 0.75,
}


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of weights (outputs, inputs, ...kernel).

    Examples
    --------
    >>> fans((16, 3, 5, 5))
    (75, 400)
    """
    if len(shape) < 2:
        raise ValueError(f"shape must have at least 2 entries, (outputs, inputs, ...), got {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def gain(nonlinearity: Nonlinearity, a: float = 0) -> float:
    """Return the gain of an activation: the factor on weights that keeps the signal's variance.

    Parameters
    ----------
    nonlinearity : str
        "linear", "sigmoid", "tanh", "relu", "selu" or "leaky_relu".
    a : float
        Slope of "leaky_relu" below zero.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> gain("tanh")
    1.6666666666666667
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + a**2))
    if nonlinearity not in _GAINS:
        names = ", ".join(map(repr, (*_GAINS, "leaky_relu")))
        raise ValueError(f"nonlinearity must be one of {names}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def uniform(
    shape: tuple[int, ...], bound: float, rng: RngLike = None, dtype: DTypeLike = "float32"
) -> Array:
    """Return numbers from a uniform distribution between -bound and bound.

    Examples
    --------
    >>> uniform((3,), 0.0, rng=0)
    array([0., 0., 0.], dtype=float32)
    """
    return as_generator(rng).uniform(-bound, bound, shape).astype(dtype)


def normal(
    shape: tuple[int, ...], std: float = 1.0, rng: RngLike = None, dtype: DTypeLike = "float32"
) -> Array:
    """Return numbers from a normal distribution of mean 0.

    Examples
    --------
    >>> normal((3,), 0.0, rng=0)
    array([0., 0., 0.], dtype=float32)
    """
    return as_generator(rng).normal(0.0, std, shape).astype(dtype)


def kaiming_uniform(
    shape: tuple[int, ...],
    rng: RngLike = None,
    a: float = 0,
    mode: Fan = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: DTypeLike = "float32",
) -> Array:
    """Return He's weights, uniformly distributed, for layers followed by ReLU.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, ...kernel).
    rng : numpy.random.Generator or int, optional
        A generator, or a seed; None for different numbers every time.
    a : float
        Slope below zero of the leaky_relu that follows; 0 for ReLU.
    mode : {"fan_in", "fan_out"}
        Keep the variance of signals going forward, or of gradients going back.
    nonlinearity : str
        The activation that follows: see `gain`.
    dtype : dtype-like
        Of the result.

    Returns
    -------
    ndarray of `shape`
        Between -b and b with ``b = gain * sqrt(3 / fan)``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> bool(abs(kaiming_uniform((8, 3, 3, 3), rng=0)).max() <= (6 / 27) ** 0.5)
    True
    """
    std = gain(nonlinearity, a) / math.sqrt(_fan(shape, mode))
    return uniform(shape, math.sqrt(3) * std, rng, dtype)


def kaiming_normal(
    shape: tuple[int, ...],
    rng: RngLike = None,
    a: float = 0,
    mode: Fan = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: DTypeLike = "float32",
) -> Array:
    """Return He's weights, normally distributed: arguments as in `kaiming_uniform`.

    Examples
    --------
    >>> kaiming_normal((2, 3), rng=0).shape
    (2, 3)
    """
    return normal(shape, gain(nonlinearity, a) / math.sqrt(_fan(shape, mode)), rng, dtype)


def xavier_uniform(
    shape: tuple[int, ...], rng: RngLike = None, gain: float = 1.0, dtype: DTypeLike = "float32"
) -> Array:
    """Return Glorot's weights, uniformly distributed, for layers followed by tanh or nothing.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, ...kernel).
    rng : numpy.random.Generator or int, optional
    gain : float
        Factor on the standard deviation.
    dtype : dtype-like

    Returns
    -------
    ndarray of `shape`
        Between -b and b with ``b = gain * sqrt(6 / (fan_in + fan_out))``.

    Examples
    --------
    >>> bool(abs(xavier_uniform((4, 2), rng=0)).max() <= 1)
    True
    """
    return uniform(shape, gain * math.sqrt(6 / sum(fans(shape))), rng, dtype)


def xavier_normal(
    shape: tuple[int, ...], rng: RngLike = None, gain: float = 1.0, dtype: DTypeLike = "float32"
) -> Array:
    """Return Glorot's weights, normally distributed: arguments as in `xavier_uniform`.

    Examples
    --------
    >>> xavier_normal((4, 2), rng=0).shape
    (4, 2)
    """
    return normal(shape, gain * math.sqrt(2 / sum(fans(shape))), rng, dtype)


def default_parameters(
    shape: tuple[int, ...], outputs: int, bias: bool, rng: RngLike = None
) -> tuple[Parameter, Parameter | None]:
    """Return initial weights of a shape, and a bias, as PyTorch: uniform in ±1 / sqrt(fan_in)."""
    generator = as_generator(rng)
    weight = Parameter(kaiming_uniform(shape, generator, a=math.sqrt(5)))
    if not as_flag("bias", bias):
        return weight, None
    return weight, Parameter(uniform((outputs,), 1 / math.sqrt(_fan(shape, "fan_in")), generator))


def _fan(shape: tuple[int, ...], mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return max(1, fans(shape)[mode == "fan_out"])
