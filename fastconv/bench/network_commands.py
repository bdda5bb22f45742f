"""``fastconv explain`` and ``fastconv profile`` of a network: what runs, and how long it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastconv.bench.bench_errors import BenchError
from fastconv.bench.cli_arguments import file_named
from fastconv.bench.machine import Peak, header
from fastconv.bench.number_text import bar, duration, percent, size, three_digits
from fastconv.bench.result_files import check_target, save_json
from fastconv.bench.terminal import Terminal, cells
from fastconv.graph.network import Network, is_fixed
from fastconv.graph.profile import Profile, example_inputs, profile
from fastconv.graph.step_description import sizes
from fastconv.onnx import load
from fastconv.runtime import cpu, threads

# Columns of text, then of numbers.
_NAMES = (("operator", 20), ("name", 12), ("output", 15), ("algorithm", 14))
_NUMBERS = (("time", 8), ("share", 10), ("GFLOP/s", 8), ("peak", 5), ("bytes", 8))
_BAR = 4
# What stands for free sizes where a message suggests some: a batch of one, and usual images.
_BATCH, _SIDE = 1, 224


def load_network(model: str) -> Network:
    """Read a model; `BenchError` if it cannot be read."""
    if not Path(model).exists():
        raise BenchError(f"there is no file {model!r}")
    try:
        return load(model)
    except (ModuleNotFoundError, ValueError) as error:
        raise BenchError(str(error)) from None
    except OSError as error:
        raise BenchError(f"{model!r} cannot be read: {error.strerror}") from None


def by_input(option: str, texts: Sequence[str], inputs: Sequence[str]) -> dict[str, str]:
    """Return the value for each input of options ``NAME=VALUE``; one input needs no name."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and len(inputs) == 1:
            name, value = inputs[0], text
        if name not in inputs or not value:
            raise BenchError(
                f"{option} must be {'VALUE or ' * (len(inputs) == 1)}NAME=VALUE for the model's "
                f"inputs {', '.join(inputs)}, got {text!r}"
            )
        if name in found:
            raise BenchError(f"{option} is given twice for the input {name!r}")
        found[name] = value
    return found


def shapes_given(network: Network, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return a shape for each input: the one given, or the model's own if it is fixed."""
    given = by_input("--shape", texts, network.inputs)
    shapes = []
    for name, declared in network.declared_shapes.items():
        if name in given:
            shapes.append(_shape(given[name]))
        elif declared is not None and is_fixed(declared):
            shapes.append(tuple(int(each) for each in declared))
        else:
            raise BenchError(_needed(name, declared, len(network.inputs) > 1))
    return shapes


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and part.isascii() for part in parts):
        raise BenchError(f"--shape must be whole numbers with commas, N,C,H,W, got {text!r}")
    return tuple(int(part) for part in parts)


def _needed(name: str, declared: Sequence[int | str] | None, several: bool) -> str:
    """Return what to say about an input with free sizes."""
    if declared is None:
        return f"the model gives the input {name!r} no shape: name one with --shape"
    likely = (_SIDE if axis else _BATCH for axis in range(len(declared)))
    fixed = (str(s if isinstance(s, int) else f) for s, f in zip(declared, likely, strict=True))
    free = ", ".join(size for size in declared if isinstance(size, str))
    example = f"{name}=" * several + ",".join(fixed)
    return f"the input {name!r} has free sizes ({free}): give its shape, such as --shape {example}"


def explain_network(model: str, texts: Sequence[str]) -> str:
    """Return what passes did to a model, its steps and its memory."""
    network = load_network(model)
    return network.explain(*shapes_given(network, texts))


# Profile -----------------------------------------------------------------------------------------


def profile_network(
    model: str, texts: Sequence[str], seconds: float, json: str | None = None
) -> None:
    """Measure a model and print a row a step."""
    target = file_named("--json", json)
    if target is not None:
        check_target("--json", target)
    network = load_network(model)
    compiled = network.compiled_as_declared(shapes_given(network, texts))
    inputs = example_inputs(compiled)
    dtype = next((each.dtype.name for each in inputs if each.dtype.kind == "f"), "float32")
    peak = Peak(dtype if dtype == "float64" else "float32", threads.get_num_threads())
    peak.measure()
    found = profile(compiled, inputs, seconds=seconds)
    peak.measure()
    terminal = Terminal()
    processor = cpu.describe()
    terminal.line(
        f"{processor.name}, {processor.instructions.name}, {threads.get_num_threads()} threads, "
        f"{peak.dtype}, FMA peak {peak.best:.0f} GFLOP/s"
    )
    _table(terminal, found, peak)
    terminal.line()
    for line in str(network.summary(*(each.shape for each in inputs))).splitlines():
        terminal.line(line)
    if target is not None:
        save_json(target, {"header": header(peak, True), "model": model, **_content(found)})
        terminal.line(f"wrote {target}")


def _table(terminal: Terminal, found: Profile, peak: Peak) -> None:
    """Print a row a step, and totals."""
    titles = cells((name for name, _ in _NUMBERS), (width for _, width in _NUMBERS))
    terminal.line()
    terminal.line(_texts([name for name, _ in _NAMES]) + titles, "dim")
    total = found.steps_seconds
    for each in found.steps:
        step = each.step
        texts = _texts((step.operator, step.name, sizes(step.output_shape), step.algorithm))
        share = each.seconds / total
        shown = f"{bar(share, _BAR):{_BAR}} {percent(share):>4}"
        terminal.line(texts + _numbers(each.seconds, shown, step.flops, peak, step.nbytes))
    flops = sum(each.step.flops for each in found.steps)
    nbytes = sum(each.step.nbytes for each in found.steps)
    terminal.line()
    title = f"sum of {len(found.steps)} steps".ljust(sum(width for _, width in _NAMES))
    terminal.line(title + _numbers(total, "", flops, peak, nbytes))
    title = f"whole network, median of {found.rounds} runs".ljust(len(title))
    terminal.line(title + _numbers(found.seconds, "", flops, peak, nbytes), "bold")
    if peak.disturbed:
        terminal.line("the processor was busy with other work at times: distrust times", "yellow")


def _texts(values: Sequence[str]) -> str:
    """Return columns of text; of long names the end tells most."""
    parts = []
    for value, (_, width) in zip(values, _NAMES, strict=True):
        shown = value if len(value) < width else f"…{value[2 - width :]}"
        parts.append(shown.ljust(width))
    return "".join(parts)


def _numbers(seconds: float, share: str, flops: int, peak: Peak, nbytes: int) -> str:
    rate = flops / seconds / 1e9 if flops and seconds else None
    values = (
        duration(seconds),
        share,
        three_digits(rate),
        percent(rate and rate / peak.best),
        size(nbytes),
    )
    return cells(values, (width for _, width in _NUMBERS))


def _content(found: Profile) -> Mapping[str, Any]:
    """Return a profile as JSON has it."""
    return {
        "network_s": found.seconds,
        "steps_s": found.steps_seconds,
        "rounds": found.rounds,
        "steps": [
            {**dataclasses.asdict(each.step), "median_s": each.seconds} for each in found.steps
        ],
    }
