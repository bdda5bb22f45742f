"""Reads and runs damaged ONNX files: ``python tests/onnx_fuzz.py COUNT [FIRST]``.

Each is refused with a ValueError or runs: nothing else, within five seconds and some memory.
"""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
from onnx_models import MODELS, damaged

import fastconv.onnx

# Bytes of address space beside what is in use; models here have kilobytes.
_MORE = 2**31
_SECONDS = 5
_LARGE = 2**26
# What inputs have where a file leaves it open, or says too much.
_SIZE, _MOST = 5, 10_000


class TooLong(BaseException):
    """No exception that reading would turn into its own."""


def run(content: bytes) -> str:
    """Return whether a model ran, was refused or is large; raise what it should not."""
    try:
        network = fastconv.onnx.load(content)
        given = [_array(value) for value in network._graph.inputs]
        compiled = network.compiled_for(*(array.shape for array in given))
        if compiled.memory.nbytes > _LARGE:
            return "large"  # a file may well say so; the work is then as large
        network(*given)
    except ValueError as error:
        return "refused" if str(error) else "refused without a word"
    return "ran"


def _array(value: Any) -> Any:
    sizes = [_SIZE if isinstance(size, str) else size for size in value.declared or ()]
    if not all(0 <= size <= _MOST for size in sizes) or np.prod(sizes) > _MOST:
        sizes = [1]
    return np.linspace(-1, 1, int(np.prod(sizes))).reshape(sizes).astype(value.dtype)


def main(count: int, first: int = 0) -> None:
    """Read and run so many files."""
    faulthandler.enable()
    warnings.simplefilter("error")
    for make in MODELS.values():
        assert run(make().SerializeToString()) == "ran"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MORE, -1))

    def too_long(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, too_long)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    names = list(MODELS)
    for seed in range(first, first + count):
        name, begin = names[seed % len(names)], time.perf_counter()
        signal.alarm(_SECONDS)
        try:
            outcomes[run(damaged(name, seed))] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"{name} {seed}: {error!r}", flush=True)
            outcomes["wrong"] += 1
        signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - begin)
    print(f"{dict(outcomes)}, the slowest {slowest:.1f} s")
    sys.exit(bool(outcomes.keys() - {"ran", "refused", "large"}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
