"""How training shows where it is: a bar, a line an epoch, or not at all."""

from __future__ import annotations

import sys
from typing import Any

from fastconv.nn.training.history import describe

_KINDS = ("auto", "bar", "line", "silent")


class Progress:
    """Shows nothing; the others show something."""

    def begin(self, epoch: int, epochs: int, done: int, batches: int) -> None:
        """Begin an epoch of so many batches (0: unknown), of which some are done."""

    def batch(self, loss: float) -> None:
        """Count a batch."""

    def end(self, values: dict[str, float]) -> None:
        """End the epoch."""

    def close(self) -> None:
        """Leave the screen in order."""


class Lines(Progress):
    """One line an epoch."""

    def begin(self, epoch: int, epochs: int, done: int, batches: int) -> None:
        """Note which epoch it is."""
        self.title = f"epoch {epoch + 1}/{epochs}"

    def end(self, values: dict[str, float]) -> None:
        """Print the line."""
        print(f"{self.title}: {describe(values)}", flush=True)


class Bar(Progress):
    """A bar of tqdm for each epoch."""

    def __init__(self, tqdm: Any) -> None:
        self.tqdm = tqdm
        self.bar: Any = None

    def begin(self, epoch: int, epochs: int, done: int, batches: int) -> None:
        """Draw an empty bar."""
        self.bar = self.tqdm(
            desc=f"epoch {epoch + 1}/{epochs}", total=batches or None, initial=done, unit="batch"
        )

    def batch(self, loss: float) -> None:
        """Let it grow."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update()

    def end(self, values: dict[str, float]) -> None:
        """Write the epoch's figures beside it."""
        if self.bar is not None:
            self.bar.set_postfix_str(describe(values))
        self.close()

    def close(self) -> None:
        """End its line."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def make(kind: str) -> Progress:
    """Return the progress that is asked for."""
    if kind not in _KINDS:
        raise ValueError(f"progress must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    if kind == "silent":
        return Progress()
    if kind == "bar" or (kind == "auto" and sys.stderr.isatty()):
        try:
            from tqdm import tqdm
        except ImportError:
            if kind == "bar":
                raise ImportError(
                    'progress="bar" needs the package tqdm: pip install "fastconv[nn]"'
                ) from None
        else:
            return Bar(tqdm)
    return Lines()
