"""The state of what something is measured on, which tells whether another measurement can be compared with it.

Of a GPU: clocks, power, temperature, and what slows it down, by NVML itself: it answers at once, while the clocks are
still those of the measurement. Of a processor: its model, and how long a fixed piece of work takes on it, since virtual
machines don't tell its clock, nor what their neighbors take of its caches.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np

from runtime.devices import Device
from shared import cuda
from shared.latency import CARD, PROCESSOR, YARDSTICK
from shared.provenance import processor

# Values of nvml.h: nvmlClockType_t, nvmlTemperatureSensors_t, nvmlClocksThrottleReasons.
_CLOCKS = {"sm": 1, "memory": 2}
_TEMPERATURE_OF_GPU = 0
_THROTTLE_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
_BUS_ID_BYTES = 32
_LONGER_THAN_ASKED = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_LONGEST_NAME = 96
# Of the yardstick: a product of matrices that fit into a core's cache, so many times.
_SIDE, _PRODUCTS = 384, 60


def conditions(device: Device, **settings: str) -> dict[str, str]:
    """What tells whether a latency can be compared with another; asked right after it was measured.

    Args:
        device: what it was measured on.
        settings: of `shared.latency.SETTINGS`, what was asked for.
    """
    if not device.is_cpu:
        return {**gpu_conditions(device.index), **settings}
    return {PROCESSOR: processor(), YARDSTICK: f"{_yardstick_ms():.4f}", **settings}


def _yardstick_ms() -> float:
    """Least time [ms] of a fixed product of matrices, on one thread: what it takes while nothing disturbs it."""
    matrix = np.full((_SIDE, _SIDE), 0.5, np.float32)
    times = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times) * 1e3


def gpu_conditions(index: int) -> dict[str, str]:
    """What NVML says about the GPU that CUDA calls ``index``; empty where there is no NVML (Jetson)."""
    nvml = _nvml()
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return {}
    try:
        device = _device(nvml, index)
        return {} if device is None else _values(nvml, device)
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any | None:
    try:
        return ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None


def _device(nvml: Any, index: int) -> ctypes.c_void_p | None:
    """NVML's handle; by bus id, since CUDA_VISIBLE_DEVICES renumbers the GPUs for CUDA alone."""
    device = ctypes.c_void_p()
    driver = cuda.library()
    bus_id = ctypes.create_string_buffer(_BUS_ID_BYTES)
    if driver is not None and driver.cuDeviceGetPCIBusId(bus_id, len(bus_id), index) == 0:
        code = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id, ctypes.byref(device))
    else:
        code = nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
    return device if code == 0 else None


def _values(nvml: Any, device: ctypes.c_void_p) -> dict[str, str]:
    """What the GPU reports; queries that a card does not support are left out."""
    values: dict[str, str] = {}
    number, bits = ctypes.c_uint(), ctypes.c_ulonglong()
    name_of_card = ctypes.create_string_buffer(_LONGEST_NAME)
    if nvml.nvmlDeviceGetName(device, name_of_card, _LONGEST_NAME) == 0:
        values[CARD] = name_of_card.value.decode(errors="replace")
    for name, kind in _CLOCKS.items():
        if nvml.nvmlDeviceGetClockInfo(device, kind, ctypes.byref(number)) == 0:
            values[f"{name}_clock_mhz"] = str(number.value)
    if nvml.nvmlDeviceGetMaxClockInfo(device, _CLOCKS["sm"], ctypes.byref(number)) == 0:
        values["max_sm_clock_mhz"] = str(number.value)
    if nvml.nvmlDeviceGetPowerUsage(device, ctypes.byref(number)) == 0:
        values["power_w"] = f"{number.value / 1e3:.1f}"
    if nvml.nvmlDeviceGetTemperature(device, _TEMPERATURE_OF_GPU, ctypes.byref(number)) == 0:
        values["temperature_c"] = str(number.value)
    if nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device, ctypes.byref(bits)) == 0:
        reasons = [name for bit, name in _THROTTLE_REASONS.items() if bits.value & bit]
        values["throttled_by"] = " + ".join(reasons) or "nothing"
    # Asked for none of the list, NVML says how long it is, or that it is empty.
    number.value = 0
    if nvml.nvmlDeviceGetComputeRunningProcesses(device, ctypes.byref(number), None) in (0, _LONGER_THAN_ASKED):
        values["compute_processes"] = str(number.value)
    return values
