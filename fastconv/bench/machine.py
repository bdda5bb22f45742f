"""Where and with what a benchmark ran: the header of its files, and the yardstick."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from fastconv.bench.peak import measure_peak
from fastconv.core.precision import get_precision
from fastconv.runtime import blas, cpu, threads
from fastconv.select import tuning

#: What `fastconv info` looks for beside what the library needs.
EXTRAS = ("scikit-learn", "pillow", "rich", "typer", "matplotlib", "pytest", "pytest-benchmark")
PEERS = ("torch", "onnxruntime", "openvino", "ncnn", "mnn", "opencv-python-headless", "jax")


class Peak:
    """The processor's FMA peak, measured again and again; the best counts.

    Disturbances only ever make it lower, so its best value is the fairest yardstick.
    """

    def __init__(self, dtype: str, num_threads: int) -> None:
        self.dtype, self._threads = dtype, num_threads
        self.samples: list[float] = []
        self._alone = 0.0

    @property
    def best(self) -> float:
        """GFLOP/s, the most so far."""
        return max(self.samples)

    @property
    def disturbed(self) -> bool:
        """Whether cores were busy with other work in most of the measurements."""
        cores = min(self._threads, threads.available_cores())
        return statistics.median(self.samples) < 0.8 * max(self.best, cores * self._alone)

    def measure(self) -> None:
        """Measure once more, with all threads and with one; this takes about 45 ms."""
        self.samples.append(measure_peak(self.dtype, self._threads))
        self._alone = max(self._alone, measure_peak(self.dtype, 1, seconds=0.015))


def version(package: str) -> str | None:
    """Return the version of an installed package, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def started_layer() -> str:
    """Return the name of Numba's threading layer, starting it if need be."""
    try:
        threads.start_threading_layer()
    except ValueError as error:  # Numba found none
        return f"none ({error})"
    return threads.threading_layer() or "none"


def header(peak: Peak, complete: bool) -> dict[str, Any]:
    """Return what a reader of the records must know about where they come from."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["fastconv", *sys.argv[1:]],  # without the folder of the program
        "complete": complete,
        "machine": platform.platform(),
        "cpu": dataclasses.asdict(cpu.describe()),
        "threads": threads.get_num_threads(),
        "threading_layer": started_layer(),
        "blas": blas.names(),
        "dtype": peak.dtype,
        "peak_gflops": peak.best if peak.samples else None,
        "peak_samples_gflops": list(peak.samples),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("fastconv", "numpy", "numba", "llvmlite", "tbb")},
    }


def facts() -> list[tuple[str, str]]:
    """Return what `fastconv info` prints, as (label, value)."""
    from fastconv.bench.number_text import size
    from fastconv.bench.warmup import stored_kernels
    from fastconv.jit.kernel_cache import cache_folder

    processor = cpu.describe()
    vector = processor.instructions
    kernels = stored_kernels()
    lanes = f"{vector.lanes('float32')} float32 or {vector.lanes('float64')} float64"
    caches = (processor.l1_bytes, processor.l2_bytes, processor.l3_bytes)
    sizes = (f"L{level} {size(count)}" for level, count in enumerate(caches, 1))
    packages = ("numpy", "numba", "llvmlite", "tbb", "threadpoolctl")
    return [
        ("fastconv", version("fastconv") or "?"),
        ("processor", f"{processor.name}, {processor.architecture}, {processor.cores} cores"),
        ("vectors", f"{vector.name}, {vector.bits} bits: {lanes}"),
        ("caches", ", ".join(sizes)),
        ("threads", str(threads.get_num_threads())),
        ("threading layer", started_layer()),
        ("BLAS", ", ".join(blas.names()) or "none found"),
        ("kernel folder", str(cache_folder())),
        ("kernels", f"{len(kernels.files)} compiled by this version, {size(kernels.bytes)}"),
        ("precision", get_precision()),
        ("measurements", _measurements()),
        ("python", f"{platform.python_version()}, {platform.platform()}"),
        ("packages", _installed(packages)),
        ("extras", _installed(EXTRAS)),
        ("peers", _installed(PEERS)),
    ]


def _measurements() -> str:
    table = tuning.current()
    try:
        place = str(tuning.tuning_file())
    except RuntimeError as error:
        place = f"nowhere ({error})"
    return f"{len(table.times) if table else 0} followed, kept in {place}"


def _installed(packages: Sequence[str]) -> str:
    found = {package: version(package) for package in packages}
    there = ", ".join(f"{package} {number}" for package, number in found.items() if number)
    missing = ", ".join(package for package, number in found.items() if not number)
    return "; ".join(part for part in (there, missing and f"not installed: {missing}") if part)
