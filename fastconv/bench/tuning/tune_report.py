"""What ``fastconv tune`` prints: a row for each problem, and how good the estimates were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from fastconv.bench.bench_report import fault
from fastconv.bench.number_text import duration, times
from fastconv.bench.terminal import WIDTH, Terminal
from fastconv.bench.tuning.findings import Finding
from fastconv.core.precision import get_precision
from fastconv.runtime import cpu, threads
from fastconv.select.choice import WORTH_A_CHANGE

# Column titles and widths; the last fills the line.
_LAYER, _SHAPES, _ALGORITHM, _TIME = 21, 26, 15, 8
_GAIN = WIDTH - _LAYER - _SHAPES - 2 * (_ALGORITHM + _TIME)
#: How far from the fastest a choice may be to be counted as near it.
CLOSE = (0.03, 0.10)


class TuneReport(Terminal):
    """Prints findings as they come, and what they add up to."""

    def header(self, dtype: str) -> None:
        """Print where and how is measured, and what the columns are."""
        here = cpu.describe()
        self.line(
            f"{here.name}, {here.instructions.name}, {threads.get_num_threads()} threads, {dtype}, "
            f"precision {get_precision()!r}",
            "bold",
        )
        self.line()
        chosen = _ALGORITHM + _TIME
        titles = " " * (_LAYER + _SHAPES) + "by estimate".ljust(chosen) + "fastest".ljust(chosen)
        self.line(titles + "gain".rjust(_GAIN), "dim")

    def finding(self, finding: Finding) -> None:
        """Print one row, and below it what was wrong."""
        self.line(_row(finding), "bold green" if finding.chosen != finding.estimated else "")
        for record in finding.wrong:
            self.line(f"  WRONG: {record.algorithm}: {fault(record)}", "bold red")

    def summary(self, findings: Sequence[Finding], path: Path, disturbed: bool) -> None:
        """Print how good the estimates were, and where the measurements are."""
        gains = [(finding.gain, finding) for finding in findings if finding.gain is not None]
        self.line()
        if gains:
            within = (f"{sum(g <= 1 + c for g, _ in gains)} within {c:.0%}" for c in CLOSE)
            worst, where = max(gains, key=lambda pair: pair[0])
            self.line(
                f"by estimate, of {len(gains)} choices: {', '.join(within)} of the fastest; "
                f"at worst {times(worst)} ({where.layer.id} {where.direction})"
            )
        changed = sum(finding.chosen != finding.estimated for finding in findings)
        self.line(
            f"auto runs another algorithm than by estimate on {changed} of {len(findings)}, where "
            f"that gains more than {WORTH_A_CHANGE:.0%}"
        )
        self.line(f"measurements are in {path}", "dim")
        if disturbed:
            self.line(
                "the processor was busy with other work at times: tune again when it is not",
                "yellow",
            )


def _row(finding: Finding) -> Text:
    p, gain = finding.problem, finding.gain
    layer = finding.layer.id
    if finding.direction != "forward":
        layer = f"{layer} {finding.direction}"
    shapes = f"{p.N}x{p.C}x{p.H}x{p.W} → {p.K}, {p.R}x{p.S}"
    row = _cell(layer, _LAYER) + _cell(shapes, _SHAPES)
    for name in (finding.estimated, finding.fastest):
        seconds = finding.seconds.get(name) if name else None
        row += (name or "-").ljust(_ALGORITHM) + duration(seconds).ljust(_TIME)
    return Text(row + times(gain).rjust(_GAIN))


def _cell(text: str, width: int) -> str:
    return (text if len(text) < width else f"{text[: width - 2]}…").ljust(width)
