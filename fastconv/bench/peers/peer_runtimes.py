"""What takes part in a contest: fastconv and its peers, each as its own users would call it.

A runtime imports its library in `Runtime.start`, inside a process of its own: none of these
libraries is a dependency, and none is ever loaded beside another. `Runtime.prepare` does what a
user does once, mostly laying out the weights; the function that it returns is what is timed.
Where a library has a faster way to be called, that one is taken.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.peers import peer_gradients
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.geometry import extent

Array = NDArray[Any]


class Ready(NamedTuple):
    """A convolution made ready.

    Attributes
    ----------
    run : function without arguments
        What is timed. It returns something that `numpy.asarray` makes the resulting array of.
    algorithm : str
        What runs, where the runtime tells.
    arrays : tuple
        Arrays that the runtime knows by their addresses only: they must live on.
    """

    run: Callable[[], Any]
    algorithm: str = ""
    arrays: tuple[Array, ...] = ()


class Runtime(ABC):
    """One way to have convolutions computed.

    Attributes
    ----------
    name : str
        What tables call it.
    title : str
        What it is.
    packages : names
        What must be installed; the version of the first one is reported.
    directions : names
        What it can compute.
    """

    name: str
    title: str
    packages: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = ("forward",)

    @property
    def missing(self) -> str | None:
        """The first package that is not installed; nothing is imported to find that out."""
        return next((each for each in self.packages if find_spec(each) is None), None)

    @abstractmethod
    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""

    @abstractmethod
    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Do all that is done once for many calls on inputs of one shape."""

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Do all that is done once for many gradients; see `peer_gradients`."""
        raise NotImplementedError(f"{self.name} computes no {direction}")


@dataclass(frozen=True)
class Fastconv(Runtime):
    """fastconv by a plan that writes into a given array."""

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
        """Plan, which lays out the weights."""
        import fastconv

        p = problem
        plan = fastconv.plan_conv2d(
            *(p.input_shape, weight, None, p.stride, p.padding, p.dilation, p.groups),
            algorithm=self.algorithm,
        )
        # NaN, so that an element that is never written cannot pass for a result.
        out = np.full(p.output_shape, np.nan, p.dtype)
        return Ready(partial(plan, x, out=out), plan.algorithm)

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Call the public function, which lays out the weights with each call."""
        from fastconv.select.plan import choose

        run = peer_gradients.of_fastconv(problem, direction, first, second, self.algorithm)
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
        margins = ((0, 0), (0, 0), *p.padding)
        padded = np.any(margins)

        def run() -> Array:
            image = np.pad(x, margins) if padded else x
            windows = np.lib.stride_tricks.sliding_window_view(image, window, (2, 3))
            taps = windows[:, :, *steps].transpose(0, 1, 4, 5, 2, 3)
            columns = taps.reshape(p.N, p.groups, -1, p.P)
            product: Array = matrices @ columns
            return product.reshape(p.output_shape)

        return Ready(run)


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
        """Give input and weights the wished layout."""
        import torch

        p = problem
        image, filters = self._tensors(x, weight)
        margins = _symmetric(p.padding)
        conv2d = torch.nn.functional.conv2d
        return Ready(partial(conv2d, image, filters, None, p.stride, margins, p.dilation, p.groups))

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Give both tensors the wished layout."""
        known, grad_output = self._tensors(first, second)
        how = _symmetric(problem.padding), self._layout()
        return Ready(peer_gradients.of_torch(problem, direction, known, grad_output, *how))

    def _layout(self) -> Any:
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format

    def _tensors(self, *arrays: Array) -> list[Any]:
        import torch

        layout = self._layout()
        return [torch.from_numpy(array).contiguous(memory_format=layout) for array in arrays]


class TorchChannelsLast(Torch):
    """PyTorch in the layout that its own guides recommend on processors."""

    name = "torch_cl"
    title = "PyTorch, input, weights and output in channels_last"
    channels_last = True


class OnnxRuntime(Runtime):
    """ONNX Runtime: a model of one node, its weights an initializer."""

    name = "onnxrt"
    title = "ONNX Runtime, one Conv node, arrays bound by IOBinding"
    packages = ("onnxruntime", "onnx")

    def start(self, threads: int) -> None:
        """Import the library and remember its number of threads."""
        import onnxruntime

        self._settings = settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = 3

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Build the model and its session, and bind the arrays."""
        import onnxruntime

        session = onnxruntime.InferenceSession(
            _onnx_model(problem, weight), self._settings, providers=["CPUExecutionProvider"]
        )
        out = np.full(problem.output_shape, np.nan, problem.dtype)
        # Faster than session.run by the 1.5 µs of making the result.
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
        binding.bind_output("y", "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)

        def run() -> Array:
            session.run_with_iobinding(binding)
            return out

        return Ready(run, arrays=(x, weight))


def _onnx_model(problem: Conv2dProblem, weight: Array) -> bytes:
    from onnx import helper, numpy_helper

    p = problem
    (top, bottom), (left, right) = p.padding
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    node = helper.make_node(
        *("Conv", ["x", "weight"], ["y"]),
        strides=list(p.stride),
        dilations=list(p.dilation),
        pads=[top, left, bottom, right],
        group=p.groups,
    )
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", kind, p.input_shape)],
        [helper.make_tensor_value_info("y", kind, p.output_shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    # Versions that every ONNX Runtime of the last years reads: the package onnx may be newer.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


class OpenVino(Runtime):
    """OpenVINO: a compiled model of one node, its weights a constant."""

    name = "openvino"
    title = "OpenVINO, LATENCY, float32 inference, arrays shared with the request"
    packages = ("openvino",)

    def start(self, threads: int) -> None:
        """Import the library and remember its number of threads."""
        # Its telemetry forks this process and waits for the network, in the middle of measuring;
        # OpenVINO does without where that package is not to be found.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino

        self._core = openvino.Core()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Build and compile the model, and share the arrays with a request."""
        import openvino
        from openvino import opset13 as operations

        p = problem
        begins, ends = zip(*p.padding, strict=True)
        image = operations.parameter(list(p.input_shape), x.dtype)
        how = (list(p.stride), list(begins), list(ends), list(p.dilation))
        if p.groups == 1:
            node = operations.convolution(image, operations.constant(weight), *how)
        else:
            grouped = weight.reshape(p.groups, p.K // p.groups, *weight.shape[1:])
            node = operations.group_convolution(image, operations.constant(grouped), *how)
        model = openvino.Model([node], [image], "convolution")
        request = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        out = np.full(p.output_shape, np.nan, p.dtype)
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run() -> Array:
            request.infer(share_outputs=True)
            return out

        return Ready(run, arrays=(x, weight))


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
        """Hand over the arrays and compile."""
        import jax

        image, filters = self._put(x), self._put(weight)
        convolution = jax.jit(partial(self._convolution, problem))
        return Ready(lambda: convolution(image, filters).block_until_ready())

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Hand over the arrays and compile."""
        known, grad_output = self._put(first), self._put(second)
        convolution = partial(self._convolution, problem)
        return Ready(peer_gradients.of_jax(problem, direction, known, grad_output, convolution))

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


def _symmetric(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return one margin an axis.

    Raises
    ------
    ValueError
        If the two of an axis differ.
    """
    if any(before != after for before, after in padding):
        raise ValueError(f"needs the same padding on both sides, got {padding}")
    return tuple(before for before, _ in padding)


#: All peers, in the order of the tables.
PEERS: tuple[Runtime, ...] = (
    *(Torch(), TorchChannelsLast(), OnnxRuntime(), OpenVino(), Jax(), Numpy()),
)
