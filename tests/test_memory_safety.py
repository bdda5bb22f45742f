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
from side_by_side import side_by_side

import fastconv

SCRIPT = Path(__file__).with_name("guarded_memory.py")
OTHERS = {
    "pooling": Path(__file__).with_name("guarded_pooling.py"),
    "products": Path(__file__).with_name("guarded_products.py"),
}

# Those that hand addresses to compiled code; "reference" is Python alone.
ALGORITHMS = [name for name in fastconv.algorithms() if name != "reference"]
# Those written in vectors, which are others for every instruction set.
VECTORS = ("implicit_gemm", "direct", "depthwise", "winograd_4x4", "fft")

#: What runs, in which instruction set, and how many problems. Depthwise problems are small; each
#: kernel is met with several images. Loops are the same for every instruction set.
RUNS = {
    **{f"{name}-native": (96 if name == "depthwise" else 60) for name in ALGORITHMS},
    **{
        f"{name}-{narrower}": (60 if name == "depthwise" else 42)
        for narrower in NARROWER
        for name in VECTORS
        if (name, narrower) != ("depthwise", "plain")  # refused: see below
    },
    "pooling-native": 48,
    **{f"pooling-{narrower}": 30 for narrower in NARROWER},
    **{f"products-{instructions}": 60 for instructions in ("native", *NARROWER)},
}


def run(name: str) -> subprocess.CompletedProcess[str]:
    """Run problems on guarded memory in a process of its own."""
    what, _, instructions = name.partition("-")
    arguments = [str(OTHERS[what])] if what in OTHERS else [str(SCRIPT), what]
    narrower = ["narrower"] if instructions in NARROWER else []
    return subprocess.run(
        [sys.executable, *arguments, str(RUNS[name]), *narrower],
        env={**os.environ, **NARROWER.get(instructions, {})},
        capture_output=True,
        text=True,
        timeout=240,  # another runs beside it
        check=False,
    )


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with side_by_side(request, "name", run) as started:
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
    done = runs[name].result()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(RUNS[name]), done.stderr[-2000:]


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
