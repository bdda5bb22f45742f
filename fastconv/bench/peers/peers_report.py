"""What a comparison with peers prints: a block of rows a layer, and the standings at the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fastconv.bench.bench_report import OF_PEAK, RATE, SPREAD, Column, Report, error
from fastconv.bench.machine import Peak
from fastconv.bench.number_text import duration, percent, times
from fastconv.bench.peers.peer_base import Runtime
from fastconv.bench.peers.peer_runtimes import Fastconv
from fastconv.bench.peers.standings import BEST, ROUGH, Standing, is_rough, standings
from fastconv.bench.results import LayerResult, Record, is_own
from fastconv.bench.terminal import cells


def _bracketed(text: str, rough: bool) -> str:
    """Return the text, in brackets or with room for them."""
    return f"({text})" if rough else f"{text} "


class PeersReport(Report):
    """Prints a comparison as it goes along."""

    legend = f"""\
ratio      its time over that of fastconv       of peak    the FMA peak that was measured
±          spread of the time                   max error  over the largest true value
(...)      error above {ROUGH:.0e}: nobody's best   green      the fastest"""
    columns = (
        Column("time", 12, lambda record: _bracketed(duration(record.median_s), is_rough(record))),
        SPREAD,
        RATE,
        OF_PEAK,
        Column(
            *("ratio", 11),
            lambda record: _bracketed(times(record.time_over_fastconv), is_rough(record)),
        ),
        Column("max error", 11, error),
    )

    def __init__(self, own: Sequence[Fastconv], peers: Sequence[Runtime]) -> None:
        super().__init__()
        self._runtimes = (*own, *peers)
        self.facts = {"peers": {peer.name: peer.version for peer in peers}}

    def header(self, header: dict[str, Any]) -> None:
        """Print where and with what is measured, and who takes part."""
        super().header(header)
        self.line()
        versions = header["peers"]
        missing = [each for each in self._runtimes if versions.get(each.name, "own") is None]
        for runtime in self._runtimes:
            if runtime not in missing:
                version = versions.get(runtime.name, header["versions"]["fastconv"])
                self.line(f"{runtime.name:10} {version:14} {runtime.title}", "dim")
        if missing:
            names = ", ".join(f"{each.name} (needs {each.missing})" for each in missing)
            self.line(f"not installed: {names}", "yellow")

    def name(self, record: Record) -> str:
        """Return who computed it, and by which algorithm."""
        name = record.contender.partition(":")[0]
        return f"{name}  {record.algorithm}" if is_own(record) else name

    def counts(self, record: Record) -> bool:
        """Return whether a record may be the fastest."""
        return super().counts(record) and not is_rough(record)

    # The end -----------------------------------------------------------------------------

    def summary(self, results: Sequence[LayerResult], peak: Peak) -> None:
        """Print how far ahead of its peers fastconv is, and whether all was right."""
        self.rule("times of the peers over that of fastconv: above 1, fastconv is faster")
        titles = ("layers", "ahead", "max error", "by count", "once each", "worst")
        widths = (8, 7, 11, 11, 11, 10)
        found = standings(results)
        for (title, contender), group in groupby(found, lambda s: (s.title, s.contender)):
            label = f"{title} {contender.partition(':')[2]}".ljust(16)
            self.line(label + cells(titles, widths), "dim")
            for standing in group:
                line = f"  {standing.peer:14}" + cells(_numbers(standing), widths)
                self.line(f"{line} on {_where(standing)}")
        self.line("geometric means; by count: a layer counts as often as its network has it", "dim")
        self.line()
        self._spreads(results)
        self.yardstick(peak)
        self.agreement([record for result in results for record in result.records])

    def _spreads(self, results: Sequence[LayerResult]) -> None:
        timed = sorted(
            ((r.spread_s or 0) / r.median_s, r.contender, r.layer)
            for result in results
            for r in result.records
            if r.median_s
        )
        if timed:
            middle, (most, who, where) = timed[len(timed) // 2][0], timed[-1]
            self.line(
                f"spread of the times: half of them below {percent(middle)}, the largest "
                f"{percent(most)} ({who} on {where})"
            )


def _numbers(standing: Standing) -> tuple[str, ...]:
    rough = standing.error > ROUGH
    values = (standing.weighted, standing.mean, standing.worst.value)
    return (
        *(str(len(standing.ratios)), str(standing.ahead), f"{standing.error:.1e}"),
        *(_bracketed(times(value), rough) for value in values),
    )


def _where(standing: Standing) -> str:
    """Return the layer of the worst ratio, and whose it is."""
    peer = standing.worst.peer
    return f"{peer.layer} ({peer.contender})" if standing.peer == BEST else peer.layer
