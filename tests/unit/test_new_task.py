"""A task that another package adds is a task like ours: nothing else has to know it by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shared import tasks
from shared.config import load_config
from shared.errors import ConfigError, InputError
from shared.runs import Run, RunHeader, RunWriter
from tests.support.point_labels import NAME, install_point_labels

LABELS = [np.array([0, 2, 1]), np.array([1])]


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{type: dots}}\ntask_type: {NAME}\n", encoding="utf-8")
    return path


def _header(samples: int) -> RunHeader:
    return RunHeader(
        backend="onnx", device="cpu", model="dots", task=NAME, classes=["road", "car", "tree"], dataset="d",
        tokens=[f"s{index}" for index in range(samples)], raw_samples=[], fingerprint="f",
    )  # fmt: skip


def test_a_config_may_name_it(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"task_type: is '{NAME}'; should be one of"):
        load_config(config)
    install_point_labels(monkeypatch, tmp_path / "site")
    assert load_config(config).task_type == NAME


def test_it_is_listed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"no task '{NAME}'"):
        tasks.find(NAME)
    install_point_labels(monkeypatch, tmp_path / "site")
    assert NAME in tasks.available()
    assert tasks.find(NAME).container is np.ndarray


def test_its_runs_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_point_labels(monkeypatch, tmp_path / "site")
    folder = tmp_path / "run"
    writer = RunWriter.open(folder, _header(len(LABELS)))
    for index, labels in enumerate(LABELS):
        writer.commit(index, labels, {"total": 1.0})
    writer.finish()
    run = Run.open(folder)
    for index, labels in enumerate(LABELS):
        np.testing.assert_array_equal(run.predictions(index, np.ndarray), labels)
