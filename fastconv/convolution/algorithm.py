"""What every convolution algorithm is: the interface that plans, tests and benchmarks use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution import fused_max_pool
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.precision import Precision
from fastconv.runtime import output_memory, threads

Array = NDArray[Any]

#: A forward convolution bound to its weights: ``run(x, residual, out)``.
Run: TypeAlias = Callable[[Array, "Array | None", Array], None]


def as_read_only(array: Array) -> Array:
    """Return a view that cannot be written to: kernels then see one type, whoever's array it is."""
    view = array.view()
    view.setflags(False)  # type: ignore[call-arg]  # faster than with its name
    return view


class Algorithm:
    """One way to compute a convolution, in those of the three directions that it defines.

    A subclass sets `name`, defines at least one of `forward`, `input_grad` and `weight_grad`,
    and overrides of the other methods what does not hold for it. Instances carry no state that
    a call changes, so one instance serves all threads.

    Arrays arrive checked: C-contiguous, of ``problem.dtype``, read-only except `out`, which is
    to be filled completely. No dimension but N is empty, and N is at least 1.
    """

    name: ClassVar[str]

    #: How exact it is: "highest" if its error is that of a plain sum in the problem's dtype, "high"
    #: if it is several times as large. `auto` looks at it; see `fastconv.set_precision`.
    precision: ClassVar[Precision] = "highest"

    def __init_subclass__(cls) -> None:
        """Find out which directions a subclass offers."""
        cls.directions = tuple(
            direction
            for direction in DIRECTIONS
            if getattr(cls, direction) is not getattr(Algorithm, direction)
        )

    #: The directions this algorithm offers.
    directions: ClassVar[tuple[Direction, ...]] = ()

    def supports(self, problem: Conv2dProblem, direction: Direction) -> str | None:
        """Return None, or why this problem is refused ("needs stride 1, got (2, 2)")."""
        return None

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Return the rough time `auto` ranks by."""
        raise NotImplementedError

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return the rough time to prepare the weights, where that is much; a plan does it once."""
        return 0.0

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """Return the scratch memory one thread needs besides inputs and result."""
        return 0

    def prepare(self, problem: Conv2dProblem, weight: Array) -> Any:
        """Return the weights as `forward` wants them; done once for many calls."""
        return weight

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Any, bias: Array, out: Array
    ) -> None:
        """Fill `out` with the convolution of `x`; `bias` has shape (K,), zeros if none is wanted.

        `prepared` is what `prepare` returned.
        """
        raise NotImplementedError

    def bind(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Return a function that computes ``activation(forward + residual)`` many times.

        Here in two passes; algorithms that can do it in one override this.
        """
        return _TwoPasses(self, problem, self.prepare(problem, weight), bias, activation)

    def pools(self, problem: Conv2dProblem) -> bool:
        """Return whether `bind_pooled` stores maxima without storing the whole output before."""
        return False

    def bind_pooled(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Return a function that fills `out` with the maxima of 2 x 2 squares, to the bit.

        They are those of what `bind` computes; here from the whole of it. Algorithms with `pools`
        override this.
        """
        return ThenPooled(self.bind(problem, weight, bias, activation), problem)

    def run_once(
        self,
        problem: Conv2dProblem,
        weight: Array,
        bias: Array,
        activation: Activation,
        x: Array,
        out: Array,
    ) -> None:
        """Fill `out` with ``activation(forward)`` of `x`, by weights that are used this once.

        The bits are those of `bind`.
        """
        self.bind(problem, weight, bias, activation)(x, None, out)

    def input_grad(
        self, problem: Conv2dProblem, weight: Array, grad_output: Array, out: Array
    ) -> None:
        """Fill `out`, shaped like x, with the gradient of ``sum(forward * grad_output)``."""
        raise NotImplementedError

    def weight_grad(self, problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, shaped like the weights, with the gradient of that same sum."""
        raise NotImplementedError


#: Operations that take longer than waking a thread, at the speed of register tiles.
WORTH_A_THREAD = 2**20


def useful_threads(problem: Conv2dProblem) -> int:
    """Return how many threads a convolution is worth, of those that there are."""
    return max(1, min(threads.get_num_threads(), problem.flops // WORTH_A_THREAD))


class Launch:
    """A forward convolution that calls machine code by its address.

    Addresses hold in one process only: a copy in another one finds its own.
    """

    _code: Any

    def find_code(self) -> Any:
        """Return the addresses, and what is made of them: what `_code` is to be."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return what holds in another process too."""
        return {name: value for name, value in vars(self).items() if name != "_code"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the machine code in this process."""
        vars(self).update(state)
        self._code = self.find_code()


@dataclass(frozen=True)
class _TwoPasses:
    """A forward convolution, then what is applied to its output."""

    algorithm: Algorithm
    problem: Conv2dProblem
    prepared: Any
    bias: Array
    activation: Activation

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        self.algorithm.forward(self.problem, x, self.prepared, self.bias, out)
        if residual is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # as inside a kernel
                out += residual
        self.activation.apply(out)


@dataclass(frozen=True)
class ThenPooled:
    """A forward convolution into memory that is used again, then the maxima of its squares."""

    run: Run
    problem: Conv2dProblem

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Fill `out` with the maxima."""
        whole = output_memory.empty(self.problem.output_shape, self.problem.dtype)
        self.run(x, residual, whole)
        fused_max_pool.pool(self.problem, whole, out)
