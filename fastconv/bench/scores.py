"""How well the automatic choice did, over the layers of a suite and over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.bench.results import LayerResult, Record

AUTO = "auto"

#: A choice that costs less than this more than the best is as good.
CLOSE = 0.05


@dataclass(frozen=True)
class Score:
    """How the automatic choice, or one algorithm, did over several layers.

    Attributes
    ----------
    layers : int
        How many.
    best : int
        On how many it was within `CLOSE` of the fastest algorithm measured.
    worst : float
        How much longer than the fastest it took, at worst: 0.1 for a tenth.
    worst_layer : str
        Where that was.
    over_reference, over_naive, of_peak : float
        Geometric means of its speed-ups and of its fraction of the peak.
    """

    title: str
    algorithm: str
    layers: int
    best: int
    worst: float
    worst_layer: str
    over_reference: float
    over_naive: float
    of_peak: float


def scores(
    results: Sequence[LayerResult], peak: float, algorithms: Sequence[str] = ()
) -> list[Score]:
    """Return the scores of each suite and, if there are several, of all together.

    Of the automatic choice; or of `algorithms`, where only these were measured.
    """
    suites = list(dict.fromkeys(result.layer.suite for result in results))
    groups = [(name, [r for r in results if r.layer.suite == name]) for name in suites]
    if len(suites) > 1:
        groups.append(("all", list(results)))
    found = [
        _score(title, name, group, peak)
        for title, group in groups
        for name in algorithms or (AUTO,)
    ]
    return [score for score in found if score is not None]


def _score(title: str, name: str, results: Sequence[LayerResult], peak: float) -> Score | None:
    pairs = [
        (own, min(timed, key=_seconds))
        for timed in ([r for r in result.records if r.median_s] for result in results)
        for own in timed
        if (own.chosen_by_auto if name == AUTO else own.algorithm == name)
    ]
    if not pairs:
        return None
    misses = [_seconds(own) / _seconds(best) - 1 for own, best in pairs]
    worst = int(np.argmax(misses))
    chosen = [own for own, _ in pairs]
    return Score(
        title,
        name,
        layers=len(pairs),
        best=sum(miss <= CLOSE for miss in misses),
        worst=misses[worst],
        worst_layer=f"{chosen[worst].layer} {chosen[worst].direction}",
        over_reference=geometric_mean([r.speedup_over_reference for r in chosen]),
        over_naive=geometric_mean([r.speedup_over_naive for r in chosen]),
        of_peak=geometric_mean([(r.gflops or 0) / peak for r in chosen]),
    )


def _seconds(record: Record) -> float:
    return record.median_s or float("inf")


def geometric_mean(values: Sequence[float | None]) -> float:
    """Return the geometric mean of the positive values, NaN if there are none."""
    known = [value for value in values if value]
    return float(np.exp(np.mean(np.log(known)))) if known else float("nan")
