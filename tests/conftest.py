"""What all tests share: the folder of real data, and which tests this environment can run.

A test says what it needs with a marker (see pyproject.toml); where that is missing it is skipped, with the reason and
what to do. A module that imports torch or mm* at its top calls ``pytest.importorskip`` first.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from shared.user_key import KEY_VARIABLE, key_path

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def _has(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _has_compiled_mmcv() -> bool:
    return _has("mmcv") and importlib.util.find_spec("mmcv._ext") is not None


_NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "exporter": (lambda: _has("torch", "mmdet3d"), "mmdet3d is not installed here; run: make test-exporter"),
    "mmcv_ops": (_has_compiled_mmcv, "mmcv's compiled ops are not installed here; run: make test-mmcv-ops"),
    "gpu": (lambda: shutil.which("nvidia-smi") is not None, "no NVIDIA GPU here"),
    "cluster": (lambda: _has("ray", "torch"), "Ray is not installed here; run: make setup-cluster"),
    "docker": (lambda: shutil.which("docker") is not None, "no Docker here"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, (is_there, reason) in _NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not is_there():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def key_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key that seals what tests make; tools that they start find it too.

    Where TIMINGS names a folder in which kernel timings outlast the tests, it is the user's own: timings that another
    key has sealed are dropped.
    """
    if "TIMINGS" in os.environ:
        yield key_path()
        return
    with pytest.MonkeyPatch.context() as environment:
        path = tmp_path_factory.mktemp("state") / "key"
        environment.setenv(KEY_VARIABLE, str(path))
        yield path


@pytest.fixture
def tools_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools without what is installed beside them: ``make plugins`` adds models."""
    installed = importlib.metadata.entry_points

    def of_others(**wanted: str) -> Any:
        return () if wanted.get("group", "").startswith("awml_deploy.") else installed(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", of_others)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real driving data, as REAL_DATA names it."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA is not set; set it to a folder of real data (README, 'Real data') to run this")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"REAL_DATA={folder} is no folder")
    return path
