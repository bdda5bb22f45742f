"""The notice of compilation: one line, and never in the way."""

from __future__ import annotations

import sys

import pytest

from fastconv.jit import compile_notice


class Terminal:
    """Standard error as a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        self.written, self._is_terminal = "", is_terminal

    def write(self, text: str) -> None:
        """Keep what is written."""
        self.written += text

    def flush(self) -> None:
        """Do nothing."""

    def isatty(self) -> bool:
        """Return whether this is a terminal."""
        return self._is_terminal


@pytest.fixture
def slow_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a kernel after others that took long."""
    monkeypatch.delenv("FASTCONV_QUIET", raising=False)
    for name, value in (("_seconds", 1.0), ("_kernels", 3), ("_told", False)):
        monkeypatch.setattr(compile_notice, name, value)


@pytest.mark.usefixtures("slow_kernels")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_notice_is_one_line(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    text = "fastconv: compiling kernels for this machine, once"
    stderr = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    with compile_notice.changing_in_place():
        with compile_notice.compiling():
            pass
        for done in (0, 1):
            compile_notice.tell(done, 2)
            with compile_notice.compiling():
                pass
        compile_notice.tell(2, 2)
    with compile_notice.compiling():
        pass
    if is_terminal:
        shown = [part.strip() for part in stderr.written.replace("\n", "").split("\r")[1:]]
        counts = ["3 so far", "4 of 6", "5 of 6", "6 of 6"]
        assert shown == [f"{text} ({count})" for count in counts]
        assert stderr.written.count("\n") == 1
        assert stderr.written.endswith("\n")
    else:
        assert stderr.written == f"{text} (3 so far)\n"


@pytest.mark.usefixtures("slow_kernels")
def test_the_notice_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal(True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("FASTCONV_QUIET", "1")
    with compile_notice.changing_in_place(), compile_notice.compiling():
        compile_notice.tell(1, 2)
    monkeypatch.setenv("FASTCONV_QUIET", "")
    monkeypatch.setattr(sys, "stderr", None)
    with compile_notice.compiling():
        pass
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(compile_notice, "_seconds", 0.0)
    with compile_notice.compiling():  # a short one
        pass
    assert stderr.written == ""


class Closed(Terminal):
    """Standard error that nobody reads any more."""

    def write(self, text: str) -> None:
        """Refuse what is written."""
        raise BrokenPipeError(text)

    def isatty(self) -> bool:
        """Refuse to tell, or return that this was a terminal."""
        if not self._is_terminal:
            raise ValueError("I/O operation on closed file.")
        return True


@pytest.mark.usefixtures("slow_kernels")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_notice_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    stderr = Closed(is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    with compile_notice.changing_in_place(), compile_notice.compiling():
        compile_notice.tell(1, 2)
    assert compile_notice._kernels == 4
