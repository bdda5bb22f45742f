"""Forks that meet something in the middle: nothing stays locked, and nothing else is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_fork_that_is_interrupted_leaves_nothing_closed() -> None:
    # Ctrl-C while a fork waits for the compiler's lock: Python forks all the same.
    done = run("""
import os, signal, threading, time
import numpy as np, fastconv
x, weight = np.ones((2, 3, 20, 20), np.float32), np.ones((4, 3, 3, 3), np.float32)
fastconv.conv2d(x, weight)
from numba.core.compiler_lock import global_compiler_lock
release, held = threading.Event(), threading.Event()

def compile_for_long():
    with global_compiler_lock:
        held.set()
        release.wait()

thread = threading.Thread(target=compile_for_long)
thread.start()
held.wait()
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
child = os.fork()
if child == 0:
    os._exit(0)
release.set()
thread.join()
assert os.waitpid(child, 0)[1] == 0

def first_use():
    fastconv.max_pool2d(x, 2)
    fastconv.conv2d(x, weight, algorithm="naive")

other = threading.Thread(target=first_use, daemon=True)
other.start()
other.join(20)
assert not other.is_alive()
child = os.fork()
if child == 0:
    signal.alarm(20)
    fastconv.avg_pool2d(x, 2)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("right")
""")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "right\n"
    assert done.stderr.count("KeyboardInterrupt") == 1  # which Python tells, and ignores


def test_a_threading_layer_that_another_program_started() -> None:
    # Its threads are not ours to stop: the child runs serial kernels, and nothing is printed.
    done = run("""
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, Python tells of such threads
import numba, numpy as np, fastconv
from fastconv.runtime import threads
threads._load_tbb()

@numba.njit(parallel=True)
def double(x):
    for i in numba.prange(x.size):
        x[i] *= 2

thread = threading.Thread(target=double, args=(np.ones(1000),))
thread.start()
thread.join()
x, weight = np.ones((8, 16, 40, 40), np.float32), np.ones((16, 16, 3, 3), np.float32)
assert (np.rint(fastconv.conv2d(x, weight)) == 144).all()
child = os.fork()
if child == 0:
    os._exit(0 if (np.rint(fastconv.conv2d(x, weight)) == 144).all() else 3)
assert os.waitpid(child, 0)[1] == 0
print("right")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


@pytest.mark.parametrize("stream", ["open", "broken", "closed"])
def test_one_sentence_is_held_back_and_no_other(stream: str) -> None:
    done = run(f"""
import os
from fastconv.runtime.stderr_filter import mute
read, write = os.pipe()
os.dup2(write, 2)
os.close(write)
if {stream!r} == "broken":
    os.close(read)
end = mute(b"Numba: word")
os.write(2, b"before\\nNumba: word of warning\\nafter\\n")
if {stream!r} == "closed":
    os.close(2)
child = os.fork()
end()  # in both
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
if {stream!r} != "broken":
    os.close(2)
    assert os.read(read, 100) == b"before\\nafter\\n"
print("right")
""")
    assert done.stdout == "right\n", done.stderr


def test_a_fork_waits_for_llvm() -> None:
    # Looking for compiled code takes LLVM's lock without the compiler's.
    done = run("""
import os, threading
import fastconv
from fastconv.jit.compiler import target
from llvmlite.binding import ffi
held = threading.Event()

def hold():
    with ffi.lib._lock:
        held.set()
        threading.Event().wait(0.3)

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    import faulthandler
    faulthandler.dump_traceback_later(20, exit=True)
    target()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
target()
""")
    assert done.returncode == 0, done.stderr
