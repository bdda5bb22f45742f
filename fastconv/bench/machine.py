"""Where and with what a benchmark ran: the header of its files, and the yardstick."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from fastconv import cpu, threads
from fastconv.codegen.peak import measure_peak

#: What `fastconv info` looks for beside what the library needs.
EXTRAS = ("scikit-learn", "pillow", "rich", "typer", "matplotlib", "pytest", "pytest-benchmark")
PEERS = ("torch", "onnxruntime", "openvino", "jax")


class Peak:
    """The processor's FMA peak, measured again and again; the best counts.

    Disturbances only ever make it lower, so its best value is the fairest yardstick.
    """

    def __init__(self, dtype: str, num_threads: int) -> None:
        self._dtype, self._threads = dtype, num_threads
        self.samples: list[float] = []

    @property
    def best(self) -> float:
        """GFLOP/s, the most so far."""
        return max(self.samples)

    def measure(self) -> None:
        """Measure once more; this takes about 30 ms."""
        self.samples.append(measure_peak(self._dtype, self._threads))


def version(package: str) -> str | None:
    """Return the version of an installed package, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def started_layer() -> str:
    """Return the name of Numba's threading layer, starting it if need be."""
    import numba

    threads.prepare_threading_layer()
    try:
        numba.get_num_threads()  # starts the layer
    except ValueError as error:  # none can be loaded
        return f"none ({error})"
    return threads.threading_layer() or "none"


def header(peak: Peak, dtype: str, command: Sequence[str], complete: bool) -> dict[str, Any]:
    """Return what a reader of the records must know about where they come from."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "complete": complete,
        "machine": platform.platform(),
        "cpu": dataclasses.asdict(cpu.describe()),
        "threads": threads.get_num_threads(),
        "threading_layer": started_layer(),
        "blas": threads.blas_names(),
        "dtype": dtype,
        "peak_gflops": peak.best if peak.samples else None,
        "peak_samples_gflops": list(peak.samples),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("fastconv", "numpy", "numba", "llvmlite", "tbb")},
    }


def command_line() -> list[str]:
    """Return how this process was called, without the folder of the program."""
    return ["fastconv", *sys.argv[1:]]
