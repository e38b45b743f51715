"""Latencies that other programs disturbed: noticed while a request runs, and marked wherever they are shown."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime import waiting
from runtime.pipeline import Inference
from shared import openmp
from shared.latency import DISTURBED, TOTAL, WAITED, disturbance, disturbed, milliseconds, summarize_stages
from shared.tasks import find

_REQUEST_SECONDS = 0.3


def _request() -> Inference:
    started = time.perf_counter()
    while time.perf_counter() - started < _REQUEST_SECONDS:
        pass
    total = (time.perf_counter() - started) * 1e3
    return Inference(find("classification").empty(), {}, {TOTAL: total}, {})


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no account of waiting")
def test_a_request_that_shares_its_processor_is_disturbed() -> None:
    allowed = os.sched_getaffinity(0)
    only = {min(allowed)}
    busy = "import os; print(flush=True)\nwhile os.getppid() > 1: pass"
    os.sched_setaffinity(0, only)
    other = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        latency = waiting.with_waiting(_request).latency_ms
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, allowed)
    assert list(latency) == [TOTAL, WAITED]
    # It has half of the processor at most.
    assert latency[WAITED] > 0.25 * latency[TOTAL]
    assert disturbed({name: [value] for name, value in latency.items()}) == [True]


def test_without_the_kernels_account_switches_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = iter([4, 9])

    class Usage:
        @property
        def ru_nivcsw(self) -> int:
            return next(switches)

    monkeypatch.setattr(waiting.resource, "getrusage", lambda _: Usage())
    monkeypatch.setattr(waiting, "_stolen_ms", lambda: 0.0)
    (tmp_path / "1").mkdir()
    assert waiting.waited_ms(tmp_path) - waiting.waited_ms(tmp_path / "nothing") == pytest.approx(-5 * 3.0)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no account of waiting")
def test_accounts_of_threads_that_ended_are_given_up() -> None:
    def opened() -> int:
        waiting.waited_ms()
        return len([*Path("/proc/self/fd").iterdir()])

    def threads() -> int:
        return len([*Path("/proc/self/task").iterdir()])

    before, alone = opened(), threads()
    stop = threading.Event()
    others = [threading.Thread(target=stop.wait) for _ in range(20)]
    for other in others:
        other.start()
    assert opened() >= before + 20
    assert opened() >= before + 20
    stop.set()
    for other in others:
        other.join()
    # Python has done with a thread a little before the kernel has.
    deadline = time.monotonic() + 30
    while threads() > alone and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opened() <= before + 1


def test_waiting_counts_against_the_whole_request() -> None:
    stages = {"network": [90.0, 900.0, 90.0], TOTAL: [100.0, 1000.0, 100.0], WAITED: [9.9, 850.0, 0.0]}
    np.testing.assert_array_equal(disturbed(stages), [False, True, False])
    total = summarize_stages(stages)[TOTAL]
    assert total[DISTURBED] == 1
    assert disturbance(total) == "1 of 3 requests DISTURBED by other programs"
    assert milliseconds(total, "median", 1) == "100.0 (disturbed)"
    assert milliseconds(total, "p99", 1) == "-"


def test_undisturbed_latencies_and_those_of_older_runs_stand_alone() -> None:
    alone = summarize_stages({TOTAL: [100.0, 101.0], WAITED: [0.0, 0.2]})[TOTAL]
    assert (alone[DISTURBED], disturbance(alone), milliseconds(alone, "median", 1)) == (0, None, "100.5")
    older = summarize_stages({TOTAL: [100.0, 101.0]})[TOTAL]
    assert DISTURBED not in older
    assert (disturbance(older), milliseconds(older, "median", 1)) == (None, "100.5")


def test_threads_spin_briefly_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp.platform, "machine", lambda: "x86_64")
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    openmp.wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    openmp.wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "800"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere PyTorch multiplies by OpenBLAS too")
@pytest.mark.parametrize(("chosen", "expected"), [(None, "1"), ("3", "3")])
def test_numpy_has_one_thread_for_matrices_unless_the_user_says(chosen: str | None, expected: str) -> None:
    code = "import os, sys, runtime.cli; assert 'numpy' not in sys.modules; print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if chosen is not None:
        environment["OPENBLAS_NUM_THREADS"] = chosen
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert answer.stdout.strip() == expected


@pytest.mark.parametrize(("count", "chosen", "expected"), [(3, None, "3"), (3, "5", "5"), (None, "5", "5")])
def test_opencv_has_the_threads_of_the_backend_unless_the_user_says(
    count: int | None, chosen: str | None, expected: str
) -> None:
    code = f"import shared.openmp; shared.openmp.threads_for_images({count}); import cv2; print(cv2.getNumThreads())"
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_FOR_THREADS_NUM"}
    if chosen is not None:
        environment["OPENCV_FOR_THREADS_NUM"] = chosen
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert answer.stdout.strip() == expected


@pytest.mark.exporter
@pytest.mark.parametrize("module", ["exporter.cli", "runtime.backends.pytorch"])
def test_waiting_is_chosen_before_pytorch_is_imported(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
