"""What a benchmark prints: one block of aligned rows a layer, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from fastconv.bench.machine import Peak
from fastconv.bench.number_text import bar, duration, percent, size, three_digits, times
from fastconv.bench.results import LayerResult, Record, is_own
from fastconv.bench.scores import CLOSE, Score, misses, scores
from fastconv.bench.suites import shapes
from fastconv.bench.terminal import WIDTH, Terminal, cells

#: So many of the automatic choice's misses are listed.
_MOST_MISSES = 8
_BAR_WIDTH = 6


class Column(NamedTuple):
    """A column of numbers, aligned to the right."""

    title: str
    width: int
    text: Callable[[Record], str]


def _time(record: Record) -> str:
    estimated = record.reference_is_estimate and record.algorithm == "reference"
    return ("~" if estimated else "") + duration(record.median_s)


def _spread(record: Record) -> str:
    return percent((record.spread_s or 0) / record.median_s if record.median_s else None)


def _of_peak(record: Record) -> str:
    filled = bar(record.fraction_of_peak, _BAR_WIDTH).ljust(_BAR_WIDTH)
    return filled + percent(record.fraction_of_peak).rjust(5)


def error(record: Record) -> str:
    """Return the largest error, over the largest true value."""
    return f"{record.max_rel_error:.1e}" if record.max_rel_error else "0"


def _compiled(record: Record) -> str:
    seconds = record.compile_s or 0
    return f"{seconds:.2f} s" if seconds >= 0.005 else ""


SPREAD = Column("±", 6, _spread)
RATE = Column("GFLOP/s", 9, lambda record: three_digits(record.gflops))
OF_PEAK = Column("of peak", 13, _of_peak)


class Report(Terminal):
    """Prints a benchmark as it goes along."""

    legend = """\
