"""Kernels compiled for the processor, or for a GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.cuda.gpu import open_gpu
from runtime.devices import Device
from shared.errors import EnvironmentLacks
from tests.support import cuda_on_cpu


@pytest.fixture(scope="session")
def compiled() -> Path:
    return cuda_on_cpu.KEPT


@pytest.fixture(params=["on a CPU", pytest.param("on a GPU", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, compiled: Path) -> Any:
    if request.param == "on a CPU":
        if cuda_on_cpu.compiler() is None:
            pytest.skip("no C++ compiler here")
        return cuda_on_cpu.use(monkeypatch, compiled)
    try:
        return open_gpu(Device("cuda"))
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))
