"""Optimizers: SGD, Adam, AdamW; and gradient clipping.

The formulas are PyTorch's, which names its sources; each is one loop in
`fastconv.kernels.optimizer_steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastconv.core.arguments import Array, as_computed, as_flag
from fastconv.jit.compiler import RangeKernel
from fastconv.kernels.optimizer_steps import BLOCK, adam, momentum_sgd, sgd
from fastconv.nn.layer_arguments import LARGEST, as_decay, as_number
from fastconv.nn.parameter import Parameter
from fastconv.nn.training.optimizer_base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    ``v = momentum * v + (1 - dampening) * g``, ``p = p - lr * v``; with Nesterov's momentum
    ``p = p - lr * (g + momentum * v)``. Weight decay adds ``weight_decay * p`` to g. The first v
    is g.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        ``model.parameters()``, or groups such as ``{"params": [...], "lr": 0.1}``.
    lr, momentum, dampening, weight_decay : float
    nesterov : bool

    References
    ----------
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013.

    Examples
    --------
    >>> p = Parameter(np.ones(1))
    >>> optimizer = SGD([p], lr=0.1)
    >>> p.grad = np.array([2.0])
    >>> optimizer.step()
    >>> p.value
    array([0.8])
    """

    remembers = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for invalid settings of a group."""
        super().check(group)
        as_number("momentum", group["momentum"], 0, 1)
        as_number("dampening", group["dampening"], -LARGEST)
        nesterov = as_flag("nesterov", group["nesterov"])
        if nesterov and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov must be with a momentum above 0 and no dampening, got "
                f"momentum={group['momentum']}, dampening={group['dampening']}"
            )

    def update(
        self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any]
    ) -> None:
        """Update one parameter."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if momentum == 0:
            _over(sgd, p, grad, state, (), lr, decay)
            return
        new = 1 - group["dampening"]
        if "momentum_buffer" not in state:  # the first velocity is the gradient
            state["momentum_buffer"], new = np.zeros(p.shape, p.dtype), 1.0
        # Nesterov's momentum looks ahead.
        direct, along = (1.0, momentum) if group["nesterov"] else (0.0, 1.0)
        numbers = lr, decay, momentum, new, direct, along
        _over(momentum_sgd, p, grad, state, ("momentum_buffer",), *numbers)


class Adam(Optimizer):
    """Steps of about lr for every element, whatever the size of its gradient.

    ``m = β1 * m + (1 - β1) * g``, ``v = β2 * v + (1 - β2) * g²``,
    ``p = p - lr * m' / (sqrt(v') + eps)`` with ``m' = m / (1 - β1^t)``, ``v' = v / (1 - β2^t)``.
    Weight decay adds ``weight_decay * p`` to g.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        As in `SGD`.
    lr : float
    betas : (float, float)
        Decay rates of the running means of g and g².
    eps, weight_decay : float

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980.

    Examples
    --------
    >>> p = Parameter(np.ones(2))
    >>> optimizer = Adam([p], lr=0.1)
    >>> p.grad = np.array([1e-3, 1e3])
    >>> optimizer.step()
    >>> p.value.round(4)
    array([0.9, 0.9])
    """

    remembers = ("step", "exp_avg", "exp_avg_sq")
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for invalid settings of a group."""
        super().check(group)
        as_number("eps", group["eps"], 0)
        betas = group["betas"]
        if not isinstance(betas, Sequence | np.ndarray) or len(betas) != 2:
            raise TypeError(f"betas must be two numbers, such as (0.9, 0.999), got {betas!r}")
        for i, beta in enumerate(betas):
            as_decay(f"betas[{i}]", beta)

    def update(
        self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any]
    ) -> None:
        """Update one parameter."""
        if not state:
            zeros = np.zeros(p.shape, p.dtype)
            state.update(step=0, exp_avg=zeros, exp_avg_sq=zeros.copy())
        state["step"] += 1
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        rate = group["lr"] / (1 - beta1 ** state["step"])
        root = (1 - beta2 ** state["step"]) ** 0.5
        added, shrink = (0.0, 1 - group["lr"] * decay) if self.decoupled else (decay, 1.0)
        kept = beta1, 1 - beta1, beta2, 1 - beta2
        numbers = rate, root, group["eps"], added, shrink, *kept
        _over(adam, p, grad, state, ("exp_avg", "exp_avg_sq"), *numbers)


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights themselves, by ``lr * weight_decay`` a step.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        As in `SGD`.
    lr, betas, eps, weight_decay
        As in `Adam`.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", arXiv:1711.05101.

    Examples
    --------
    >>> p = Parameter(np.ones(1))
    >>> optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.grad = np.zeros(1)
    >>> optimizer.step()
    >>> p.value
    array([0.95])
    """

    decoupled: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def _over(
    step: RangeKernel,
    p: Parameter,
    grad: Array,
    state: dict[str, Any],
    names: Sequence[str],
    *numbers: float,
) -> None:
    """Run a step kernel on parameter, gradient and the named arrays of the state.

    A state may be loaded from anywhere: its arrays are converted to what kernels can write to.
    """
    data = p.data
    for name in names:
        kept = state[name]
        if type(kept) is not np.ndarray or kept.dtype != data.dtype or not kept.flags.carray:
            kept = np.require(kept, data.dtype, ("C", "A", "W", "E"))
        if kept.shape != data.shape:
            raise ValueError(
                f"state must fit its parameters: {name} must have shape {data.shape}, "
                f"got {kept.shape}"
            )
        state[name] = kept
    arrays = data, as_computed(grad, data.dtype), *(state[name] for name in names)
    flat = (array.reshape(-1) for array in arrays)
    step(-(-data.size // BLOCK), *flat, np.array(numbers, float))


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
