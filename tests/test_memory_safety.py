"""No algorithm reads or writes a byte beyond its arrays, in any instruction set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from instruction_sets import NARROWER

import fastconv

SCRIPT = Path(__file__).with_name("guarded_memory.py")
# Depthwise problems are small; each kernel is met with several images.
COUNTS = {"depthwise": 144}

# Those that hand addresses to compiled code; "reference" is Python alone.
ALGORITHMS = [name for name in fastconv.algorithms() if name != "reference"]

DIRECT = ("implicit_gemm", "direct", "depthwise")


def run(algorithm: str, **environment: str) -> None:
    count = str(COUNTS.get(algorithm, 60))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), algorithm, count],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == count, done.stderr[-2000:]


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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_protected_pages(algorithm: str) -> None:
    run(algorithm)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 code")
@pytest.mark.parametrize(
    "algorithm", ["implicit_gemm", "direct", "depthwise", "winograd_4x4", "fft"]
)
@pytest.mark.parametrize("name", NARROWER)
def test_protected_pages_with_narrower_vectors(name: str, algorithm: str) -> None:
    if (name, algorithm) == ("plain", "depthwise"):
        # Refused, and no harm done: another algorithm runs.
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
            env={**os.environ, **NARROWER[name]},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "'depthwise' refuses this problem: needs loads by mask" in done.stdout, done.stderr
        return
    run(algorithm, **NARROWER[name])
