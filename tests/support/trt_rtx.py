"""TensorRT for RTX in an environment of its own: it builds for real on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = "from trt_builder.cli import cli; cli(prog_name='trt_builder')"


@cache
def python() -> str:
    """The Python that has it; the test is skipped when none has."""
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return sys.executable
    own = ROOT / ".venv" / "rtx" / "bin" / "python"
    if not own.is_file():
        pytest.skip("TensorRT for RTX is not installed here; run: make setup-rtx")
    return str(own)


def environment() -> dict[str, str]:
    """One thread for each process, and our sources."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start trt_builder in the background."""
    return subprocess.Popen(
        [python(), "-c", _COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def trt_builder(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run trt_builder to its end."""
    return subprocess.run(
        [python(), "-c", _COMMAND, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600, env=environment(),
    )  # fmt: skip
