"""Arguments of the command line: from text to values, or to one line that says what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import fastconv
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.suites import Item, Layer, check_names
from fastconv.core.conv_problem import DIRECTIONS, Direction
from fastconv.core.geometry import NAMED_PADDING, Padding

#: So many may be measured, for programs that start too many; beyond that it is a typing error.
THREADS_PER_CORE = 4


@contextmanager
def plain_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn what the user can mend, `BenchError` and `kinds`, into one line and exit code 2."""
    mendable: tuple[type[Exception], ...] = (BenchError, *kinds)
    try:
        yield
    except mendable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def file_named(option: str, text: str | None) -> Path | None:
    """Return the file that an option names; an empty name is none, nor the working folder."""
    if text == "":
        raise BenchError(f"{option} must name a file, got ''")
    return None if text is None else Path(text)


def directions_named(name: str | None) -> tuple[Direction, ...] | None:
    """Return the directions that an option names: one, or all; None if it is not given."""
    if name is None:
        return None
    check_names("direction", [name], (*DIRECTIONS, "all"))
    return DIRECTIONS if name == "all" else (cast(Any, name),)


def check_dtype(dtype: str) -> None:
    """Raise `BenchError` for a type that fastconv does not compute in."""
    check_names("dtype", [dtype], ("float32", "float64"))


# Threads and problems --------------------------------------------------------------------


def get_ready(items: Sequence[Item], batch: int | None, dtype: str, threads: int | None) -> None:
    """Set the number of threads; raise for settings and problems that are impossible."""
    from fastconv.select.choice import circumstances

    with plain_errors(ValueError):
        use_threads(threads)
        circumstances()  # whether the environment's settings can be read
        for item in items:
            if not item.layer.problem(batch, dtype).N:
                raise BenchError(f"there must be an image to measure, got N=0 in {item.layer.id!r}")


def use_threads(wanted: int | None) -> None:
    """Set the number of threads, if one is given; refuse numbers that measure nothing useful."""
    from fastconv.runtime.threads import THREADS_VARIABLE, available_cores

    count, cores = wanted or fastconv.get_num_threads(), available_cores()
    if count > THREADS_PER_CORE * cores:
        name = "--threads" if wanted else THREADS_VARIABLE
        raise BenchError(
            f"{name} must be at most {THREADS_PER_CORE * cores}, {THREADS_PER_CORE} for each of "
            f"the {cores} cores that this process may use, got {count}: more threads than cores "
            "bring nothing"
        )
    fastconv.set_num_threads(count)


# Shapes ----------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """What the options of a convolution say, as text; as here, they say nothing."""

    stride: str = "1"
    padding: str = "0"
    dilation: str = "1"
    groups: int = 1


def layers_given(shapes: Sequence[str], geometry: Geometry) -> tuple[Layer, ...]:
    """Return a layer for each N,C,H,W,K,R,S, all with the same geometry."""
    if geometry != Geometry() and not shapes:
        raise BenchError(
            f"--{', --'.join(Geometry._fields)} go with a shape, such as 1,64,56,56,64,3,3; "
            "layers of suites have their own"
        )
    return tuple(_layer(text, geometry) for text in shapes)


def _layer(text: str, geometry: Geometry) -> Layer:
    N, C, H, W, K, R, S = _integers("the shape N,C,H,W,K,R,S", text, (7,))
    layer = Layer(
        *("given", text, C, K, H, W, R, S),
        stride=_one_or_pair("--stride", geometry.stride),
        padding=_padding(geometry.padding),
        dilation=_one_or_pair("--dilation", geometry.dilation),
        groups=geometry.groups,
        count=1,
        batch=N,
    )
    layer.problem()  # whether its sizes fit each other
    return layer


def _integers(name: str, text: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Read numbers separated by commas, as many as `counts` allows."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        many = " or ".join(str(count) for count in counts)
        raise BenchError(f"{name} must be {many} whole numbers with commas, got {text!r}")
    return numbers


def _one_or_pair(name: str, text: str) -> int | tuple[int, int]:
    """Read one number, or two for height and width."""
    numbers = _integers(name, text, (1, 2))
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _padding(text: str) -> Padding:
    """Read padding in any of its spellings."""
    if text in NAMED_PADDING:
        return text
    numbers = _integers("--padding", text, (1, 2, 4))
    if len(numbers) == 4:
        top, bottom, left, right = numbers
        return (top, bottom), (left, right)
    return _one_or_pair("--padding", text)
