"""`fastconv warmup`: everything is compiled and kept, or nothing is and that is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import in_new_process, one_error

README = Path(__file__).parent.parent / "README.md"

# The last algorithms of the lists: to compile all of them takes a minute.
FEWER = """
import fastconv.bench.warmup_programs as programs
import fastconv.pooling.pool_registry as pooling, fastconv.select.conv_registry as registry
registry.ALGORITHMS, pooling.ALGORITHMS = registry.ALGORITHMS[-2:], pooling.ALGORITHMS[-1:]
shapes = programs.all_shapes
programs.all_shapes = lambda dtype: shapes(dtype)[-5:]
"""


def warm_up(folder: Path, *options: str, before: str = "") -> tuple[int, int]:
    """Return how many kernels were compiled, and how many there are."""
    environment = {"FASTCONV_CACHE_DIR": str(folder)}
    outcome = in_new_process("warmup", *options, environment=environment, before=before)
    assert (outcome.code, outcome.err) == (0, "")
    found = re.search(r"compiled (\d+) kernels in [\d.]+ s; (\d+) are ready", outcome.out)
    assert found
    return int(found[1]), int(found[2])


def test_warmup_compiles_once_and_for_all(tmp_path: Path) -> None:
    def few(*options: str) -> tuple[int, int]:
        return warm_up(tmp_path, "--for", "bench", *options, before=FEWER)

    stale = tmp_path / "0123456789abcdef" / "old.kernel"
    stale.parent.mkdir()
    stale.write_text("compiled by an older version")
    compiled, ready = few("--clear")
    assert not stale.parent.exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".kernel"}
    assert compiled == ready == len(files)
    assert ready > 5
    assert few() == (0, ready)
    bystander = tmp_path / "letter.txt"
    bystander.write_text("dear")
    # One that is called from Python: others are parts of these, and are not missed.
    next(tmp_path.rglob("naive_loops.forward-*.kernel")).unlink()
    assert few("--dtype", "float32") == (1, ready)
    environment = {"FASTCONV_CACHE_DIR": str(tmp_path)}
    for option, value, right in (
        ("--dtype", "int8", "float32, float64"),
        ("--for", "fun", "train, inference, bench"),
    ):
        outcome = in_new_process("warmup", option, value, "--clear", environment=environment)
        assert right in one_error(outcome)
    assert len(list(tmp_path.rglob("*.kernel"))) == ready
    assert bystander.read_text() == "dear"


def test_warmup_without_a_folder_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    environment = {"FASTCONV_CACHE_DIR": str(tmp_path / "file")}
    for options in ((), ("--clear",)):
        outcome = in_new_process("warmup", *options, environment=environment)
        assert (outcome.code, outcome.out) == (1, "")
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: compiling now would be in vain: ")
        assert str(tmp_path / "file") in line
        assert "FASTCONV_CACHE_DIR" in line


def test_warmup_without_the_compiler_says_so_at_once(tmp_path: Path) -> None:
    environment = {"FASTCONV_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "1"}
    outcome = in_new_process("warmup", "--for", "bench", before=FEWER, environment=environment)
    assert (outcome.code, outcome.out) == (1, "")
    assert "NUMBA_DISABLE_JIT" in outcome.err


def test_programs_of_the_readme_compile_nothing_after_it(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    fewer = "import fastconv.bench.warmup_programs as p; p.load_suite = lambda _: ()"
    _, ready = warm_up(tmp_path, before=fewer)  # without other networks' layers
    programs = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(list(tmp_path.rglob("*.kernel"))) == ready
