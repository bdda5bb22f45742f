"""The one place that decides how work is spread over processor cores.

Two kinds of work arrive here:

* Numba kernels, which have Numba's threading layer run parts of their range in parallel. Which
  layer is at hand decides what is safe:

  ========= ======================== ===================================================
  layer     several Python threads   after a fork
  ========= ======================== ===================================================
  tbb       safe                     safe
  omp       safe                     the GNU runtime aborts the child: serial there
  workqueue aborts the process:      safe
            serial beside a second
            thread
  ========= ======================== ===================================================

  A child forked while another thread was inside a kernel, or by another thread than the one
  that started the layer, inherits a layer in an unknown state: it runs serial kernels too.

* Python tasks that spend their time in NumPy or in serial kernels, which both release the
  interpreter lock: `run_tasks` spreads them over a small thread pool.

Neither ever changes *what* is computed: the order of each element's sum does not depend on the
number of threads, so the same bits come out.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from contextvars import Context, copy_context
from functools import lru_cache, partial
from importlib import metadata
from queue import SimpleQueue
from typing import Any, TypeVar

from fastconv.core.geometry import as_int
from fastconv.runtime import blas, forks
from fastconv.runtime.stderr_filter import mute

Task = TypeVar("Task")

#: Environment variable with the number of threads to start with.
THREADS_VARIABLE = "FASTCONV_NUM_THREADS"


# How many threads ------------------------------------------------------------------------


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initial_threads() -> int:
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return available_cores()
    try:
        return as_int(THREADS_VARIABLE, int(text), 1)
    except ValueError:
        raise ValueError(
            f"environment variable {THREADS_VARIABLE} must be a whole number of at least 1, "
            f"got {text!r}"
        ) from None


_num_threads: int | None = None


def get_num_threads() -> int:
    """Return how many threads fastconv uses in this process.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.get_num_threads() >= 1
    True
    """
    global _num_threads
    if _num_threads is None:
        _num_threads = _initial_threads()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set how many threads fastconv uses in this process.

    Results do not depend on it, unless ``fastconv tune`` has measured other algorithms as the
    fastest for other numbers; see `fastconv.set_tuning`. The starting value is the environment
    variable ``FASTCONV_NUM_THREADS``, else the number of cores this process may use.

    Parameters
    ----------
    n : int
        At least 1. More than there are cores is allowed and brings nothing.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer of at least 1.

    Examples
    --------
    >>> import fastconv
    >>> before = fastconv.get_num_threads()
    >>> fastconv.set_num_threads(1)
    >>> fastconv.get_num_threads()
    1
    >>> fastconv.set_num_threads(before)
    """
    global _num_threads
    _num_threads = as_int("n", n, 1)


#: Seconds of one thread's work that are worth a thread: several times what waking it takes.
WORTH_A_THREAD = 10e-6


def useful_threads(seconds: float) -> int:
    """Return how many threads work is worth that takes one thread so many seconds."""
    return max(1, min(get_num_threads(), int(seconds / WORTH_A_THREAD)))


# Numba's threading layer -----------------------------------------------------------------


@lru_cache(maxsize=1)
def start_threading_layer() -> None:
    """Start Numba's threading layer, TBB if it can be had."""
    global _layer_starter
    with forks.held_off(), _starting:
        _load_tbb()
        from numba.np.ufunc.parallel import _launch_threads

        running = threading_layer() is not None  # the user's own program may have started it
        _launch_threads()
        if not running:
            _layer_starter = threading.get_ident()


def _load_tbb() -> None:
    """Load the TBB library from its wheel, so that Numba finds it.

    The wheel puts the library into ``<prefix>/lib``, where the dynamic loader does not look;
    once loaded by its full path, Numba's request for the same name is met.
    """
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return
    wanted = "tbb12.dll" if sys.platform == "win32" else "libtbb.so.12"
    for file in files:
        if file.name == wanted:
            try:
                ctypes.CDLL(str(file.locate()), mode=getattr(ctypes, "RTLD_GLOBAL", 0))
            except OSError:  # a wheel for another system: Numba takes its next layer
                return


def threading_layer() -> str | None:
    """Return the name of Numba's running threading layer, None before its first use."""
    module = sys.modules.get("numba.np.ufunc.parallel")
    return getattr(module, "_threading_layer", None)


#: Instead of the threading layer's addresses: the calling thread does all the work.
SERIAL = (0, 0)
_layer_starter: int | None = None  # the thread; None also where it is not known
_starting = threading.RLock()
_MODULES = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}


@lru_cache(maxsize=1)
def layer_addresses() -> tuple[int, int]:
    """Return where the running threading layer's `parallel_for` and `get_num_threads` are."""
    start_threading_layer()
    layer = sys.modules[f"numba.np.ufunc.{_MODULES[str(threading_layer())]}"]
    return layer.parallel_for, layer.get_num_threads


# Set in a forked child whose inherited threading layer would abort or hang it.
_layer_lost = False
# The threads that are inside a parallel kernel now.
_inside: set[int] = set()


