"""From a problem to the implementation that will run it, and why that one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.activation import Activation
from fastconv.arguments import as_computed, as_numbers, check_out, check_shape
from fastconv.convolution.base import Algorithm, Array
from fastconv.precision import Precision, get_precision, suffices
from fastconv.problem import Conv2dProblem, Direction
from fastconv.registry import algorithms, offering


@dataclass(frozen=True)
class Candidate:
    """One algorithm's answer to one problem: why not it, or how long it thinks it takes."""

    algorithm: Algorithm
    refusal: str | None
    estimated_seconds: float


@dataclass(frozen=True)
class Choice:
    """The algorithm that runs, and what it was chosen by.

    Attributes
    ----------
    algorithm : Algorithm
    named : bool
        Whether the caller named it, instead of leaving the choice to "auto".
    precision : {"highest", "high"}
        What was asked for then; see `fastconv.set_precision`.
    """

    algorithm: Algorithm
    named: bool
    precision: Precision


#: Algorithms are ranked for this many threads, whatever the number is: another algorithm may round
#: otherwise, and results do not depend on the number of threads.
RANKED_FOR = 4


def candidates(
    problem: Conv2dProblem, direction: Direction, precision: Precision
) -> list[Candidate]:
    """Ask every algorithm; those that `auto` may run come first, the cheapest estimate leading."""
    answers = []
    for algorithm in offering(direction):
        refusal = algorithm.supports(problem, direction)
        if refusal is None and not suffices(algorithm.precision, precision):
            refusal = f"less exact than a plain sum: not with precision {precision!r}"
        seconds = float("inf")
        if refusal is None:
            seconds = algorithm.estimated_seconds(problem, direction, RANKED_FOR)
        answers.append(Candidate(algorithm, refusal, seconds))
    return sorted(answers, key=lambda answer: answer.estimated_seconds)


def choose(problem: Conv2dProblem, direction: Direction, algorithm: str = "auto") -> Algorithm:
    """Return the algorithm to run; see `decide`."""
    return decide(problem, direction, algorithm).algorithm


def decide(problem: Conv2dProblem, direction: Direction, algorithm: str = "auto") -> Choice:
    """Choose the algorithm to run: the named one, or with "auto" the cheapest estimate.

    An algorithm that is named runs at any precision.

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
    return _decide(problem, direction, algorithm, get_precision())


def _names(direction: Direction) -> str:
    return ", ".join(repr(name) for name in ("auto", *algorithms(direction)))


@lru_cache(maxsize=4096)
def _decide(
    problem: Conv2dProblem, direction: Direction, algorithm: str, precision: Precision
) -> Choice:
    if algorithm == "auto":
        return Choice(candidates(problem, direction, precision)[0].algorithm, False, precision)
    for known in offering(direction):
        if known.name == algorithm:
            refusal = known.supports(problem, direction)
            if refusal is None:
                return Choice(known, True, precision)
            raise ValueError(f"algorithm {algorithm!r} refuses this problem: {refusal}")
    raise ValueError(
        f"algorithm must be one of {_names(direction)} for {direction}, got {algorithm!r}"
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
        mark = "*" if answer.algorithm.name == choice.algorithm.name else " "
        cost = f"estimated {answer.estimated_seconds * 1e3:.3g} ms"
        lines.append(f"{mark} {answer.algorithm.name:12} {answer.refusal or cost}")
    if choice.named:
        lines.append(f"{choice.algorithm.name} was named")
    else:
        lines.append(f"chosen as the cheapest estimate, with precision {choice.precision!r}")
    return "\n".join(lines)


class Conv2dPlan:
    """A convolution made ready once, to be run often: see `fastconv.plan_conv2d`.

    Attributes
    ----------
    problem : Conv2dProblem
        What it computes.
    algorithm : str
        The algorithm that runs.
    activation : Activation
        What is applied to the output.
    workspace_bytes : int
        Scratch memory a thread needs besides input and output.
    """

    def __init__(
        self,
        problem: Conv2dProblem,
        choice: Choice,
        weight: Array,
        bias: Array,
        activation: Activation,
    ) -> None:
        self.problem = problem
        self.activation = activation
        self._choice = choice
        self._run = choice.algorithm.bind(problem, weight, bias, activation)
        # What every call compares with, worked out once.
        self._input_shape, self._output_shape = problem.input_shape, problem.output_shape
        self._dtype = np.dtype(problem.dtype)

    @property
    def algorithm(self) -> str:
        """The name of the algorithm that runs."""
        return self._choice.algorithm.name

    @cached_property
    def workspace_bytes(self) -> int:
        """Scratch memory a thread needs besides input and output."""
        return self._choice.algorithm.workspace_bytes(self.problem, "forward")

    def explain(self) -> str:
        """Return a table of every algorithm: its estimate, or why not it; ``*`` runs."""
        return explain(self.problem, "forward", self._choice)

    def __repr__(self) -> str:
        p = self.problem
        return f"<Conv2dPlan {p.input_shape} -> {p.output_shape} by {self.algorithm}>"

    def __call__(
        self, x: Any, out: Array | None = None, residual: ArrayLike | None = None
    ) -> Array:
        """Return ``activation(convolution of x + residual)``, written into `out` if one is given.

        Parameters
        ----------
        x : array-like, (N, C, H, W)
            Of the plan's input shape, and of a type that converts to the plan's without loss.
        out : ndarray, (N, K, OH, OW), optional
            C-contiguous, writable, of the plan's dtype, and apart from `x` and `residual` in
            memory.
        residual : array-like, (N, K, OH, OW), optional
            Added before the activation, as a residual network wants it. Its type must fit as
            that of `x`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> import numpy as np, fastconv
        >>> plan = fastconv.plan_conv2d((1, 1, 1, 2), np.ones((1, 1, 1, 1)), activation="relu")
        >>> plan([[[[1.0, 2.0]]]], residual=[[[[-3.0, 3.0]]]])
        array([[[[0., 5.]]]])
        """
        array = self._checked("x", x, self._input_shape, "the plan's input")
        added = None
        if residual is not None:
            added = self._checked("residual", residual, self._output_shape, "the output")
        if out is None:
            out = np.empty(self._output_shape, self._dtype)
        else:
            check_out(out, self._output_shape, self._dtype, "x", array)
            if added is not None:
                check_out(out, self._output_shape, self._dtype, "residual", added)
        if self.problem.N:
            self._run(array, added, out)
        return out

    def _checked(self, name: str, value: Any, shape: tuple[int, ...], meaning: str) -> Array:
        # The usual case first: a small convolution takes no longer than all these questions.
        if type(value) is np.ndarray and value.dtype == self._dtype and value.shape == shape:
            return as_computed(value, self._dtype)
        array = as_numbers(name, value, 4)
        check_shape(name, array, shape, meaning)
        if not np.can_cast(array.dtype, self._dtype):
            dtype = self.problem.dtype
            raise TypeError(
                f"{name} must fit the plan's {dtype} without loss, got {array.dtype}: "
                f"convert it ({name}.astype({dtype!r})) or plan with weights of its type"
            )
        return as_computed(array, self._dtype)
