"""Programs that have crashed Numba's threading layers; each is run in a process of its own.

Run as ``python threading_scenarios.py NAME``. Prints "right" when every result was.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np

import fastconv

RNG = np.random.default_rng(7)
X = RNG.integers(-3, 4, (4, 6, 13, 15)).astype(np.float32)
WEIGHT = RNG.integers(-3, 4, (8, 6, 3, 3)).astype(np.float32)
# Small integers: every summation order gives the same bits.
EXPECTED = fastconv.conv2d(X, WEIGHT, padding=1, algorithm="reference")
POOLED = fastconv.max_pool2d(X, 2, algorithm="reference")
ALGORITHMS = ("implicit_gemm", "direct", "naive", "im2col", "im2col_jit")


def compute(_: int = 0) -> bool:
    """Return whether a round of parallel kernels, thread pool and BLAS gives right results."""
    results = [fastconv.conv2d(X, WEIGHT, padding=1, algorithm=name) for name in ALGORITHMS]
    pooled = fastconv.max_pool2d(X, 2, algorithm="jit")
    return all(np.array_equal(y, EXPECTED) for y in results) and np.array_equal(pooled, POOLED)


def fork_and_compute() -> bool:
    """Return whether a forked child computes the right results and ends by itself."""
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = compute() and compute()
        finally:
            os._exit(0 if right else 3)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def eight_threads() -> bool:
    """Eight Python threads at once, compiling and running."""
    with ThreadPoolExecutor(8) as pool:
        return all(pool.map(compute, range(80)))


def forked_child() -> bool:
    """Fork a child after a parallel call; the parent goes on."""
    return compute() and fork_and_compute() and compute()


def fork_of_a_thread() -> bool:
    """Fork a child from a thread that is not the main one."""
    results = [compute()]
    thread = threading.Thread(target=lambda: results.append(fork_and_compute()))
    thread.start()
    thread.join()
    return all(results) and len(results) == 2 and compute()


def fork_while_busy() -> bool:
    """Children forked while other threads are inside kernels and hold locks."""
    assert compute()
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            compute()

    workers = [threading.Thread(target=keep_busy) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        return all(fork_and_compute() for _ in range(5))
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def process_pool(method: str) -> bool:
    """Start a pool of processes after a parallel call."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return compute() and all(pool.map(compute, range(4)))


SCENARIOS: dict[str, Callable[[], bool]] = {
    "eight_threads": eight_threads,
    "forked_child": forked_child,
    "fork_of_a_thread": fork_of_a_thread,
    "fork_while_busy": fork_while_busy,
    "fork_pool": lambda: process_pool("fork"),
    "spawn_pool": lambda: process_pool("spawn"),
    "forkserver_pool": lambda: process_pool("forkserver"),
}

if __name__ == "__main__":
    print(
        "right" if SCENARIOS[sys.argv[1]]() else "wrong", fastconv.runtime.threads.threading_layer()
    )
