"""Convolution in register tiles: no column matrix, no layout change, close to the peak.

The input is read where it lies. What is made once is the packed weights: for a tile of filters
all its weights of one tap stand side by side. `implicit_gemm` and `direct` are this, vectorized
over output channels and over output pixels.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fastconv.convolution.algorithm import (
    RANKED_FOR,
    Array,
    Call,
    Epilogue,
    Launch,
    Run,
    ThenPooled,
    as_read_only,
    compiler_missing,
)
from fastconv.convolution.blocking.tile_search import (
    CYCLES_PER_SECOND,
    MOST_BAND_BYTES,
    Blocking,
    as_rows,
    best_blocking,
    blocking_with,
    for_useful_threads,
    ranked_tiles,
)
from fastconv.convolution.blocking.tile_shapes import FARTHEST_STRIDE, Over, shapes
from fastconv.convolution.blocking.tiling import Target, Tiling, tiling_of
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.input_grad.input_grad_by_phases import PhaseCall, PhaseForward
from fastconv.convolution.input_grad.stride_phases import Phase
from fastconv.convolution.packed_weights import TilePacker, Window, all_finite
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import record_of
from fastconv.kernels.conv_loops import ARGUMENTS, convolve
from fastconv.kernels.conv_microkernels import TileShape, microkernel_address
from fastconv.kernels.pack_padded_band import band_copy_address
from fastconv.runtime import threads
from fastconv.runtime.workspace import scratch


class TiledForward(PhaseForward):
    """Sums of a block of pixels times a block of filters, in registers over all taps."""

    def __init__(self, over: Over) -> None:
        self.over = over

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take every geometry whose smallest band of input is not too large."""
        if self.over == "width" and problem.stride[1] > FARTHEST_STRIDE:
            return f"needs a horizontal stride of at most {FARTHEST_STRIDE}, got {problem.stride}"
        # Whether a band fits does not depend on the number of threads.
        band = self._found(problem, RANKED_FOR).band_bytes
        if band > MOST_BAND_BYTES:
            needed, most = (size / 2**20 for size in (band, MOST_BAND_BYTES))
            return f"needs {needed:.1f} MiB for the smallest band of the input, most is {most:.0f}"
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the tiles' instructions, the stores at their ends, and the copies."""
        return self._found(problem, threads).seconds

    def least_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the tiles' instructions alone."""
        _, cycles = ranked_tiles(as_rows(problem), self.over)
        return float(cycles[0]) / threads / CYCLES_PER_SECOND

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """One band of the input."""
        return for_useful_threads(partial(self._found, problem)).band_bytes

    def _found(self, problem: Conv2dProblem, num_threads: int) -> Blocking:
        return best_blocking(as_rows(problem), self.over, num_threads)

    def pools(self, problem: Conv2dProblem) -> bool:
        """Answer whether there are tiles of whole windows."""
        return any(shapes(evened(problem), self.over, pooled=True))

    def bind(self, problem: Conv2dProblem, weight: Array, bias: Array, then: Epilogue) -> Run:
        """Pack the weights, and fuse bias, residual and epilogue into the stores."""
        if then.pooled and not self.pools(problem):
            return ThenPooled(self.bind(problem, weight, bias, Epilogue(then.activation)), problem)
        launch = TiledLaunch(problem if then.pooled else as_rows(problem), self.over, then)
        return partial(launch, launch.pack(weight), as_read_only(bias), launch.skips(weight))

    def call(self, problem: Conv2dProblem, activation: Activation) -> Call:
        """Pack the weights and run."""
        launch = TiledLaunch(as_rows(problem), self.over, Epilogue(activation))

        def call(x: Array, weight: Array, bias: Array, out: Array) -> None:
            launch(launch.pack(weight), bias, launch.skips(weight), x, None, out)

        return call

    def phase_call(self, problem: Conv2dProblem, phase: Phase) -> PhaseCall:
        """Write rows and columns of the gradient that are a stride apart."""
        p, (down, across) = phase.problem, phase.stride
        target = None
        if phase.stride == (1, 1):
            p = as_rows(p)
        else:
            target = Target(down * problem.W, across, problem.H * problem.W)
        window = phase.window(problem.R, problem.S)
        launch = TiledLaunch(p, self.over, Epilogue(), target, window)
        bias = as_read_only(np.zeros(p.K, p.dtype))
        first = phase.down.first * problem.W + phase.across.first

        def call(weight: Array, grad_output: Array, out: Array) -> None:
            packed, to = launch.pack(weight), out.reshape(-1)[first:]
            launch(packed, bias, launch.padded, grad_output, None, to)

        return call


