"""How fast this processor can multiply and add at all: the yardstick of every benchmark.

One fused multiply-add in each vector unit in every cycle is the limit. To reach it nothing may
touch memory, and enough independent sums must be under way to hide the latency of each: the
loop keeps a dozen or more accumulators in registers and does nothing else.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.vector import Vectors, index
from fastconv.jit.compiler import RangeKernel
from fastconv.runtime import cpu


@intrinsic(prefer_literal=True)
def sum_products(typingctx, values, out, repeats, lanes, chains):  # type: ignore[no-untyped-def]
    """Do ``repeats * chains`` vector FMAs on registers; their sums end up in `out`.

    `values` and `out` are arrays of at least ``2 * lanes`` and ``lanes`` elements; `lanes` and
    `chains` are constants. In plain Python: ``for _ in range(repeats): sums += a * b`` with
    `chains` vectors `sums`.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        value_array = context.make_array(values)(context, builder, arguments[0])
        out_array = context.make_array(out)(context, builder, arguments[1])
        vector = Vectors(builder, value_array.data.type.pointee, lanes.literal_value)
        a = vector.load(value_array.data)
        b = vector.load(vector.at(value_array.data, index(vector.lanes)))
        sums = [cgutils.alloca_once_value(builder, a) for _ in range(chains.literal_value)]
        with cgutils.for_range(builder, arguments[2]):
            for total in sums:
                builder.store(vector.multiply_add(a, b, builder.load(total)), total)
        result = builder.load(sums[0])
        for total in sums[1:]:
            result = builder.fadd(result, builder.load(total))
        vector.store(result, out_array.data)
        return context.get_dummy_value()

    return types.void(values, out, repeats, lanes, chains), generate


@lru_cache(maxsize=8)
def _kernel(lanes: int, chains: int) -> RangeKernel:
    def run_chains(start: int, stop: int, values: Any, out: Any, repeats: int) -> None:
        for item in range(start, stop):
            sum_products(values, out[item], repeats, lanes, chains)

    return RangeKernel(run_chains, f"{lanes}x{chains}")


def measure_peak(dtype: str = "float32", threads: int = 1, seconds: float = 0.03) -> float:
    """Return the most GFLOP/s that `threads` threads reach at fused multiply-adds in registers.

    The best of several short rounds, for interruptions only ever make a round slower; about
    `seconds` in all. fastconv's own number of threads must be at least `threads`.

    >>> measure_peak("float32", threads=1) > 0.1
    True
    """
    instructions = cpu.describe().instructions
    lanes = instructions.lanes(dtype)
    run_chains = _kernel(lanes, chains := instructions.registers - 4)
    values = np.linspace(0.1, 0.9, 2 * lanes).astype(dtype)
    out = np.empty((threads, lanes), dtype)
    rounds = 10

    def timed(repeats: int) -> float:
        begin = time.perf_counter()
        run_chains(threads, values, out, repeats)
        return time.perf_counter() - begin

    repeats = 1000
    timed(repeats)  # compiles
    while (spent := timed(repeats)) < seconds / rounds / 2:
        repeats *= 2
    repeats = max(1, int(repeats * seconds / rounds / spent))
    best = min(timed(repeats) for _ in range(rounds))
    return 2 * lanes * chains * repeats * threads / best / 1e9
