"""The command ``fastconv``: reads the arguments, calls what does the work, prints the answer.

The commands are plain functions; `build` makes a Typer program of them. So this module can be
imported, and says what is missing, where Typer is not installed.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import fastconv
from fastconv.bench.bench_errors import BenchError, require
from fastconv.core import conv_problem
from fastconv.core.geometry import NAMED_PADDING, Padding
from fastconv.jit.compile_notice import QUIET_VARIABLE

try:
    import typer
except ModuleNotFoundError:
    _has_typer = False
else:
    _has_typer = True

    def option(metavar: str | None, text: str, *flags: str, **more: Any) -> Any:
        """Return an option whose value is called `metavar`."""
        return typer.Option(*flags, metavar=metavar, help=text, **more)

    # Options of several commands.
    Suites = Annotated[list[str] | None, option("NAME", "Measure a suite; may be repeated.")]
    Direction = Annotated[str | None, option("NAME", "forward, input_grad, weight_grad or all.")]
    Batch = Annotated[int | None, option("N", "Images at a time.", min=1)]
    Dtype = Annotated[str, option("NAME", "float32 or float64.")]
    Threads = Annotated[int | None, option("N", "Threads.", min=1)]
    Quick = Annotated[bool, option(None, "Measure shorter, less surely.", "--quick")]

if TYPE_CHECKING:
    from fastconv.bench.suites import Item

#: What --quick means: fewer rounds, and seconds for each layer.
QUICK = {"rounds": 5, "seconds": 0.2}
#: So many may be measured, for programs that start too many; beyond that it is a typing error.
THREADS_PER_CORE = 4


def main() -> None:
    """Run the command line."""
    if not _has_typer:
        print(
            "error: the command fastconv needs typer: pip install 'fastconv[bench]'",
            file=sys.stderr,
        )
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
    for command in (bench, tune, info, explain, warmup):
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
    suite: Suites = None,
    layer: Annotated[list[str] | None, option("ID", "Only this layer; may be repeated.")] = None,
    algorithm: Annotated[
        list[str] | None, option("NAME", "Only this one; may be repeated.")
    ] = None,
    direction: Direction = None,
    batch: Batch = None,
    dtype: Dtype = "float32",
    threads: Threads = None,
    rounds: Annotated[int, option("N", "The most samples of each time.", min=3)] = 15,
    quick: Quick = False,
    peers: Annotated[bool, option(None, "Compare with other libraries.", "--peers")] = False,
    json: Annotated[str | None, option("FILE", "Write all results as JSON.")] = None,
    csv: Annotated[str | None, option("FILE", "Write all results as a table.")] = None,
    plot: Annotated[str | None, option("FILE", "Draw them: .png, .svg or .pdf.")] = None,
) -> None:
    """Check and measure the algorithms on the layers of well-known networks.

    Without options: real images, then a cross-section of all suites, in about a minute.
    With --peers: beside PyTorch, ONNX Runtime, OpenVINO, ncnn, MNN, OpenCV and JAX if installed,
    and NumPy. Exits with 1 if a result was wrong.
    """
    with plain_errors(MemoryError):
        require("rich", "fastconv bench")
        from fastconv.bench.bench_command import benchmark
        from fastconv.bench.bench_run import Options
        from fastconv.bench.result_files import Targets
        from fastconv.bench.suites import check_names, select

        directions = directions_named(direction or ("forward" if peers else None))
        check_dtype(dtype)
        files = {"--json": json, "--csv": csv, "--plot": plot}
        targets = Targets(*(file_named(option, text) for option, text in files.items()))
        items = select(suite or (), layer or (), directions)
        known = [n for d in directions or conv_problem.DIRECTIONS for n in fastconv.algorithms(d)]
        check_names("algorithm", algorithm or (), known)
        get_ready(items, batch, dtype, threads)
        length = QUICK | {"rounds": min(rounds, 5)} if quick else {"rounds": rounds}
        options = Options(tuple(algorithm or ()), batch, dtype, **cast(Any, length))
        if peers:
            from fastconv.bench.peers.peers_command import compare

            benchmark = compare
        raise typer.Exit(benchmark(items, options, targets))


def tune(
    *,
    suite: Suites = None,
    model_shapes: Annotated[
        str | None, option("FILE", "Your own layers instead: .csv or .json.")
    ] = None,
    direction: Direction = "forward",
    batch: Batch = None,
    dtype: Dtype = "float32",
    threads: Threads = None,
    quick: Quick = False,
) -> None:
    """Measure which algorithm is the fastest here; from then on auto follows that.

    Without options: the layers of all networks that have a suite, forward.
    Measurements hold for this processor, this number of threads and these very problems.
    Exits with 1 if a result was wrong.
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
    """Tell what fastconv finds on this computer."""
    from fastconv.bench.machine import facts

    with plain_errors(ValueError):
        for label, value in facts():
            print(f"{label:16} {value}")


