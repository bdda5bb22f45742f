"""Choosing the implementation that runs a problem, and explaining the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fastconv.convolution.algorithm import RANKED_FOR, Algorithm, Call
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.hints import did_you_mean
from fastconv.core.precision import Precision, get_precision, suffices
from fastconv.runtime.threads import get_num_threads
from fastconv.select import tuning
from fastconv.select.conv_registry import algorithms, offering
from fastconv.select.tuning import Table


@dataclass(frozen=True)
class Candidate:
    """An algorithm for a problem: why it refuses, or its estimated time."""

    algorithm: Algorithm
    refusal: str | None
    estimated_seconds: float


@dataclass(frozen=True)
class Choice:
    """The algorithm that runs, and the reason.

    Attributes
    ----------
    algorithm : Algorithm
    named : bool
        Whether the caller named it, instead of leaving the choice to "auto".
    precision : {"highest", "high"}
        The precision that was set; see `fastconv.set_precision`.
    threads : int or None
        The thread count of `measured`.
    measured : mapping
        Seconds that algorithms took, empty if the problem was not measured; see
        `fastconv.set_tuning`.
    """

    algorithm: Algorithm
    named: bool
    precision: Precision
    threads: int | None
    measured: Mapping[str, float]

    @property
    def reason(self) -> str:
        """The reason for this algorithm, in one line."""
        if self.named:
            return f"{self.algorithm.name} was named"
        precision = f"with precision {self.precision!r}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        if self.measured:
            return f"chosen by measurement on {threads}, {precision}"
        known = f", not measured on {threads}" if self.threads else ""
        return f"chosen by estimate{known}, {precision}"


class Circumstances(NamedTuple):
    """Everything that the choice of "auto" depends on besides the problem.

    Attributes
    ----------
    precision : {"highest", "high"}
    table : Table or None
        The measurements in use.
    threads : int or None
        The thread count; None without measurements, since estimates do not depend on it.
    """

    precision: Precision
    table: Table | None
    threads: int | None


def circumstances() -> Circumstances:
    """Return the current circumstances."""
    table = tuning.current()
    return Circumstances(get_precision(), table, None if table is None else get_num_threads())


#: The algorithm with the best estimate runs unless another one was measured to be faster by more
#: than this, because measured times vary by as much.
WORTH_A_CHANGE = 0.03


def candidates(
    problem: Conv2dProblem, direction: Direction, precision: Precision, once: bool = False
) -> list[Candidate]:
    """Return all algorithms by increasing estimate, those that `auto` may not run at the end."""
    answers = []
    for algorithm in offering(direction):
        refusal = algorithm[direction].refusal(problem)
        if refusal is None and not suffices(algorithm.precision, precision):
            refusal = f"less exact than a plain sum: not with precision {precision!r}"
        seconds = float("inf")
        if refusal is None:
            seconds = _seconds(algorithm, problem, direction, once)
        answers.append(Candidate(algorithm, refusal, seconds))
    return sorted(answers, key=lambda answer: answer.estimated_seconds)


def permitted(
    problem: Conv2dProblem, direction: Direction, precision: Precision, once: bool = False
) -> list[Candidate]:
    """Return the candidates that `auto` may run, by increasing estimate."""
    return [c for c in candidates(problem, direction, precision, once) if c.refusal is None]


def cheapest(
    problem: Conv2dProblem, direction: Direction, precision: Precision, once: bool
) -> Algorithm:
    """Return the first of `permitted`, skipping algorithms whose lower bound is larger."""
    offered = [a for a in offering(direction) if suffices(a.precision, precision)]
    bounds = [a[direction].least_seconds(problem, RANKED_FOR) for a in offered]
    best = float("inf"), 0
    for at in sorted(range(len(offered)), key=bounds.__getitem__):
        if bounds[at] > best[0]:
            break
        if offered[at][direction].refusal(problem) is None:
            best = min(best, (_seconds(offered[at], problem, direction, once), at))
    return offered[best[1]]


def _seconds(
    algorithm: Algorithm, problem: Conv2dProblem, direction: Direction, once: bool
) -> float:
    """Return the estimate by which algorithms are ranked."""
    preparing = algorithm.forward.preparing_seconds(problem, RANKED_FOR) if once else 0.0
    return algorithm[direction].estimated_seconds(problem, RANKED_FOR) + preparing


def fastest(ranked: Sequence[Candidate], measured: Mapping[str, float]) -> Candidate | None:
    """Return the first candidate that is about as fast as the fastest measured, if any."""
    timed = [(measured[c.algorithm.name], c) for c in ranked if c.algorithm.name in measured]
    limit = (1 + WORTH_A_CHANGE) * min((seconds for seconds, _ in timed), default=0.0)
    return next((candidate for seconds, candidate in timed if seconds <= limit), None)


def choose(
    problem: Conv2dProblem,
    direction: Direction,
    algorithm: str = "auto",
    once: bool = False,
    now: Circumstances | None = None,
) -> Algorithm:
    """Return the algorithm to run; see `decide`."""
    return decide(problem, direction, algorithm, once, now).algorithm


@lru_cache(maxsize=256)
def call_of(problem: Conv2dProblem, algorithm: Algorithm, activation: Activation) -> Call:
    """Return the convolution that takes weights in each call."""
    return algorithm.forward.call(problem, activation)


def decide(
    problem: Conv2dProblem,
    direction: Direction,
    algorithm: str = "auto",
    once: bool = False,
    now: Circumstances | None = None,
) -> Choice:
    """Choose the algorithm to run: the named one, or with "auto" the one expected to be fastest.

    That is the fastest measured, if the problem was measured, else the one with the best estimate.
    A named algorithm runs at any precision. If the weights are used `once`, the time to prepare
    them counts. The circumstances are those of `now`, unless it is None.

    Raises
    ------
    ValueError
        If there is no algorithm of that name, or it refuses the problem.
    """
    if not isinstance(algorithm, str):
        raise TypeError(
            f"algorithm must be a name ({_names(direction)}), got {algorithm!r} of type "
            f"{type(algorithm).__name__}"
        )
    return _decide(problem, direction, algorithm, now or circumstances(), once)


def _names(direction: Direction) -> str:
    return ", ".join(repr(name) for name in ("auto", *algorithms(direction)))


@lru_cache(maxsize=4096)
def _decide(
    problem: Conv2dProblem, direction: Direction, algorithm: str, now: Circumstances, once: bool
) -> Choice:
    measured: Mapping[str, float] = {}
    if now.table is not None and now.threads is not None:
        measured = now.table.seconds(problem, direction, now.threads)
    if algorithm == "auto":
        if not measured:
            chosen = cheapest(problem, direction, now.precision, once)
            return Choice(chosen, False, now.precision, now.threads, {})
        allowed = permitted(problem, direction, now.precision, once)
        if once:
            preparing = {
                c.algorithm.name: c.algorithm.forward.preparing_seconds(problem, RANKED_FOR)
                for c in allowed
            }
            measured = {n: t + preparing.get(n, 0.0) for n, t in measured.items()}
        best = fastest(allowed, measured)
        chosen = (best or allowed[0]).algorithm
        return Choice(chosen, False, now.precision, now.threads, measured if best else {})
    for named in offering(direction):
        if named.name == algorithm:
            refusal = named[direction].refusal(problem)
            if refusal is None:
                return Choice(named, True, now.precision, now.threads, measured)
            raise ValueError(f"algorithm {algorithm!r} refuses this problem: {refusal}")
    raise ValueError(
        f"algorithm must be one of {_names(direction)} for {direction}, got {algorithm!r}"
        + did_you_mean("algorithm", algorithm, ("auto", *algorithms(direction)))
    )


def explain(problem: Conv2dProblem, direction: Direction, choice: Choice) -> str:
    """Return a table of every algorithm with its estimate or its reason for refusing."""
    p = problem
    lines = [
        f"{direction} of {p.input_shape} with weights {p.weight_shape}, stride {p.stride}, "
        f"padding {p.padding}, dilation {p.dilation}, groups {p.groups}, {p.dtype}",
        f"output {p.output_shape}, {p.flops / 1e9:.3g} GFLOP, "
        f"{p.arithmetic_intensity:.3g} FLOP/byte; estimates are for {RANKED_FOR} threads",
    ]
    for answer in candidates(problem, direction, choice.precision):
        name = answer.algorithm.name
        mark = "*" if name == choice.algorithm.name else " "
        cost = f"estimated {answer.estimated_seconds * 1e3:.3g} ms"
        if name in choice.measured:
            cost += f", measured {choice.measured[name] * 1e3:.3g} ms"
        lines.append(f"{mark} {name:13} {answer.refusal or cost}")
    return "\n".join((*lines, choice.reason))
