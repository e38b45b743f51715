"""What the tests of engines share: TensorRT, and the timings of its kernels."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import EnvironmentLacks
from trt_builder import target as targets
from trt_builder.target import Target


@pytest.fixture(scope="session")
def target() -> Target:
    """TensorRT and the GPU here."""
    try:
        return targets.find("tensorrt")
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))


@pytest.fixture
def lean_library(target: Target) -> None:
    """The lean runtime's library, which a build of version compatible engines loads."""
    name = f"libnvinfer_lean.so.{target.tensorrt.version}"
    try:
        ctypes.CDLL(name)
    except OSError:
        pytest.skip(f"{name} can't be loaded: install the package tensorrt_lean of this version to run this")


@pytest.fixture(scope="session")
def timings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernel timings shared by the tests, as builds of one workspace share them: it saves minutes.

    TIMINGS names a folder that keeps them from one session to the next; sessions that run side by side have one each.
    """
    kept = os.environ.get("TIMINGS")
    if kept is None:
        return tmp_path_factory.mktemp("timings")
    folder = Path(kept)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def work(tmp_path: Path, timings: Path) -> Iterator[Path]:
    """A folder for a workspace that starts with the timings of the tests before."""
    folder = tmp_path / "tensorrt" / "timing"
    shutil.copytree(timings, folder)
    yield tmp_path
    shutil.copytree(folder, timings, dirs_exist_ok=True)
