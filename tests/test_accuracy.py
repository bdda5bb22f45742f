"""The page about accuracy is complete, and the program that measures for it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv
from fastconv.select import conv_registry

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
LESS_EXACT = [a.name for a in conv_registry.offering("forward") if a.precision != "highest"]


def parts(text: str) -> dict[str, str]:
    """Return what stands between marks, by name."""
    found = re.findall(r"<!-- begin (.+?) -->(.*?)<!-- end \1 -->", text, re.DOTALL)
    assert len(found) == text.count("<!-- begin ") == text.count("<!-- end ")
    return dict(found)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_the_page_tells_of_every_algorithm(algorithm: str) -> None:
    contract = parts(PAGE.read_text("utf-8"))["contract"]
    (row,) = re.findall(rf"^\| `{algorithm}` .*$", contract, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == ('"high"' if algorithm in LESS_EXACT else '"highest"')
    promised, measured = (map(float, filter(None, cells[i::2])) for i in (2, 3))
    if algorithm in LESS_EXACT:
        assert all(most > seen for most, seen in zip(promised, measured, strict=True))
    else:
        assert not list(promised)


def test_the_program_writes_all_parts_of_the_page(tmp_path: Path) -> None:
    for needed in ("sklearn", "PIL", "matplotlib"):
        pytest.importorskip(needed)
    page, plot = tmp_path / "accuracy.md", tmp_path / "accuracy.png"
    page.write_text("Words.\n\n<!-- begin machine -->\nold\n<!-- end machine -->\n\nMore.\n\n")
    program = ROOT / "benchmarks" / "accuracy.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", program, "--quick", "--out", page, "--plot", plot],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = page.read_text("utf-8")
    assert written.startswith("Words.\n\n<!-- begin machine -->")
    assert "\nold\n" not in written
    assert "\n\nMore.\n\n<!-- begin contract -->" in written
    # Extended precision, which the part about float64 needs, is not there on all machines.
    assert {*parts(written), "float64"} == set(parts(PAGE.read_text("utf-8")))
    assert plot.stat().st_size > 3000
