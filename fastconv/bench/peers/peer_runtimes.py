"""What takes part in a comparison: fastconv, NumPy, and the list of all peers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastconv.bench.peers.inference_peers import Mnn, Ncnn, OnnxRuntime, OpenCv, OpenVino
from fastconv.bench.peers.peer_base import Array, Ready, Runtime
from fastconv.bench.peers.training_peers import Jax, Torch, TorchChannelsLast
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.geometry import extent


@dataclass(frozen=True)
class Fastconv(Runtime):
    """fastconv by a plan that writes into a given array; gradients by the public functions."""

    algorithm: str = "auto"
    title = "a plan, called with out="
    directions = DIRECTIONS

    @property
    def name(self) -> str:  # type: ignore[override]  # a field that follows from another one
        """The name of the package, and of the algorithm if one was named."""
        return "fastconv" if self.algorithm == "auto" else f"fastconv:{self.algorithm}"

    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""
        import fastconv

        fastconv.set_num_threads(threads)

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Plan, which packs the weights."""
        import fastconv

        p = problem
        plan = fastconv.plan_conv2d(  # type: ignore[call-overload]  # any name, checked there
            *(p.input_shape, weight, None, p.stride, p.padding, p.dilation, p.groups),
            algorithm=self.algorithm,
        )
        # NaN, so that an element that is never written cannot pass for a result.
        out = np.full(p.output_shape, np.nan, p.dtype)
        return Ready(partial(plan, x, out=out), plan.algorithm)

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Call the public function: a gradient has no plan, its weights change with each step."""
        import fastconv
        from fastconv.select.choice import choose

        p = problem
        arrays: tuple[Any, ...] = (p.input_shape, first, second)
        gradient: Any = fastconv.conv2d_input_grad
        if direction == "weight_grad":
            arrays, gradient = (first, p.weight_shape, second), fastconv.conv2d_weight_grad
        geometry = (p.stride, p.padding, p.dilation, p.groups)
        run = partial(gradient, *arrays, *geometry, algorithm=self.algorithm)
        return Ready(run, choose(problem, direction, self.algorithm).name)


class Numpy(Runtime):
    """The textbook's im2col: pad, gather the windows as columns, multiply."""

    name = "numpy"
    title = "im2col as in a textbook: pad, sliding_window_view, @"
    packages = ("numpy",)

    def start(self, threads: int) -> None:
        """Let NumPy's BLAS use the threads."""
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, user_api="blas")

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Make the weights matrices, one a group."""
        p = problem
        matrices = weight.reshape(p.groups, p.K // p.groups, -1)
        window = extent(p.R, p.dilation[0]), extent(p.S, p.dilation[1])
        steps = [slice(None, None, step) for step in (*p.stride, *p.dilation)]
        padding = ((0, 0), (0, 0), *p.padding)
        padded = np.any(padding)

        def run() -> Array:
            image = np.pad(x, padding) if padded else x
            windows = np.lib.stride_tricks.sliding_window_view(image, window, (2, 3))
            taps = windows[:, :, *steps].transpose(0, 1, 4, 5, 2, 3)
            columns = taps.reshape(p.N, p.groups, -1, p.P)
            product: Array = matrices @ columns
            return product.reshape(p.output_shape)

        return Ready(run)


#: All peers, in the order of the tables.
PEERS: tuple[Runtime, ...] = (
    *(Torch(), TorchChannelsLast(), OnnxRuntime(), OpenVino(), Ncnn(), Mnn(), OpenCv()),
    *(Jax(), Numpy()),
)