def parallel_is_safe() -> bool:
    """Return whether a parallel kernel may run on this thread of this process now."""
    if _layer_lost:
        return False
    start_threading_layer()
    if threading_layer() != "workqueue":
        return True
    # Nobody may be inside a parallel region twice. Only the absence of other Python threads, but
    # for our helpers, rules out another caller, here or in the user's own Numba code.
    return len(sys._current_frames().keys() - _helper_threads) == 1


def run_parallel(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a parallel kernel, known to a fork meanwhile."""
    thread = threading.get_ident()
    _inside.add(thread)
    try:
        kernel(*arguments)
    finally:
        _inside.discard(thread)


# Forks -----------------------------------------------------------------------------------

_forked_safely = True
# In the order in which the compiler takes them.
_COMPILER_LOCKS = (
    ("numba.core.compiler_lock", ("global_compiler_lock", "_lock")),
    ("llvmlite.binding.ffi", ("lib", "_lock", "_lock")),
)


def _before_fork(undo: ExitStack) -> None:
    global _forked_safely
    blas.pause(undo)
    # A lock that another thread holds would stay locked in the child for ever: the compiler's,
    # and that of LLVM, which is also taken without the first.
    for module, path in _COMPILER_LOCKS:
        lock: Any = sys.modules.get(module)
        for name in path:
            lock = getattr(lock, name, None)
        if lock and lock.acquire(timeout=forks.MOST_SECONDS):
            undo.callback(lock.release)
    own = threading.get_ident() == _layer_starter
    _forked_safely = own and not _inside
    # TBB's threads are stopped for a fork by the thread that started them. Numba says so when
    # another one forks, but it need not worry: the child runs serial kernels.
    if threading_layer() == "tbb" and not own:
        undo.callback(mute(b"Numba: Attempted to fork from a non-main thread"))


def _after_fork_in_child() -> None:
    global _layer_lost, _jobs, _helpers_started
    layer = threading_layer()
    _layer_lost |= layer == "omp" or (layer is not None and not _forked_safely)
    _inside.clear()
    # Helpers do not survive a fork, and one of them may have held the queue's lock.
    _jobs, _helpers_started = SimpleQueue(), 0
    _helper_threads.clear()
    blas.after_fork_in_child()


forks.at_fork(_before_fork, _after_fork_in_child)


# Python tasks ----------------------------------------------------------------------------

# More helpers than this are never of use.
_MOST_HELPERS = 64
# A pool of our own rather than concurrent.futures: that one takes plain locks, on which a signal
# handler that convolves while this thread holds one would wait for ever. A SimpleQueue may be
# interrupted anywhere.
_jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
_helpers_started = 0
_helper_threads: set[int] = set()


def _helper(jobs: SimpleQueue[Callable[[], None]]) -> None:
    _helper_threads.add(threading.get_ident())
    while True:
        jobs.get()()


def _start_helpers(count: int) -> None:
    global _helpers_started
    while _helpers_started < min(count, _MOST_HELPERS):
        try:
            _thread.start_new_thread(_helper, (_jobs,))
        except RuntimeError:  # no further thread can be had: those there are do the work
            return
        _helpers_started += 1


def run_tasks(function: Callable[[Task], Any], tasks: Iterable[Task]) -> None:
    """Call `function` on every task, on up to `get_num_threads` threads, this one included.

    The order is not defined. NumPy's BLAS runs single-threaded meanwhile: its own threads
    would compete with these, and its results depend on their number. The helpers work in a copy
    of the caller's context, so `numpy.errstate` holds for them too.

    Raises
    ------
    BaseException
        The first exception a task raised, after all running tasks have ended.
    """
    remaining = list(tasks)
    remaining.reverse()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                task = remaining.pop()  # atomic under the interpreter lock
            except IndexError:
                return
            try:
                function(task)
            except BaseException:
                remaining.clear()
                raise

    def help_out(ticket: list[None], context: Context) -> None:
        try:
            ticket.pop()
        except IndexError:  # too late: the caller has gone
            return
        try:
            context.run(work)
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    helpers = min(get_num_threads(), len(remaining)) - 1
    _start_helpers(helpers)
    # A job that nobody will run would keep its arrays alive for ever.
    tickets: list[list[None]] = [[None] for _ in range(min(helpers, _helpers_started))]
    errors: list[BaseException | None] = []
    with blas.single_threaded():
        for ticket in tickets:
            _jobs.put(partial(help_out, ticket, copy_context()))
        try:
            work()
        finally:
            for ticket in tickets:
                try:
                    ticket.pop()  # nobody has come for it: nobody to wait for
                except IndexError:
                    errors.append(_wait_for(ended, remaining))
    for error in errors:
        if error is not None:
            raise error


def _wait_for(ended: SimpleQueue[BaseException | None], remaining: list[Any]) -> Any:
    """Return what a helper ended with. Ctrl-C ends the work early, but not the waiting.

    A helper that is left alone would go on writing to memory that the caller uses again.
    """
    interruption: BaseException | None = None
    while True:
        try:
            return ended.get() or interruption
        except BaseException as error:
            remaining.clear()
            interruption = error
