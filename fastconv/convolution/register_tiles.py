"""Convolution in register tiles: no im2col matrix, no layout change, close to the peak.

The input is read in place; only the weights are packed, once. `implicit_gemm` is vectorized over
output channels, `direct` over output width.
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
    UnfusedMaxPool,
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
    """Tiles of pixels times output channels, with sums in registers over all taps."""

    def __init__(self, over: Over) -> None:
        self.over = over

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take every geometry whose smallest input band is not too large."""
        if self.over == "width" and problem.stride[1] > FARTHEST_STRIDE:
            return f"needs a horizontal stride of at most {FARTHEST_STRIDE}, got {problem.stride}"
        # Whether a band fits does not depend on the number of threads.
        band = self._found(problem, RANKED_FOR).band_bytes
        if band > MOST_BAND_BYTES:
            needed, most = (size / 2**20 for size in (band, MOST_BAND_BYTES))
            return f"needs {needed:.1f} MiB for the smallest band of the input, most is {most:.0f}"
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the tiles' instructions, their stores, and the packing of bands."""
        return self._found(problem, threads).seconds

    def least_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the tiles' instructions alone."""
        _, cycles = ranked_tiles(as_rows(problem), self.over)
        return float(cycles[0]) / threads / CYCLES_PER_SECOND

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one band of the input."""
        return for_useful_threads(partial(self._found, problem)).band_bytes

    def _found(self, problem: Conv2dProblem, num_threads: int) -> Blocking:
        return best_blocking(as_rows(problem), self.over, num_threads)

    def pools(self, problem: Conv2dProblem) -> bool:
        """Return whether there are tiles of whole windows."""
        return any(shapes(evened(problem), self.over, pooled=True))

    def bind(self, problem: Conv2dProblem, weight: Array, bias: Array, epilogue: Epilogue) -> Run:
        """Pack the weights, and fuse bias, residual and epilogue into the stores."""
        if epilogue.pooled and not self.pools(problem):
            return UnfusedMaxPool(
                self.bind(problem, weight, bias, Epilogue(epilogue.activation)), problem
            )
        launch = TiledLaunch(problem if epilogue.pooled else as_rows(problem), self.over, epilogue)
        return partial(launch, launch.pack(weight), as_read_only(bias), launch.skips(weight))

    def call(self, problem: Conv2dProblem, activation: Activation) -> Call:
        """Pack the weights and run."""
        launch = TiledLaunch(as_rows(problem), self.over, Epilogue(activation))

        def call(x: Array, weight: Array, bias: Array, out: Array) -> None:
            launch(launch.pack(weight), bias, launch.skips(weight), x, None, out)

        return call

    def phase_call(self, problem: Conv2dProblem, phase: Phase) -> PhaseCall:
        """Compute the rows and columns of the gradient that belong to one phase."""
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
    """A convolution without its weights: everything that follows from the problem."""

    def __init__(
        self,
        problem: Conv2dProblem,
        over: Over,
        epilogue: Epilogue,
        target: Target | None = None,
        window: Window | None = None,
    ) -> None:
        self._unpooled = problem, over, Epilogue(epilogue.activation)
        if epilogue.pooled:
            problem = evened(problem)
            target = Target(problem.OW // 2, 1, problem.P // 4)
        p = self._problem = problem
        self._target, self._window, self._pooled = target, window, epilogue.pooled
        self.padded = int(any(p.padding[0]))
        self._form = epilogue.activation.form
        self._numbers = as_read_only(epilogue.activation.numbers(p.dtype))
        self._none = as_read_only(np.empty(0, p.dtype))
        search = partial(best_blocking, p, over, pooled=epilogue.pooled)
        self._use(for_useful_threads(search).shape)

    def _use(self, shape: TileShape) -> None:
        self._shape = shape
        self._code = self.find_code()

    def find_code(self) -> tuple[int, TilePacker, dict[int, tuple[Tiling, Array]]]:
        """Return the microkernel, the packer, and a cache of tilings by thread count."""
        tile = self._shape._replace(spacing=self._target.step if self._target else 1)
        return microkernel_address(tile), TilePacker(self._problem, tile, self._window), {}

    def _tiling(self, count: int) -> tuple[Tiling, Array]:
        """Return tiling and arguments for a thread count, with as many threads as are useful."""
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
        """Return the packed weights."""
        packer: TilePacker = self._code[1]
        return packer(weight)

    def skips(self, weight: Array) -> int:
        """Return whether taps in the padding may be skipped: zero times infinity is not zero."""
        return int(self.padded and all_finite(weight))

    def __call__(
        self, packed: Array, bias: Array, skip: int, x: Array, residual: Array | None, out: Array
    ) -> None:
        """Give each worker a range of bands and output channels."""
        added = self._none
        if residual is not None:
            if self._pooled:
                self._unfused_max_pool(packed, bias, skip)(x, residual, out)
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

    def _unfused_max_pool(self, packed: Array, bias: Array, skip: int) -> Run:
        """Return the convolution with unfused pooling, which supports a residual."""
        whole = TiledLaunch(*self._unpooled)
        whole._use(self._shape._replace(pooled=False))
        return UnfusedMaxPool(partial(whole, packed, bias, skip), self._unpooled[0])
