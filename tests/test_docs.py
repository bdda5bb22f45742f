"""What README.md and docs/ show is what the commands print; see `documents` for the convention."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
from documents import (
    ELLIPSIS,
    ROOT,
    Block,
    differences,
    masked,
    outputs,
    refreshed,
    run,
    shown,
    text_of,
    workplace,
)

from fastconv import cli

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


posix = pytest.mark.skipif(os.name == "nt", reason="the commands are a POSIX shell's")


@posix
@pytest.mark.parametrize("page", [page for page in PAGES if outputs(page)], ids=name_of)
def test_outputs_are_those_of_the_commands(page: Path) -> None:
    for package in ("typer", "rich", "sklearn", "onnx"):
        pytest.importorskip(package)
    with workplace(page) as folder:
        for command, output in outputs(page):
            done = run(re.sub(r"^fastconv (bench|tune)\b", r"\g<0> --quick", command), folder)
            found = differences(output, done.stdout.splitlines())
            assert not found, f"$ {command}\n{done.stdout}\n" + "\n".join(found)
            assert done.returncode == 0


def python_of(page: Path) -> list[str]:
    found = documents.blocks(text_of(page))
    return [block.text for block in found if block.language == "python" and not block.title]


# `test_warmup` runs that of README.md, which trains networks.
@posix
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if python_of(page)], ids=name_of)
def test_python_runs(page: Path) -> None:
    texts = python_of(page)
    blocks = documents.blocks(text_of(page))
    written = {Path(block.title).stem for block in blocks if block.title}
    source = "\n".join(block.text for block in blocks if block.language == "python")
    for name in {*re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)} - written:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with workplace(page) as folder:
        program, session = folder / "program.py", folder / "session.txt"
        program.write_text("\n".join(text for text in texts if ">>> " not in text))
        session.write_text("\n".join(text for text in texts if ">>> " in text))
        for arguments in ([str(program)], ["-m", "doctest", str(session)]):
            done = run([sys.executable, "-W", "error", *arguments], folder)
            assert done.returncode == 0, done.stdout


COMMANDS = sorted({command for page in PAGES for command in documents.commands(text_of(page))})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_accepts_what_is_shown(command: str) -> None:
    typer: Any = pytest.importorskip("typer")
    program = typer.main.get_command(cli.build())
    words = shlex.split(command)[1:]
    with contextlib.suppress(typer.Exit):  # after --help and --version
        context = program.make_context("fastconv", list(words))
        name, chosen, rest = program.resolve_command(context, words)
        if rest:  # more than the name of a command
            chosen.make_context(name, rest, parent=context)


# The checks themselves -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (" * direct           112 µs  8.4%     32.3  ▉       14%   3 968x   26 KiB  0.06 s", "@ #"),
        ("   reference       ~250 ms   12%     0.92    0.2%    1.00x   <0.01x     0", "@ #"),
        ("dw3 forward  direct  75.1 µs im2col_jit  1.2 ms  1.00x", "dw# forward @ # @ #"),
        ("AMD EPYC 9, AVX2, 2 threads by tbb, float32", "machine, # threads by tbb, float#"),
        ("small  auto   9   2e-06   -", "small auto #"),
        ("at worst 1.59x (body forward)", "at worst # ()"),
        ("measurements are in /home/me/tuning.jsonl", "measurements are in path"),
        ("1x64x56x56 → 64x28x28, 3x3, stride 2", "#x#x#x# → #x#x#, #x#, stride #"),
    ],
)
def test_masks(line: str, instead: str) -> None:
    assert masked(line) == instead


def test_differences_are_found() -> None:
    documented = ["  direct  1.2 ms", "* naive  30 ms", "", "2 results agree"]
    printed = ["* im2col 7 µs", "  fft 0.1 s", "9 results agree"]
    assert not differences(documented, printed)
    assert differences(documented, printed[1:]) == ["not printed: @ #"]
    assert differences(documented[1:], printed) == ["not shown: @ #"]
    assert not differences([ELLIPSIS, *documented[1:]], printed)
    assert differences([ELLIPSIS, "2 results differ"], printed) == ["not printed: # results differ"]


def test_refreshing_keeps_what_is_shown() -> None:
    printed = ["fastconv 0.1", "", "rgb8 forward", "direct 7 ms", "busy", "2 results agree"]
    assert refreshed(["1 results agree"], printed) == printed
    documented = [ELLIPSIS, "rgb8 forward", "im2col 1 ms", "9 results agree"]
    shortened = [ELLIPSIS, *printed[2:4], ELLIPSIS, printed[-1]]
    assert refreshed(documented, printed) == shortened
    assert not differences(shortened, printed)


def test_blocks_are_read(tmp_path: Path) -> None:
    page = """
Run `fastconv
info`.
```console
$ fastconv bench   # all
a

b
$ ls
```
```csv title="a/b.csv"
one
two
```
"""
    console, table = documents.blocks(page)
    assert [*shown(console)] == [("fastconv bench   # all", ["a", "", "b"]), ("ls", [])]
    assert documents.commands(page) == {"fastconv info", "fastconv bench"}
    documents.write(table, tmp_path)
    documents.write(Block("diff", "a/b.csv", "+half\n two\n"), tmp_path)
    assert (tmp_path / "a/b.csv").read_text() == "one\nhalf\ntwo\n"
