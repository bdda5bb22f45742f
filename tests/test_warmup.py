"""`fastconv warmup`: everything is compiled and kept, or nothing is and that is told."""

from __future__ import annotations

import re
from pathlib import Path

from test_cli import in_new_process, one_error


def test_warmup_compiles_once_and_for_all(tmp_path: Path) -> None:
    environment = {"FASTCONV_CACHE_DIR": str(tmp_path)}
    # The last ones of the lists: to compile all of them takes a minute.
    fewer = """
import fastconv.bench.warmup as warmup
import fastconv.pooling.pool_registry as pooling, fastconv.select.conv_registry as registry
registry.ALGORITHMS, pooling.ALGORITHMS = registry.ALGORITHMS[-2:], pooling.ALGORITHMS[-1:]
shapes = warmup.all_shapes
warmup.all_shapes = lambda dtype: shapes(dtype)[-5:]
"""

    def warm_up(*options: str) -> tuple[int, int]:
        arguments = ("warmup", "--dtype", "float32", *options)
        outcome = in_new_process(*arguments, environment=environment, before=fewer)
        assert (outcome.code, outcome.err) == (0, "")
        found = re.search(r"compiled (\d+) kernels in [\d.]+ s; (\d+) are ready", outcome.out)
        assert found
        return int(found[1]), int(found[2])

    stale = tmp_path / "0123456789abcdef" / "old.kernel"
    stale.parent.mkdir()
    stale.write_text("compiled by an older version")
    compiled, ready = warm_up("--clear")
    assert not stale.parent.exists()
    assert compiled == ready == len(list(tmp_path.rglob("*.kernel")))
    assert ready > 5
    assert warm_up() == (0, ready)
    bystander = tmp_path / "letter.txt"
    bystander.write_text("dear")
    # One that is called from Python: others are parts of these, and are not missed.
    next(tmp_path.rglob("naive_loops.forward-*.kernel")).unlink()
    assert warm_up() == (1, ready)
    outcome = in_new_process("warmup", "--dtype", "int8", "--clear", environment=environment)
    assert "float32, float64" in one_error(outcome)
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
