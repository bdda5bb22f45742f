"""``fastconv bench``: rows on the screen, files and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fastconv.bench import image_suite
from fastconv.bench.bench_report import Report
from fastconv.bench.bench_run import Options, Tell, run, with_peak
from fastconv.bench.machine import Peak, header
from fastconv.bench.progress_bar import collect
from fastconv.bench.result_files import Targets
from fastconv.bench.results import LayerResult, is_own
from fastconv.bench.suites import Item
from fastconv.runtime import threads

#: Exit codes.
RIGHT, WRONG, INTERRUPTED = 0, 1, 130

Steps = Callable[[Peak, Tell], Iterator[LayerResult]]


def check(items: Sequence[Item], targets: Targets) -> None:
    """Raise `BenchError` if something that will be needed is missing."""
    targets.check()
    if any(item.layer.suite == "images" for item in items):
        image_suite.check_available()


def benchmark(items: Sequence[Item], options: Options, targets: Targets) -> int:
    """Measure the algorithms on each layer; return the exit code."""
    check(items, targets)
    total = sum(len(item.directions) for item in items)
    steps = partial(run, items, options)
    return carry_out(steps, total, options.dtype, targets, Report(options.algorithms))


def carry_out(steps: Steps, total: int, dtype: str, targets: Targets, report: Report) -> int:
    """Measure, print and write; return the exit code.

    Ctrl-C ends the measuring; what was measured until then is printed and written.
    """
    peak = Peak(dtype, threads.get_num_threads())

    def after_header(tell: Tell) -> Iterator[LayerResult]:
        peak.measure()
        report.header(header(peak, complete=False) | report.facts)
        yield from steps(peak, tell)

    results, complete = collect(after_header, total, report.layer)
    if not complete:
        report.line("interrupted", "bold")
    if results:  # now all relative to the best peak of the whole run
        final = [with_peak(result, peak.best) for result in results]
        report.summary(final, peak)
        for path in targets.write(header(peak, complete) | report.facts, final):
            report.line(f"wrote {path}", "dim")
    if not complete:
        return INTERRUPTED
    return WRONG if any(_is_wrong(result) for result in results) else RIGHT


def _is_wrong(result: LayerResult) -> bool:
    """Return whether anybody computed something wrong, or fastconv nothing at all."""
    return any(not r.correct and (is_own(r) or r.failure is None) for r in result.records)
