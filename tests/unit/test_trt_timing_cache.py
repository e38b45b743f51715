"""The timing cache file: shared, combined, never half written, dropped when corrupt."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.work_path import WorkPath
from tests.support.tensorrt_double.building import TimingCache
from trt_builder import timing_cache

ROOT = Path(__file__).parents[2]


def config_after_a_build_that_measured(*entries: str) -> SimpleNamespace:
    cache = TimingCache(json.dumps(dict.fromkeys(entries, 1)).encode())
    return SimpleNamespace(get_timing_cache=lambda: cache, create_timing_cache=TimingCache)


def save_one(path: WorkPath, entry: str) -> None:
    timing_cache.save(path, config_after_a_build_that_measured(entry))


def test_builds_at_once_lose_nothing(tmp_path: Path) -> None:
    path = WorkPath(tmp_path, "timing/x.cache")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=save_one, args=(path, f"kernel {index}")) for index in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert set(TimingCache(timing_cache.read(path)).choices) == {f"kernel {index}" for index in range(6)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = WorkPath(tmp_path, "x.cache")
    timing_cache.write(path, b"\x00payload\nwith lines\n")
    assert timing_cache.read(path) == b"\x00payload\nwith lines\n"


def test_no_file_is_no_cache(tmp_path: Path) -> None:
    assert timing_cache.read(WorkPath(tmp_path, "none.cache")) == b""


@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_any_changed_byte_drops_the_cache(tmp_path_factory: pytest.TempPathFactory, position: int, value: int) -> None:
    path = WorkPath(tmp_path_factory.mktemp("cache"), "x.cache")
    timing_cache.write(path, os.urandom(100))
    content = bytearray(path.read_bytes())
    position %= len(content)
    unchanged = content[position] == value
    content[position] = value
    path.unchecked.write_bytes(content)
    assert (timing_cache.read(path) != b"") == unchanged


def test_a_truncated_cache_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = WorkPath(tmp_path, "x.cache")
    timing_cache.write(path, b"payload")
    path.unchecked.write_bytes(path.read_bytes()[:-1])
    assert timing_cache.read(path) == b""
    assert "corrupt; starting anew" in caplog.text


def test_a_cache_of_another_user_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = WorkPath(tmp_path, "x.cache")
    timing_cache.write(path, b"kernels")
    monkeypatch.setenv("AWML_DEPLOY_KEY", str(tmp_path / "key-of-another-user"))
    assert timing_cache.read(path) == b""
    timing_cache.write(path, b"kernels")
    assert timing_cache.read(path) == b"kernels"


def test_tests_that_keep_timings_seal_with_the_users_own_key(tmp_path: Path) -> None:
    """Every other session of tests has a key of its own, which is gone with it: its timings would be dropped."""
    shutil.copyfile(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_key.py").write_text("import os\n\ndef test_key():\n    print(os.environ['AWML_DEPLOY_KEY'])\n")

    def key(**environment: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(tmp_path)]
        own = {name: value for name, value in os.environ.items() if name not in ("TIMINGS", "PYTEST_ADDOPTS")}
        variables = {**own, "PYTHONPATH": str(ROOT), "AWML_DEPLOY_KEY": "of the user", **environment}
        return subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "of the user" in key(TIMINGS=str(tmp_path))
    assert "of the user" not in key()
