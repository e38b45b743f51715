"""A command that is killed before any change of a file leaves the old result or the new one, and ends well when run
again. At some events of each command here; at all of them by `make kill-test`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library of ELF")
def test_every_command_that_writes_survives_a_kill() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tests.kill", "--points", "6"],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    sys.stdout.write(answer.stdout)
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr[-3000:]}"
    assert "manifest merge" in answer.stdout and "evaluator evaluate" in answer.stdout
