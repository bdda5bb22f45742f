"""From the wishes of a user to rows on the screen, files and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fastconv.bench import bench_plot, image_suite, result_files
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.bench_report import Report
from fastconv.bench.bench_run import Options, run, with_peak
from fastconv.bench.machine import Peak, command_line, header
from fastconv.bench.progress_bar import ProgressBar
from fastconv.bench.results import LayerResult
from fastconv.bench.scores import scores
from fastconv.bench.suites import Item
from fastconv.runtime import threads

#: Exit codes.
RIGHT, WRONG, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Targets:
    """Where the results go beside the screen."""

    json: Path | None = None
    csv: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Raise `BenchError` for a target that cannot be written: now, not after measuring."""
        if self.plot is not None:
            bench_plot.check_plot(self.plot)
        taken: dict[Path, str] = {}
        for name in ("json", "csv", "plot"):
            path = getattr(self, name)
            if path is not None:
                result_files.check_target(f"--{name}", path)
                other = taken.setdefault(path.resolve(), name)
                if other != name:
                    raise BenchError(f"--{name} and --{other} must name two files, got {path}")


def check(items: Sequence[Item], targets: Targets) -> None:
    """Raise `BenchError` if something that will be needed is missing."""
    targets.check()
    if any(item.layer.suite == "images" for item in items):
        image_suite.check_available()


def show(result: LayerResult, report: Report, bar: ProgressBar) -> None:
    """Print one more result."""
    with bar.hidden():
        report.layer(result)
    bar.advance()


def benchmark(items: Sequence[Item], options: Options, targets: Targets) -> int:
    """Measure, print and write; return the exit code.

    Ctrl-C ends the measuring; what was measured until then is printed and written.
    """
    check(items, targets)
    console = Console()
    report = Report(console)
    peak = Peak(options.dtype, threads.get_num_threads())
    results: list[LayerResult] = []
    complete = False
    try:
        peak.measure()
        report.header(header(peak, options.dtype, command_line(), complete))
        with ProgressBar(sum(len(item.directions) for item in items)) as bar:
            for result in run(items, options, peak, bar.tell):
                results.append(result)
                show(result, report, bar)
        complete = True
    except KeyboardInterrupt:
        console.print("interrupted", style="bold")
    if results:
        _finish(report, results, options, targets, peak, complete)
    if not complete:
        return INTERRUPTED
    wrong = any(not record.correct for result in results for record in result.records)
    return WRONG if wrong else RIGHT


def _finish(
    report: Report,
    results: Sequence[LayerResult],
    options: Options,
    targets: Targets,
    peak: Peak,
    complete: bool,
) -> None:
    """Print the summary and write the files, all relative to the best peak of the whole run."""
    final = [with_peak(result, peak.best) for result in results]
    report.summary(scores(final, peak.best, options.algorithms), final, peak)
    write(header(peak, options.dtype, command_line(), complete), final, targets, report)


def write(
    top: dict[str, Any], results: Sequence[LayerResult], targets: Targets, report: Report
) -> None:
    """Write the files that are wanted."""
    records = [record for result in results for record in result.records]
    writers: list[tuple[Path | None, Callable[[Path], None]]] = [
        (targets.json, lambda path: result_files.write_json(path, top, records)),
        (targets.csv, lambda path: result_files.write_csv(path, records)),
        (targets.plot, lambda path: bench_plot.write_plot(path, top, results)),
    ]
    for path, writer in writers:
        if path is not None:
            writer(path)
            report.wrote(path)
