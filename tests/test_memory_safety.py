"""No algorithm reads or writes a byte beyond its arrays, in any instruction set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from instruction_sets import NARROWER
from side_by_side import selected, side_by_side

import fastconv

SCRIPT = Path(__file__).with_name("guarded_runs.py")

# Those that hand addresses to compiled code; "reference" is Python alone.
ALGORITHMS = [name for name in fastconv.algorithms() if name != "reference"]
# Those written in vectors, which are others for every instruction set.
VECTORS = ("implicit_gemm", "direct", "depthwise", "winograd_4x4", "fft")

#: What runs, in which instruction set, and how many problems. Depthwise problems are small; each
#: kernel is met with several images. Loops are the same for every instruction set.
RUNS = {
    **{f"{name}-native": (96 if name == "depthwise" else 60) for name in ALGORITHMS},
    **{
        f"{name}-{narrower}": (36 if name == "depthwise" else 42)
        for narrower in NARROWER
        for name in VECTORS
        if (name, narrower) != ("depthwise", "plain")  # refused: see below
    },
    **{f"products-{instructions}": 60 for instructions in ("native", *NARROWER)},
    # The last of a process: it guards more of the library.
    **{f"pooling-{instructions}": 30 for instructions in NARROWER},
    "pooling-native": 48,
}
#: Of the machine's own instruction set, what a second process runs.
SECOND = ("depthwise", "winograd_2x2", "winograd_4x4", "fft")


def process_of(name: str) -> str:
    """Return the process that something runs in: importing and starting take most of the time."""
    what, _, instructions = name.partition("-")
    return f"{instructions}_2" if instructions == "native" and what in SECOND else instructions


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    names = [name for name in RUNS if name in selected(request, "name")]

    def run(process: str) -> subprocess.CompletedProcess[str]:
        """Run problems on guarded memory in a process of its own."""
        instructions = process.partition("_")[0]
        what = [
            f"{name.partition('-')[0]}:{RUNS[name]}"
            for name in names
            if process_of(name) == process
        ]
        return subprocess.run(
            [sys.executable, str(SCRIPT), *what, *["narrower"] * (instructions in NARROWER)],
            env={**os.environ, **NARROWER.get(instructions, {})},
            capture_output=True,
            text=True,
            timeout=600,  # another runs beside it
            check=False,
        )

    with side_by_side(request, dict.fromkeys(map(process_of, names)), run) as started:
        yield started


pytestmark = pytest.mark.skipif(os.name != "posix", reason="mprotect as on POSIX systems")


@pytest.mark.parametrize(("at_end", "index"), [(False, "-1"), (True, "array.size")])
@pytest.mark.parametrize("access", ["element.value", "element.value = 1"])
def test_the_guard_catches_a_stray_access(at_end: bool, index: str, access: str) -> None:
    program = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import ctypes, numpy as np
from guarded_memory import guarded
array = guarded(np.ones(100, np.float32), {at_end})
assert array.sum() == 100
element = ctypes.c_float.from_address(array.ctypes.data + 4 * ({index}))
print("reached", flush=True)
{access}
print("survived")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["reached"], done.stderr
    assert done.returncode < 0


@pytest.mark.parametrize("name", RUNS)
def test_protected_pages(name: str, runs: dict[str, Any]) -> None:
    if not name.endswith("-native") and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86-64 code")
    done = runs[process_of(name)].result()
    what = name.partition("-")[0]
    # Whatever ends the process is not among those that it has told of.
    assert f"{what} {RUNS[name]}" in done.stdout.splitlines(), (
        f"{done.stdout} exit code {done.returncode} {done.stderr[-2000:]}"
    )


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 code")
def test_depthwise_without_masks_is_refused_and_does_no_harm() -> None:
    program = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import fastconv, numpy as np, reference
x, weight = np.ones((1, 3, 9, 11), np.float32), np.ones((3, 1, 3, 3), np.float32)
plan = fastconv.plan_conv2d(x.shape, weight, padding=1, groups=3)
assert plan.algorithm != "depthwise"
assert np.array_equal(plan(x), reference.conv2d(x, weight, padding=1, groups=3))
try:
    fastconv.conv2d(x, weight, padding=1, groups=3, algorithm="depthwise")
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **NARROWER["plain"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "'depthwise' refuses this problem: needs loads by mask" in done.stdout, done.stderr
