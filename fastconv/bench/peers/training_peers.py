"""PyTorch and JAX, which compute gradients too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from fastconv.bench.peers.peer_base import Array, Ready, Runtime
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction


class Torch(Runtime):
    """PyTorch on contiguous tensors."""

    name = "torch"
    title = "PyTorch, contiguous tensors (NCHW)"
    packages = ("torch",)
    directions = DIRECTIONS
    channels_last = False

    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""
        import torch

        torch.set_num_threads(threads)
        torch.inference_mode().__enter__()  # for the whole process: entering it costs time too

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Convert input and weights to the memory format."""
        import torch

        p = problem
        image, filters = self._tensors(x, weight)
        padding = symmetric(p.padding)
        conv2d = torch.nn.functional.conv2d
        return Ready(partial(conv2d, image, filters, None, p.stride, padding, p.dilation, p.groups))

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Call the operator of PyTorch's own backward pass, for one gradient."""
        import torch

        p, which = problem, 0 if direction == "input_grad" else 1
        known, grad_output = self._tensors(first, second)
        # Of the tensor whose gradient is wanted, only the shape is looked at.
        shape = p.input_shape if which == 0 else p.weight_shape
        wanted = torch.empty(shape, memory_format=self._format())
        x, weight = (wanted, known) if which == 0 else (known, wanted)
        geometry = (list(p.stride), list(symmetric(p.padding)), list(p.dilation))
        mask = [which == 0, which == 1, False]
        backward = torch.ops.aten.convolution_backward
        options = (None, *geometry, False, [0, 0], p.groups, mask)
        return Ready(lambda: backward(grad_output, x, weight, *options)[which])

    def _format(self) -> Any:
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format

    def _tensors(self, *arrays: Array) -> list[Any]:
        import torch

        format_ = self._format()
        return [torch.from_numpy(array).contiguous(memory_format=format_) for array in arrays]


class TorchChannelsLast(Torch):
    """PyTorch in the memory format that its own guides recommend on processors."""

    name = "torch_cl"
    title = "PyTorch, input, weights and output in channels_last"
    channels_last = True


class Jax(Runtime):
    """JAX: a jitted lax.conv_general_dilated."""

    name = "jax"
    title = "JAX, jitted lax.conv_general_dilated (NCHW, OIHW)"
    packages = ("jax",)
    directions = DIRECTIONS

    def start(self, threads: int) -> None:
        """Import the library where it can find as many cores as it is to have threads."""
        if hasattr(os, "sched_setaffinity"):  # XLA has no setting but the cores it may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["NPROC"] = str(threads)
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        self._put = jax.device_put

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Put the arrays on the device and compile."""
        import jax

        image, filters = self._put(x), self._put(weight)
        convolution = jax.jit(partial(self._convolution, problem))
        return Ready(lambda: convolution(image, filters).block_until_ready())

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Compile the transpose of the convolution, which is linear in either argument."""
        import jax

        known, grad_output = self._put(first), self._put(second)
        shape = problem.result_shape(direction)
        unknown = jax.ShapeDtypeStruct(shape, np.dtype(problem.dtype))

        @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
        def gradient(known: Any, grad_output: Any) -> Any:
            def convolution(wanted: Any) -> Any:
                pair = (wanted, known) if direction == "input_grad" else (known, wanted)
                return self._convolution(problem, *pair)

            return jax.linear_transpose(convolution, unknown)(grad_output)[0]

        return Ready(lambda: gradient(known, grad_output).block_until_ready())

    @staticmethod
    def _convolution(problem: Conv2dProblem, image: Any, filters: Any) -> Any:
        import jax

        p = problem
        return jax.lax.conv_general_dilated(
            *(image, filters, p.stride, p.padding),
            rhs_dilation=p.dilation,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=p.groups,
        )


def symmetric(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return one padding an axis; raise `ValueError` if the two of an axis differ."""
    if any(before != after for before, after in padding):
        raise ValueError(f"needs the same padding on both sides, got {padding}")
    return tuple(before for before, _ in padding)
