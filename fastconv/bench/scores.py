"""How well the automatic choice did, over the layers of a suite and over all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastconv.bench.results import LayerResult, Record, by_suite

AUTO = "auto"

#: A choice that costs less than this more than the best is as good.
CLOSE = 0.05


class Miss(NamedTuple):
    """How much longer than the fastest algorithm of a layer another took: 0.1 for a tenth."""

    share: float
    record: Record
    best: Record


class Score(NamedTuple):
    """How the automatic choice, or one algorithm, did over several layers."""

    title: str
    algorithm: str
    layers: int
    best: int  # on how many it was within `CLOSE` of the fastest algorithm measured
    worst: float  # how much longer than the fastest it took at worst: 0.1 for a tenth
    worst_layer: str
    # Geometric means of its speed-ups and of its fraction of the peak.
    over_reference: float
    over_naive: float
    of_peak: float


def scores(
    results: Sequence[LayerResult], peak: float, algorithms: Sequence[str] = ()
) -> list[Score]:
    """Return the scores of each suite and, if there are several, of all together.

    Of the automatic choice; or of `algorithms`, where only these were measured.
    """
    found = [
        _score(title, name, list(misses(group, name)), peak)
        for title, group in by_suite(results)
        for name in algorithms or (AUTO,)
    ]
    return [score for score in found if score is not None]


def misses(results: Sequence[LayerResult], name: str = AUTO) -> Iterator[Miss]:
    """Yield how far from the fastest an algorithm was on each layer that it ran on."""
    for result in results:
        timed = [(r.median_s, r) for r in result.records if r.median_s]
        for seconds, own in timed:
            if own.chosen_by_auto if name == AUTO else own.algorithm == name:
                least, best = min(timed, key=lambda pair: pair[0])
                yield Miss(seconds / least - 1, own, best)


def _score(title: str, name: str, found: Sequence[Miss], peak: float) -> Score | None:
    if not found:
        return None
    chosen = [miss.record for miss in found]
    worst = max(found, key=lambda miss: miss.share)
    return Score(
        title,
        name,
        layers=len(found),
        best=sum(miss.share <= CLOSE for miss in found),
        worst=worst.share,
        worst_layer=f"{worst.record.layer} {worst.record.direction}",
        over_reference=geometric_mean([r.speedup_over_reference for r in chosen]),
        over_naive=geometric_mean([r.speedup_over_naive for r in chosen]),
        of_peak=geometric_mean([(r.gflops or 0) / peak for r in chosen]),
    )


def geometric_mean(values: Sequence[float | None], weights: Sequence[float] | None = None) -> float:
    """Return the (weighted) geometric mean of the positive values, NaN if there are none."""
    known = np.array([value or np.nan for value in values], float)
    there = ~np.isnan(known)
    if not there.any():
        return float("nan")
    shares = None if weights is None else np.asarray(weights)[there]
    return float(np.exp(np.average(np.log(known[there]), weights=shares)))
