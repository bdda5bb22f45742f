"""How training shows its progress: a bar, one line an epoch, or nothing."""

from __future__ import annotations

import sys
from typing import Any, Literal, TypeAlias, get_args

from fastconv.nn.training.history import describe
from fastconv.runtime.optional_packages import missing

#: What a user may pass as `progress`.
ProgressKind: TypeAlias = Literal["auto", "bar", "line", "silent"]
_KINDS: tuple[ProgressKind, ...] = get_args(ProgressKind)


class Progress:
    """Prints one line an epoch, or draws bars by tqdm if that is given, or is silent."""

    def __init__(self, silent: bool = False, tqdm: Any = None) -> None:
        self.silent, self.tqdm = silent, tqdm
        self.bar: Any = None

    def begin(self, epoch: int, epochs: int, done: int, batches: int) -> None:
        """Begin an epoch of so many batches (0: unknown), of which some are done."""
        self.title = f"epoch {epoch + 1}/{epochs}"
        if self.tqdm is not None:
            size = {"total": batches or None, "initial": done, "unit": "batch"}
            self.bar = self.tqdm(desc=self.title, **size)

    def batch(self, loss: float) -> None:
        """Count a batch."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update()

    def end(self, values: dict[str, float]) -> None:
        """Show the figures of the epoch."""
        if self.bar is not None:
            self.bar.set_postfix_str(describe(values))
        elif not self.silent:
            print(f"{self.title}: {describe(values)}", flush=True)
        self.close()

    def close(self) -> None:
        """Leave the terminal in order."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def make(kind: ProgressKind) -> Progress:
    """Return the progress of that kind."""
    if kind not in _KINDS:
        raise ValueError(f"progress must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    if kind == "bar" or (kind == "auto" and sys.stderr.isatty()):
        try:
            from tqdm import tqdm
        except ImportError:
            if kind == "bar":
                raise ImportError(missing('progress="bar"', "tqdm", "nn")) from None
        else:
            return Progress(tqdm=tqdm)
    return Progress(silent=kind == "silent")
