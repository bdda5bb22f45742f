"""Depthwise convolution: one input channel per output channel, rows reused, nothing packed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from fastconv.codegen.depthwise_microkernel import DepthwiseShape
from fastconv.convolution.algorithm import (
    Algorithm,
    Array,
    Call,
    Epilogue,
    Launch,
    Run,
    UnfusedMaxPool,
    as_read_only,
    compiler_missing,
    masks_missing,
)
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.convolution.blocking.tiling import Target
from fastconv.convolution.direct import DIRECT
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.input_grad.input_grad_by_phases import (
    InputGradByPhases,
    PhaseCall,
    PhaseForward,
)
from fastconv.convolution.input_grad.stride_phases import Phase, phases
from fastconv.convolution.packed_weights import all_finite
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.jit.launch import run_code
from fastconv.kernels.depthwise_loops import LAYER, depthwise_address
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads

# More taps than a kernel of 5 x 5 has are not worth unrolling.
MOST_TAPS = 25
#: Tiles: rows, vectors of pixels.
TILES = ((7, 1), (4, 2), (4, 1), (3, 2), (2, 4), (2, 2), (2, 1), (1, 4), (1, 2), (1, 1))
#: Tiles with 2 x 2 max pooling.
POOLED_TILES = ((4, 2), (8, 1), (2, 2), (4, 1), (2, 1))
#: Tiles of pairs. Their rows are not contiguous in memory: one row per tile is twice as fast.
PAIR_TILES = ((1, 2), (1, 1))


class DepthwiseForward(PhaseForward):
    """One output channel per tile, its taps unrolled, the image read in place by masked loads."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take one input channel a group, small kernels, no dilation."""
        p = problem
        if p.C_per_group != 1:
            return f"needs one input channel a group, got {p.C_per_group}"
        if p.taps > MOST_TAPS:
            return f"needs a kernel of at most {MOST_TAPS} taps, got {p.R} x {p.S}"
        if p.dilation != (1, 1):
            return f"needs dilation 1, got {p.dilation}"
        if p.stride[1] > 2 or p.stride[0] > 2:
            return f"needs stride 1 or 2, got {p.stride}"
        return masks_missing() or compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and memory traffic."""
        return 5e-6 + _work(problem, depthwise_shape(problem)) / threads

    def pools(self, problem: Conv2dProblem) -> bool:
        """Return True: tiles can always consist of whole windows."""
        return True

    def bind(self, problem: Conv2dProblem, weight: Array, bias: Array, epilogue: Epilogue) -> Run:
        """Fuse bias, residual and epilogue into the tiles' stores."""
        if any(map(any, problem.padding)) and not all_finite(weight):
            # Padding is skipped here, but zero times infinity is not zero.
            run = DIRECT.forward.bind(problem, weight, bias, Epilogue(epilogue.activation))
            return UnfusedMaxPool(run, problem) if epilogue.pooled else run
        launch = DepthwiseLaunch(problem, epilogue)
        return partial(launch, as_read_only(weight.reshape(-1)), as_read_only(bias))

    def call(self, problem: Conv2dProblem, activation: Activation) -> Call:
        """Read the weights in place."""
        launch = DepthwiseLaunch(problem, Epilogue(activation))
        padded = any(map(any, problem.padding))

        def call(x: Array, weight: Array, bias: Array, out: Array) -> None:
            if padded and not all_finite(weight):
                DIRECT.forward.call(problem, activation)(x, weight, bias, out)
            else:
                launch(weight.reshape(-1), bias, x, None, out)

        return call


class DepthwiseInputGrad(InputGradByPhases):
    """Phases that share their rows are computed together."""

    def calls(self, problem: Conv2dProblem) -> tuple[PhaseCall, ...]:
        """Compute all columns of some rows together: at stride 2, the even and the odd ones."""
        found = phases(problem)
        rows = dict.fromkeys(phase.down for phase in found)
        return tuple(_rows_call(problem, [p for p in found if p.down == down]) for down in rows)


_forward = DepthwiseForward()
DEPTHWISE = Algorithm("depthwise", _forward, DepthwiseInputGrad(_forward, widest_step=2))


def _rows_call(problem: Conv2dProblem, sides: list[Phase]) -> PhaseCall:
    """Return a function that computes phases of the same rows together."""
    some, pair = sides[0], None
    if some.stride[1] == 2:
        of_first = {side.across.first: Side.of(side) for side in sides}
        even, odd = (of_first.get(first, Side(0, 0)) for first in (0, 1))
        pair = Pair(even, odd, problem.W)
    target = Target(some.stride[0] * problem.W, 1, problem.H * problem.W)
    launch = DepthwiseLaunch(some.problem, Epilogue(), target, pair)
    bias = as_read_only(np.zeros(some.problem.K, problem.dtype))
    sides = sorted(sides, key=lambda side: side.across.first)
    first = some.down.first * problem.W

    def call(weight: Array, grad_output: Array, out: Array) -> None:
        rotated = np.concatenate([_rotated(side, weight) for side in sides], axis=1)
        weights = as_read_only(rotated.reshape(-1))
        launch(weights, bias, grad_output, None, out.reshape(-1)[first:])

    return call


