"""``fastconv suites``: which layers there are to measure."""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.bench.suites import Layer, check_names, load_suite, shapes, suite_names
from fastconv.bench.terminal import Terminal, cells


def show_suites(names: Sequence[str]) -> None:
    """Print the layers of the named suites; without names, what each suite adds up to."""
    check_names("suite", names, suite_names())
    terminal = Terminal()
    if not names:
        widths = (8, 16, 10)
        terminal.line(f"{'suite':14}" + cells(("layers", "in the network", "GFLOP"), widths), "dim")
        for name in suite_names():
            layers = load_suite(name)
            count = sum(layer.count for layer in layers)
            work = sum(layer.count * _gflop(layer) for layer in layers)
            numbers = str(len(layers)), str(count), f"{work:.3g}"
            terminal.line(f"{name:14}" + cells(numbers, widths))
    for name in names:
        terminal.rule(name)
        widths = (8, 16, 10)
        titles = cells(("padding", "in the network", "GFLOP"), widths)
        terminal.line(f"{'layer':14}{'convolution':52}{titles}", "dim")
        for layer in load_suite(name):
            numbers = str(layer.padding), str(layer.count), f"{_gflop(layer):.3g}"
            convolution = shapes(layer.problem())
            terminal.line(f"{layer.id:14}{convolution:52}{cells(numbers, widths)}")


def _gflop(layer: Layer) -> float:
    return layer.problem().flops / 1e9
