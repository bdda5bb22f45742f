"""The base class of optimizers: groups of parameters with settings, and a state for each."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastconv.core.arguments import Array, as_numbers
from fastconv.core.array_hints import shown
from fastconv.nn.layer_arguments import as_number
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.nn.training.state_schema import COUNT, check

# `Optimizer.load_state_dict` compares the rest with its own parameters.
_SCHEMA = {"state": {object: dict}, "param_groups": [{"params": [int], ...: object}], ...: object}


class Optimizer:
    """Base class of optimizers.

    Attributes
    ----------
    param_groups : list of dict
        Each with its "params" and its settings ("lr", ...), which schedules change.
    state : dict
        State of each parameter, kept from step to step.
    remembers : tuple of str, optional
        Names in the state: "step" is an integer, others are arrays of the parameter's shape. None
        if unknown.

    Examples
    --------
    >>> from fastconv import nn
    >>> class SignSGD(nn.Optimizer):
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params, lr=lr, weight_decay=0)
    ...
    ...     def update(self, p, grad, state, group):
    ...         p.data -= group["lr"] * np.sign(grad)
    >>> p = nn.Parameter(np.ones(2))
    >>> optimizer = SignSGD([p])
    >>> p.grad = np.array([5.0, -5.0])
    >>> optimizer.step()
    >>> p.value
    array([0.9, 1.1])
    >>> optimizer.zero_grad()
    >>> optimizer.load_state_dict(optimizer.state_dict() | {"state": {}})
    """

    remembers: ClassVar[tuple[str, ...] | None] = None

    def __init__(
        self, params: Iterable[Parameter] | Iterable[Mapping[str, Any]], **defaults: Any
    ) -> None:
        if isinstance(params, Module) or not isinstance(params, Iterable):
            raise TypeError(
                f"params must be an iterable, such as model.parameters(), got {shown(params)}"
            )
        groups: list[Any] = list(params)
        if not (groups and isinstance(groups[0], Mapping)):
            groups = [{"params": groups}]
        self.defaults = defaults
        self.state: dict[Parameter, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        for group in groups:
            if not isinstance(group, Mapping) or "params" not in group:
                raise TypeError(
                    f"params must hold Parameters, or only dicts with 'params', got {group!r}"
                )
            unknown = group.keys() - defaults.keys() - {"params"}
            if unknown:
                raise ValueError(
                    f"params must be given with {', '.join(defaults)}, got {', '.join(unknown)}"
                )
            self.param_groups.append({**defaults, **group, "params": list(group["params"])})
        seen: set[Parameter] = set()
        for group in self.param_groups:
            self.check(group)
            for p in group["params"]:
                if not isinstance(p, Parameter):
                    raise TypeError(
                        f"params must hold Parameters, as model.parameters() does, got {p!r}"
                    )
                if p in seen:
                    raise ValueError(f"params must hold each parameter once, got {p.shape} twice")
                seen.add(p)
        if not seen:
            raise ValueError("params must hold at least one Parameter, got none")

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for invalid settings of a group."""
        for name in ("lr", "weight_decay"):
            as_number(name, group[name], 0)

    def update(
        self, p: Parameter, grad: Array, state: dict[str, Any], group: Mapping[str, Any]
    ) -> None:
        """Update one parameter by its gradient."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not isinstance(p.grad, np.ndarray) or p.grad.dtype.kind not in "fiub":
                    raise TypeError(f"grad must be an array of real numbers, got {p.grad!r}")
                if p.grad.shape != p.shape:
                    raise ValueError(
                        f"grad must have its parameter's shape {p.shape}, got {p.grad.shape}"
                    )
                self.update(p, p.grad, self.state.setdefault(p, {}), group)

    def zero_grad(self) -> None:
        """Drop every parameter's gradient."""
        for p in self._parameters():
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the state and the settings; parameters are numbered."""
        numbers = {p: i for i, p in enumerate(self._parameters())}
        groups = [
            {**copy.deepcopy(settings_of(group)), "params": [numbers[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        state = {numbers[p]: copy.deepcopy(kept) for p, kept in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            For anything else, other parameters or another optimizer, which is then as it was.
        """
        parameters = self._parameters()
        check(state, _SCHEMA, "state")
        numbered = {p: i for i, p in enumerate(parameters)}
        own = [[numbered[p] for p in group["params"]] for group in self.param_groups]
        given = [list(group["params"]) for group in state["param_groups"]]
        if own != given:
            raise ValueError(f"state must be of parameters numbered {own}, got {given}")
        for group in state["param_groups"]:
            if group.keys() - {"initial_lr"} != {*self.defaults, "params"}:
                raise ValueError(
                    f"state must have the settings {', '.join(self.defaults)} of "
                    f"{type(self).__name__}, got {', '.join(map(str, group.keys() - {'params'}))}"
                )
            self.check(group)
        for number, kept in state["state"].items():
            check(number, range(len(parameters)), "the number of a parameter in state")
            self._check_kept(kept, number, parameters[number].shape)
        self.state = {parameters[i]: copy.deepcopy(v) for i, v in state["state"].items()}
        for group, new in zip(self.param_groups, state["param_groups"], strict=True):
            group.update(copy.deepcopy(settings_of(new)))

    def _check_kept(self, kept: Mapping[str, Any], number: int, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless `kept` is a state of a parameter of that shape."""
        if kept and self.remembers is not None and kept.keys() != {*self.remembers}:
            raise ValueError(
                f"state must hold {', '.join(self.remembers)} for each parameter, "
                f"got {', '.join(map(repr, kept))} for parameter {number}"
            )
        for name, value in kept.items():
            if name == "step":
                check(value, COUNT, f"step of parameter {number} in state")
            elif self.remembers is not None or isinstance(value, np.ndarray):
                array = as_numbers(f"{name} of parameter {number} in state", value)
                if array.shape != shape:
                    raise ValueError(
                        f"state must fit its parameters: {name} of parameter {number} must have "
                        f"shape {shape}, got {array.shape}"
                    )

    def _parameters(self) -> list[Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        settings = [item for group in self.param_groups for item in settings_of(group).items()]
        lines = [f"  {name}: {value}" for name, value in settings]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def settings_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group: all but its parameters."""
    return {name: value for name, value in group.items() if name != "params"}
