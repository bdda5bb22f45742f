"""Engines for trained networks: ONNX Runtime, OpenVINO, OpenCV, ncnn and MNN; forward only.

Each gets a network of one convolution whose weights are constants, and packs them as it likes.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fastconv.bench.peers.peer_base import Array, Ready, Runtime
from fastconv.core.conv_problem import Conv2dProblem


def onnx_model(problem: Conv2dProblem, weight: Array) -> bytes:
    """Return a model of one Conv node from "x" to "y", its weights an initializer."""
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


class OnnxRuntime(Runtime):
    """ONNX Runtime: a session of one node."""

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
            onnx_model(problem, weight), self._settings, providers=["CPUExecutionProvider"]
        )
        out = np.full(problem.output_shape, np.nan, problem.dtype)
        # Faster than session.run by the 1.5 µs of making the result.
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
        binding.bind_output("y", "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)

        def run() -> Array:
            session.run_with_iobinding(binding)
            return out

        return Ready(run, keep=(x, weight))


class OpenVino(Runtime):
    """OpenVINO: a compiled model of one node."""

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
        geometry = (list(p.stride), list(begins), list(ends), list(p.dilation))
        if p.groups == 1:
            node = operations.convolution(image, operations.constant(weight), *geometry)
        else:
            grouped = weight.reshape(p.groups, p.K // p.groups, *weight.shape[1:])
            node = operations.group_convolution(image, operations.constant(grouped), *geometry)
        model = openvino.Model([node], [image], "convolution")
        request = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        out = np.full(p.output_shape, np.nan, p.dtype)
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run() -> Array:
            request.infer(share_outputs=True)
            return out

        return Ready(run, keep=(x, weight))


class OpenCv(Runtime):
    """OpenCV's dnn module: a network of one node."""

    name = "opencv"
    title = "OpenCV's dnn module, one Conv node, the input set once"
    packages = ("cv2", "onnx")

    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""
        import cv2

        cv2.setNumThreads(threads)

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Read the model and copy the input into it."""
        import cv2

        net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx_model(problem, weight), np.uint8))
        net.setInput(x)
        return Ready(net.forward)


class Ncnn(Runtime):
    """ncnn: a net of one layer, one image at a time."""

    name = "ncnn"
    title = "ncnn, one layer, float32 storage and arithmetic, an extractor a call"
    packages = ("ncnn",)

    def start(self, threads: int) -> None:
        """Import the library and remember its number of threads."""
        import ncnn

        self._library, self._threads = ncnn, threads

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Build the net, and copy each image into a matrix of ncnn."""
        net = self._library.Net()
        net.opt.num_threads = self._threads
        for name in dir(net.opt):
            if name.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(net.opt, name, False)
        with TemporaryDirectory() as folder:
            file = Path(folder, "weights.bin")
            file.write_bytes(bytes(4) + weight.tobytes())  # four zero bytes: float32 follows
            if net.load_param_mem(_ncnn_layers(problem)) or net.load_model(str(file)):
                raise RuntimeError("ncnn could not read the net")
        # A Mat only borrows the array's memory; its clone has memory of its own, aligned.
        images = [self._library.Mat(image).clone() for image in x]

        def run() -> list[Array]:
            outputs = []
            for image in images:
                extractor = net.create_extractor()
                extractor.input("x", image)
                outputs.append(extractor.extract("y")[1])
            return outputs

        return Ready(run)


def _ncnn_layers(problem: Conv2dProblem) -> str:
    """Return ncnn's description of the net; the numbers are those of its operators' parameters."""
    p = problem
    (top, bottom), (left, right) = p.padding
    numbers = {0: p.K, 1: p.S, 11: p.R, 2: p.dilation[1], 12: p.dilation[0]}
    numbers |= {3: p.stride[1], 13: p.stride[0], 4: left, 15: right, 14: top, 16: bottom, 5: 0}
    numbers[6] = int(np.prod(p.weight_shape))
    kind = "Convolution"
    if p.groups > 1:
        kind, numbers[7] = "ConvolutionDepthWise", p.groups
    pairs = " ".join(f"{key}={value}" for key, value in numbers.items())
    return f"7767517\n2 2\nInput x 0 1 x\n{kind} convolution 1 1 x y {pairs}\n"


class Mnn(Runtime):
    """MNN: a module of one node, converted from ONNX."""

    name = "mnn"
    title = "MNN, one node converted from ONNX, precision high"
    packages = ("MNN", "onnx")

    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""
        import MNN

        settings = {"precision": "high", "backend": 0, "numThread": threads}
        self._runtime = MNN.nn.create_runtime_manager((settings,))

    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Convert and load the model, and make the input a constant."""
        import MNN

        # The program mnnconvert and the modules MNN.tools install a package for telemetry when
        # they are imported; the extension below them converts only.
        from _tools import mnnconvert

        with TemporaryDirectory() as folder:
            source, converted = (str(Path(folder, name)) for name in ("m.onnx", "m.mnn"))
            Path(source).write_bytes(onnx_model(problem, weight))
            files = ["--modelFile", source, "--MNNModel", converted]
            mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "fastconv"])
            module = MNN.nn.load_module_from_file(
                converted, ["x"], ["y"], runtime_manager=self._runtime
            )
        image = MNN.expr.const(x, list(x.shape), MNN.expr.NCHW)
        return Ready(partial(_mnn_output, module, image))


def _mnn_output(module: object, image: object) -> Array:
    """Compute, and return the result in NCHW."""
    import MNN

    output: Array = MNN.expr.convert(module.forward(image), MNN.expr.NCHW).read()  # type: ignore[attr-defined]
    return output
