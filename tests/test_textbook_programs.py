"""The programs of docs/examples run, print what their pages tell of, and draw their pictures."""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from documents import blocks, masked
from side_by_side import selected, side_by_side

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PROGRAMS = sorted({path.stem for path in EXAMPLES.glob("*.py")} - {"common"})
EXPECTED = {
    "convolution_layer": [
        "output   (8, 5, 64, 64)",
        "parameters  = K * C * R * S + K = 5 * 3 * 3 * 3 + 5 = 140",
        "products    = N * K * OH * OW * C * R * S = 4,423,680",
        "all agree with a convolution in float64",
    ],
    "edge_detection": [
        " [0 0 4 4 0 0]]",
        "photograph (427, 640, 3) -> gray (427, 640) -> edges (425, 638)",
    ],
    "forward_pass": ["(1, 4, 28, 28)", "(1, 8, 7, 7)", "185,416", "(sum 1.000)"],
    "train_cnn": ["10,858", "one by one", "batches of 32", "times as fast"],
    "batch_norm": ["10,882", "layer by layer", "fused"],
    "random_filters": ["learning rate 0.01", "370", "410"],
    "strided": ["66,688", "30,784"],
    "depthwise_separable": ["24,058", "4,010", "12.7% of them; 1/64 + 1/9 is 12.7%"],
    "residual": ["13 convolutions", "28,650", "with shortcuts"],
}
# These print the same with --quick, which has nothing to shorten there, but for times.
SAME = ("convolution_layer", "edge_detection")
# At least so many of the test digits after the few passes of --quick; guessing gives 10 %.
LEAST = {
    "train_cnn": ("one by one", 40),
    "batch_norm": ("with BatchNorm", 50),
    "random_filters": ("last layer trained", 25),
    "depthwise_separable": ("full", 30),
}


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def size_of(picture: Path) -> tuple[int, ...]:
    """Return width and height, which a PNG file says in its head."""
    return struct.unpack(">II", picture.read_bytes()[16:24])


def test_every_program_is_listed_and_has_a_page() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(EXPECTED) == set(PROGRAMS)
    for name in PROGRAMS:
        assert f"({name}.py)" in index
        page = (EXAMPLES / f"{name}.md").read_text(encoding="utf-8")
        assert f"({name}.py)" in page
        for text in EXPECTED[name]:
            assert text in page, f"{name}.md does not hold {text!r}: run the program again"
        for picture in re.findall(r"\((images/\S+)\)", page):
            assert (EXAMPLES / picture).is_file(), picture


# Runs each program in a child of one process, which has loaded what takes its time to load.
# Arguments: a folder for what they print and draw, and the names of the programs.
TOGETHER = """
import importlib, os, pathlib, runpy, sys, traceback, warnings
examples, folder, *names = sys.argv[1:]
sys.path[0] = examples
for module in ("fastconv.nn", "numba", "sklearn.datasets", "matplotlib.figure"):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        pass

def run(name):
    begun = pathlib.Path(folder, name)
    for stream in (sys.stdout, sys.stderr):
        file = os.open(f"{begun}.{stream.name[1:-1]}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
    drawn = ["--out", str(begun)] if "matplotlib" in sys.modules else []
    sys.argv = [f"{examples}/{name}.py", "--quick", *drawn]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

running = set()
for name in [*names, *[None] * 2]:
    if name is None or len(running) == 2:
        if running:
            running.remove(os.wait()[0])
    if name is not None:
        pathlib.Path(folder, name).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BLAS has threads, which mind no fork
            child = os.fork()
        if child == 0:
            code = run(name)
            sys.stdout.flush()
            sys.stderr.flush()
            pathlib.Path(folder, f"{name}.code").write_text(str(code))
            os._exit(0)
        running.add(child)
"""


class Done(NamedTuple):
    """What a program left."""

    code: str
    out: str
    err: str
    folder: Path


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    names = [name for name in PROGRAMS if name in selected(request, "name")]
    folder = tmp_path_factory.mktemp("programs")

    def run(_: str) -> dict[str, Done]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", TOGETHER, str(EXAMPLES), str(folder), *names],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return {name: left_by(folder / name) for name in names}

    with side_by_side(request, ["all"], run) as started:
        yield started


def left_by(begun: Path) -> Done:
    code, out, err = (
        path.read_text("utf-8") if path.exists() else ""
        for path in (begun.with_suffix(f".{what}") for what in ("code", "stdout", "stderr"))
    )
    return Done(code, out, err, begun)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs them in forked processes")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, runs: Any) -> None:
    if name != "convolution_layer":
        pytest.importorskip("sklearn")
    if name in ("edge_detection", "forward_pass"):
        pytest.importorskip("PIL")
    done = runs["all"].result()[name]
    assert done.code == "0", done.err
    for text in EXPECTED[name]:
        assert text in done.out
    if name == "forward_pass":
        told = "intermediate results equal PyTorch's" if has("torch") else "not installed"
        assert told in done.out
    if name in LEAST:
        row, least = LEAST[name]
        (percent,) = re.findall(rf"^{row} .* ([\d.]+)%$", done.out, re.M)[-1:]
        assert float(percent) >= least, done.out
    page = (EXAMPLES / f"{name}.md").read_text(encoding="utf-8")
    printed = set(map(masked, done.out.splitlines()))
    shown = "".join(block.text for block in blocks(page) if block.language == "text")
    assert shown
    missing = [line for line in shown.splitlines() if masked(line) not in printed]
    if not has("torch"):
        missing = [line for line in missing if "PyTorch" not in line]
    assert not missing
    if name in SAME:
        for line in done.out.splitlines():
            assert line in page or re.search(r"GFLOP/s|^how fast|^picture", line), line
    if has("matplotlib"):
        shown = {Path(picture).name for picture in re.findall(r"\((images/\S+)\)", page)}
        drawn = {path.name for path in done.folder.iterdir()}
        assert drawn == shown
        for path in done.folder.iterdir():
            assert path.stat().st_size > 3000
            assert size_of(path) == size_of(EXAMPLES / "images" / path.name)
