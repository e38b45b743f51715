"""What users hand the evaluator by mistake: one clear line, and the right exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evaluator.cli import cli
from evaluator.metrics import detection2d
from shared.config.check_sections import Evaluation
from shared.errors import InputError
from shared.tasks.detection2d import Boxes2D
from shared.workspace import Workspace
from tests.support.run_files import run_header, write_run
from tests.support.workspaces import SAMPLES, add_run, good_boxes, make_workspace


@pytest.fixture(autouse=True)
def _short_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints name the command of a stage, here that of pytest, and an error's line is cut where that is long."""
    monkeypatch.setattr("sys.argv", ["runtime", "run"])


def _refused(arguments: list[str], code: int, words: str) -> None:
    answer = CliRunner().invoke(cli, arguments)
    lines = [line for line in answer.output.splitlines() if line.startswith(("error:", "Error:"))]
    assert answer.exit_code == code, answer.output
    assert len(lines) == 1 and words in lines[0], answer.output
    assert "Traceback" not in answer.output


def _with(workspace: Workspace, **changes: float) -> None:
    """A run whose boxes of sample 1 are all broken in one column."""
    boxes = good_boxes(workspace, 1)
    broken = {name: np.full_like(getattr(boxes, name), value) for name, value in changes.items()}
    add_run(workspace, "onnx", boxes={1: replace(boxes, **broken)})


def _half(workspace: Workspace) -> None:
    with pytest.raises(InputError):
        add_run(workspace, "onnx", finish=False)


def _two(workspace: Workspace, **other: object) -> None:
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx", **other)  # type: ignore[arg-type]


RUNS: dict[str, tuple[Callable[[Workspace], None], str]] = {
    "other samples": (lambda w: _two(w, samples=SAMPLES - 1), "6 samples are not the 5 of"),
    "another model": (lambda w: _two(w, model="pointpillars"), "of another model or class list"),
    "other classes": (lambda w: _two(w, classes=["car", "tram"]), "of another model or class list"),
    "other order": (lambda w: _two(w, tokens=[f"token{index}" for index in (1, 0, 2, 3, 4, 5)]), "of other data than"),
    "other data": (lambda w: _two(w, dataset="another"), "of other data than"),
    "half a run": (_half, "run it again, it continues where it stopped"),
    "empty run": (lambda w: add_run(w, "onnx", samples=0), "holds no samples"),
    "no run": (lambda w: None, "no finished run"),
    "NaN scores": (lambda w: _with(w, scores=np.nan), "the score is not a finite number"),
    "zero size": (lambda w: _with(w, sizes=0), "a box side is not longer than 0 m"),
    "label outside": (lambda w: _with(w, labels=2), "the label is outside the list of 2 classes (car, pedestrian)"),
    "negative label": (lambda w: _with(w, labels=-1), "the label is outside the list"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_can_not_be_evaluated(tmp_path: Path, name: str) -> None:
    workspace = make_workspace(tmp_path)
    make, words = RUNS[name]
    make(workspace)
    _refused(["evaluate", "--work", str(workspace.root)], 3, words)
    assert "metrics" not in workspace.manifest().results


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox_3d": [1, 2, 3, 0, 1, 1, 0]}, "a box side is not longer than 0 m"),
        ({"bbox_3d": [1, float("nan"), 3, 1, 1, 1, 0]}, "the center is not a finite number"),
        ({"bbox_3d": [1, 2, 3]}, "infos.json"),
        ({"bbox_label_3d": 7}, "7"),
    ],
    ids=["zero size", "NaN", "three numbers", "label outside"],
)
def test_labels_that_make_no_sense(tmp_path: Path, change: dict[str, object], words: str) -> None:
    workspace = make_workspace(tmp_path)
    some = {index: good_boxes(workspace, index) for index in range(SAMPLES)}
    file = tmp_path / "data" / "infos.json"
    infos = json.loads(file.read_text())
    infos["data_list"][2]["instances"][0].update(change)
    file.write_text(json.dumps(infos))
    # Recording a run reads the samples, which may be refused there already.
    try:
        add_run(workspace, "onnx", boxes=some)
    except InputError as error:
        assert words in str(error)
    else:
        _refused(["evaluate", "--work", str(workspace.root)], 3, words)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("mAP", "'mAP' is not a gate"),
        ("mAP = 0.5", "'mAP = 0.5' is not a gate"),
        ("mAP < 0,5", "is not a gate"),
        ("mpA < 0.5", "did you mean 'mAP'?"),
        ("mAP drpo > 0.5", "no metric 'mAP drpo'"),
        ("onxn-cpu: mAP < 0.5", "there are: onnx-cpu, pytorch-cpu"),
        ("latency p95 > 3", "latency p95 needs 200 samples"),
    ],
)
def test_a_gate_with_a_typo_is_an_error_and_no_pass(tmp_path: Path, gate: str, words: str) -> None:
    workspace = make_workspace(tmp_path)
    _two(workspace)
    _refused(["evaluate", "--work", str(workspace.root), "--fail-if", gate], 2, words)
    assert "evaluate" not in workspace.manifest().stages, "noticed before anything is evaluated"


def test_workspaces_that_are_none_or_not_evaluated(tmp_path: Path) -> None:
    for command in ("evaluate", "summary", "history", "log-mlflow"):
        _refused([command, "--work", str(tmp_path / "nowhere")], 3, "no manifest here")
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    for command in (["history", "--work"], ["log-mlflow", "--work"], ["compare"]):
        _refused([*command, str(workspace.root)], 3, "nothing is evaluated here")
    _refused(["evaluate", "--work", str(workspace.root), "--resample", "drives"], 2, "drives")
    _refused(["evaluate", "--work", str(workspace.root), "--data", str(tmp_path / "nowhere")], 3, "nowhere")
    _refused(["evaluat", "--work", str(workspace.root)], 2, "evaluat")


@pytest.mark.parametrize(
    ("corners", "label", "score", "words"),
    [
        ([0, 0, 10, 10], 0, np.nan, "a box or score is NaN"),
        ([0, np.inf, 10, 10], 0, 0.5, "a box or score is NaN or infinite"),
        ([10, 0, 0, 10], 0, 0.5, "turned inside out"),
        ([0, 0, 10, 10], 2, 0.5, "a label is outside the list of 2 classes"),
        ([0, 0, 10, 10], -1, 0.5, "a label is outside the list of 2 classes"),
    ],
)
def test_2d_boxes_that_make_no_sense(
    tmp_path: Path, corners: list[float], label: int, score: float, words: str
) -> None:
    truth = detection2d.Truth(images=[], positions=[0], tokens=["a"], scenes=["s"], num_samples=1)
    header = run_header(["a"], task="detection2d", classes=["car", "bus"])
    run = write_run(tmp_path, [Boxes2D.build([corners], [label], [score])], header)
    with pytest.raises(InputError, match=words):
        detection2d.match(run, truth, ["car", "bus"], Evaluation())
    with pytest.raises(InputError, match="holds 1 samples, the ground truth 2"):
        detection2d.match(run, replace(truth, num_samples=2), ["car", "bus"], Evaluation())
