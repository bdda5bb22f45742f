"""The command ``fastconv``: reads the arguments, calls what does the work, prints the answer.

The commands are plain functions; `build` makes a Typer program of them. So this module can be
imported, and says what is missing, where Typer is not installed.
"""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Annotated, Any, cast

import fastconv
from fastconv.bench.bench_errors import BenchError, require
from fastconv.bench.cli_arguments import (
    Geometry,
    check_dtype,
    directions_named,
    file_named,
    get_ready,
    layers_given,
    plain_errors,
    use_threads,
)
from fastconv.core import conv_problem
from fastconv.core.geometry import NAMED_PADDING
from fastconv.jit.compile_notice import QUIET_VARIABLE
from fastconv.runtime.optional_packages import missing

try:
    import typer
except ModuleNotFoundError:
    _has_typer = False
else:
    _has_typer = True

    def option(metavar: str | None, text: str, *flags: str, **more: Any) -> Any:
        """Return an option whose value is called `metavar`."""
        return typer.Option(*flags, metavar=metavar, help=text, **more)

    # Arguments of several commands.
    SHAPE = "N,C,H,W,K,R,S"
    SHAPE_HELP = (
        "Images, their channels, height and width; output channels, kernel height and width."
    )
    Suites = Annotated[list[str] | None, option("NAME", "Measure this suite. May be repeated.")]
    Directions = Annotated[str | None, option("NAME", "forward, input_grad, weight_grad or all.")]
    Stride = Annotated[str, option("N", "Stride of the shapes: one number, or height,width.")]
    Padding = Annotated[
        str,
        option(
            "N", f"One number; height,width; top,bottom,left,right; or {', '.join(NAMED_PADDING)}."
        ),
    ]
    Dilation = Annotated[str, option("N", "One number, or height,width.")]
    Groups = Annotated[int, option("N", "Groups of channels. The input channels if depthwise.")]
    Batch = Annotated[int | None, option("N", "Images in a batch, instead of the suite's.", min=1)]
    Dtype = Annotated[str, option("NAME", "float32 or float64.")]
    Threads = Annotated[int | None, option("N", "Number of threads. Default: all cores.", min=1)]
    Model = Annotated[str, typer.Argument(metavar="MODEL.onnx", help="The file of the network.")]
    Shapes = Annotated[list[str] | None, option("[NAME=]N,C,H,W", "Shape of a network's input.")]
    Quick = Annotated[bool, option(None, "Faster, less accurate.", "--quick")]

#: What --quick means: fewer rounds, and seconds for each layer.
QUICK = {"rounds": 5, "seconds": 0.2}


def main() -> None:
    """Run the command line."""
    if not _has_typer:
        print(f"error: {missing('the command fastconv', 'typer', 'bench')}", file=sys.stderr)
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="replace")
    os.environ.setdefault(QUIET_VARIABLE, "1")  # progress bars tell more
    build()(prog_name="fastconv")