def explain(
    problem: Annotated[str, typer.Argument(help="N,C,H,W,K,R,S", metavar="N,C,H,W,K,R,S")],
    stride: Annotated[str, option(None, "One number, or height,width.")] = "1",
    padding: Annotated[
        str,
        option(None, f"One number, two, top,bottom,left,right, or {', '.join(NAMED_PADDING)}."),
    ] = "0",
    dilation: Annotated[str, option(None, "One number, or height,width.")] = "1",
    groups: Annotated[int, option(None, "Groups of channels.")] = 1,
    dtype: Annotated[str, option(None, "float32 or float64.")] = "float32",
    direction: Annotated[str, option(None, "forward, input_grad or weight_grad.")] = "forward",
) -> None:
    """Tell which algorithm would run a convolution, and why not the others."""
    from fastconv.bench.suites import check_names
    from fastconv.select import plan

    with plain_errors(ValueError, TypeError):
        check_names("direction", [direction], conv_problem.DIRECTIONS)
        check_dtype(dtype)
        numbers = integers("the problem", problem, (7,))
        N, C, H, W, K, R, S = numbers
        described = conv_problem.Conv2dProblem.from_shapes(
            (N, C, H, W),
            (K, C // max(1, groups), R, S),
            one_or_pair("--stride", stride),
            read_padding(padding),
            one_or_pair("--dilation", dilation),
            groups,
            dtype,
        )
        where = cast(Any, direction)
        print(plan.explain(described, where, plan.decide(described, where)))


def warmup(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete all compiled kernels first.")
    ] = False,
    purposes: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="train, inference or bench; may be repeated. Training and inference without it.",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="float32, float64 or both; float32 without it."),
    ] = None,
) -> None:
    """Compile kernels now, on all cores, so that no later program waits for them.

    Exits with 1 if compiled kernels cannot be kept.
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


# Reading arguments -----------------------------------------------------------------------


@contextmanager
def plain_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn what the user can mend, `BenchError` and `kinds`, into one line and exit code 2."""
    mendable: tuple[type[Exception], ...] = (BenchError, *kinds)
    try:
        yield
    except mendable as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def file_named(option: str, text: str | None) -> Path | None:
    """Return the file that an option names; an empty name is none, nor the working folder."""
    if text == "":
        raise BenchError(f"{option} must name a file, got ''")
    return None if text is None else Path(text)


def directions_named(name: str | None) -> tuple[conv_problem.Direction, ...] | None:
    """Return the directions that an option names: one, or all; None if it is not given."""
    from fastconv.bench.suites import check_names

    if name is None:
        return None
    check_names("direction", [name], (*conv_problem.DIRECTIONS, "all"))
    return conv_problem.DIRECTIONS if name == "all" else (cast(Any, name),)


def get_ready(items: Sequence[Item], batch: int | None, dtype: str, threads: int | None) -> None:
    """Set the number of threads; raise for settings and problems that are impossible."""
    from fastconv.select.plan import circumstances

    with plain_errors(ValueError):
        use_threads(threads)
        circumstances()  # whether the environment's settings can be read
        for item in items:
            item.layer.problem(batch, dtype)


def use_threads(wanted: int | None) -> None:
    """Set the number of threads, if one is given; refuse numbers that measure nothing useful."""
    from fastconv.runtime.threads import THREADS_VARIABLE, available_cores

    count, cores = wanted or fastconv.get_num_threads(), available_cores()
    if count > THREADS_PER_CORE * cores:
        name = "--threads" if wanted else THREADS_VARIABLE
        raise BenchError(
            f"{name} must be at most {THREADS_PER_CORE * cores}, {THREADS_PER_CORE} for each of "
            f"the {cores} cores that this process may use, got {count}: more threads than cores "
            "bring nothing"
        )
    fastconv.set_num_threads(count)


def check_dtype(dtype: str) -> None:
    """Raise `BenchError` for a type that fastconv does not compute in."""
    from fastconv.bench.suites import check_names

    check_names("dtype", [dtype], ("float32", "float64"))


def integers(name: str, text: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Read numbers separated by commas, as many as `counts` allows."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        many = " or ".join(str(count) for count in counts)
        raise BenchError(f"{name} must be {many} whole numbers with commas, got {text!r}")
    return numbers


def one_or_pair(name: str, text: str) -> int | tuple[int, int]:
    """Read one number, or two for height and width."""
    numbers = integers(name, text, (1, 2))
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def read_padding(text: str) -> Padding:
    """Read padding in any of its spellings."""
    if text in NAMED_PADDING:
        return text
    numbers = integers("--padding", text, (1, 2, 4))
    if len(numbers) == 4:
        top, bottom, left, right = numbers
        return (top, bottom), (left, right)
    return one_or_pair("--padding", text)
