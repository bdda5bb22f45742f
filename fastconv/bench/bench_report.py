"""What the terminal shows: one block of aligned rows a layer, and a summary at the end.

Rows are plain text of fixed columns, at most 100 wide, so that a file reads as well as a
screen; colour only underlines what the words say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fastconv.bench.machine import Peak
from fastconv.bench.number_text import bar, duration, percent, size, three_digits, times
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.scores import CLOSE, Score

WIDTH = 100
#: So many of the automatic choice's misses are listed.
_MOST_MISSES = 8

# Column titles and widths; all but the first are aligned to the right.
_COLUMNS = (
    ("time", 9),
    ("±", 6),
    ("GFLOP/s", 9),
    ("of peak", 13),
    ("vs ref.", 9),
    ("vs naive", 10),
    ("max error", 10),
    ("scratch", 9),
    ("compile", 8),
)
_NAME_WIDTH = WIDTH - sum(width for _, width in _COLUMNS)
_BAR_WIDTH = 6

LEGEND = """\
*          what auto runs                       of peak    the FMA peak that was measured
~          estimated from a part of the output  vs ref.    times as fast as the reference loops
±          spread of the time                   max error  over the largest true value
scratch    memory of one thread                 compile    how much longer the first call took"""


class Report:
    """Prints a benchmark as it goes along."""

    legend = LEGEND

    def __init__(self, console: Console) -> None:
        self._console = console
        self._suite: str | None = None

    def _line(self, text: Text | str = "", style: str = "") -> None:
        if isinstance(text, Text):
            text.rstrip()
        self._console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    def _rule(self, title: str) -> None:
        self._line()
        line = "─" * (WIDTH - len(title) - 4)
        self._line(Text.assemble(("── ", "cyan"), (title, "bold cyan"), (f" {line}", "cyan")))

    def header(self, header: dict[str, Any]) -> None:
        """Print where and with what is measured."""
        cpu, versions = header["cpu"], header["versions"]
        self._line(f"fastconv {versions['fastconv']}", "bold")
        self._line(
            f"{cpu['name']}, {cpu['instructions']['name']}, {cpu['cores']} cores, "
            f"{header['threads']} threads by {header['threading_layer']}, {header['dtype']}, "
            f"FMA peak {header['peak_gflops']:.0f} GFLOP/s"
        )
        packages = ", ".join(f"{n} {v}" for n, v in versions.items() if n != "fastconv" and v)
        self._line(packages, "dim")
        self._line(f"BLAS {', '.join(header['blas']) or 'none'}", "dim")
        self._line()
        self._line(self.legend, "dim")

    def layer(self, result: LayerResult) -> None:
        """Print the rows of one layer in one direction."""
        if result.layer.suite != self._suite:
            self._suite = result.layer.suite
            self._rule(self._suite)
            cells = "".join(title.rjust(width) for title, width in _COLUMNS)
            self._line(" " * _NAME_WIDTH + cells, "dim")
        self._line()
        self._line(_layer_title(result))
        timed = [record.median_s for record in result.records if record.median_s]
        for record in result.records:
            self._line(_row(record, best=record.median_s == min(timed, default=None)))
        if result.refused:
            self._line(f"  not for this layer: {', '.join(result.refused)}", "dim")

    # The end -----------------------------------------------------------------------------

    def summary(self, scores: Sequence[Score], results: Sequence[LayerResult], peak: Peak) -> None:
        """Print how the automatic choice did, whether all was right, and what compiling cost."""
        records = [record for result in results for record in result.records]
        if not records:
            return
        self._rule("summary")
        if scores:
            self._scores(scores)
        self._misses(results)
        self._line()
        compiling = sum(record.compile_s or 0 for record in records)
        self._yardstick(peak)
        self._line(f"compiling: {compiling:.1f} s, not part of any time above")
        wrong = [record for record in records if not record.correct]
        for record in wrong:
            self._line(
                f"WRONG: {record.algorithm} on {record.layer} {record.direction}: {fault(record)}",
                "bold red",
            )
        if not wrong:
            largest = max(record.max_rel_error or 0 for record in records)
            self._line(
                f"all {len(records)} results agree with the reference loops in float64, the "
                f"largest error is {largest:.1e}",
                "green",
            )

    def wrote(self, path: Path) -> None:
        """Say that a file was written."""
        self._line(f"wrote {path}", "dim")

    def _yardstick(self, peak: Peak) -> None:
        self._line(
            f"FMA peak: {peak.best:.0f} GFLOP/s, the best of {len(peak.samples)} measurements "
            f"during the run (lowest {min(peak.samples):.0f})"
        )
        if peak.disturbed:
            self._line(
                "the processor was busy with other work at times: distrust times and percentages",
                "yellow",
            )

    def _scores(self, scores: Sequence[Score]) -> None:
        titles = ("layers", "vs ref.", "vs naive", "of peak", "close to best", "worst miss")
        widths = (8, 12, 12, 12, 16, 14)
        cells = "".join(title.rjust(width) for title, width in zip(titles, widths, strict=True))
        self._line(" " * 26 + cells, "dim")
        for score in scores:
            values = (
                str(score.layers),
                times(score.over_reference),
                times(score.over_naive),
                percent(score.of_peak),
                f"{score.best} of {score.layers}",
                f"+{percent(score.worst)}" if score.worst > CLOSE else "-",
            )
            cells = "".join(value.rjust(width) for value, width in zip(values, widths, strict=True))
            name = f"{score.title:13} {score.algorithm}".ljust(26)
            self._line(name + cells, "bold" if score.title == "all" else "")
        self._line(
            f"geometric means over the layers; close: within {CLOSE:.0%} of the fastest measured",
            "dim",
        )

    def _misses(self, results: Sequence[LayerResult]) -> None:
        misses = []
        for result in results:
            timed = sorted((r for r in result.records if r.median_s), key=lambda r: r.median_s or 0)
            for record in timed:
                miss = (record.median_s or 0) / (timed[0].median_s or 1) - 1
                if record.chosen_by_auto and miss > CLOSE:
                    misses.append((miss, record, timed[0]))
        if not misses:
            return
        misses.sort(key=lambda entry: -entry[0])
        self._line()
        self._line("where auto missed the fastest:")
        for miss, record, best in misses[:_MOST_MISSES]:
            where = f"{record.layer} {record.direction}"
            self._line(
                f"  {where:28} {record.algorithm} took {percent(miss)} longer than {best.algorithm}"
            )
        if len(misses) > _MOST_MISSES:
            self._line(f"  and {len(misses) - _MOST_MISSES} more")


def _layer_title(result: LayerResult) -> Text:
    p, layer = result.problem, result.layer
    shapes = (f"{p.N}x{p.C}x{p.H}x{p.W} → {p.K}x{p.OH}x{p.OW}", f"{p.R}x{p.S}")
    details = [f"stride {layer.stride}"] if layer.stride > 1 else []
    if layer.groups > 1:
        details.append("depthwise" if layer.groups == layer.C else f"{layer.groups} groups")
    details.append(f"{p.flops / 1e9:.3g} GFLOP")
    return Text.assemble(
        (layer.id, "bold cyan"),
        (f"  {result.direction}", "bold"),
        (f"   {', '.join((*shapes, *details))}", "dim"),
    )


def _row(record: Record, best: bool) -> Text:
    mark = "*" if record.chosen_by_auto else " "
    name = f" {mark} {record.algorithm}"
    if not record.correct:
        return Text(f"{name.ljust(_NAME_WIDTH)}  WRONG: {fault(record)}", "bold red")
    estimated = record.reference_is_estimate and record.algorithm == "reference"
    spread = (record.spread_s or 0) / record.median_s if record.median_s else None
    filled = bar(record.fraction_of_peak, _BAR_WIDTH).ljust(_BAR_WIDTH)
    compiled = record.compile_s if record.compile_s and record.compile_s >= 0.005 else None
    values = (
        ("~" if estimated else "") + duration(record.median_s),
        percent(spread),
        three_digits(record.gflops),
        filled + percent(record.fraction_of_peak).rjust(5),
        times(record.speedup_over_reference),
        times(record.speedup_over_naive),
        f"{record.max_rel_error:.1e}" if record.max_rel_error else "0",
        size(record.workspace_bytes or 0),
        f"{compiled:.2f} s" if compiled else "",
    )
    cells = "".join(v.rjust(w) for v, (_, w) in zip(values, _COLUMNS, strict=True))
    return Text(name.ljust(_NAME_WIDTH) + cells, "bold green" if best else "")


def fault(record: Record) -> str:
    """Return what is wrong with a result."""
    if record.failure:
        return record.failure
    return f"error {record.max_rel_error:.1e}, allowed {record.tolerance:.1e}"
