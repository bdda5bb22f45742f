"""States given to `load_state_dict`: refused as a whole unless they have the right form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastconv import nn


@pytest.mark.parametrize(
    "change",
    [
        None,
        {},
        {"state": None},
        {"state": {99: {}}},
        {"state": {0: 3}},
        {"state": {0: {"step": 1}}},
        {"state": {0: {"step": -1, "exp_avg": [0.0] * 2, "exp_avg_sq": [0.0] * 2}}},
        {"state": {0: {"step": 1, "exp_avg": [[1], [2, 3]], "exp_avg_sq": [0.0] * 2}}},
        {"state": {0: {"step": 1, "exp_avg": ["a", "b"], "exp_avg_sq": [0.0] * 2}}},
        {"param_groups": 3},
        {"param_groups": [{"params": None}]},
        {"lr": "fast"},
        {"betas": [1]},
        {"betas": (0.9, 2)},
    ],
)
def test_states_without_form_are_refused(change: Any) -> None:
    optimizer = nn.Adam([nn.Parameter(np.zeros(2))])
    state: Any = optimizer.state_dict()
    if change and not change.keys() <= state.keys():
        change = {"param_groups": [{**state["param_groups"][0], **change}]}
    state = {**state, **change} if change else change
    with pytest.raises((ValueError, TypeError), match=r"\b(state|lr|betas)\b"):
        optimizer.load_state_dict(state)
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("state", [None, {}, {"last_epoch": -1}, {"base_lrs": ["a"]}, 7])
def test_states_of_no_schedule_or_module_are_refused(state: Any) -> None:
    optimizer = nn.Adam([nn.Parameter(np.zeros(2))])
    schedule = nn.StepLR(optimizer, 2)
    if state:
        state = {**schedule.state_dict(), **state} if isinstance(state, dict) else state
    with pytest.raises(ValueError, match="state"):
        schedule.load_state_dict(state)
    assert (schedule.last_epoch, schedule.base_lrs) == (0, [1e-3])
    for kind, options in ((nn.StepLR, (1, 2.0)), (nn.OneCycleLR, (0.1, 9))):
        other: nn.Schedule = kind(optimizer, *options)
        rates = other.get_last_lr()
        with pytest.raises(ValueError, match="state must be one that the schedule can go on from"):
            other.load_state_dict({**other.state_dict(), "last_epoch": 10**6})
        assert (other.last_epoch, other.get_last_lr()) == (0, rates)
    with pytest.raises((ValueError, TypeError), match="state"):
        nn.Linear(2, 2).load_state_dict(state)
    with pytest.raises(ValueError, match="weight"):
        nn.Linear(2, 2).load_state_dict({"weight": [[1, 2], [3]]}, strict=False)
