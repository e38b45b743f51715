"""An INT8 model's figures say so, and the float model's stand beside them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.evaluate import evaluate
from evaluator.report.report import report
from evaluator.summary import summary
from shared.errors import InputError, UsageError
from shared.workspace import Workspace
from tests.support.workspaces import add_run, good_boxes, make_workspace

#: Too few for intervals, which take their time, and enough for them.
FRAMES, ENOUGH = 6, 12


def _workspace(folder: Path, *, quantized: bool, shift: float = 0.0, frames: int = FRAMES) -> Workspace:
    workspace = make_workspace(folder, samples=frames, quantization={"enabled": quantized})
    _export_from(workspace, "checkpoint of both")
    boxes = {index: good_boxes(workspace, index) for index in range(frames)}
    moved = {index: replace(value, centers=value.centers + np.float32(shift)) for index, value in boxes.items()}
    add_run(workspace, "pytorch", samples=frames, boxes=moved)
    add_run(workspace, "onnx", samples=frames, boxes=moved)
    return workspace


def _export_from(workspace: Workspace, checkpoint: str) -> None:
    spec, config = workspace.spec(), workspace.config()
    with workspace.stage("export", tool="shared", inputs={"checkpoint": checkpoint}) as stage:
        stage.spec(spec)
        stage.config(config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the float model's workspace, evaluated, and of the INT8 one's, which finds boxes half a meter off."""
    folder = tmp_path_factory.mktemp("made")
    _make(folder, FRAMES)
    return folder


def _make(folder: Path, frames: int) -> tuple[Workspace, Workspace]:
    plain = _workspace(folder / "plain", quantized=False, frames=frames)
    evaluate(plain.root, None, False)
    return plain, _workspace(folder / "int8", quantized=True, shift=0.4, frames=frames)


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Copies of both."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Workspace.open(tmp_path / "plain" / "work"), Workspace.open(tmp_path / "int8" / "work")


def _stored(workspace: Workspace, run: str = "onnx-cpu") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(workspace.artifact(f"evaluation/{run}.json").read_text())
    return content


def test_precision_is_in_tables_summary_json_and_report(pair: tuple[Workspace, Workspace]) -> None:
    plain, int8 = pair
    text = evaluate(int8.root, None, False)
    assert "onnx-cpu (INT8): nuScenes AP per range" in text
    assert re.search(r"^ +pytorch-cpu \(INT8\) +onnx-cpu \(INT8\)|^ +onnx-cpu \(INT8\) +pytorch", text, re.MULTILINE)
    assert _stored(int8)["run"]["precision"] == "int8" and _stored(plain)["run"]["precision"] == "fp32"
    assert "onnx-cpu (INT8)" in summary(int8.root) and "onnx-cpu (FP32)" in summary(plain.root)
    for workspace, name in ((int8, "INT8"), (plain, "FP32")):
        report(workspace.root, None, False)
        page = workspace.artifact("report/index.html").read_text()
        assert f"<h1>centerpoint, {name}: deployment report</h1>" in page
        assert f"onnx-cpu ({name})" in page


def test_the_float_models_columns_stand_beside(tmp_path: Path) -> None:
    plain, int8 = _make(tmp_path, ENOUGH)
    text = evaluate(int8.root, None, False, float_work=plain.root)
    stored, own = _stored(int8), _stored(plain)
    beside = stored["float"]
    assert beside["name"] == "work:onnx-cpu" and beside["precision"] == "fp32"
    assert beside["headline"] == own["headline"] and beside["latency"] == own["latency"]
    change = stored["headline"]["mAP"] - own["headline"]["mAP"]
    assert change < -0.05
    assert beside["differences"]["mAP"]["low"] <= change <= beside["differences"]["mAP"]["high"] < 0
    columns = r"onnx-cpu \(INT8\) +work:onnx-cpu \(FP32\) +pytorch-cpu \(INT8\) +work:pytorch-cpu \(FP32\)"
    for table in (r"Runs side by side.*\n +", r"By class\nclass +"):
        assert re.search(table + columns, text), table
    assert "onnx-cpu - work:onnx-cpu" in text
    assert "work:onnx-cpu (FP32)" in summary(int8.root)
    report(int8.root, None, False)
    assert "work:onnx-cpu (FP32)" in int8.artifact("report/index.html").read_text()


def test_a_run_that_the_float_model_lacks_is_beside_its_baseline(pair: tuple[Workspace, Workspace]) -> None:
    plain, int8 = pair
    add_run(int8, "tensorrt", "cuda:0", samples=FRAMES)
    evaluate(int8.root, None, False, float_work=plain.root)
    assert _stored(int8, "tensorrt-cuda0")["float"]["name"] == "work:pytorch-cpu"


def test_a_new_float_evaluation_is_noticed(pair: tuple[Workspace, Workspace], caplog: pytest.LogCaptureFixture) -> None:
    plain, int8 = pair
    evaluate(int8.root, None, False, float_work=plain.root)
    with caplog.at_level("INFO"):
        evaluate(int8.root, None, False, float_work=plain.root)
    assert "evaluate: up to date" in caplog.text
    add_run(plain, "onnx", samples=FRAMES, boxes={0: good_boxes(plain, 0).select(np.arange(2))})
    evaluate(plain.root, None, False)
    evaluate(int8.root, None, False, float_work=plain.root)
    assert _stored(int8)["float"]["headline"] == _stored(plain)["headline"]


def test_other_models_and_frames_are_refused(pair: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    plain, int8 = pair
    with pytest.raises(UsageError, match="is a float one itself"):
        evaluate(plain.root, None, False, float_work=plain.root)
    with pytest.raises(UsageError, match="quantized, too"):
        evaluate(int8.root, None, False, float_work=int8.root)
    fewer = _workspace(tmp_path / "fewer", quantized=False, frames=FRAMES - 1)
    with pytest.raises(InputError, match="nothing is evaluated"):
        evaluate(int8.root, None, False, float_work=fewer.root)
    evaluate(fewer.root, None, False)
    with pytest.raises(InputError, match="other frames"):
        evaluate(int8.root, None, False, float_work=fewer.root)
    evaluate(plain.root, None, False, t4={"compat": "awml"})
    with pytest.raises(InputError, match=r"with other settings \(compat awml\) than .* here \(the usual settings\)"):
        evaluate(int8.root, None, False, float_work=plain.root)
    _export_from(fewer, "another checkpoint")
    with pytest.raises(InputError, match="another checkpoint"):
        evaluate(int8.root, None, False, float_work=fewer.root)
