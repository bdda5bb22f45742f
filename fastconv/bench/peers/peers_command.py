"""``fastconv bench --peers``: from the wishes of a user to rows, files and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from fastconv.bench.bench_command import INTERRUPTED, RIGHT, WRONG, Targets, check, show, write
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.bench_run import Options, with_peak
from fastconv.bench.machine import Peak, command_line, header, version
from fastconv.bench.peers.contest import Crew, run
from fastconv.bench.peers.peer_runtimes import PEERS, Fastconv, Runtime
from fastconv.bench.peers.peers_report import ContestReport
from fastconv.bench.peers.standings import is_own, standings
from fastconv.bench.progress_bar import ProgressBar
from fastconv.bench.results import LayerResult
from fastconv.bench.suites import Item
from fastconv.runtime import threads


def contest(items: Sequence[Item], options: Options, targets: Targets) -> int:
    """Let fastconv and its peers compute the same layers; return the exit code.

    Ctrl-C ends the measuring; what was measured until then is printed and written.
    """
    check(items, targets)
    if options.dtype != "float32":
        raise BenchError(f"--peers measures float32, got --dtype {options.dtype}")
    if any(len(item.directions) > 1 for item in items):
        raise BenchError("--peers measures one direction at a time, got --direction all")
    runtimes: list[Runtime] = [Fastconv(name) for name in options.algorithms or ("auto",)]
    able = [peer for peer in PEERS if items[0].directions[0] in peer.directions]
    runtimes += [peer for peer in able if not peer.missing]
    console = Console()
    report = ContestReport(console, runtimes)
    num_threads = threads.get_num_threads()
    peak = Peak(options.dtype, num_threads)
    results: list[LayerResult] = []
    complete = False
    try:
        peak.measure()
        report.header(_header(peak, options, able, complete))
        with Crew(runtimes, num_threads) as crew, ProgressBar(len(items)) as bar:
            for result in run(items, crew, options, peak, bar.tell):
                results.append(result)
                show(result, report, bar)
        complete = True
    except KeyboardInterrupt:
        console.print("interrupted", style="bold")
    if results:
        final = [with_peak(result, peak.best) for result in results]
        report.standings(standings(final), final, peak)
        write(_header(peak, options, able, complete), final, targets, report)
    if not complete:
        return INTERRUPTED
    return WRONG if any(_is_wrong(result) for result in results) else RIGHT


def _header(
    peak: Peak, options: Options, peers: Sequence[Runtime], complete: bool
) -> dict[str, Any]:
    """Return the header of every benchmark, and the peers' versions, None for a missing one."""
    found = {
        peer.name: None if peer.missing else version(peer.packages[0]) or "?" for peer in peers
    }
    return header(peak, options.dtype, command_line(), complete) | {"peers": found}


def _is_wrong(result: LayerResult) -> bool:
    """Return whether anybody computed something wrong, or fastconv nothing at all."""
    return any(not r.correct and (is_own(r) or r.failure is None) for r in result.records)