class TiledLaunch(Launch):
    """A convolution ready to run but for its weights: everything that follows from the problem."""

    def __init__(
        self,
        problem: Conv2dProblem,
        over: Over,
        then: Epilogue,
        target: Target | None = None,
        window: Window | None = None,
    ) -> None:
        self._unpooled = problem, over, Epilogue(then.activation)
        if then.pooled:
            problem = evened(problem)
            target = Target(problem.OW // 2, 1, problem.P // 4)
        p = self._problem = problem
        self._target, self._window, self._pooled = target, window, then.pooled
        self.padded = int(any(p.padding[0]))
        self._form = then.activation.form
        self._numbers = as_read_only(then.activation.numbers(p.dtype))
        self._none = as_read_only(np.empty(0, p.dtype))
        search = partial(best_blocking, p, over, pooled=then.pooled)
        self._use(for_useful_threads(search).shape)

    def _use(self, shape: TileShape) -> None:
        self._shape = shape
        self._code = self.find_code()

    def find_code(self) -> tuple[int, TilePacker, dict[int, tuple[Tiling, Array]]]:
        """Return the tile, the packer, and for each number of threads tiling and arguments."""
        tile = self._shape._replace(spacing=self._target.step if self._target else 1)
        return microkernel_address(tile), TilePacker(self._problem, tile, self._window), {}

    def _tiling(self, count: int) -> tuple[Tiling, Array]:
        """Cut the work for as many of so many threads as it is worth."""
        found = for_useful_threads(partial(blocking_with, self._problem, self._shape))
        tiling = tiling_of(self._problem, found, self._target)
        step = tiling.step if tiling.step <= 2 else 0
        arguments = record_of(
            ARGUMENTS,
            microkernel=self._code[0],
            band_copy=band_copy_address(step, self._shape.bits, self._shape.lanes),
            layer=tiling.record,
            offsets=tiling.offsets,
            starts=tiling.cuts,
            numbers=self._numbers,
            form=self._form,
        )
        pair = self._code[2][count] = tiling, arguments
        return pair

    def pack(self, weight: Array) -> Array:
        """Return the weights as the tiles read them."""
        packer: TilePacker = self._code[1]
        return packer(weight)

    def skips(self, weight: Array) -> int:
        """Return whether taps in the padding may be left out: zero times infinity is not zero."""
        return int(self.padded and all_finite(weight))

    def __call__(
        self, packed: Array, bias: Array, skip: int, x: Array, residual: Array | None, out: Array
    ) -> None:
        """Give each worker a range of bands and filters."""
        added = self._none
        if residual is not None:
            if self._pooled:
                self._then_pooled(packed, bias, skip)(x, residual, out)
                return
            added = residual.reshape(-1)
        count = threads.get_num_threads()
        tiling, arguments = self._code[2].get(count) or self._tiling(count)
        with scratch("bands", tiling.workers * tiling.band_bytes) as bands:
            convolve.on(
                tiling.workers,
                tiling.workers,
                x.ravel(),
                packed,
                bias,
                added,
                out.ravel(),
                bands,
                skip,
                arguments,
            )

    def _then_pooled(self, packed: Array, bias: Array, skip: int) -> Run:
        """Return the same from the whole output, to which a residual can be added."""
        whole = TiledLaunch(*self._unpooled)
        whole._use(self._shape._replace(pooled=False))
        return ThenPooled(partial(whole, packed, bias, skip), self._unpooled[0])
