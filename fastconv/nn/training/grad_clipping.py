"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastconv.nn.layer_arguments import as_number
from fastconv.nn.parameter import Parameter


def clip_grad_norm_(
    parameters: Iterable[Parameter], max_norm: float, norm_type: float = 2.0
) -> float:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Parameters
    ----------
    parameters : iterable of Parameter
    max_norm : float
        Infinity changes nothing: the norm is only returned.
    norm_type : float
        2 for the Euclidean norm, ``inf`` for the largest element.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    arXiv:1211.5063.

    Examples
    --------
    >>> p = Parameter(np.zeros(2))
    >>> p.grad = np.array([3.0, 4.0])
    >>> clip_grad_norm_([p], 1.0)
    5.0
    >>> p.grad.round(5)
    array([0.6, 0.8])
    """
    as_number("max_norm", max_norm, 0, np.inf)
    as_number("norm_type", norm_type, 0, np.inf)
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = [float(np.linalg.norm(grad.reshape(-1), norm_type)) for grad in grads]
    total = float(np.linalg.norm(norms, norm_type)) if norms else 0.0
    factor = max_norm / (total + 1e-6)
    if factor < 1:
        for grad in grads:
            grad *= factor
    return total


def clip_grad_value_(parameters: Iterable[Parameter], clip_value: float) -> None:
    """Clip every element of all gradients to [-clip_value, clip_value].

    Parameters
    ----------
    parameters : iterable of Parameter
    clip_value : float

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> p = Parameter(np.zeros(2))
    >>> p.grad = np.array([3.0, -0.5])
    >>> clip_grad_value_([p], 1.0)
    >>> p.grad
    array([ 1. , -0.5])
    """
    bound = as_number("clip_value", clip_value, 0, np.inf)
    for p in parameters:
        if p.grad is not None:
            np.clip(p.grad, -bound, bound, out=p.grad)
