"""Winograd convolution: fewer multiplications than the direct sum, at the cost of accuracy.

F(m x m, r x r) computes a tile of m x m outputs with (m + r - 1)^2 products per channel instead of
m^2 r^2: 2.25 times fewer for F(2x2, 3x3), 4 times for F(4x4, 3x3). The products of all tiles,
input and output channels are (m + r - 1)^2 matrix products, on the microkernels of convolution.

Source: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

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
)
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND, for_useful_threads
from fastconv.convolution.blocking.winograd_blocking import Blocks, blocks_of
from fastconv.convolution.blocking.winograd_search import (
    MOST_BYTES,
    Cut,
    cheapest,
    cheapest_with,
    chunk_of,
    fits_one_thread,
    form_of,
    kernel_refusal,
    least_seconds,
    stride_refusal,
)
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.input_grad.input_grad_by_phases import (
    InputGradByPhases,
    PhaseCall,
    PhaseForward,
)
from fastconv.convolution.input_grad.stride_phases import Phase, phases
from fastconv.convolution.packed_weights import Window, packer_of
from fastconv.convolution.weight_grad.winograd_weight_grad import WinogradWeightGrad
from fastconv.core.activation import Activation
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import record_of, with_addresses
from fastconv.kernels import winograd_loops as kernels
from fastconv.kernels import winograd_microkernels
from fastconv.kernels.conv_microkernels import TileShape, microkernel_address
from fastconv.runtime import output_memory, threads
from fastconv.runtime.workspace import scratch


class WinogradForward(PhaseForward):
    """Tiles of ``m x m`` outputs."""

    def __init__(self, m: int) -> None:
        self.m = m

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take kernels of 3 x 3 and 5 x 5 without stride or dilation."""
        reason = stride_refusal(problem) or kernel_refusal(problem)
        if reason is not None:
            return reason
        if not fits_one_thread(problem, self.m):
            # With more threads, each needs as much or less.
            needed = _bytes_of(problem, self.m, cheapest(problem, self.m, 1))
            if needed > MOST_BYTES:
                sizes = f"{needed / 2**20:.1f} MiB a thread, most is {MOST_BYTES / 2**20:.0f}"
                return f"needs {sizes}"
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the instructions of products and transforms, and memory traffic."""
        return cheapest(problem, self.m, threads).seconds

    def least_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the transforms of tiles alone."""
        return least_seconds(problem, self.m, threads)

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return the extra time of a call whose weights are not yet transformed."""
        plan, call = (cheapest(problem, self.m, threads, once).cost for once in (False, True))
        return (call - plan) / CYCLES_PER_SECOND

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count transformed input, products and buffers; threads may share some of it."""
        return _bytes_of(problem, self.m, _found(problem, self.m, once=False))

    def pools(self, problem: Conv2dProblem) -> bool:
        """Return True: every tile consists of whole windows."""
        return True

    def bind(self, problem: Conv2dProblem, weight: Array, bias: Array, epilogue: Epilogue) -> Run:
        """Transform the weights, and fuse bias, residual and epilogue into the last step."""
        launch = WinogradLaunch(problem, self.m, epilogue)
        return partial(launch, launch.weights(weight), as_read_only(bias))

    def call(self, problem: Conv2dProblem, activation: Activation) -> Call:
        """Transform the weights in each call, in advance or with the products."""
        return WinogradLaunch(problem, self.m, Epilogue(activation), once=True).once

    def phase_call(self, problem: Conv2dProblem, phase: Phase) -> PhaseCall:
        """Compute the whole gradient: at stride 1 there is one phase."""
        p, window = phase.problem, phase.window(problem.R, problem.S)
        launch = WinogradLaunch(p, self.m, Epilogue(), window, once=True)
        bias = as_read_only(np.zeros(p.K, p.dtype))
        return lambda weight, grad_output, out: launch.once(grad_output, weight, bias, out)


class WinogradInputGrad(InputGradByPhases):
    """The single phase of stride 1, with weights transformed in each call."""

    def __init__(self, forward: WinogradForward) -> None:
        super().__init__(forward)
        self.m = forward.m

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take stride 1."""
        return stride_refusal(problem) or super().refusal(problem)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count the phase's buffers with weights that are used once."""
        found = (phase.problem for phase in phases(problem))
        sizes = (_bytes_of(p, self.m, _found(p, self.m, once=True)) for p in found)
        return max(sizes, default=0)


def winograd(name: str, m: int) -> Algorithm:
    """Return the algorithm with tiles of ``m x m`` outputs."""
    forward = WinogradForward(m)
    return Algorithm(name, forward, WinogradInputGrad(forward), WinogradWeightGrad(m), "high")


#: F(2x2, 3x3) and F(2x2, 5x5): smaller gain, smaller error.
WINOGRAD_2X2 = winograd("winograd_2x2", 2)
#: F(4x4, 3x3) and F(4x4, 5x5).
WINOGRAD_4X4 = winograd("winograd_4x4", 4)


def _found(problem: Conv2dProblem, m: int, once: bool) -> Cut:
    """Return the best partition for as many threads as are useful now."""
    return for_useful_threads(partial(cheapest, problem, m, once=once))


def _bytes_of(problem: Conv2dProblem, m: int, cut: Cut) -> int:
    """Return the workspace bytes of a thread for a partition."""
    blocks = blocks_of(problem, m, cut)
    return blocks.shared_bytes // blocks.workers + blocks.worker_bytes


