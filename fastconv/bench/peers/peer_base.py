"""What a runtime is: one way to have convolutions computed.

A runtime imports its library in `Runtime.start`, inside a process of its own: none of these
libraries is a dependency, and none is ever loaded beside another. `Runtime.prepare` does what a
user does once, mostly packing the weights; the function that it returns is what is timed.
Where a library has a faster way to be called, that one is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastconv.core.conv_problem import Conv2dProblem, Direction

Array = NDArray[Any]


class Ready(NamedTuple):
    """A convolution made ready."""

    run: Callable[[], Any]  # what is timed; `numpy.asarray` makes an array of what it returns
    algorithm: str = ""  # what runs, where the runtime tells
    keep: tuple[Any, ...] = ()  # what the runtime knows by address only: it must live on


class Runtime(ABC):
    """One way to have convolutions computed."""

    name: str
    title: str
    packages: tuple[str, ...] = ()  # that must be installed; the version is that of the first
    directions: tuple[Direction, ...] = ("forward",)

    @property
    def missing(self) -> str | None:
        """The first package that is not installed; nothing is imported to find that out."""
        return next((each for each in self.packages if find_spec(each) is None), None)

    @property
    def version(self) -> str | None:
        """The version of the first package; None if any is missing."""
        if self.missing:
            return None
        found = _distributions().get(self.packages[0])
        return metadata.version(found[0]) if found else "?"

    @abstractmethod
    def start(self, threads: int) -> None:
        """Import the library and set its number of threads."""

    @abstractmethod
    def prepare(self, problem: Conv2dProblem, x: Array, weight: Array) -> Ready:
        """Do all that is done once for many calls on inputs of one shape."""

    def prepare_gradient(
        self, problem: Conv2dProblem, direction: Direction, first: Array, second: Array
    ) -> Ready:
        """Do all that is done once for many gradients.

        `first` and `second` are the arrays that the direction reads: weights and the output's
        gradient, or the input and the output's gradient.
        """
        raise NotImplementedError(f"{self.name} computes no {direction}")


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    """Return which installed distributions have a package: cv2 comes with several."""
    return dict(metadata.packages_distributions())
