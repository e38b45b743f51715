"""Intervals of medians, what counts as a difference, and the state of the GPU beside a measurement."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import conditions
from runtime.conditions import gpu_conditions
from shared import cuda
from shared.latency import compare, median_interval


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = median_interval(rng.lognormal(0, 0.5, 60), seed=trial)
        hits += low <= 1.0 <= high
    # 95 % of 200, give or take three standard deviations.
    assert hits >= 180


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=50))
def test_the_interval_lies_around_the_median_and_is_repeatable(values: list[float]) -> None:
    low, high = median_interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)
    assert median_interval(values) == (low, high)


def result(median: float, low: float, high: float, samples: int = 6) -> dict[str, float]:
    return {"median": median, "median_low": low, "median_high": high, "samples": samples}


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (result(2, 1.9, 2.1), result(4, 3.9, 4.1), "2.00 times faster"),
        (result(4, 3.9, 4.1), result(2, 1.9, 2.1), "2.00 times slower"),
        (result(2, 1.9, 2.1), result(2.2, 2.05, 2.3), "no difference"),
        (result(2.2, 2.1, 2.3), result(2, 1.9, 2.1), "no difference"),
        (result(2, 2, 2, 1), result(4, 3.9, 4.1), "too few requests to tell (1, at least 6 are needed)"),
    ],
)
def test_a_difference_is_one_where_the_intervals_do_not_meet(
    ours: dict[str, float], theirs: dict[str, float], words: str
) -> None:
    assert compare(ours, theirs) == words


# A card of a driver: the second GPU that CUDA shows is NVML's fifth; its temperature can't be read.
NVML = """
#include <string.h>
int nvmlInit_v2(void) { return START; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
    if (strcmp(id, "00000000:1B:00.0")) return 6;
    *device = (void*)5;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) { *device = (void*)(long)(index + 1); return 0; }
static int tell(void* device, unsigned* value, unsigned said) { *value = said; return device == (void*)5 ? 0 : 2; }
int nvmlDeviceGetClockInfo(void* d, int kind, unsigned* v) { return tell(d, v, kind == 1 ? 1980 : 3201); }
int nvmlDeviceGetName(void* d, char* name, unsigned size) { strcpy(name, "NVIDIA H200"); return d == (void*)5 ? 0 : 2; }
int nvmlDeviceGetMaxClockInfo(void* d, int kind, unsigned* v) { return tell(d, v, 1985); }
int nvmlDeviceGetPowerUsage(void* d, unsigned* v) { return tell(d, v, 412310); }
int nvmlDeviceGetTemperature(void* d, int sensor, unsigned* v) { return 3; }
int nvmlDeviceGetComputeRunningProcesses(void* d, unsigned* count, void* infos) { *count = 3; return 7; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void* d, unsigned long long* v) { *v = 0x24; return 0; }
"""
CUDA = """
#include <string.h>
int cuDeviceGetPCIBusId(char* id, int size, int device) {
    strcpy(id, "00000000:1B:00.0");
    return device == 1 ? 0 : 101;
}
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Driver libraries of these C sources, and no others."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    libraries = {}
    for name, text in sources.items():
        (folder / f"{name}.c").write_text(text)
        command = [compiler, "-shared", "-fPIC", "-w", "-o", str(folder / f"{name}.so"), str(folder / f"{name}.c")]
        subprocess.run(command, check=True)
        libraries[name] = ctypes.CDLL(str(folder / f"{name}.so"))
    monkeypatch.setattr(conditions, "_nvml", lambda: libraries.get("nvml"))
    monkeypatch.setattr(cuda, "library", lambda: libraries.get("cuda"))


def test_the_state_of_the_gpu_that_cuda_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, nvml=NVML.replace("START", "0"), cuda=CUDA)
    assert gpu_conditions(1) == {
        "sm_clock_mhz": "1980",
        "memory_clock_mhz": "3201",
        "max_sm_clock_mhz": "1985",
        "card": "NVIDIA H200",
        "power_w": "412.3",
        "throttled_by": "software power cap + software thermal slowdown",
        "compute_processes": "3",
    }


def test_no_state_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, nvml=NVML.replace("START", "9"), cuda=CUDA)
    assert gpu_conditions(1) == {}
    install(tmp_path, monkeypatch)
    assert gpu_conditions(0) == {}
