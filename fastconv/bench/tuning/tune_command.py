"""``fastconv tune``: measurements on disk, rows on the screen and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastconv.bench import image_suite
from fastconv.bench.bench_command import INTERRUPTED, RIGHT, WRONG
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.bench_run import Options, Tell
from fastconv.bench.machine import Peak
from fastconv.bench.progress_bar import collect
from fastconv.bench.suites import Item, select, suite_names
from fastconv.bench.tuning.findings import Finding, tune
from fastconv.bench.tuning.tune_report import TuneReport
from fastconv.bench.tuning.user_layers import load_shapes
from fastconv.core.conv_problem import Direction
from fastconv.runtime import threads
from fastconv.select import tuning


def items_named(
    suites: Sequence[str], shapes: Path | None, directions: tuple[Direction, ...]
) -> list[Item]:
    """Return what is to be measured: a file's layers, suites, or the layers of all networks."""
    if shapes is None:
        networks = [name for name in suite_names() if name != "images"]
        return select(suites or networks, (), directions)
    if suites:
        raise BenchError("--suite and --model-shapes cannot be combined")
    return [Item(layer, directions) for layer in load_shapes(shapes)]


def tune_all(items: Sequence[Item], options: Options) -> int:
    """Measure, print, and keep every measurement at once; return the exit code.

    Ctrl-C ends the measuring; what was measured until then is kept.
    """
    if any(item.layer.suite == "images" for item in items):
        image_suite.check_available()
    path = target()
    report = TuneReport()
    peak = Peak(options.dtype, threads.get_num_threads())

    def measure_and_keep(tell: Tell) -> Iterator[Finding]:
        for finding in tune(items, options, peak, tell):
            keep(path, finding)
            yield finding

    report.header(options.dtype)
    total = sum(len(item.directions) for item in items)
    findings, complete = collect(measure_and_keep, total, report.finding)
    if not complete:
        report.line("interrupted", "bold")
    if findings:
        report.summary(findings, path, peak.disturbed)
    if not complete:
        return INTERRUPTED
    return WRONG if any(finding.wrong for finding in findings) else RIGHT


def target() -> Path:
    """Return the file of measurements, or raise `BenchError`: now, not after measuring.

    The user's cache folder is made if need be; the folder of a file that was named must be there,
    as a name with a typing error would else be followed.
    """
    try:
        path = tuning.tuning_file()
        if not os.environ.get(tuning.FILE_VARIABLE):
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.parent.exists():
            raise BenchError(
                f"{tuning.FILE_VARIABLE} must name a file in a folder that exists, got "
                f"{str(path)!r}: make the folder first"
            )
        table = tuning.read(path) if path.exists() else None
        with open(path, "ab"):
            pass
    except (OSError, RuntimeError, ValueError) as error:
        raise BenchError(
            f"measurements cannot be kept: {error}; set {tuning.FILE_VARIABLE} to a file of yours"
        ) from None
    if table and table.damaged and not table.times and not table.others:
        raise BenchError(
            f"measurements cannot be kept in {path}, which holds something else: remove it, or set "
            f"{tuning.FILE_VARIABLE} to another file"
        )
    return path


def keep(path: Path, finding: Finding) -> None:
    """Add a finding to the file."""
    if finding.seconds:
        try:
            tuning.append(path, finding.measurement)
        except OSError as error:
            raise BenchError(f"{path} cannot be written: {error}") from None
