"""Learning-rate schedules: functions of the number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from fastconv.core.arguments import as_flag
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import as_decay, as_number
from fastconv.nn.training.optimizer_base import Optimizer, settings_of
from fastconv.nn.training.state_schema import COUNT, check


class Schedule:
    """Base class: sets the learning rates of an optimizer, at once and at every `step`.

    Attributes
    ----------
    per_batch : bool
        Whether `fit` calls `step` after every batch instead of every epoch.
    last_epoch : int
        Number of calls of `step`.
    base_lrs : list of float
        Initial learning rate of every group.
    first_settings : list of dict
        Initial settings of every group, before the schedule changed any.

    Examples
    --------
    >>> from fastconv import nn
    >>> class Halving(nn.Schedule):
    ...     per_batch = True
    ...
    ...     def rate(self, base_lr, step):
    ...         return base_lr / 2**step
    >>> schedule = Halving(nn.SGD([nn.Parameter([1.0])], lr=1.0))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    >>> schedule.load_state_dict({**schedule.state_dict(), "last_epoch": 3})
    >>> schedule.get_last_lr()
    [0.125]
    """

    per_batch: bool = False

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {optimizer!r}")
        self.optimizer = optimizer
        self.last_epoch: int = 0
        self.first_settings: list[dict[str, Any]] = [
            settings_of(group) for group in optimizer.param_groups
        ]
        self.base_lrs: list[float] = [float(group["lr"]) for group in self.first_settings]
        self._apply()

    def rate(self, base_lr: float, step: int) -> float:
        """Return the learning rate after `step` steps of a group that started with `base_lr`."""
        raise NotImplementedError

    def step(self) -> None:
        """Count an epoch, or a batch, and set the learning rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(base, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the initial learning rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises
        ------
        ValueError
            For anything else, and other numbers of groups. The schedule is then as it was.
        """
        before = self.last_epoch, self.base_lrs
        rates = (float | int,) * len(self.base_lrs)
        check(state, {"last_epoch": COUNT, "base_lrs": rates, ...: object}, "state")
        self.last_epoch, self.base_lrs = state["last_epoch"], list(state["base_lrs"])
        try:
            self._apply()
        except (ValueError, ArithmeticError) as error:
            self.last_epoch, self.base_lrs = before
            self._apply()
            raise ValueError(
                f"state must be one that the schedule can go on from, got {state}: {error}"
            ) from None


class StepLR(Schedule):
    """Multiply the learning rate by gamma every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
    gamma : float

    Examples
    --------
    >>> from fastconv import nn
    >>> schedule = StepLR(nn.SGD([nn.Parameter([1.0])], lr=1.0), step_size=2)
    >>> [(schedule.step(), schedule.get_last_lr()[0])[1] for _ in range(4)]
    [1.0, 0.1, 0.1, 0.010000000000000002]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = as_int("step_size", step_size, 1)
        self.gamma = as_number("gamma", gamma, 0)
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return base_lr * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule):
    """From the initial learning rate down to `eta_min` along half a cosine, in `T_max` steps.

    After that it rises again, as the cosine does.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
    eta_min : float

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts",
    arXiv:1608.03983.

    Examples
    --------
    >>> from fastconv import nn
    >>> schedule = CosineAnnealingLR(nn.SGD([nn.Parameter([1.0])], lr=1.0), T_max=2)
    >>> [(schedule.step(), round(schedule.get_last_lr()[0], 9))[1] for _ in range(2)]
    [0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = as_int("T_max", T_max, 1)
        self.eta_min = as_number("eta_min", eta_min, 0)
        super().__init__(optimizer)

    def rate(self, base_lr: float, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return _cosine(base_lr, self.eta_min, step / self.T_max)


class OneCycleLR(Schedule):
    """Up from a small learning rate to a large one, then down to almost nothing.

    The momentum (the first of the betas) goes the other way. Call `step` after every batch, as
    `fit` does.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float
    total_steps : int, optional
        By default `epochs` times `steps_per_epoch`. `step` may be called that often; the last call,
        after the last batch, changes nothing.
    epochs, steps_per_epoch : int, optional
    pct_start : float
        Fraction of the steps in which the rate rises.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
    base_momentum, max_momentum : float
        At the largest rate, and at both ends.
    div_factor, final_div_factor : float
        The initial rate is ``max_lr / div_factor``, the last is that over ``final_div_factor``.
    three_phase : bool
        Whether to return to the initial rate symmetrically before falling to the last.

    Raises
    ------
    ValueError
        Also for steps beyond `total_steps`.

    References
    ----------
    L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", arXiv:1708.07120.

    Examples
    --------
    >>> from fastconv import nn
    >>> optimizer = nn.SGD([nn.Parameter([1.0])])
    >>> schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.4)
    >>> [round(schedule.rate(1.0, step), 6) for step in range(5)]
    [0.04, 1.0, 0.750001, 0.250003, 4e-06]
    """

    per_batch = True

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        *,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps must be given, or epochs and steps_per_epoch")
            size = as_int("steps_per_epoch", steps_per_epoch, 1)
            total_steps = as_int("epochs", epochs, 1) * size
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps = as_int("total_steps", total_steps, 1)
        self.max_lr = as_number("max_lr", max_lr, 0)
        self.pct_start = as_number("pct_start", pct_start, 0, 1)
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = as_flag("cycle_momentum", cycle_momentum)
        self.three_phase = as_flag("three_phase", three_phase)
        self.base_momentum = as_decay("base_momentum", base_momentum)
        self.max_momentum = as_decay("max_momentum", max_momentum)
        self.div_factor = as_number("div_factor", div_factor, 1e-30)
        self.final_div_factor = as_number("final_div_factor", final_div_factor, 1e-30)
        self._anneal = _cosine if anneal_strategy == "cos" else _line
        up, first = self.pct_start * self.total_steps, self.max_lr / self.div_factor
        last, low, high = first / self.final_div_factor, self.base_momentum, self.max_momentum
        # Where each phase ends, and the learning rate and the momentum there.
        self._phases = [(0.0, first, high), (up - 1, self.max_lr, low)]
        if self.three_phase:
            self._phases.append((2 * up - 2, first, high))
        self._phases.append((self.total_steps - 1.0, last, high))
        super().__init__(optimizer)

    def _at(self, step: int) -> tuple[float, float]:
        """Return learning rate and momentum after `step` steps."""
        if step > self.total_steps:
            raise ValueError(
                f"step must be called at most total_steps = {self.total_steps} times, "
                f"got call {step}"
            )
        phases = list(pairwise(self._phases))
        begin, end = next((phase for phase in phases if step <= phase[1][0]), phases[-1])
        part = (step - begin[0]) / (end[0] - begin[0]) if end[0] != begin[0] else 1.0
        return self._anneal(begin[1], end[1], part), self._anneal(begin[2], end[2], part)

    def rate(self, base_lr: float, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return self._at(step)[0]

    def _apply(self) -> None:
        super()._apply()
        if self.cycle_momentum:
            momentum = self._at(self.last_epoch)[1]
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def _line(start: float, end: float, part: float) -> float:
    return start + (end - start) * part
