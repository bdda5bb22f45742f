"""No algorithm reads or writes a byte beyond its arrays, in any instruction set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

SCRIPT = Path(__file__).with_name("guarded_memory.py")
COUNT = 60

# As NUMBA_CPU_NAME and NUMBA_CPU_FEATURES; what this machine has, and narrower ones.
NARROWER = {
    "AVX2": ("haswell", "+avx,+avx2,+fma"),
    "plain": ("x86-64", "+sse2"),
}


def run(algorithm: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), algorithm, str(COUNT)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(COUNT)


pytestmark = pytest.mark.skipif(os.name != "posix", reason="mprotect as on POSIX systems")


def test_the_guard_catches_a_stray_access() -> None:
    for index in ("-1", "array.size"):
        program = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import ctypes, numpy as np
from guarded_memory import guarded
array = guarded(np.ones(100, np.float32), {index} != -1)
ctypes.c_float.from_address(array.ctypes.data + 4 * {index}).value
"""
        done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
        assert done.returncode < 0


@pytest.mark.parametrize("algorithm", [a for a in fastconv.algorithms() if a != "reference"])
def test_protected_pages(algorithm: str) -> None:
    run(algorithm)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 code")
@pytest.mark.parametrize("name", NARROWER)
def test_protected_pages_with_narrower_vectors(name: str) -> None:
    cpu, features = NARROWER[name]
    run("direct", NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
