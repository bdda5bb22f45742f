"""Winograd's minimal filtering: fewer multiplications than the direct sum, at the cost of bits.

F(m x m, r x r) computes a tile of m x m outputs with (m + r - 1)^2 products a channel instead of
m^2 r^2: 2.25 times fewer for F(2x2, 3x3), 4 times for F(4x4, 3x3). The products of all tiles,
channels and filters are (m + r - 1)^2 matrix products, on the register tiles of this package.

Source: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar

import numpy as np

from fastconv.convolution.algorithm import (
    Array,
    Launch,
    Run,
    ThenPooled,
    as_read_only,
    useful_threads,
)
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.convolution.blocking.winograd_blocking import Blocks, blocks_of
from fastconv.convolution.blocking.winograd_search import MOST_BYTES, cheapest, chunk_of, form_of
from fastconv.convolution.fused_max_pool import evened
from fastconv.convolution.implicit_gemm_and_direct import compiler_missing
from fastconv.convolution.input_grad.input_grad_by_phases import ByPhases
from fastconv.convolution.input_grad.stride_phases import Phase, phases
from fastconv.convolution.packed_weights import Filters, packer_of
from fastconv.convolution.weight_grad import winograd_weight_grad
from fastconv.core.activation import Activation
from fastconv.core.cached import cached_property
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.records import record_of
from fastconv.kernels.conv_microkernels import tile_address
from fastconv.kernels.winograd_loops import (
    BOTH,
    MULTIPLY,
    TRANSFORM,
    WEIGHTS,
    convolve_winograd,
    loops_address,
)
from fastconv.kernels.winograd_microkernels import (
    ARGUMENTS,
    inputs_address,
    outputs_address,
    weights_address,
)
from fastconv.runtime import output_memory, threads
from fastconv.runtime.workspace import scratch


def _kernel_refusal(problem: Conv2dProblem) -> str | None:
    """Return why a kernel is refused, None if it is not."""
    p = problem
    if (p.R, p.S) not in ((3, 3), (5, 5)):
        return f"needs a kernel of 3 x 3 or 5 x 5, got {p.R} x {p.S}"
    if p.dilation != (1, 1):
        return f"needs dilation 1, got {p.dilation}"
    return None


class Winograd(ByPhases):
    """Tiles of ``m x m`` outputs; a subclass says which."""

    m: ClassVar[int]
    precision = "high"

    def supports(self, problem: Conv2dProblem, direction: Direction) -> str | None:
        """Take kernels of 3 x 3 and 5 x 5 without stride or dilation."""
        if problem.stride != (1, 1):
            return f"needs stride 1, got {problem.stride}"
        if direction == "weight_grad":
            reason = _kernel_refusal(problem) or winograd_weight_grad.refusal(problem, self.m)
            return reason or compiler_missing()
        return super().supports(problem, direction)

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Count the instructions of products and transforms, and the bytes that pass."""
        if direction == "weight_grad":
            return winograd_weight_grad.estimated_seconds(problem, self.m, threads)
        return super().estimated_seconds(problem, direction, threads)

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """Add up what is transformed, products and buffers; threads may share some of it."""
        if direction == "weight_grad":
            return winograd_weight_grad.workspace_bytes(problem, self.m)
        if direction == "forward":
            return self._bytes(problem, threads.get_num_threads())
        count = threads.get_num_threads()
        return max((self._bytes(p.problem, count, True) for p in phases(problem)), default=0)

    def weight_grad(self, problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
        """Take the output's gradient for the filter, a tile at a time."""
        winograd_weight_grad.weight_gradient(problem, self.m, x, grad_output, out)

    def _refusal(self, problem: Conv2dProblem) -> str | None:
        reason = _kernel_refusal(problem)
        if reason is not None:
            return reason
        needed = self._bytes(problem, 1)  # more threads share, or have as much each
        if needed > MOST_BYTES:
            sizes = f"{needed / 2**20:.1f} MiB a thread, most is {MOST_BYTES / 2**20:.0f}"
            return f"needs {sizes}"
        return compiler_missing()

    def _seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the instructions of products and transforms, and the bytes that pass."""
        return 10e-6 + cheapest(problem, self.m, threads).cost / CYCLES_PER_SECOND

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return how much longer a call takes than one whose weights are transformed."""
        plan, call = (cheapest(problem, self.m, threads, once).cost for once in (False, True))
        return (call - plan) / CYCLES_PER_SECOND

    def _bytes(self, problem: Conv2dProblem, count: int, once: bool = False) -> int:
        cut = cheapest(problem, self.m, count, once)
        blocks = blocks_of(problem, self.m, cut.shape, count, cut.fresh)
        return blocks.shared_bytes // blocks.workers + blocks.worker_bytes

    def bind(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Transform the weights, and fuse bias, residual and activation into the last step."""
        # Whether they are finite nobody asks.
        filters = Filters(weight, None, finite=True)
        return _WinogradLaunch(problem, self.m, filters, bias, activation)

    def pools(self, problem: Conv2dProblem) -> bool:
        """Answer that every tile is one of whole squares."""
        return True

    def bind_pooled(
        self, problem: Conv2dProblem, weight: Array, bias: Array, activation: Activation
    ) -> Run:
        """Fuse the maxima of squares into the last step too."""
        filters = Filters(weight, None, finite=True)
        return _WinogradLaunch(problem, self.m, filters, bias, activation, pooled=True)

    def run_once(
        self,
        problem: Conv2dProblem,
        weight: Array,
        bias: Array,
        activation: Activation,
        x: Array,
        out: Array,
    ) -> None:
        """Transform the weights before, or where they are multiplied."""
        filters = Filters(weight, None, finite=True)
        _WinogradLaunch(problem, self.m, filters, bias, activation, once=True)(x, None, out)

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run once."""
        self.bind(problem, prepared, bias, Activation())(x, None, out)

    def _run_phase(self, phase: Phase, filters: Filters, grad_output: Array, out: Array) -> None:
        """Compute all of `out`: at stride 1 there is one phase."""
        bias = np.zeros(phase.problem.K, phase.problem.dtype)
        launch = _WinogradLaunch(phase.problem, self.m, filters, bias, Activation(), once=True)
        launch(grad_output, None, out)


class Winograd2(Winograd):
    """F(2x2, 3x3) and F(2x2, 5x5): less gain, less error."""

    name = "winograd_2x2"
    m = 2


class Winograd4(Winograd):
    """F(4x4, 3x3) and F(4x4, 5x5)."""

    name = "winograd_4x4"
    m = 4


class _WinogradLaunch(Launch):
    """A convolution ready to run: everything that is the same for every input."""

    def __init__(
        self,
        problem: Conv2dProblem,
        m: int,
        filters: Filters,
        bias: Array,
        activation: Activation,
        once: bool = False,
        pooled: bool = False,
    ) -> None:
        self._given, self._m, self._pooled = problem, m, pooled
        p = self._problem = evened(problem) if pooled else problem
        cut = cheapest(p, m, threads.get_num_threads(), once)
        shape = self._shape = cut.shape
        self._fresh = cut.fresh
        self._bias, self._form = as_read_only(bias), activation.form
        self._numbers = as_read_only(activation.numbers(p.dtype))
        none = Activation().numbers(p.dtype)
        zeros = np.zeros(shape.filters + shape.lanes, p.dtype)
        self._plain = as_read_only(np.concatenate([none, zeros[:1], zeros]))
        self._none = as_read_only(np.empty(0, p.dtype))
        self._code = self.find_code()
        self._weight = filters.weight.reshape(-1)
        self._making = self._making_of(filters, once)
        if not cut.fresh:
            self._weight = self._transformed(once)
            self._making = {"weights": 0, "pack": 0, "rotated": 0, "tap_offsets": 0}
            self._code[1].clear()

    def find_code(self) -> tuple[dict[str, int], dict[int, tuple[Blocks, Array]]]:
        """Return addresses, and for each number of threads the blocks and the arguments."""
        form = form_of(self._problem, self._m)
        code = {"inputs": inputs_address(form), "outputs": outputs_address(form, self._pooled)}
        return {**code, "microkernel": tile_address(self._shape), "loops": loops_address()}, {}

    def _making_of(self, filters: Filters, once: bool) -> dict[str, Any]:
        """Return what packs and transforms the weights."""
        p, shape = self._problem, self._shape
        tile = shape.filters, shape.bits, shape.lanes
        pack = packer_of(p, filters, tile, chunk_of(p), channels_last=True, once=once)
        offsets = as_read_only(pack.places)
        made = {"weights": weights_address(form_of(p, self._m)), "pack": pack.code}
        return {**made, "rotated": int(pack.turned), "tap_offsets": offsets}

    @cached_property
    def _whole(self) -> Run:
        """The same from the whole output, to which a residual can be added."""
        other = copy(self)
        other._problem, other._pooled = self._given, False
        other._code = other.find_code()
        return ThenPooled(other, self._given)

    def _transformed(self, once: bool) -> Array:
        """Return the weights as (groups, tiles, products, channels, filters of a tile), flat.

        A chunk of channels of a tile of filters is laid out first: its transform is then the same
        for every element of a row. Used `once` they lie in memory that is used again.
        """
        g, groups, dtype = self._blocks()[0].record[0], self._problem.groups, self._problem.dtype
        sizes = (int(groups * g.filter_tiles * g.products * g.weight_step),)
        result = output_memory.empty(sizes, dtype) if once else np.empty(sizes, dtype)
        self._run([(WEIGHTS, 0)], self._none, self._none, result)
        return as_read_only(result)

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        """Give each worker a range of blocks, or a range of the channels and filters of each."""
        if self._pooled and residual is not None:
            self._whole(x, residual, out)
            return
        blocks, steps = self._blocks()[0], [(BOTH, 0)]
        if blocks.shared_bytes:
            steps = [(s, block) for block in range(blocks.blocks) for s in (TRANSFORM, MULTIPLY)]
        added = self._none if residual is None else residual.reshape(-1)
        self._run(steps, x.reshape(-1), added, out.reshape(-1))

    def _blocks(self) -> tuple[Blocks, Array]:
        """Return blocks and arguments for as many threads as are of use now."""
        ready, count = self._code[1], useful_threads(self._problem)
        found: tuple[Blocks, Array] | None = ready.get(count)
        if found is None:
            key = self._problem, self._m, self._shape, count, self._fresh, self._pooled
            blocks = blocks_of(*key)
            arrays = {"layer": blocks.record, "weight": self._weight, "bias": self._bias}
            numbers = {"numbers": self._numbers, "plain": self._plain, "form": self._form}
            arguments = record_of(ARGUMENTS, **self._code[0], **self._making, **arrays, **numbers)
            found = ready[count] = blocks, arguments
        return found

    def _run(self, steps: list[tuple[int, int]], x: Array, residual: Array, out: Array) -> None:
        """Do some steps, each of a block, one after the other; all arrays are flat."""
        blocks, arguments = self._blocks()
        size = blocks.shared_bytes + blocks.workers * blocks.worker_bytes
        with scratch("winograd", size) as memory:
            for step in steps:
                convolve_winograd(blocks.workers, *step, x, residual, out, memory, arguments)
