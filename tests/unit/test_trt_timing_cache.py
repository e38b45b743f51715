"""The timing cache file: shared, combined, never half written, dropped when corrupt."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.work_path import WorkPath
from tests.support.tensorrt_double.building import TimingCache
from trt_builder import timing_cache


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