def build() -> typer.Typer:
    """Return the program: one command for each function below."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(about)
    for command in (bench, suites, explain, run, profile, tune, warmup, info):
        app.command()(command)
    return app


def show_version(given: bool) -> None:
    """Print the version and end, if that option is given."""
    if given:
        print(f"fastconv {fastconv.__version__}")
        raise typer.Exit


def about(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version),
    ] = False,
) -> None:
    """Fast 2-D convolution on the CPU in pure Python."""


def bench(
    *,
    shapes: Annotated[
        list[str] | None, typer.Argument(metavar=SHAPE, help=SHAPE_HELP, show_default=False)
    ] = None,
    stride: Stride = "1",
    padding: Padding = "0",
    dilation: Dilation = "1",
    groups: Groups = 1,
    suite: Suites = None,
    layer: Annotated[
        list[str] | None, option("ID", "Measure only this layer. May be repeated.")
    ] = None,
    algorithm: Annotated[
        list[str] | None, option("NAME", "Measure only this algorithm. May be repeated.")
    ] = None,
    direction: Directions = None,
    batch: Batch = None,
    dtype: Dtype = "float32",
    threads: Threads = None,
    rounds: Annotated[int, option("N", "Maximum samples per timing.", min=3)] = 15,
    quick: Quick = False,
    peers: Annotated[bool, option(None, "Compare with other libraries.", "--peers")] = False,
    json: Annotated[str | None, option("FILE", "Save all results as JSON.")] = None,
    csv: Annotated[str | None, option("FILE", "Save all results as a table.")] = None,
    plot: Annotated[str | None, option("FILE", "Save a plot: .png, .svg or .pdf.")] = None,
) -> None:
    """Check the algorithms and measure how fast they are.

    Without arguments: real images and some layers of each network, in about a minute.
    Name a suite, layers (see `fastconv suites`) or your own shapes to measure those.

    With --peers, fastconv is compared with PyTorch, ONNX Runtime, OpenVINO, ncnn, MNN, OpenCV
    and JAX, as far as they are installed, and with plain NumPy.

    The exit code is 1 if a result was wrong.

    For example:

    - fastconv bench --suite resnet50 --quick

    - fastconv bench --layer r04 --algorithm im2col --algorithm direct

    - fastconv bench 1,64,56,56,64,3,3 --padding 1 --direction all
    """
    with plain_errors(ValueError, TypeError, MemoryError):
        require("rich", "fastconv bench")
        from fastconv.bench.bench_command import benchmark
        from fastconv.bench.bench_run import Options
        from fastconv.bench.result_files import Targets
        from fastconv.bench.suites import Item, check_names, select

        directions = directions_named(direction or ("forward" if peers else None))
        check_dtype(dtype)
        files = {"--json": json, "--csv": csv, "--plot": plot}
        targets = Targets(*(file_named(option, text) for option, text in files.items()))
        given = layers_given(shapes or (), Geometry(stride, padding, dilation, groups))
        if given and (suite or layer):
            raise BenchError("a shape goes without --suite and --layer")
        items = [Item(each, directions or ("forward",)) for each in given]
        items = items or select(suite or (), layer or (), directions)
        known = [n for d in directions or conv_problem.DIRECTIONS for n in fastconv.algorithms(d)]
        check_names("algorithm", algorithm or (), known)
        get_ready(items, batch, dtype, threads)
        length = QUICK | {"rounds": min(rounds, 5)} if quick else {"rounds": rounds}
        options = Options(tuple(algorithm or ()), batch, dtype, **cast(Any, length))
        if peers:
            from fastconv.bench.peers.peers_command import compare

            benchmark = compare
        raise typer.Exit(benchmark(items, options, targets))


def suites(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="A suite whose layers to list.", show_default=False),
    ] = None,
) -> None:
    """List the suites; with names, their layers.

    A layer has its shapes, kernel, stride, groups and padding, and how often the network has it.

    For example:

    - fastconv suites resnet50 vgg16
    """
    with plain_errors():
        require("rich", "fastconv suites")
        from fastconv.bench.suites_report import show_suites

        show_suites(names or ())


def tune(
    *,
    suite: Suites = None,
    model_shapes: Annotated[
        str | None, option("FILE", "Measure your own layers, from a .csv or .json file.")
    ] = None,
    direction: Directions = "forward",
    batch: Batch = None,
    dtype: Dtype = "float32",
    threads: Threads = None,
    quick: Quick = False,
) -> None:
    """Measure which algorithm is the fastest, so that auto runs it from now on.

    Without options, the layers of all networks are measured.

    A measurement holds for this processor, this number of threads and this exact shape.

    The exit code is 1 if a result was wrong.

    For example:

    - fastconv tune --suite resnet50

    - fastconv tune --model-shapes layers.csv --batch 32 --direction all
    """
    with plain_errors(MemoryError):
        require("rich", "fastconv tune")
        from fastconv.bench.bench_run import Options
        from fastconv.bench.tuning.tune_command import items_named, tune_all

        directions = directions_named(direction)
        check_dtype(dtype)
        shapes = file_named("--model-shapes", model_shapes)
        items = items_named(suite or (), shapes, directions or ())
        get_ready(items, batch, dtype, threads)
        length = cast(Any, QUICK if quick else {})
        raise typer.Exit(tune_all(items, Options((), batch, dtype, **length)))


def info() -> None:
    """Show processor, threads, caches and versions."""
    from fastconv.bench.machine import facts

    with plain_errors(ValueError):
        for label, value in facts():
            print(f"{label:16} {value}")


def explain(
    what: Annotated[
        str, typer.Argument(metavar=f"{SHAPE}|MODEL.onnx", help=f"{SHAPE_HELP} Or a network.")
    ],
    *,
    shape: Shapes = None,
    stride: Stride = "1",
    padding: Padding = "0",
    dilation: Dilation = "1",
    groups: Groups = 1,
    dtype: Dtype = "float32",
    direction: Annotated[str, option("NAME", "forward, input_grad or weight_grad.")] = "forward",
) -> None:
    """Show which algorithm a convolution runs, and why not another.

    Of a network: what was fused, the steps that run, and their memory.

    For example:

    - fastconv explain 1,64,56,56,64,3,3 --padding 1

    - fastconv explain model.onnx --shape 1,3,224,224
    """
    from fastconv.bench.suites import check_names
    from fastconv.select import choice

    with plain_errors(ValueError, TypeError):
        check_names("direction", [direction], conv_problem.DIRECTIONS)
        check_dtype(dtype)
        geometry = Geometry(stride, padding, dilation, groups)
        if what.endswith(".onnx"):
            from fastconv.bench.network_commands import explain_network

            if (geometry, dtype, direction) != (Geometry(), "float32", "forward"):
                raise BenchError("of the options, only --shape goes with a network")
            print(explain_network(what, shape or ()))
            return
        if shape:
            raise BenchError("--shape goes with a network, a file that ends with .onnx")
        (layer,) = layers_given([what], geometry)
        problem, where = layer.problem(dtype=dtype), cast(Any, direction)
        print(choice.explain(problem, where, choice.decide(problem, where)))


def run(
    model: Model,
    *,
    input: Annotated[list[str], option("[NAME=]FILE", "A picture, or an array as .npy.")],
    labels: Annotated[str | None, option("FILE", "Names of the classes, one a line.")] = None,
    top: Annotated[int, option("N", "Show so many classes.", min=1)] = 5,
    size: Annotated[int, option("N", "Height and width where the model has none.", min=1)] = 224,
    crop: Annotated[float, option("X", "Share of the shorter side in the centre crop.")] = 0.875,
    mean: Annotated[str, option("R,G,B", "Subtracted from 0 ... 1.")] = "0.485,0.456,0.406",
    std: Annotated[str, option("R,G,B", "Divides them, then.")] = "0.229,0.224,0.225",
    output: Annotated[str | None, option("FILE", "Save all outputs as .npz.")] = None,
    threads: Threads = None,
) -> None:
    """Run a network on a picture, and show the most probable classes.

    The defaults of mean and std are those of ImageNet. Scores become probabilities by a softmax.

    For example:

    - fastconv run model.onnx --input photo.jpg --labels classes.txt
    """
    with plain_errors(ValueError, TypeError, OSError, MemoryError):
        from fastconv.bench.network_run import Preparing, run_network

        use_threads(threads)
        run_network(model, input, Preparing(size, crop, mean, std), labels, top, output)


def profile(
    model: Model,
    *,
    shape: Shapes = None,
    seconds: Annotated[float, option("N", "Measure about so long.", min=0)] = 2.0,
    threads: Threads = None,
    json: Annotated[str | None, option("FILE", "Save all times as JSON.")] = None,
) -> None:
    """Measure a network step by step.

    Each step is timed inside the running network; medians of several runs count.

    For example:

    - fastconv profile model.onnx --shape 1,3,224,224
    """
    with plain_errors(ValueError, TypeError, OSError, MemoryError):
        require("rich", "fastconv profile")
        from fastconv.bench.network_commands import profile_network

        use_threads(threads)
        profile_network(model, shape or (), seconds, json)


def warmup(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete all compiled kernels first.")
    ] = False,
    purposes: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="train, inference or bench. May be repeated. Default: train and inference.",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="float32 or float64. May be repeated. Default: float32."),
    ] = None,
) -> None:
    """Compile kernels now, on all cores, so that later programs do not wait.

    The exit code is 1 if compiled kernels cannot be stored.
    """
    with plain_errors(ValueError):
        require("rich", "fastconv warmup")
        from numba import config

        from fastconv.bench import warmup as kernels
        from fastconv.bench.progress_bar import ProgressBar
        from fastconv.bench.suites import check_names
        from fastconv.bench.warmup_programs import PURPOSES, programs
        from fastconv.jit.kernel_cache import why_nothing_is_kept

        for each in dtype or ():
            check_dtype(each)
        check_names("--for", purposes or (), PURPOSES)
        switched_off = "NUMBA_DISABLE_JIT switches the compiler off" if config.DISABLE_JIT else None
        reason = switched_off or why_nothing_is_kept()
        if reason is not None:
            print(f"error: compiling now would be in vain: {reason}", file=sys.stderr)
            raise typer.Exit(1)
        if clear:
            print(f"deleted {kernels.clear()} compiled kernels")
        begin = time.perf_counter()
        before = len(kernels.stored_kernels().files)
        wanted = [
            program
            for purpose in purposes or ("train", "inference")
            for each in dtype or ("float32",)
            for program in programs(purpose, each)
        ]
        with ProgressBar(len(wanted)) as bar:
            kernels.compile_programs(wanted, bar)
        after = len(kernels.stored_kernels().files)
        seconds = time.perf_counter() - begin
        print(f"compiled {after - before} kernels in {seconds:.1f} s; {after} are ready")
