"""What every convolution algorithm is: a name, a precision, and up to three implementations.

An implementation computes one direction. It says which problems it refuses, what it costs and how
it runs; plans, tests and benchmarks use nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba.core import config
from numpy.typing import NDArray

from fastconv.convolution import fused_max_pool
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.precision import Precision
from fastconv.runtime import cpu, output_memory

Array = NDArray[Any]

#: Algorithms are always ranked for this many threads. Algorithms round differently, so the choice
#: must not depend on the thread count.
RANKED_FOR = 4

#: A forward convolution bound to its weights: ``run(x, residual, out)``.
Run: TypeAlias = Callable[[Array, "Array | None", Array], None]
#: A forward convolution that takes the weights in each call: ``call(x, weight, bias, out)``.
Call: TypeAlias = Callable[[Array, Array, Array, Array], None]


class Epilogue(NamedTuple):
    """What is applied to the sums before they are stored.

    If `pooled`, the maxima of 2 x 2 windows are stored instead of all outputs.
    """

    activation: Activation = Activation()
    pooled: bool = False


def as_read_only(array: Array) -> Array:
    """Return a read-only view, so that kernels are compiled for one array type only."""
    view = array.view()
    view.setflags(False)  # type: ignore[call-arg]  # faster than with its name
    return view


def compiler_missing() -> str | None:
    """Return why kernels cannot be compiled, None if they can."""
    if config.DISABLE_JIT:
        return "needs Numba's compiler, which NUMBA_DISABLE_JIT switches off"
    return None


def masks_missing() -> str | None:
    """Return why vectors cannot be loaded by a mask, None if they can."""
    instructions = cpu.describe().instructions
    if instructions.masks:
        return None
    return f"needs loads by mask, which {instructions.name} vectors do not have"


class Implementation:
    """One direction of an algorithm.

    Instances carry no state that a call changes, so one instance serves all threads. Arrays
    arrive checked: C-contiguous, of ``problem.dtype``, read-only except `out`, which is to be
    filled completely. No dimension but N is empty, and N is at least 1 where something is run.
    """

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Return None, or why this problem is refused ("needs stride 1, got (2, 2)")."""
        return None

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return the estimate that `auto` ranks by."""
        raise NotImplementedError

    def least_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return a cheap lower bound of the estimate, also for refused problems."""
        return 0.0

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Return the scratch memory one thread needs besides inputs and result."""
        return 0


class Gradient(Implementation):
    """The gradient of ``sum(convolution * grad_output)``."""

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out` with the input gradient (`factor` is weight) or weight gradient (it is x)."""
        raise NotImplementedError


class Forward(Implementation):
    """The convolution itself.

    The simplest subclass defines `estimated_seconds` and `run`. One that fuses bias, residual and
    activation into its stores defines `bind` instead of `run`.
    """

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return the estimated time to prepare the weights, if significant; a plan does it once."""
        return 0.0

    def prepare(self, problem: Conv2dProblem, weight: Array) -> Any:
        """Return the weights in the format of `run`; done once for many calls."""
        return weight

    def run(self, problem: Conv2dProblem, x: Array, prepared: Any, bias: Array, out: Array) -> None:
        """Fill `out` with the convolution of `x`; `bias` has shape (K,), zeros without a bias.

        `prepared` is what `prepare` returned.
        """
        raise NotImplementedError

    def pools(self, problem: Conv2dProblem) -> bool:
        """Return whether max pooling is fused: the unpooled output is never stored."""
        return False

    def bind(self, problem: Conv2dProblem, weight: Array, bias: Array, epilogue: Epilogue) -> Run:
        """Return a function that computes ``epilogue(convolution + residual)`` many times."""
        applied = None if epilogue.activation.is_none else epilogue.activation
        run = Unfused(self, problem, self.prepare(problem, weight), bias, applied)
        return UnfusedMaxPool(run, problem) if epilogue.pooled else run

    def call(self, problem: Conv2dProblem, activation: Activation) -> Call:
        """Return a function for weights that are used once, bitwise identical to `bind`."""
        applied = None if activation.is_none else activation

        def call(x: Array, weight: Array, bias: Array, out: Array) -> None:
            self.run(problem, x, self.prepare(problem, weight), bias, out)
            if applied is not None:
                applied.apply(out)

        return call


#: Stands for an implementation that an algorithm does not have.
NONE: Any = None


@dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution, in at least one of the three directions.

    Attributes
    ----------
    name : str
    forward : Forward
    input_grad, weight_grad : Gradient
        None where the algorithm does not offer the direction.
    precision : {"highest", "high"}
        "highest" if its error is that of a plain sum in the problem's dtype, "high" if it is
        several times as large. `auto` looks at it; see `fastconv.set_precision`.
    """

    name: str
    forward: Forward = NONE
    input_grad: Gradient = NONE
    weight_grad: Gradient = NONE
    precision: Precision = "highest"

    def __getitem__(self, direction: Direction) -> Implementation:
        """Return the implementation of a direction that is offered."""
        found: Implementation = getattr(self, direction)
        return found

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions this algorithm offers."""
        return tuple(direction for direction in DIRECTIONS if self[direction] is not None)


class Launch:
    """A forward convolution that calls machine code by its address.

    Addresses hold in one process only: a copy in another one finds its own.
    """

    _code: Any

    def find_code(self) -> Any:
        """Return the value of `_code`: addresses and what depends on them."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without addresses, which are valid in one process only."""
        return {name: value for name, value in vars(self).items() if name != "_code"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the machine code in this process."""
        vars(self).update(state)
        self._code = self.find_code()


@dataclass(frozen=True)
class Unfused:
    """A forward convolution, then residual and activation in a second pass."""

    forward: Forward
    problem: Conv2dProblem
    prepared: Any
    bias: Array
    activation: Activation | None

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Fill `out`."""
        self.forward.run(self.problem, x, self.prepared, self.bias, out)
        if residual is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # as inside a kernel
                out += residual
        if self.activation is not None:
            self.activation.apply(out)


@dataclass(frozen=True)
class UnfusedMaxPool:
    """A forward convolution into reused memory, then max pooling in a second pass."""

    run: Run
    problem: Conv2dProblem

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Fill `out` with the maxima."""
        whole = output_memory.empty(self.problem.output_shape, self.problem.dtype)
        self.run(x, residual, whole)
        fused_max_pool.pool(self.problem, whole, out)
