"""How far ahead of its peers fastconv is, over the layers of a suite and over all.

A *ratio* is a peer's time over that of fastconv on the same layer: above 1, fastconv is faster.
The best peer of a layer is whichever was fastest there, so that no single library is as good as
"the best peer" over a whole suite. A peer whose error is large is nobody's best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastconv.bench.results import LayerResult, Record, by_suite, is_own
from fastconv.bench.scores import geometric_mean

BEST = "best peer"
#: Of the largest output: several times what float32 sums and the usual Winograd tiles leave.
ROUGH = 2e-5


def is_rough(record: Record) -> bool:
    """Return whether an error is so large that the time is no comparison."""
    return (record.max_rel_error or 0.0) > ROUGH


def best_peer(result: LayerResult) -> Record | None:
    """Return the fastest peer of a layer whose error is small, None if there is none."""
    timed = [r for r in result.records if r.median_s and not is_own(r) and not is_rough(r)]
    return min(timed, key=lambda record: record.median_s or 0, default=None)


class Ratio(NamedTuple):
    """A peer on one layer, and its time over that of fastconv."""

    value: float
    peer: Record


class Standing(NamedTuple):
    """How fastconv did against one peer, or the best of each layer, over several layers."""

    title: str  # the suite, or "all"
    contender: str  # "fastconv" or one of its algorithms
    peer: str  # a peer's name, or `BEST`
    ratios: tuple[Ratio, ...]  # on each layer that both got right

    @property
    def ahead(self) -> int:
        """On how many layers fastconv was faster."""
        return sum(ratio.value > 1 for ratio in self.ratios)

    @property
    def mean(self) -> float:
        """The geometric mean of the ratios."""
        return geometric_mean([ratio.value for ratio in self.ratios])

    @property
    def weighted(self) -> float:
        """The same, a layer as often as its network has it."""
        counts = [ratio.peer.count for ratio in self.ratios]
        return geometric_mean([ratio.value for ratio in self.ratios], counts)

    @property
    def worst(self) -> Ratio:
        """The lowest ratio."""
        return min(self.ratios, key=lambda ratio: ratio.value)

    @property
    def error(self) -> float:
        """The largest error of the peer."""
        return max(ratio.peer.max_rel_error or 0.0 for ratio in self.ratios)


def standings(results: Sequence[LayerResult]) -> list[Standing]:
    """Return the standings of each suite and, if there are several, of all together."""
    records = [record for result in results for record in result.records]
    own = dict.fromkeys(record.contender for record in records if is_own(record))
    peers = dict.fromkeys(record.contender for record in records if not is_own(record))
    found = [
        Standing(title, contender, peer, tuple(_ratios(group, contender, peer)))
        for title, group in by_suite(results)
        for contender in own
        for peer in (BEST, *peers)
    ]
    return [standing for standing in found if standing.ratios]


def _ratios(results: Sequence[LayerResult], contender: str, peer: str) -> list[Ratio]:
    found = []
    for result in results:
        timed = {record.contender: record for record in result.records if record.median_s}
        own = timed.get(contender)
        other = best_peer(result) if peer == BEST else timed.get(peer)
        if own and own.median_s and other and other.median_s:
            found.append(Ratio(other.median_s / own.median_s, other))
    return found
