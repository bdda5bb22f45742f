"""What the terminal shows of a contest: one line a layer, and the standings at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from fastconv.bench.bench_report import Report, fault
from fastconv.bench.machine import Peak
from fastconv.bench.number_text import percent, three_digits, times
from fastconv.bench.peers.peer_runtimes import PEERS, Fastconv, Runtime
from fastconv.bench.peers.standings import Standing, best_peer, is_own
from fastconv.bench.results import LayerResult, Record

LEGEND = """\
All times are milliseconds a call, medians over rounds in which everyone has a turn.
peak       share of the FMA peak measured       best peer  the fastest one on this layer
ratio      its time over that of fastconv: above 1, fastconv is faster"""

_LAYER_WIDTH = 14
_PEER_WIDTH = 7
#: After the layer; the peers come between these and the last two.
_FIRST = (("fastconv", 9), ("GFLOP/s", 8), ("peak", 6))
_LAST = (("best peer", 10), ("ratio", 6))
_SUMMARY_WIDTH = 22


class ContestReport(Report):
    """Prints a contest as it goes along."""

    legend = LEGEND

    def __init__(self, console: Console, runtimes: Sequence[Runtime]) -> None:
        super().__init__(console)
        self._own = [each for each in runtimes if isinstance(each, Fastconv)]
        peers = [each for each in runtimes if not isinstance(each, Fastconv)]
        self._peers = {each.name: max(_PEER_WIDTH, len(each.name) + 1) for each in peers}
        self._told: set[tuple[str, str]] = set()
        # One algorithm needs no name of its own in every line.
        longest = max(len(each.algorithm) for each in self._own)
        self._label_width = _LAYER_WIDTH + (longest + 1 if len(self._own) > 1 else 0)

    def header(self, header: dict[str, Any]) -> None:
        """Print where and with what is measured, and who takes part."""
        super().header(header)
        self._line()
        peers = [each for each in PEERS if each.name in header["peers"]]
        for runtime in (*self._own, *peers):
            version = header["peers"].get(runtime.name, header["versions"]["fastconv"])
            if version is not None:
                self._line(f"{runtime.name:10} {version:10} {runtime.title}", "dim")
        missing = [each for each in peers if header["peers"][each.name] is None]
        if missing:
            names = ", ".join(f"{each.name} (needs {each.missing})" for each in missing)
            self._line(f"not installed: {names}", "yellow")

    def layer(self, result: LayerResult) -> None:
        """Print one line, one for each algorithm of fastconv that was named."""
        if result.layer.suite != self._suite:
            self._suite = result.layer.suite
            forward = result.direction == "forward"
            self._rule(self._suite if forward else f"{self._suite}, {result.direction}")
            titles = (*_FIRST, *self._peers.items(), *_LAST)
            cells = "".join(title.rjust(width) for title, width in titles)
            self._line(" " * self._label_width + cells, "dim")
        for record in result.records:
            if is_own(record):
                self._line(self._row(result, record))
        if result.refused:
            self._line(f"  not for {result.layer.id}: {', '.join(result.refused)}", "dim")
        for record in result.records:
            # What fails on one layer mostly fails on all: once is enough.
            reason = record.failure or ""
            if not record.correct and not (reason and (record.contender, reason) in self._told):
                self._told.add((record.contender, reason))
                verdict = "failed" if reason else "WRONG"
                self._line(
                    f"  {record.contender} {verdict} on {record.layer}: {fault(record)}",
                    "yellow" if reason else "bold red",
                )

    def _row(self, result: LayerResult, own: Record) -> Text:
        records = {record.contender: record for record in result.records}
        best = best_peer(result)
        ratio = None
        if best is not None and best.median_s and own.median_s:
            ratio = best.median_s / own.median_s
        algorithm = own.contender.partition(":")[2] or own.algorithm
        label = own.layer if len(self._own) == 1 else f"{own.layer:{_LAYER_WIDTH}}{algorithm}"
        cells = [
            (_milliseconds(own), 9),
            (three_digits(own.gflops), 8),
            (percent(own.fraction_of_peak), 6),
            *((_milliseconds(records.get(n)), width) for n, width in self._peers.items()),
            (best.contender if best else "-", 10),
            (times(ratio), 6),
        ]
        text = label.ljust(self._label_width) + "".join(cell.rjust(w) for cell, w in cells)
        return Text(text, "bold green" if ratio and ratio > 1 else "")

    # The end -----------------------------------------------------------------------------

    def standings(
        self, found: Sequence[Standing], results: Sequence[LayerResult], peak: Peak
    ) -> None:
        """Print how far ahead of its peers fastconv is, and whether all was right."""
        self._rule("times of the peers over that of fastconv: above 1, fastconv is faster")
        columns = [("layers", 7), ("ahead", 6), ("best peer", 10), *self._peers.items()]
        cells = "".join(title.rjust(width) for title, width in columns)
        self._line(" " * (_SUMMARY_WIDTH + self._extra) + cells, "dim")
        for standing in found:
            self._standing(standing)
        self._line(
            "geometric means; by count: a layer counts as often as its network has it", "dim"
        )
        self._line()
        self._spreads(results)
        self._yardstick(peak)
        records = [record for result in results for record in result.records]
        right = [record for record in records if record.correct]
        for record in records:
            if not record.correct:
                self._line(
                    f"{'failed' if record.failure else 'WRONG'}: {record.contender} on "
                    f"{record.layer}: {fault(record)}",
                    "yellow" if record.failure else "bold red",
                )
        if right:
            largest = max(record.max_rel_error or 0 for record in right)
            self._line(
                f"{len(right)} of {len(records)} results agree with the reference loops in "
                f"float64, the largest error is {largest:.1e}",
                "green" if len(right) == len(records) else "",
            )

    @property
    def _extra(self) -> int:
        return self._label_width - _LAYER_WIDTH

    def _standing(self, standing: Standing) -> None:
        name = standing.title
        if len(self._own) > 1:
            algorithm = standing.contender.partition(":")[2] or "auto"
            name = f"{name:13}{algorithm}"
        for how, counts in (("by count", True), ("", False)):
            means = (standing.best, *(standing.single[name] for name in self._peers))
            values = [mean.weighted if counts else mean.plain for mean in means]
            widths = (10, *self._peers.values())
            label = f"{name if counts else '':{12 + self._extra}} {how or 'once each'}"
            cells = "".join(times(v).rjust(w) for v, w in zip(values, widths, strict=True))
            number = f"{standing.layers:7}{standing.ahead:6}" if counts else " " * 13
            self._line(label.ljust(_SUMMARY_WIDTH + self._extra) + number + cells)
        self._line(
            f"{'':{12 + self._extra}} worst: {times(standing.worst)} on {standing.worst_layer} "
            f"({standing.worst_peer})"
        )

    def _spreads(self, results: Sequence[LayerResult]) -> None:
        timed = sorted(
            ((r.spread_s or 0) / r.median_s, r.contender, r.layer)
            for result in results
            for r in result.records
            if r.median_s
        )
        if timed:
            middle, (most, who, where) = timed[len(timed) // 2][0], timed[-1]
            self._line(
                f"spread of the times: half of them below {percent(middle)}, the largest "
                f"{percent(most)} ({who} on {where})"
            )


def _milliseconds(record: Record | None) -> str:
    if record is None:
        return "-"
    if record.median_s is None:
        return "failed" if record.failure else "WRONG"
    return three_digits(record.median_s * 1e3)
