"""What documents show: commands with their output, and Python.

The convention, for README.md and the pages of docs/:

- A line ``$ command`` in a block ``console`` is run if output stands beneath it. The output is
  compared with what the command prints now, by `differences`. ``fastconv bench`` and ``tune`` run
  with ``--quick``, which changes numbers only.
- A block ``python`` is run; where it has prompts, its output is compared.
- A block with ``title="FILE"`` after its language is written to that file first. Of a ``diff``, the
  added lines are put before the line that follows them.
- A command ``fastconv ...``, in whatever block or in the text, must be one that the command line
  accepts.

``python tests/documents.py docs/tuning.md`` runs the commands of a page and writes their new output
into it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import fastconv
from fastconv.core.conv_problem import DIRECTIONS
from fastconv.select.tuning import FILE_VARIABLE, SWITCH_VARIABLE

ROOT = Path(__file__).parents[1]

#: A line that stands for output that not every machine prints.
ELLIPSIS = "..."

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^``` ?$', re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(fastconv\s[a-z-][^`]*)`")

_NAMES = sorted({name for d in DIRECTIONS for name in fastconv.algorithms(d)}, key=len)[::-1]
_UNIT = r"(?: ?(?:%|(?:µs|ms|s|x|KiB|MiB|GiB)(?!\w)))?"
#: What differs from one machine to another, and what stands for it.
_MASKS = (
    (r"^.*(?=, \d+ (?:cores|threads)\b)", "machine"),
    (r"(?<!\S)/\S+", "path"),
    (r"\([^()]*\)", "()"),
    (r"^ *\*", ""),
    (rf"\b(?:{'|'.join(_NAMES)})\b", "@"),
    (r"[▏▎▍▌▋▊▉█]", " "),
    (rf"[~<+]?\d+(?:[ .,]?\d+)*(?:e[+-]\d+)?{_UNIT}", "#"),
    (r"(?<!\S)-(?!\S)", "#"),
    (r"\s+", " "),
    (r"# (?:# )*#|#", "#"),
)


class Block(NamedTuple):
    """A fenced block: its language, the file it is to be, and its text."""

    language: str
    title: str
    text: str


class Shown(NamedTuple):
    """A command, and the lines that a document shows beneath it."""

    command: str
    output: list[str]


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page that name their language."""
    return [Block(*found) for found in _BLOCK.findall(text)]


def shown(block: Block) -> Iterator[Shown]:
    """Yield the commands of a block ``console``."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield Shown(command, output)


def outputs(page: Path) -> list[Shown]:
    """Return the commands of a page that have output beneath them."""
    consoles = (block for block in blocks(text_of(page)) if block.language == "console")
    return [each for block in consoles for each in shown(block) if any(each.output)]


def commands(text: str) -> set[str]:
    """Return every command ``fastconv ...`` of a page, without comments."""
    found = {" ".join(each.split()) for each in _INLINE.findall(text)}
    for block in blocks(text):
        if block.language in ("sh", "console"):
            lines = block.text.replace("&&", "\n").splitlines()
            stripped = (line.strip().removeprefix("$ ").partition("#")[0] for line in lines)
            found |= {line.strip() for line in stripped if line.startswith("fastconv ")}
    return found


def write(block: Block, folder: Path) -> None:
    """Write a block that has a title to its file, or add its lines to the file."""
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    if block.language != "diff":
        path.write_text(block.text, encoding="utf-8")
        return
    text, added = path.read_text(encoding="utf-8"), ""
    for line in block.text.splitlines(keepends=True):
        if line == "...\n":
            continue
        if line.startswith("+"):
            added += line[1:]
        else:
            assert line[1:] in text, f"{block.title} has no line {line!r}"
            text = text.replace(line[1:], added + line[1:], 1)
            added = ""
    path.write_text(text, encoding="utf-8")


def masked(line: str) -> str:
    """Return a line without what differs from one machine to another.

    Numbers with their units, bars, stars, paths, what stands in parentheses, and the names of
    algorithms and of the processor.
    """
    for pattern, instead in _MASKS:
        line = re.sub(pattern, instead, line)
    return line.strip()


def differences(documented: Sequence[str], printed: Sequence[str]) -> list[str]:
    """Return the lines that only one of two outputs has, masked; their order does not matter.

    An `ELLIPSIS` in what is documented allows the other to have more.
    """
    ours, theirs = (Counter(filter(None, map(masked, lines))) for lines in (documented, printed))
    more = [] if ours.pop(ELLIPSIS, 0) else [f"not shown: {line}" for line in theirs - ours]
    return [*(f"not printed: {line}" for line in ours - theirs), *more]


def refreshed(documented: Sequence[str], printed: Sequence[str]) -> list[str]:
    """Return what is printed, without the lines for which an `ELLIPSIS` stands."""
    if ELLIPSIS not in documented:
        return list(printed)
    ours, theirs = ([masked(line) for line in lines] for lines in (documented, printed))
    same = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    kept = {found.b + i for found in same for i in range(found.size)}
    lines = [line if number in kept else ELLIPSIS for number, line in enumerate(printed)]
    return [line for line, _ in groupby(lines)]


# Running -----------------------------------------------------------------------------------------


@contextmanager
def workplace(page: Path) -> Iterator[Path]:
    """Give a folder with a copy of the package, the program `fastconv` and the page's files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "fastconv", folder / "fastconv")
        program = folder / "bin" / "fastconv"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nfrom fastconv.cli import main\nmain()\n")
        program.chmod(0o755)
        for block in blocks(text_of(page)):
            if block.title:
                write(block, folder)
        yield folder


def run(command: str | list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, or a line of the shell, in such a folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != SWITCH_VARIABLE},
        FILE_VARIABLE: str(folder / "tuning.jsonl"),
        "PYTHONPATH": str(folder),
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        command,
        **{"shell": isinstance(command, str), "cwd": folder, "env": environment},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"},
        timeout=120,
    )


def refresh(page: Path) -> None:
    """Write the new output of its commands into a page."""
    text = text_of(page)
    with workplace(page) as folder:
        for each in outputs(page):
            printed = run(each.command, folder).stdout.strip("\n").replace(str(folder), "/home/me")
            new = refreshed(each.output, printed.splitlines())
            old, new = ("\n".join([f"$ {each.command}", *lines]) for lines in (each.output, new))
            text = text.replace(old, new)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        refresh(Path(argument))
