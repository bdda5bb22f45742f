"""What is known of the processor follows what Numba compiles for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WIDE = "+avx512f,+fma,+avx2"


@pytest.mark.parametrize(
    ("name", "features", "told"),
    [
        ("znver5", WIDE, "AVX-512 2"),
        ("znver4", WIDE, "AVX-512 1"),
        ("skylake-avx512", WIDE, "AVX-512 2"),
        ("tigerlake", WIDE, "AVX-512 1"),
        ("rocketlake", f"{WIDE},+avx512fp16", "AVX-512 2"),
        ("znver4", "+avx2,+fma", "AVX2+FMA 2"),
        ("x86-64", "+sse2", "plain 2"),
    ],
)
def test_multiplications_a_cycle(name: str, features: str, told: str) -> None:
    program = (
        "from fastconv.runtime import cpu; i = cpu.describe().instructions; "
        "print(i.name, i.a_cycle)"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == told
