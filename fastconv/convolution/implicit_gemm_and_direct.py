"""Convolution in register tiles: no column matrix, no layout change, close to the peak.

The input is read where it lies. What is made once is the weights' layout: for a tile of filters
all its weights of one tap stand side by side.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numba.core import config

from fastconv.convolution.algorithm import (
    Array,
    Launch,
    Run,
    ThenPooled,
    as_read_only,
    useful_threads,
)
from fastconv.convolution.blocking.tile_search import (
    MOST_BAND_BYTES,
    Target,
    Tiling,
    as_rows,
    seconds,
    tile_shape,
    tiling_of,
)
from fastconv.convolution.blocking.tile_shapes import FARTHEST_STRIDE, Lanes, shapes
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.input_grad.input_grad_by_phases import ByPhases
from fastconv.convolution.input_grad.stride_phases import Phase
from fastconv.convolution.packed_weights import Filters, by_tiles, forward_filters
from fastconv.convolution.weight_grad import (
    direct_1x1_weight_grad,
    direct_weight_grad,
    implicit_gemm_weight_grad,
)
from fastconv.core.activation import Activation
from fastconv.core.cached import cached_property
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.records import record_of
from fastconv.kernels.conv_loops import ARGUMENTS, convolve
from fastconv.kernels.conv_microkernels import tile_address
from fastconv.kernels.pack_padded_band import band_copy_address
from fastconv.runtime import threads
from fastconv.runtime.workspace import scratch


def compiler_missing() -> str | None:
    """Return why machine code cannot be had, None if it can."""
    if config.DISABLE_JIT:
        return "needs Numba's compiler, which NUMBA_DISABLE_JIT switches off"
    return None


class Tiled(ByPhases):
    """Sums of a block of pixels times a block of filters, in registers over all taps."""

    lanes_over: Lanes

    def _refusal(self, problem: Conv2dProblem) -> str | None:
        """Take every geometry whose smallest band of input is not too large."""
        if self.lanes_over == "pixels" and problem.stride[1] > FARTHEST_STRIDE:
            return f"needs a horizontal stride of at most {FARTHEST_STRIDE}, got {problem.stride}"
        band = self._workspace(problem)
        if band > MOST_BAND_BYTES:
            needed, most = (size / 2**20 for size in (band, MOST_BAND_BYTES))
            return f"needs {needed:.1f} MiB for the smallest band of the input, most is {most:.0f}"
        return compiler_missing()

    def _seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the tiles' instructions, the stores at their ends, and the copies."""
        return seconds(as_rows(problem), self.lanes_over, threads)

    def _workspace(self, problem: Conv2dProblem) -> int:
        """One band of the input."""
        p, count = as_rows(problem), threads.get_num_threads()
        return tiling_of(p, tile_shape(p, self.lanes_over, count), count).band_bytes

    def bind(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Lay out the weights, and fuse bias, residual and activation into the tiles' stores."""
        filters = forward_filters(weight, kept=True)
        return _TiledLaunch(as_rows(problem), self.lanes_over, filters, bias, activation)

    def run_once(
        self,
        problem: Conv2dProblem,
        weight: Array,
        bias: Array,
        activation: Activation,
        x: Array,
        out: Array,
    ) -> None:
        """Lay out the weights by all threads, and run."""
        filters = forward_filters(weight, kept=False)
        launch = _TiledLaunch(as_rows(problem), self.lanes_over, filters, bias, activation)
        launch(x, None, out)

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run once."""
        self.bind(problem, prepared, bias, Activation())(x, None, out)

    def _run_phase(self, phase: Phase, filters: Filters, grad_output: Array, out: Array) -> None:
        """Write rows and columns of `out` that are a stride apart."""
        p, (down, across) = phase.problem, phase.stride
        height, width = out.shape[2:]
        bias = np.zeros(p.K, p.dtype)
        if phase.stride == (1, 1):
            launch = _TiledLaunch(as_rows(p), self.lanes_over, filters, bias, Activation())
            launch(grad_output, None, out)
            return
        target = Target(down * width, across, height * width)
        launch = _TiledLaunch(p, self.lanes_over, filters, bias, Activation(), target)
        launch(grad_output, None, out.reshape(-1)[phase.down.first * width + phase.across.first :])


class _TiledLaunch(Launch):
    """A convolution ready to run: everything that is the same for every input."""

    def __init__(
        self,
        problem: Conv2dProblem,
        over: Lanes,
        filters: Filters,
        bias: Array,
        activation: Activation,
        target: Target | None = None,
        pooled: bool = False,
    ) -> None:
        self._given = problem
        if pooled:
            problem = evened(problem)
            target = Target(problem.OW // 2, 1, problem.P // 4)
        self._problem, self._target = problem, target
        shape = tile_shape(problem, over, threads.get_num_threads(), pooled)
        self._shape = shape = shape._replace(apart=target.step if target else 1)
        self._weight = by_tiles(problem, filters, (shape.filters, shape.bits, shape.lanes))
        self._bias, self._form = as_read_only(bias), activation.form
        self._numbers = as_read_only(activation.numbers(problem.dtype))
        # Zero times infinity is not zero.
        self._skip = int(any(problem.padding[0]) and filters.finite)
        self._none = as_read_only(np.empty(0, problem.dtype))
        self._code = self.find_code()

    def find_code(self) -> tuple[int, dict[int, tuple[Tiling, Array]]]:
        """Return the tile, and for a number of threads the tiling and what kernels read."""
        return tile_address(self._shape), {}

    @cached_property
    def _whole(self) -> Run:
        """The same from the whole output, to which a residual can be added."""
        other = copy(self)
        other._problem, other._target = self._given, None
        other._shape = self._shape._replace(pooled=False)
        other._code = other.find_code()
        return ThenPooled(other, self._given)

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Give each worker a range of bands and filters."""
        if self._shape.pooled and residual is not None:
            self._whole(x, residual, out)
            return
        tile, tilings = self._code
        count = useful_threads(self._problem)
        found = tilings.get(count)
        if found is None:
            tiling = tiling_of(self._problem, self._shape, count, self._target)
            step = tiling.step if tiling.step <= 2 else 0
            arguments = record_of(
                ARGUMENTS,
                microkernel=tile,
                band_copy=band_copy_address(step, self._shape.bits, self._shape.lanes),
                layer=tiling.record,
                offsets=tiling.offsets,
                starts=tiling.cuts,
                numbers=self._numbers,
                form=self._form,
            )
            found = tiling, arguments
            tilings[count] = found
        tiling, arguments = found
        with scratch("bands", tiling.workers * tiling.band_bytes) as bands:
            convolve(
                tiling.workers,
                x.reshape(-1),
                self._weight,
                self._bias,
                self._none if residual is None else residual.reshape(-1),
                out.reshape(-1),
                bands,
                self._skip,
                arguments,
            )


class ImplicitGemm(Tiled):
    """Filters in the lanes, pixels broadcast from where they lie: any stride, any map."""

    name = "implicit_gemm"
    lanes_over = "filters"

    def supports(self, problem: Conv2dProblem, direction: Direction) -> str | None:
        """Take every geometry whose smallest band is not too large."""
        if direction == "weight_grad":
            return implicit_gemm_weight_grad.refusal(problem) or compiler_missing()
        return super().supports(problem, direction)

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Count instructions and copies."""
        if direction == "weight_grad":
            return implicit_gemm_weight_grad.estimated_seconds(problem, threads)
        return super().estimated_seconds(problem, direction, threads)

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """One band of the input, and for the weights' gradient of the output's."""
        if direction == "weight_grad":
            return implicit_gemm_weight_grad.workspace_bytes(problem)
        return super().workspace_bytes(problem, direction)

    def weight_grad(self, problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
        """Sum over pixels in registers."""
        implicit_gemm_weight_grad.weight_gradient(problem, x, grad_output, out)


def _by_pixels(problem: Conv2dProblem) -> Any:
    """Return the module of weight gradients with pixels in the lanes that suits a problem."""
    return direct_1x1_weight_grad if direct_1x1_weight_grad.takes(problem) else direct_weight_grad


class Direct(Tiled):
    """Pixels in the lanes, weights broadcast: large maps, few taps, few filters."""

    name = "direct"
    lanes_over = "pixels"

    def pools(self, problem: Conv2dProblem) -> bool:
        """Answer whether there are tiles of whole squares."""
        return any(shapes(evened(problem), self.lanes_over, pooled=True))

    def bind_pooled(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Fuse the maxima of squares into the tiles' stores too."""
        if not self.pools(problem):
            return super().bind_pooled(problem, weight, bias, activation)
        filters = forward_filters(weight, kept=True)
        arguments = problem, self.lanes_over, filters, bias, activation
        return _TiledLaunch(*arguments, pooled=True)

    def supports(self, problem: Conv2dProblem, direction: Direction) -> str | None:
        """Take every geometry whose smallest band is not too large."""
        if direction == "weight_grad":
            return _by_pixels(problem).refusal(problem) or compiler_missing()
        return super().supports(problem, direction)

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Count instructions and copies."""
        if direction == "weight_grad":
            return float(_by_pixels(problem).estimated_seconds(problem, threads))
        return super().estimated_seconds(problem, direction, threads)

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """One band of the input, and for the weights' gradient the sums and picked pixels."""
        if direction == "weight_grad":
            return int(_by_pixels(problem).workspace_bytes(problem))
        return super().workspace_bytes(problem, direction)

    def weight_grad(self, problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
        """Sum over pixels, a lane each, where they lie."""
        _by_pixels(problem).weight_gradient(problem, x, grad_output, out)
