"""How long this process waited for a processor: what other programs took of a request's latency.

Three accounts of Linux: the time that each thread was ready to run and did not (``/proc/self/task/*/schedstat``, from
kernels that keep it, as those of distributions do), the times that it was made to give up its processor, and the time
that a hypervisor gave to other machines. CPU pressure (``/proc/pressure/cpu``) is no account of one request: the kernel
adds it up every two seconds.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path

from runtime.pipeline import Inference
from shared.latency import WAITED

_THREADS = Path("/proc/self/task")
_ALL_PROCESSORS = "/proc/stat"
# Columns of the first line of /proc/stat: cpu user nice system idle iowait irq softirq steal.
_STEAL = 8
# What an involuntary switch costs where the waiting itself is not recorded: about a time slice of the scheduler.
_SLICE_MS = 3.0
# A thread's account is three numbers; of /proc/stat the first line counts.
_ENOUGH_BYTES = 256
_OPENED: dict[str, FileIO] = {}


def with_waiting(request: Callable[[], Inference]) -> Inference:
    """Make a request, and add to its latencies how long the threads of this process waited meanwhile (`WAITED`)."""
    before = waited_ms()
    answer = request()
    # A thread that ended takes its account with it.
    waited = max(0.0, waited_ms() - before)
    return replace(answer, latency_ms={**answer.latency_ms, WAITED: waited})


def waited_ms(threads: Path = _THREADS) -> float:
    """Milliseconds that the threads of this process have waited for a processor so far, all of them together."""
    delays = _run_delays(threads)
    waited = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw * _SLICE_MS if delays is None else sum(delays) / 1e6
    return waited + _stolen_ms()


def _run_delays(threads: Path) -> list[int] | None:
    """Nanoseconds by thread; None where the kernel keeps no such account."""
    try:
        with os.scandir(threads) as folders:
            accounts = [f"{folder.path}/schedstat" for folder in folders]
    except FileNotFoundError:  # another system
        return None
    delays = []
    for account in accounts:
        try:
            delays.append(int(_read(account).split()[1]))
        except (FileNotFoundError, ProcessLookupError):  # it has ended, or there is no such file
            continue
    if len(_OPENED) > len(accounts) + 1:
        for ended in _OPENED.keys() - {*accounts, _ALL_PROCESSORS}:
            _OPENED.pop(ended).close()
    return delays or None


def _stolen_ms() -> float:
    try:
        ticks = int(_read(_ALL_PROCESSORS).split(maxsplit=_STEAL + 1)[_STEAL])
    except (OSError, IndexError):
        return 0.0
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _read(account: str) -> bytes:
    """The start of one of the kernel's files, which stays open: every request reads those of all threads twice."""
    if account not in _OPENED:
        _OPENED[account] = FileIO(account)
    try:
        return os.pread(_OPENED[account].fileno(), _ENOUGH_BYTES, 0)
    except ProcessLookupError:
        _OPENED.pop(account).close()
        raise
