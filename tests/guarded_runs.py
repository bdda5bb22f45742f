"""Runs problems on guarded memory: a stray access ends the process.

Run as ``python guarded_runs.py NAME:COUNT ... [narrower]``; a name is that of an algorithm of
convolution, "products" or "pooling". Prints a line for each: its name, and how many of so many
problems came out right. With "narrower" only what is written in vector instructions runs, on one
thread.
"""

from __future__ import annotations

import sys

import guarded_memory
import guarded_pooling
import guarded_products
import numpy as np

from fastconv.runtime import threads


def right(name: str, count: int) -> int:
    """Return how many problems come out right."""
    if name == "products":
        rng = np.random.default_rng(5)
        return sum(guarded_products.check(rng, number) for number in range(count))
    if name == "pooling":
        rng = np.random.default_rng(12)
        guarded_pooling.guard_the_library()
        tiles = guarded_memory.NARROWER
        return sum(guarded_pooling.check(rng, number, tiles) for number in range(count))
    rng = np.random.default_rng(11)
    return sum(guarded_memory.check(rng, name, number) for number in range(count))


if __name__ == "__main__":
    if guarded_memory.NARROWER:
        threads.parallel_is_safe = lambda: False
    guarded_memory.Guard(np.random.default_rng(5))
    for argument in sys.argv[1:]:
        if argument != "narrower":
            what, _, many = argument.partition(":")
            print(what, right(what, int(many)), flush=True)
