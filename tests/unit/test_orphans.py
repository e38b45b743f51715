"""Temporaries of killed tools: those of this host go when the process is gone, those of containers after a week."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.files import remove_orphans, temporary_path

WEEK = 7 * 24 * 3600


def _temporary_of(process_id: int, folder: Path, host: str | None = None) -> Path:
    name = temporary_path(folder / "model.onnx").name.replace(f"-{os.getpid()}-", f"-{process_id}-")
    if host is not None:
        name = name.replace(os.uname().nodename, host)
    path = folder / name
    path.write_bytes(b"half")
    return path


@pytest.fixture
def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_this_host(tmp_path: Path, dead_process: int) -> None:
    (tmp_path / "onnx").mkdir()
    orphan, own = _temporary_of(dead_process, tmp_path / "onnx"), _temporary_of(os.getpid(), tmp_path)
    whole = tmp_path / "model.onnx"
    whole.write_bytes(b"whole")
    assert remove_orphans(tmp_path) == [orphan]
    assert not orphan.exists()
    assert own.exists()
    assert whole.exists()


@pytest.mark.parametrize(("age", "stays"), [(0, True), (WEEK - 60, True), (WEEK + 60, False)])
def test_of_a_container(tmp_path: Path, dead_process: int, age: float, stays: bool) -> None:
    """The process may live in a container whose processes can't be seen from here."""
    temporary = _temporary_of(dead_process, tmp_path, host="4f1c0ffee123")
    os.utime(temporary, (time.time() - age,) * 2)
    remove_orphans(tmp_path)
    assert temporary.exists() == stays


def test_a_folder(tmp_path: Path, dead_process: int) -> None:
    temporary = _temporary_of(dead_process, tmp_path)
    temporary.unlink()
    temporary.mkdir()
    (temporary / "half").write_text("")
    remove_orphans(tmp_path)
    assert not temporary.exists()