class Side(NamedTuple):
    """The even or the odd columns of a gradient: taps of a row, and left padding."""

    taps: int
    padding: int

    @classmethod
    def of(cls, phase: Phase) -> Side:
        """Return the side that a phase computes."""
        return cls(phase.problem.S, phase.problem.padding[1][0])


class Pair(NamedTuple):
    """Both sides, and their columns together."""

    even: Side
    odd: Side
    width: int


def _rotated(phase: Phase, weight: Array) -> Array:
    """Return the filters of a phase as the rows of a matrix."""
    p, window = phase.problem, phase.window(*weight.shape[2:])
    own = window >= 0
    rotated = np.empty((p.K, p.taps), weight.dtype)
    rotated[:, window[own]] = weight.reshape(p.K, *own.shape)[:, own]
    return rotated


def _shapes(
    problem: Conv2dProblem, odd: int | None = None, pooled: bool = False
) -> Iterator[DepthwiseShape]:
    p, instructions = problem, cpu.describe().instructions
    lanes = instructions.lanes(p.dtype)
    for rows, vectors in POOLED_TILES if pooled else TILES if odd is None else PAIR_TILES:
        sums = rows * vectors * (1 if odd is None else 2)
        if rows <= p.OH and 2 * sums <= instructions.registers:
            kernel = p.R, p.S, p.stride, rows, vectors, 8 * p.itemsize, lanes
            yield DepthwiseShape(*kernel, odd, pooled)


def _cycles(problem: Conv2dProblem, shape: DepthwiseShape) -> float:
    """Return about how many cycles one core takes."""
    p, vectors = problem, shape.rows * shape.vectors
    blocks = p.N * p.K * -(-p.OH // shape.rows)
    tiles = blocks * -(-p.OW // (shape.vectors * shape.lanes))
    rows = (shape.rows - 1) * p.stride[0] + p.R
    # Most loads cross a cache line; at stride 2 a tap needs two of them.
    loads = 2 * rows * shape.vectors * (p.S if p.stride[1] == 1 else p.S + 1)
    products = p.taps * vectors / cpu.describe().instructions.a_cycle
    return 10.0 * blocks + tiles * (12 + max(products, loads / 2) + 1.5 * vectors)


@lru_cache(maxsize=1024)
def depthwise_shape(
    problem: Conv2dProblem, odd: int | None = None, pooled: bool = False
) -> DepthwiseShape:
    """Return the kernel that takes fewest cycles; `odd` and `pooled` as in `DepthwiseShape`."""
    return min(_shapes(problem, odd, pooled), key=lambda shape: _cycles(problem, shape))


def _work(problem: Conv2dProblem, shape: DepthwiseShape) -> float:
    """Return about how many seconds one core takes."""
    moving = (problem.input_bytes + problem.output_bytes) / 60e9
    return _cycles(problem, shape) / CYCLES_PER_SECOND + moving


class DepthwiseLaunch(Launch):
    """A depthwise convolution without its weights: everything that follows from the problem."""

    def __init__(
        self,
        problem: Conv2dProblem,
        epilogue: Epilogue,
        target: Target | None = None,
        pair: Pair | None = None,
    ) -> None:
        self._unpooled, self._pooled = (problem, Epilogue(epilogue.activation)), epilogue.pooled
        if epilogue.pooled:
            problem = evened(problem)
            target = Target(problem.OW // 2, 1, problem.P // 4)
        p = problem
        target = target or Target(p.OW, 1, p.P)
        self._shape = depthwise_shape(p, pair and pair.odd.taps, epilogue.pooled)
        if pair:
            self._shape = self._shape._replace(S=pair.even.taps)
        self._blocks = p.N * p.K * -(-p.OH // self._shape.rows)
        self._work = _work(p, self._shape)
        self._numbers = as_read_only(epilogue.activation.numbers(p.dtype))
        self._none = as_read_only(np.empty(0, p.dtype))
        values: dict[str, int] = {
            **{name: getattr(p, name) for name in ("C", "K", "H", "W", "OH")},
            "OW": pair.width if pair else p.OW,
            "form": epilogue.activation.form,
            "multiplier": p.K_per_group,
            "pad_top": p.padding[0][0],
            "pad_left": pair.even.padding if pair else p.padding[1][0],
            "pad_odd": pair.odd.padding if pair else 0,
            "out_row": target.row,
            "out_plane": target.plane,
        }
        self._layer = np.array([values[name] for name in LAYER], np.int64)
        self._code = self.find_code()

    def find_code(self) -> int:
        """Return the kernel."""
        return depthwise_address(self._shape)

    def __call__(
        self, weights: Array, bias: Array, x: Array, residual: Array | None, out: Array
    ) -> None:
        """Give each thread a range of blocks of rows."""
        added = self._none
        if residual is not None:
            if self._pooled:
                whole = partial(DepthwiseLaunch(*self._unpooled), weights, bias)
                UnfusedMaxPool(whole, self._unpooled[0])(x, residual, out)
                return
            added = residual.reshape(-1)
        arrays = x.ravel(), weights, bias, added, out.ravel(), self._numbers, self._layer
        run_code.on(useful_threads(self._work), self._blocks, self._code, *arrays)
