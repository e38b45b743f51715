"""Headers of runs, and runs whose answers a test chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.runs import Run, RunHeader, RunWriter


def run_header(samples: int | Sequence[str] = 3, /, **changes: Any) -> RunHeader:
    """Of a run of so many samples, or of these: 3D boxes of cars by ONNX Runtime on a CPU, but for ``changes``."""
    usual = {
        "backend": "onnx",
        "device": "cpu",
        "model": "m",
        "task": "detection3d",
        "classes": ["car"],
        "dataset": "d",
        "tokens": [f"s{index}" for index in range(samples)] if isinstance(samples, int) else list(samples),
        "raw_samples": [],
        "fingerprint": "f",
    }
    return RunHeader.model_validate(usual | changes)


def write_run(folder: Path, answers: Iterable[Any], header: RunHeader) -> Run:
    """A finished run with an answer for each sample."""
    writer = RunWriter.open(folder, header)
    for index, answer in enumerate(answers):
        writer.commit(index, answer, {"total": 1.0})
    writer.finish()
    return Run.open(folder)
