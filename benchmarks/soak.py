"""Random work for a long time: every result must be right, and memory must stop growing.

``python benchmarks/soak.py --seconds 600`` lets several Python threads convolve, pool, plan and
train on random shapes, while the main thread changes the number of threads and forks children
that convolve too. ``--evict`` instead cycles through more than sixty depthwise kernels.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.random import Generator
from soak_jobs import JOBS, Finding
from threadpoolctl import threadpool_limits

import fastconv
from fastconv.core.conv_problem import DIRECTIONS
from fastconv.jit.machine_code import loaded_kernels
from fastconv.runtime.threads import available_cores, start_threading_layer

#: How often each problem is computed after the first third, as choosing an algorithm takes longer
#: than to run it. In the first third as many kernels as possible are to be compiled.
REPEATS = 10
#: Which part of the problems is compared with the truth once, which takes longer still.
CHECKED = 0.5
#: Seconds between measurements of the memory, and how many of these come between two forks, of
#: which Numba warns that they may leave threads behind.
PAUSE, FORK_EVERY = 1.0, 5
#: Seconds that a child may take, and all threads together for one job.
LONGEST = 60
#: How much more memory the last third may use than the middle one, and round 30 than round 3.
GROWTH, GROWTH_MB = 1.03, 5.0
EARLY_ROUND, LATE_ROUND = 3, 30


@dataclass
class Record:
    """What has happened so far, in all threads."""

    calls: int = 0
    last: float = field(default_factory=time.monotonic)
    forks: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, found: Finding, job: str) -> None:
        """Record the error of a result."""
        name, error, most = found
        with self.lock:
            self.errors[name] = max(self.errors.get(name, 0.0), error)
        if not error <= most:
            self.fail(f"{name}: an error of {error:.2g}, explained is {most:.2g}, in {job}")

    def fail(self, text: str) -> None:
        """Record a failure."""
        with self.lock:
            self.failures.append(text)
            print("WRONG:", text, flush=True)


def resident_mb() -> float:
    """Return how much memory the process has, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def work(rng: Generator, record: Record, begin: float, until: float) -> None:
    """Do one job after another."""
    jobs, shares = list(JOBS), np.array(list(JOBS.values()), float)
    while time.monotonic() < until:
        job = jobs[rng.choice(len(jobs), p=shares / shares.sum())]
        seed = int(rng.integers(2**63))
        named = f"{job.__name__}(np.random.default_rng({seed}), True)"
        repeats = REPEATS if time.monotonic() > begin + (until - begin) / 3 else 1
        checked = rng.integers(repeats) if rng.random() < CHECKED else repeats
        for repeat in range(repeats):
            try:
                for finding in job(np.random.default_rng(seed), bool(repeat == checked)):
                    record.note(finding, named)
            except Exception:
                record.fail(f"{named}:\n{traceback.format_exc()}")
            with record.lock:
                record.calls += 1
                record.last = time.monotonic()


def child(rng: Generator) -> bool:
    """Return whether a forked child computes the same bits as this process."""
    x = rng.standard_normal((2, 8, 33, 33)).astype(np.float32)
    weight = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    name = str(rng.choice(["auto", "im2col", "implicit_gemm", "winograd_2x2"]))
    wanted = fastconv.conv2d(x, weight, padding=1, algorithm=name).tobytes()
    process = os.fork()
    if not process:
        code = 1
        try:
            code = int(fastconv.conv2d(x, weight, padding=1, algorithm=name).tobytes() != wanted)
        finally:
            os._exit(code)
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def soak(seconds: float, seed: int, callers: int) -> int:
    """Work for so long; return the exit code."""
    own, *others = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(callers + 1))
    record, begin = Record(), time.monotonic()
    until, tenths = begin + seconds, 0
    threads = [
        threading.Thread(target=work, args=(rng, record, begin, until), daemon=True)
        for rng in others
    ]
    # Forks end the threads of OpenBLAS, in the midst of the truth's products.
    threadpool_limits(1, user_api="blas")
    start_threading_layer()  # it belongs to whoever is first: here the thread that forks
    titles = "  ".join(f"{name:>11}" for name in DIRECTIONS)
    print(f"  seconds      jobs  forks  RSS MB  kernels  {titles}  (largest errors)", flush=True)
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        fastconv.set_num_threads(int(own.integers(1, available_cores() + 2)))
        if len(record.memory) % FORK_EVERY == 0:
            record.forks += 1
            if not child(own):
                record.fail("a forked child computed something else, or did not end")
        record.memory.append(resident_mb())
        if time.monotonic() - record.last > LONGEST:
            give_up(f"no job has ended for {LONGEST} seconds, in job {record.calls}")
        if time.monotonic() - begin >= (tenths + 1) * seconds / 10:
            tenths += 1
            report(record, time.monotonic() - begin)
        time.sleep(max(0.0, min(PAUSE, until - time.monotonic())))
    end = time.monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            give_up("a thread did not end")
    report(record, time.monotonic() - begin)
    print("largest errors of all:")
    for name, error in sorted(record.errors.items()):
        print(f"  {name:20} {error:.1e}")
    grown = growth(record.memory)
    print(f"memory: the last third is {grown:.3f} times the middle third, allowed is {GROWTH}")
    if grown > GROWTH:
        record.fail("memory has no plateau")
    print(f"{record.calls} jobs, {len(record.failures)} failures")
    return 1 if record.failures else 0


