"""What this processor offers: vector width, registers, caches.

A leaf that every level may read. The instruction set is the one Numba compiles for, so the
environment variables ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` are respected.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from fastconv.runtime import forks


@dataclass(frozen=True)
class InstructionSet:
    """A family of vector instructions.

    Attributes
    ----------
    name : str
    bits : int
        Width of a vector register.
    registers : int
        How many vector registers there are.
    fma : bool
        Whether a multiplication and an addition are one instruction.
    masks : bool
        Whether loads and stores by mask are instructions; else they take one branch a lane.
    a_cycle : int
        How many multiplications of vectors a core begins in a cycle.
    """

    name: str
    bits: int
    registers: int
    fma: bool
    masks: bool
    a_cycle: int = 2

    def lanes(self, dtype: object) -> int:
        """Return how many elements one vector register holds."""
        return self.bits // (32 if dtype == "float32" else 64)

    def flops(self, dtype: object) -> float:
        """Return how many operations a core could do in a second, at four cycles a nanosecond."""
        return 2 * self.a_cycle * self.lanes(dtype) * 4e9


AVX512 = InstructionSet("AVX-512", 512, 32, fma=True, masks=True)
AVX2 = InstructionSet("AVX2+FMA", 256, 16, fma=True, masks=True)
#: Processors with one unit for AVX-512, or two that each do half of an instruction.
IN_HALVES = ("znver4", "icelake-client", "tigerlake", "rocketlake")
#: None of them has this feature: a virtual machine that names its processor so has hidden a newer
#: one, with two whole units.
WITH_WHOLE_UNITS = "avx512fp16"
AVX512_IN_HALVES = replace(AVX512, a_cycle=1)
NEON = InstructionSet("NEON", 128, 32, fma=True, masks=False)
PLAIN = InstructionSet("plain", 128, 16, fma=False, masks=False)


@dataclass(frozen=True)
class Cpu:
    """The processor, as far as kernels and reports care.

    Attributes
    ----------
    name : str
        As the operating system calls it.
    architecture : str
        For instance "x86_64".
    cores : int
        Cores this process may use.
    instructions : InstructionSet
        The widest that Numba compiles for here.
    l1_bytes, l2_bytes, l3_bytes : int
        Data caches, the first two of one core; common sizes where the system does not tell.
    """

    name: str
    architecture: str
    cores: int
    instructions: InstructionSet
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int


@lru_cache(maxsize=1)
def describe() -> Cpu:
    """Return the processor of this process.

    Examples
    --------
    >>> describe().cores >= 1
    True
    """
    with forks.held_off():
        from fastconv.runtime.threads import available_cores

        instructions = _instruction_set()
    l1, l2, l3 = (_cache_bytes(level) for level in (1, 2, 3))
    return Cpu(
        name=_processor_name(),
        architecture=platform.machine(),
        cores=available_cores(),
        instructions=instructions,
        l1_bytes=l1 or 32 * 2**10,
        l2_bytes=l2 or 512 * 2**10,
        l3_bytes=l3 or 8 * 2**20,
    )


def _instruction_set() -> InstructionSet:
    features = _features()
    if "avx512f" in features and "fma" in features:
        in_halves = _model() in IN_HALVES and WITH_WHOLE_UNITS not in features
        return AVX512_IN_HALVES if in_halves else AVX512
    if "avx2" in features and "fma" in features:
        return AVX2
    if "neon" in features or platform.machine().lower() in ("arm64", "aarch64"):
        return NEON
    return PLAIN


def _model() -> str:
    """Return LLVM's name of the processor that Numba compiles for."""
    import llvmlite.binding as llvm
    from numba.core import config

    named = config.CPU_NAME not in (None, "host")
    return str(config.CPU_NAME if named else llvm.get_host_cpu_name())


def _features() -> frozenset[str]:
    """Return the processor features that Numba compiles for, by LLVM's names."""
    import llvmlite.binding as llvm
    from numba.core import config

    listed = config.CPU_FEATURES
    if listed is None and config.CPU_NAME not in (None, "host"):
        return frozenset()  # a named processor without features: nothing to rely on
    if listed is None:
        return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cache_bytes(level: int) -> int | None:
    """Return the size of the data cache of `level` that the first core sees (Linux only)."""
    for index in range(8):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            if int((folder / "level").read_text()) != level:
                continue
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            size = (folder / "size").read_text().strip()
            return int(size[:-1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    names = {1: "SC_LEVEL1_DCACHE_SIZE", 2: "SC_LEVEL2_CACHE_SIZE", 3: "SC_LEVEL3_CACHE_SIZE"}
    try:
        return os.sysconf(names[level]) or None
    except (AttributeError, ValueError, OSError):
        return None