*          what auto runs                       of peak    the FMA peak that was measured
~          estimated from a part of the output  vs ref.    times as fast as loops in Python
±          spread of the time                   vs naive   times as fast as the same loops, compiled
scratch    memory of one thread                 max error  over the largest true value
                                                compile    how much longer the first call took"""
    columns: tuple[Column, ...] = (
        Column("time", 9, _time),
        SPREAD,
        RATE,
        OF_PEAK,
        Column("vs ref.", 9, lambda record: times(record.speedup_over_reference)),
        Column("vs naive", 10, lambda record: times(record.speedup_over_naive)),
        Column("max error", 10, error),
        Column("scratch", 9, lambda record: size(record.workspace_bytes or 0)),
        Column("compile", 8, _compiled),
    )

    def __init__(self, algorithms: Sequence[str] = ()) -> None:
        super().__init__()
        self._algorithms = algorithms
        self._suite: str | None = None
        #: What the header says beside the facts of this machine.
        self.facts: dict[str, Any] = {}

    @property
    def _name_width(self) -> int:
        return WIDTH - sum(column.width for column in self.columns)

    def header(self, header: dict[str, Any]) -> None:
        """Print where and with what is measured."""
        cpu, versions = header["cpu"], header["versions"]
        self.line(f"fastconv {versions['fastconv']}", "bold")
        self.line(
            f"{cpu['name']}, {cpu['instructions']['name']}, {cpu['cores']} cores, "
            f"{header['threads']} threads by {header['threading_layer']}, {header['dtype']}, "
            f"FMA peak {header['peak_gflops']:.0f} GFLOP/s"
        )
        packages = ", ".join(f"{n} {v}" for n, v in versions.items() if n != "fastconv" and v)
        self.line(packages, "dim")
        self.line(f"BLAS {', '.join(header['blas']) or 'none'}", "dim")
        self.line()
        self.line(self.legend, "dim")

    def layer(self, result: LayerResult) -> None:
        """Print the rows of one layer in one direction."""
        if result.layer.suite != self._suite:
            self._suite = result.layer.suite
            self.rule(self._suite)
            titles = cells(*zip(*((c.title, c.width) for c in self.columns), strict=True))
            self.line(" " * self._name_width + titles, "dim")
        self.line()
        self.line(_layer_title(result))
        counting = [record for record in result.records if self.counts(record)]
        fastest = min(counting, key=lambda record: record.median_s or 0, default=None)
        for record in result.records:
            self.line(self._row(record, record is fastest))
        if result.refused:
            self.line(f"  not for this layer: {', '.join(result.refused)}", "dim")

    def counts(self, record: Record) -> bool:
        """Return whether a record may be the fastest."""
        return record.median_s is not None

    def name(self, record: Record) -> str:
        """Return what a row is called."""
        return f"{'*' if record.chosen_by_auto else ' '} {record.algorithm}"

    def _row(self, record: Record, best: bool) -> Text:
        name = f" {self.name(record)}".ljust(self._name_width)
        if not record.correct:
            return Text(f"{name}  {_verdict(record)}: {fault(record)}", _alarm(record))
        values = [column.text(record) for column in self.columns]
        row = name + cells(values, (column.width for column in self.columns))
        return Text(row, "bold green" if best else "")

    # The end -----------------------------------------------------------------------------

    def summary(self, results: Sequence[LayerResult], peak: Peak) -> None:
        """Print how the automatic choice did, whether all was right, and what compiling cost."""
        records = [record for result in results for record in result.records]
        if not records:
            return
        self.rule("summary")
        found = scores(results, peak.best, self._algorithms)
        if found:
            self._scores(found)
        self._misses(results)
        self.line()
        compiling = sum(record.compile_s or 0 for record in records)
        self.yardstick(peak)
        self.line(f"compiling: {compiling:.1f} s, not part of any time above")
        self.agreement(records)

    def yardstick(self, peak: Peak) -> None:
        """Print what the processor can do, and whether it was disturbed."""
        self.line(
            f"FMA peak: {peak.best:.0f} GFLOP/s, the best of {len(peak.samples)} measurements "
            f"during the run (lowest {min(peak.samples):.0f})"
        )
        if peak.disturbed:
            self.line(
                "the processor was busy with other work at times: distrust times and percentages",
                "yellow",
            )

    def agreement(self, records: Sequence[Record]) -> None:
        """Print what was wrong, each fault once, and how well the rest agrees."""
        faults: dict[tuple[str, str], list[Record]] = {}
        right = [record for record in records if record.correct]
        for record in records:
            if not record.correct:
                faults.setdefault((record.algorithm, fault(record)), []).append(record)
        for (name, reason), (first, *others) in faults.items():
            more = f" (and {len(others)} more)" if others else ""
            where = f"{first.layer} {first.direction}{more}"
            self.line(f"{_verdict(first)}: {name} on {where}: {reason}", _alarm(first))
        if right:
            largest = max(record.max_rel_error or 0 for record in right)
            count = f"{len(right)} of {len(records)}" if faults else f"all {len(records)}"
            self.line(
                f"{count} results agree with the reference loops in float64, the "
                f"largest error is {largest:.1e}",
                "" if faults else "green",
            )

    def _scores(self, found: Sequence[Score]) -> None:
        titles = ("layers", "vs ref.", "vs naive", "of peak", "close to best", "worst miss")
        widths = (8, 12, 12, 12, 16, 14)
        self.line(" " * 26 + cells(titles, widths), "dim")
        for score in found:
            values = (
                str(score.layers),
                times(score.over_reference),
                times(score.over_naive),
                percent(score.of_peak),
                f"{score.best} of {score.layers}",
                _miss(score.worst),
            )
            name = f"{score.title:13} {score.algorithm}".ljust(26)
            self.line(name + cells(values, widths), "bold" if score.title == "all" else "")
        self.line(
            f"geometric means over the layers; close: within {CLOSE:.0%} of the fastest measured",
            "dim",
        )

    def _misses(self, results: Sequence[LayerResult]) -> None:
        found = sorted((m for m in misses(results) if m.share > CLOSE), key=lambda m: -m.share)
        if not found:
            return
        self.line()
        self.line("where auto missed the fastest:")
        for share, record, best in found[:_MOST_MISSES]:
            where = f"{record.layer} {record.direction}"
            self.line(
                f"  {where:28} {record.algorithm} took {percent(share)} longer than "
                f"{best.algorithm}"
            )
        if len(found) > _MOST_MISSES:
            self.line(f"  and {len(found) - _MOST_MISSES} more")


def _layer_title(result: LayerResult) -> Text:
    return Text.assemble(
        (result.layer.id, "bold cyan"),
        (f"  {result.direction}", "bold"),
        (f"   {shapes(result.problem)}, {result.problem.flops / 1e9:.3g} GFLOP", "dim"),
    )


def _miss(share: float) -> str:
    """Return how much longer something took than the fastest: a percentage, or how many times."""
    if share <= CLOSE:
        return "-"
    return f"+{percent(share)}" if share < 1 else times(1 + share)


def fault(record: Record) -> str:
    """Return what is wrong with a result."""
    if record.failure:
        return record.failure
    return f"error {record.max_rel_error:.1e}, allowed {record.tolerance:.1e}"


def _verdict(record: Record) -> str:
    return "failed" if record.failure and not is_own(record) else "WRONG"


def _alarm(record: Record) -> str:
    return "yellow" if record.failure and not is_own(record) else "bold red"