def give_up(text: str) -> NoReturn:
    """Say where all threads stand, and end the process though some of them hang."""
    print("WRONG:", text, flush=True)
    faulthandler.dump_traceback()
    os._exit(1)


def report(record: Record, seconds: float) -> None:
    """Print a line."""
    with record.lock:
        errors = "  ".join(f"{record.errors.get(name, 0.0):11.1e}" for name in DIRECTIONS)
    print(
        f"{seconds:9.0f} {record.calls:9d} {record.forks:6d} {record.memory[-1]:7.0f} "
        f"{loaded_kernels():8d}  {errors}",
        flush=True,
    )


def growth(memory: list[float]) -> float:
    """Return the mean of the last third of some samples over that of the middle third."""
    third = len(memory) // 3
    if not third:
        return 1.0
    return float(np.mean(memory[-third:]) / np.mean(memory[third : len(memory) - third]))


def depthwise_problems() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield images, weights and strides of more depthwise kernels than are kept."""
    rng = np.random.default_rng(0)
    for size in (8, 20, 33):
        x = rng.standard_normal((2, 4, size, size)).astype(np.float32)
        for taps in range(49):
            shape = taps // 7 + 1, taps % 7 + 1
            if shape[0] * shape[1] <= 25:  # others the depthwise algorithm does not take
                weight = rng.standard_normal((4, 1, *shape)).astype(np.float32)
                yield from ((x, weight, stride) for stride in (1, 2))


def evict(calls: int) -> int:
    """Make so many calls, each with another kernel than the one before; return the exit code."""
    problems = list(depthwise_problems())
    memory: list[float] = []
    print(f"{len(problems)} problems a round\nround     calls  RSS MB  kernels", flush=True)
    for number in range(1, calls // len(problems) + 1):
        for x, weight, stride in problems:
            fastconv.conv2d(x, weight, stride=stride, groups=4, algorithm="depthwise")
        memory.append(resident_mb())
        done = number * len(problems)
        print(f"{number:5d} {done:9d} {memory[-1]:7.1f} {loaded_kernels():8d}", flush=True)
    if len(memory) < LATE_ROUND:
        print(f"too few calls to compare rounds {EARLY_ROUND} and {LATE_ROUND}")
        return 0
    grown = memory[LATE_ROUND - 1] - memory[EARLY_ROUND - 1]
    print(f"from round {EARLY_ROUND} to {LATE_ROUND}: {grown:+.1f} MB, allowed is {GROWTH_MB}")
    return 1 if grown > GROWTH_MB else 0


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long (600)")
    parser.add_argument("--seed", type=int, default=0, help="of all shapes and numbers (0)")
    parser.add_argument("--threads", type=int, default=3, help="Python threads that call (3)")
    parser.add_argument("--evict", action="store_true", help="cycle through depthwise kernels")
    parser.add_argument("--calls", type=int, default=20_000, help="with --evict (20000)")
    options = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        parser.error("needs a system with a process's memory in /proc/self/statm")
    if min(options.seconds, options.threads, options.calls) <= 0 or options.seed < 0:
        parser.error("seconds, threads and calls must be above 0, and the seed at least 0")
    if options.evict:
        return evict(options.calls)
    return soak(options.seconds, options.seed, options.threads)


def without_fragments() -> None:
    """Begin anew with a C library that gives each freed array back to the system.

    Otherwise memory of arrays of random sizes, freed by several threads, is kept in fragments that
    fit no later array: a growth of 4% in ten minutes that is not ours, and hides what is.
    """
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        os.environ.update(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    without_fragments()
    sys.exit(main())