class WinogradLaunch(Launch):
    """A convolution without its weights: everything that follows from the problem."""

    def __init__(
        self,
        problem: Conv2dProblem,
        m: int,
        epilogue: Epilogue,
        window: Window | None = None,
        once: bool = False,
    ) -> None:
        self._unpooled = problem, m, Epilogue(epilogue.activation)
        p = self._problem = evened(problem) if epilogue.pooled else problem
        self._m, self._window, self._once, self._pooled = m, window, once, epilogue.pooled
        self._form = epilogue.activation.form
        self._numbers = as_read_only(epilogue.activation.numbers(p.dtype))
        self._none = as_read_only(np.empty(0, p.dtype))
        cut = _found(p, m, once)
        self._use(cut.shape, cut.fresh)

    def _use(self, shape: TileShape, fresh: bool) -> None:
        self._shape, self._fresh = shape, fresh
        none, dtype = Activation().numbers(self._problem.dtype), self._problem.dtype
        zeros = np.zeros(1 + shape.filters + shape.lanes, dtype)
        self._plain = as_read_only(np.concatenate([none, zeros]))
        self._code = self.find_code()

    def find_code(self) -> tuple[dict[str, Any], dict[int, tuple[Blocks, Array]]]:
        """Return the addresses in `ARGUMENTS`, and a cache of blocks by thread count."""
        p, form = self._problem, form_of(self._problem, self._m)
        arguments = p, self._shape, chunk_of(p), self._window
        pack = packer_of(*arguments, channels_last=True, once=self._once)
        code = {
            "loops": kernels.loops_address(),
            "inputs": winograd_microkernels.inputs_address(form),
            "weights": winograd_microkernels.weights_address(form),
            "outputs": winograd_microkernels.outputs_address(form, self._pooled),
            "microkernel": microkernel_address(self._shape),
            "pack": pack.code,
            "rotated": int(pack.rotated),
            "tap_offsets": pack.positions,
        }
        return code, {}

    def weights(self, weight: Array) -> Array:
        """Return the transformed weights, flat.

        Their shape is (groups, tiles, products, channels, filters of a tile). A chunk of channels
        of a filter tile is packed before its transform. Weights used once are stored in reused
        memory. If weights are transformed together with the products, `weight` is returned flat.
        """
        flat = weight.reshape(-1)
        if self._fresh:
            return flat
        ready, dtype = self._blocks(), self._problem.dtype
        g, groups = ready[0].record[0], self._problem.groups
        sizes = (int(groups * g.filter_tiles * g.products * g.weight_step),)
        result = output_memory.empty(sizes, dtype) if self._once else np.empty(sizes, dtype)
        self._run(ready, [(kernels.WEIGHTS, 0)], flat, self._none, self._none, self._none, result)
        return as_read_only(result)

    def once(self, x: Array, weight: Array, bias: Array, out: Array) -> None:
        """Run with weights that are used once."""
        self(self.weights(weight), bias, x, None, out)

    def __call__(
        self, weights: Array, bias: Array, x: Array, residual: Array | None, out: Array
    ) -> None:
        """Give each worker a range of blocks, or of the channels and filter tiles of each block."""
        added = self._none
        if residual is not None:
            if self._pooled:
                self._unfused_max_pool(weights, bias)(x, residual, out)
                return
            added = residual.reshape(-1)
        ready, steps = self._blocks(), [(kernels.BOTH, 0)]
        blocks = ready[0]
        if blocks.shared_bytes:
            steps = [
                (s, block)
                for block in range(blocks.blocks)
                for s in (kernels.TRANSFORM, kernels.MULTIPLY)
            ]
        self._run(ready, steps, weights, bias, x.ravel(), added, out.ravel())

    def _unfused_max_pool(self, weights: Array, bias: Array) -> Run:
        """Return the convolution with unfused pooling, which supports a residual."""
        whole = WinogradLaunch(*self._unpooled)
        whole._use(self._shape, self._fresh)
        return UnfusedMaxPool(partial(whole, weights, bias), self._unpooled[0])

    def _blocks(self) -> tuple[Blocks, Array]:
        """Return blocks and arguments for as many threads as are useful now."""
        code, ready = self._code
        count = threads.get_num_threads()
        found: tuple[Blocks, Array] | None = ready.get(count)
        if found is None:
            p, m = self._problem, self._m
            search = partial(cheapest_with, p, m, self._shape, fresh=self._fresh)
            blocks = blocks_of(p, m, for_useful_threads(search), self._pooled)
            numbers = {"numbers": self._numbers, "plain": self._plain, "form": self._form}
            each_call = {"weight": 0, "bias": 0}
            arguments = record_of(
                winograd_microkernels.ARGUMENTS, **code, layer=blocks.record, **numbers, **each_call
            )
            found = ready[count] = blocks, arguments
        return found

    def _run(
        self,
        ready: tuple[Blocks, Array],
        steps: list[tuple[int, int]],
        weights: Array,
        bias: Array,
        x: Array,
        residual: Array,
        out: Array,
    ) -> None:
        """Run steps (step, block) in order; all arrays are flat.

        `ready` is what the steps were made from: another thread may have changed the number of
        threads since.
        """
        blocks, arguments = ready
        arguments = with_addresses(arguments, weight=weights, bias=bias)
        size = blocks.shared_bytes + blocks.workers * blocks.worker_bytes
        with scratch("winograd", size) as memory:
            for step in steps:
                arrays = x, residual, out, memory, arguments
                kernels.convolve_winograd.on(blocks.workers, blocks.workers, *step, *arrays)
