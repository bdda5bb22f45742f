"""What a benchmark finds out: one record for each layer, direction and algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastconv.bench.suites import Layer
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.geometry import IntPair, Padding


@dataclass(frozen=True)
class Record:
    """One algorithm on one layer in one direction; what is unknown is None.

    Attributes
    ----------
    suite, layer, direction, algorithm, batch, dtype, threads
        What was measured.
    C, K, H, W, R, S, OH, OW, stride, padding, dilation, groups, count, gflop
        The layer; `count` is how often its network has it, `gflop` the work of one call.
    median_s, spread_s, rounds, repeats
        Seconds a call: the median of `rounds` blocks of `repeats` calls, and half the distance
        from their 10th to their 90th percentile. None if the result was wrong.
    gflops : float
        1e9 floating-point operations a second, those with the zeros of the padding included.
    fraction_of_peak : float
        `gflops` over the best peak measured in the same run.
    speedup_over_reference, speedup_over_naive : float
        How many times as fast.
    reference_is_estimate : bool
        The reference loops were timed on a part of the output only and scaled.
    max_rel_error, tolerance : float
        Largest difference from the truth over the largest true value, and what is allowed.
    correct : bool
        Whether the error is within the tolerance.
    failure : str
        What the algorithm raised, if it did.
    workspace_bytes : int
        Scratch memory of one thread; unknown of peers.
    compile_s : float
        How much longer the first call took than a later one.
    chosen_by_auto : bool
        Whether ``algorithm="auto"`` runs this one.
    contender : str
        Beside other libraries, who computed it: "fastconv", "fastconv:im2col" if that
        algorithm was named, or a peer, whose name is then `algorithm` too.
    time_over_fastconv : float
        Beside other libraries, `median_s` over that of fastconv; above 1, fastconv was faster.
    """

    suite: str
    layer: str
    direction: Direction
    algorithm: str
    batch: int
    dtype: str
    threads: int
    C: int
    K: int
    H: int
    W: int
    R: int
    S: int
    OH: int
    OW: int
    stride: IntPair
    padding: Padding
    dilation: IntPair
    groups: int
    count: int
    gflop: float
    workspace_bytes: int | None
    chosen_by_auto: bool
    correct: bool
    max_rel_error: float | None = None
    tolerance: float | None = None
    failure: str | None = None
    median_s: float | None = None
    spread_s: float | None = None
    rounds: int = 0
    repeats: int = 0
    gflops: float | None = None
    fraction_of_peak: float | None = None
    speedup_over_reference: float | None = None
    speedup_over_naive: float | None = None
    reference_is_estimate: bool = False
    compile_s: float | None = None
    contender: str = "fastconv"
    time_over_fastconv: float | None = None


@dataclass(frozen=True)
class LayerResult:
    """All records of one layer in one direction, and which algorithms refused it."""

    layer: Layer
    direction: Direction
    problem: Conv2dProblem
    records: tuple[Record, ...]
    refused: tuple[str, ...]


def is_own(record: Record) -> bool:
    """Return whether fastconv computed this, not a peer."""
    return record.contender.partition(":")[0] == "fastconv"


def by_suite(results: Sequence[LayerResult]) -> list[tuple[str, list[LayerResult]]]:
    """Return the results of each suite under its name and, if there are several, "all"."""
    suites = list(dict.fromkeys(result.layer.suite for result in results))
    groups = [(name, [r for r in results if r.layer.suite == name]) for name in suites]
    return [*groups, ("all", list(results))] if len(suites) > 1 else groups
