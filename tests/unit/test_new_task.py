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
from verifier.compare import compare_runs
from verifier.tolerances import default_tolerance, judge

LABELS = [np.array([0, 2, 1]), np.array([1])]


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{type: dots}}\ntask_type: {NAME}\n", encoding="utf-8")
    return path


def _run(folder: Path, answers: list[np.ndarray]) -> Run:
    header = RunHeader(
        backend="onnx", device="cpu", model="dots", task=NAME, classes=["road", "car", "tree"], dataset="d",
        tokens=[f"s{index}" for index in range(len(answers))], raw_samples=[], fingerprint="f",
    )  # fmt: skip
    writer = RunWriter.open(folder, header)
    for index, labels in enumerate(answers):
        writer.commit(index, labels, {"total": 1.0})
    writer.finish()
    return Run.open(folder)


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
    run = _run(tmp_path / "run", LABELS)
    for index, labels in enumerate(LABELS):
        np.testing.assert_array_equal(run.predictions(index, np.ndarray), labels)


def test_its_runs_are_compared_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_point_labels(monkeypatch, tmp_path / "site")
    one, other = _run(tmp_path / "one", LABELS), _run(tmp_path / "other", [np.array([0, 2, 2]), np.array([1])])
    compared = compare_runs(one, other, score_threshold=None)
    assert (compared["results"]["matched"], compared["results"]["label_flips"]) == (3, 1)
    assert compared["agreement"] == {"accuracy": 0.75}
    limits = default_tolerance("fp32", tasks.find(NAME))
    assert "results unmatched, share: 0.25, the limit is 0" in judge(compared, limits)
