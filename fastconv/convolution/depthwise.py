"""Depthwise convolution, one input channel a filter: rows used again, nothing copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastconv.convolution.algorithm import (
    Array,
    Launch,
    Run,
    ThenPooled,
    as_read_only,
    useful_threads,
)
from fastconv.convolution.blocking.tile_search import Target
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.implicit_gemm_and_direct import Direct, compiler_missing
from fastconv.convolution.input_grad.input_grad_by_phases import ByPhases
from fastconv.convolution.input_grad.stride_phases import Phase
from fastconv.core.activation import Activation
from fastconv.core.cached import cached_property
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.depthwise_loops import LAYER, DepthwiseShape, depthwise_address, run_blocks
from fastconv.runtime import cpu

# More taps than a kernel of 5 x 5 has are not worth unrolling.
MOST_TAPS = 25
#: Tiles: rows, vectors of pixels.
TILES = ((7, 1), (4, 2), (4, 1), (3, 2), (2, 4), (2, 2), (2, 1), (1, 4), (1, 2), (1, 1))
#: Those that store maxima of 2 x 2 squares.
POOLED_TILES = ((4, 2), (8, 1), (2, 2), (4, 1), (2, 1))
#: Of pairs, whose rows are not neighbours in memory: one after the other is twice as fast.
PAIR_TILES = ((1, 2), (1, 1))


class Depthwise(ByPhases):
    """One filter a tile, its taps unrolled, straight from the image by masked loads."""

    name = "depthwise"
    farthest_step = 2

    def _refusal(self, problem: Conv2dProblem) -> str | None:
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
        instructions = cpu.describe().instructions
        if not instructions.masks:
            return f"needs loads by mask, which {instructions.name} vectors do not have"
        return compiler_missing()

    def _seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and the bytes that pass."""
        computing = _cycles(problem, depthwise_shape(problem)) / 4e9
        moving = (problem.input_bytes + problem.output_bytes) / 60e9
        return 5e-6 + (computing + moving) / threads

    def bind(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Fuse bias, residual and activation into the tiles' stores."""
        if not np.isfinite(weight).all():
            # Margins are skipped here, but zero times infinity is not zero.
            return Direct().bind(problem, weight, bias, activation)
        return _DepthwiseLaunch(problem, weight, bias, activation)

    def pools(self, problem: Conv2dProblem) -> bool:
        """Answer that every tile can be one of whole squares."""
        return True

    def bind_pooled(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Fuse the maxima of squares into the tiles' stores too."""
        if not np.isfinite(weight).all():
            return super().bind_pooled(problem, weight, bias, activation)
        return _DepthwiseLaunch(problem, weight, bias, activation, pooled=True)

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run once."""
        self.bind(problem, prepared, bias, Activation())(x, None, out)

    def _run_phases(
        self, found: Sequence[Phase], weight: Array, grad_output: Array, out: Array
    ) -> None:
        """Compute all columns of some rows together: at stride 2, the even and the odd ones."""
        height, width = out.shape[2:]
        for down in dict.fromkeys(phase.down for phase in found):
            sides = {phase.across.first: phase for phase in found if phase.down == down}
            turned = [_turned(sides[side], weight) for side in sorted(sides)]
            some = next(iter(sides.values()))
            pair = None
            if some.stride[1] == 2:
                nothing = Side(0, 0)
                even, odd = (Side.of(sides[n]) if n in sides else nothing for n in (0, 1))
                pair = Pair(even, odd, width)
            bias = np.zeros(some.problem.K, out.dtype)
            target = Target(some.stride[0] * width, 1, height * width)
            weights = np.concatenate(turned, axis=1)
            launch = _DepthwiseLaunch(some.problem, weights, bias, Activation(), target, pair)
            launch(grad_output, None, out.reshape(-1)[down.first * width :])


class Side(NamedTuple):
    """The even or the odd columns of a gradient: taps of a row, and the margin at the left."""

    taps: int
    margin: int

    @classmethod
    def of(cls, phase: Phase) -> Side:
        """Return those that a phase computes."""
        return cls(phase.problem.S, phase.problem.padding[1][0])


class Pair(NamedTuple):
    """Both sides, and how many columns they make."""

    even: Side
    odd: Side
    width: int


def _turned(phase: Phase, weight: Array) -> Array:
    """Return the filters of a phase, one a row."""
    p, window = phase.problem, phase.window(*weight.shape[2:])
    own = window >= 0
    turned = np.empty((p.K, p.taps), weight.dtype)
    turned[:, window[own]] = weight.reshape(p.K, *own.shape)[:, own]
    return turned


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
    # Most vectors lie across two cache lines; at stride 2 a tap's pixels come from two of them.
    loads = 2 * rows * shape.vectors * (p.S if p.stride[1] == 1 else p.S + 1)
    products = p.taps * vectors / cpu.describe().instructions.a_cycle
    return 10.0 * blocks + tiles * (12 + max(products, loads / 2) + 1.5 * vectors)


@lru_cache(maxsize=1024)
def depthwise_shape(
    problem: Conv2dProblem, odd: int | None = None, pooled: bool = False
) -> DepthwiseShape:
    """Return the kernel that takes fewest cycles; `odd` and `pooled` as in `DepthwiseShape`."""
    return min(_shapes(problem, odd, pooled), key=lambda shape: _cycles(problem, shape))


class _DepthwiseLaunch(Launch):
    """A depthwise convolution ready to run."""

    def __init__(
        self,
        problem: Conv2dProblem,
        weight: Array,
        bias: Array,
        activation: Activation,
        target: Target | None = None,
        pair: Pair | None = None,
        pooled: bool = False,
    ) -> None:
        self._given, self._activation, self._pooled = problem, activation, pooled
        if pooled:
            problem = evened(problem)
            target = Target(problem.OW // 2, 1, problem.P // 4)
        p = problem
        target = target or Target(p.OW, 1, p.P)
        self._shape = depthwise_shape(p, pair and pair.odd.taps, pooled)
        if pair:
            self._shape = self._shape._replace(S=pair.even.taps)
        self._problem = p
        self._blocks = p.N * p.K * -(-p.OH // self._shape.rows)
        self._weight, self._bias = as_read_only(weight.reshape(-1)), as_read_only(bias)
        self._numbers = as_read_only(activation.numbers(p.dtype))
        self._none = as_read_only(np.empty(0, p.dtype))
        values: dict[str, int] = {
            **{name: getattr(p, name) for name in ("C", "K", "H", "W", "OH")},
            "OW": pair.width if pair else p.OW,
            "form": activation.form,
            "multiplier": p.K_per_group,
            "pad_top": p.padding[0][0],
            "pad_left": pair.even.margin if pair else p.padding[1][0],
            "pad_odd": pair.odd.margin if pair else 0,
            "out_row": target.row,
            "out_plane": target.plane,
        }
        self._layer = np.array([values[name] for name in LAYER], np.int64)
        self._code = self.find_code()

    def find_code(self) -> int:
        """Return the kernel."""
        return depthwise_address(self._shape)

    @cached_property
    def _whole(self) -> Run:
        """The same from the whole output, to which a residual can be added."""
        arguments = self._weight, self._bias, self._activation
        return ThenPooled(_DepthwiseLaunch(self._given, *arguments), self._given)

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Give each thread a range of blocks of rows."""
        if self._pooled and residual is not None:
            self._whole(x, residual, out)
            return
        run_blocks.on(
            useful_threads(self._problem),
            self._blocks,
            self._code,
            x.reshape(-1),
            self._weight,
            self._bias,
            self._none if residual is None else residual.reshape(-1),
            out.reshape(-1),
            self._numbers,
            self._layer,
        )
