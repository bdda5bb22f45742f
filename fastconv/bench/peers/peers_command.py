"""``fastconv bench --peers``: rows on the screen, files and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fastconv.bench.bench_command import carry_out, check
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.bench_run import Options
from fastconv.bench.peers.compare_peers import Crew, run
from fastconv.bench.peers.peer_runtimes import PEERS, Fastconv
from fastconv.bench.peers.peers_report import PeersReport
from fastconv.bench.result_files import Targets
from fastconv.bench.suites import Item
from fastconv.runtime import threads


def compare(items: Sequence[Item], options: Options, targets: Targets) -> int:
    """Let fastconv and its peers compute the same layers; return the exit code."""
    check(items, targets)
    if options.dtype != "float32":
        raise BenchError(f"--peers measures float32, got --dtype {options.dtype}")
    if any(len(item.directions) > 1 for item in items):
        raise BenchError("--peers measures one direction at a time, got --direction all")
    own = [Fastconv(name) for name in options.algorithms or ("auto",)]
    able = [peer for peer in PEERS if items[0].directions[0] in peer.directions]
    present = [peer for peer in able if not peer.missing]
    with Crew([*own, *present], threads.get_num_threads()) as crew:
        steps = partial(run, items, crew, options)
        return carry_out(steps, len(items), options.dtype, targets, PeersReport(own, able))
