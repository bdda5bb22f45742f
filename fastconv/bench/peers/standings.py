"""How far ahead of its peers fastconv is, over the layers of a suite and over all.

A *ratio* is a peer's time over that of fastconv on the same layer: above 1, fastconv is faster.
The best peer of a layer is whichever was fastest there, so that no single library is as good as
"the best peer" over a whole suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.bench.results import LayerResult, Record


def is_own(record: Record) -> bool:
    """Return whether fastconv computed this, not a peer."""
    return record.contender.partition(":")[0] == "fastconv"


def best_peer(result: LayerResult) -> Record | None:
    """Return the fastest peer of a layer, None if none was right."""
    timed = [each for each in result.records if each.median_s and not is_own(each)]
    return min(timed, key=lambda record: record.median_s or 0, default=None)


@dataclass(frozen=True)
class Mean:
    """Geometric means of ratios: weighted by how often the network has a layer, and not."""

    weighted: float
    plain: float

    @classmethod
    def of(cls, ratios: Sequence[tuple[float, int]]) -> Mean:
        """Return the means of (ratio, count)."""
        if not ratios:
            return cls(float("nan"), float("nan"))
        logarithms = np.log([ratio for ratio, _ in ratios])
        weighted = np.average(logarithms, weights=[count for _, count in ratios])
        return cls(float(np.exp(weighted)), float(np.exp(logarithms.mean())))


@dataclass(frozen=True)
class Standing:
    """How fastconv did against its peers over several layers.

    Attributes
    ----------
    title, contender
        The suite, or "all"; and "fastconv" or one of its algorithms.
    layers, ahead : int
        How many; on how many it was faster than every peer.
    best : Mean
        Of the ratios to the best peer of each layer.
    single : dict of str to Mean
        Of the ratios to each peer, over the layers that this one got right.
    worst : float
        The lowest ratio to a best peer.
    worst_layer, worst_peer : str
        Where that was, and to whom.
    """

    title: str
    contender: str
    layers: int
    ahead: int
    best: Mean
    single: dict[str, Mean]
    worst: float
    worst_layer: str
    worst_peer: str


def standings(results: Sequence[LayerResult]) -> list[Standing]:
    """Return the standings of each suite and, if there are several, of all together."""
    suites = list(dict.fromkeys(result.layer.suite for result in results))
    groups = [(name, [r for r in results if r.layer.suite == name]) for name in suites]
    if len(suites) > 1:
        groups.append(("all", list(results)))
    own = _contenders(results, own=True)
    found = [_standing(title, name, group) for title, group in groups for name in own]
    return [standing for standing in found if standing is not None]


def _contenders(results: Iterable[LayerResult], own: bool) -> list[str]:
    records = (record for result in results for record in result.records)
    return list(dict.fromkeys(r.contender for r in records if is_own(r) == own))


def _standing(title: str, contender: str, results: Sequence[LayerResult]) -> Standing | None:
    pairs = [
        (result, own)
        for result in results
        for own in result.records
        if own.contender == contender and own.median_s
    ]
    against_best = []
    for result, own in pairs:
        best = best_peer(result)
        if best is not None:
            against_best.append((_ratio(best, own), own, best))
    if not against_best:
        return None
    single: dict[str, list[tuple[float, int]]] = {n: [] for n in _contenders(results, own=False)}
    for result, own in pairs:
        for peer in result.records:
            if not is_own(peer) and peer.median_s:
                single[peer.contender].append((_ratio(peer, own), own.count))
    worst, where, whose = min(against_best, key=lambda entry: entry[0])
    return Standing(
        title,
        contender,
        layers=len(against_best),
        ahead=sum(ratio > 1 for ratio, _, _ in against_best),
        best=Mean.of([(ratio, own.count) for ratio, own, _ in against_best]),
        single={name: Mean.of(ratios) for name, ratios in single.items()},
        worst=worst,
        worst_layer=where.layer,
        worst_peer=whose.contender,
    )


def _ratio(peer: Record, own: Record) -> float:
    return (peer.median_s or float("nan")) / (own.median_s or float("nan"))
