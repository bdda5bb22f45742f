"""How to measure the speed of functions, as honestly as a shared computer allows.

1. A clock is not sharp enough for a microsecond, and reading it costs time: a function is
   called many times in a row, in a *block* of at least `BLOCK_SECONDS`, and the block is timed.
2. The computer changes while we look: its clock rate moves, other programs come and go. All
   candidates are therefore measured in *rounds*, one block each, so that a bad moment hits all
   of them alike; each round in a new order, so that none always follows the same other one.
3. The first call after another candidate finds its data gone from the caches, which is not
   what is measured here: one untimed call comes before each block, unless calls are so long that
   it makes no difference.
4. Python's garbage collector waits until the block is over.
5. Disturbances only ever make a block slower, and some make it much slower. The *median* of
   the blocks does not care how much. Their *spread* tells how far to trust it: half the
   distance from the 10th to the 90th percentile, so that about eight blocks in ten lie within
   median +- spread.

Compilation is over before any of this begins: the caller makes the first call.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

#: A block of calls lasts at least this long.
BLOCK_SECONDS = 2e-3
#: Calls longer than this get no untimed call before them.
LONG_CALL = 20e-3
#: However slow a candidate is, it is measured in this many rounds.
FEWEST_ROUNDS = 3

Function = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a call took, one number for each block, and how many calls a block had."""

    samples: tuple[float, ...]
    repeats: int

    @property
    def median(self) -> float:
        """Half of the blocks were faster."""
        return float(np.median(self.samples))

    @property
    def spread(self) -> float:
        """Half the distance from the 10th to the 90th percentile."""
        low, high = np.percentile(self.samples, (10, 90))
        return float(high - low) / 2


def time_block(function: Function, repeats: int) -> float:
    """Return the seconds a call takes, averaged over `repeats` calls in a row."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter()
        for _ in range(repeats):
            function()
        return (time.perf_counter() - begin) / repeats
    finally:
        if was_enabled:
            gc.enable()


def find_repeats(function: Function, block: float = BLOCK_SECONDS) -> tuple[int, float]:
    """Return how many calls make a block of that many seconds, and about how long one takes."""
    repeats = 1
    while (seconds := time_block(function, repeats)) * repeats < block:
        # Aim a little beyond; at most tenfold, since a very short trial says little.
        repeats *= min(10, math.ceil(1.2 * block / (seconds * repeats)))
    return repeats, seconds


def interleave(functions: Mapping[str, Function], seconds: float, rounds: int) -> dict[str, Timing]:
    """Measure functions side by side, which were called at least once before.

    The whole takes about `seconds`: a slow function that has used up its share, an equal part of
    this, drops out after `FEWEST_ROUNDS` rounds. `rounds` is the most blocks a function gets.

    >>> timings = interleave({"sum": lambda: sum(range(1000))}, seconds=0.1, rounds=5)
    >>> timings["sum"].median > 0
    True
    """
    plans = {name: find_repeats(function) for name, function in functions.items()}
    # The call that told how long a slow function takes was a block like any other.
    samples = {name: [each] if each >= LONG_CALL else [] for name, (_, each) in plans.items()}
    spent = {name: sum(found) for name, found in samples.items()}
    share = seconds / max(1, len(functions))
    order = list(functions)
    shuffle = random.Random(0).shuffle
    for _ in range(most := max(rounds, FEWEST_ROUNDS)):
        shuffle(order)
        for name in order:
            count = len(samples[name])
            if count == most or (count >= FEWEST_ROUNDS and spent[name] > share):
                continue
            repeats, expected = plans[name]
            begin = time.perf_counter()
            if expected < LONG_CALL:
                functions[name]()
            samples[name].append(time_block(functions[name], repeats))
            spent[name] += time.perf_counter() - begin
    return {name: Timing(tuple(samples[name]), plans[name][0]) for name in functions}
