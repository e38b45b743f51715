"""A task that another package adds is a task like ours: nothing else has to know it by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from evaluator.cli import cli
from evaluator.metrics import find_metric
from shared import tasks
from shared.config import load_config
from shared.config.check_sections import Evaluation
from shared.errors import ConfigError, InputError
from shared.runs import Run
from tests.support.point_labels import NAME, install_point_labels
from tests.support.run_files import run_header, write_run
from verifier.compare import compare_runs
from verifier.tolerances import default_tolerance, judge

LABELS = [np.array([0, 2, 1]), np.array([1])]


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{type: dots}}\ntask_type: {NAME}\n", encoding="utf-8")
    return path


def _run(folder: Path, answers: list[np.ndarray]) -> Run:
    return write_run(folder, answers, run_header(len(answers), task=NAME, classes=["road", "car", "tree"]))


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


def test_its_runs_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"no metric for task '{NAME}'"):
        find_metric(NAME)
    install_point_labels(monkeypatch, tmp_path / "site")
    metric = find_metric(NAME)
    samples = [SimpleNamespace(token=str(i), scene="drive", labels=labels) for i, labels in enumerate(LABELS)]
    truth = metric.ground_truth(samples, ["road"], ["road"])
    matched = metric.match(_run(tmp_path / "run", [np.array([0, 2, 2]), np.array([1])]), truth, ["road"], Evaluation())
    assert metric.headline(metric.evaluate(matched)) == {"accuracy": 0.75}
    assert metric.resample(matched, np.array([1, 3])) == {"accuracy": pytest.approx(5 / 6)}


def test_its_files_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predictions = tmp_path / "truth.npy", tmp_path / "predictions.npy"
    np.save(truth, np.array([0, 1, 2, 3]))
    np.save(predictions, np.array([0, 1, 2, 0]))
    command = ["score", "--task", NAME, "--ground-truth", str(truth), "--predictions", str(predictions)]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 2
    assert "there are: classification, detection2d, detection3d" in refused.output
    install_point_labels(monkeypatch, tmp_path / "site")
    output = tmp_path / "score.json"
    done = CliRunner().invoke(cli, [*command, "--output", str(output)])
    assert (done.exit_code, json.loads(output.read_text())) == (0, {"task": NAME, "accuracy": 0.75})
