"""The state of a GPU while something is measured: clocks, power, temperature, and what slows it down."""

from __future__ import annotations

import shutil
import subprocess

# NVML's values, by the names that nvidia-smi has for them.
_FIELDS = {
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "max_sm_clock_mhz": "clocks.max.sm",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
    "throttle_reasons": "clocks_throttle_reasons.active",
    "persistence": "persistence_mode",
    "compute_mode": "compute_mode",
}


def gpu_conditions(index: int) -> dict[str, str]:
    """NVML's values of GPU ``index`` as nvidia-smi prints them; empty where there is none (Jetson)."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = [
        "nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_FIELDS.values())}", "--format=csv,noheader,nounits",
    ]  # fmt: skip
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    if answer.returncode != 0 or len(values) != len(_FIELDS):
        return {}
    return dict(zip(_FIELDS, values, strict=True))
