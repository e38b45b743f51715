"""A run of an earlier export is not taken for one of the present export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluator.evaluate import evaluate
from evaluator.mlflow_log import log_evaluation
from evaluator.summary import summary
from shared.errors import InputError, VerificationFailed
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.staleness import is_current, outdated_inputs, refuse_outdated, warn_of_outdated
from shared.tasks.detection3d import Boxes3D
from shared.workspace import Workspace
from tests.support.workspaces import add_run, make_workspace
from verifier.verify import verify


def _export(workspace: Workspace, content: bytes) -> None:
    stage = workspace.stage("export-onnx", tool="shared", config={"content": content.hex()})
    with stage, stage.artifact("onnx/head.onnx", kind="onnx") as path:
        path.write_bytes(content)


def _run(workspace: Workspace) -> None:
    inputs = {"onnx/head.onnx": workspace.input_hash("onnx/head.onnx"), "dataset": "digest"}
    add_run(workspace, "onnx", inputs=inputs)


def test_inputs_that_changed_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path)
    _export(workspace, b"first")
    _run(workspace)
    assert outdated_inputs(workspace.manifest(), "run:onnx-cpu") == []
    assert is_current(workspace.manifest(), "run:onnx-cpu", workspace.root)
    _export(workspace, b"second")
    assert outdated_inputs(workspace.manifest(), "run:onnx-cpu") == ["onnx/head.onnx"]
    assert not is_current(workspace.manifest(), "run:onnx-cpu", workspace.root)
    assert "made from another version of onnx/head.onnx" in caplog.text
    _export(workspace, b"first")
    assert is_current(workspace.manifest(), "run:onnx-cpu", workspace.root)


def test_a_copied_workspace_is_told_commands_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path / "first")
    _export(workspace, b"first")
    _run(workspace)
    _export(workspace, b"second")

    def record(manifest: Manifest) -> None:
        run = manifest.stages["run:onnx-cpu"]
        manifest.stages["run:onnx-cpu"] = run.model_copy(update={"command": f"runtime run --work {workspace.root}"})

    update_manifest(workspace.root / MANIFEST_NAME, record)
    copy = tmp_path / "a copy"
    shutil.copytree(workspace.root, copy)
    assert not is_current(Workspace.open(copy).manifest(), "run:onnx-cpu", copy)
    assert f"To make it again: runtime run --work '{copy}'" in caplog.text
    with pytest.raises(InputError, match=f"run:onnx-cpu again: runtime run --work '{copy}'$"):
        refuse_outdated(Workspace.open(copy).manifest(), "run:onnx-cpu", "run", copy)
    warn_of_outdated(Workspace.open(copy).manifest(), "run:onnx-cpu", "run", copy, "v1")
    assert f"{copy}@v1: the run is of another version of onnx/head.onnx" in caplog.text


def test_run_of_an_earlier_export_is_neither_verified_nor_evaluated(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    _export(workspace, b"first")
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    _run(workspace)
    verify(workspace.root, (), False)
    evaluate(workspace.root, None, False)
    assert "outdated" not in summary(workspace.root)
    _export(workspace, b"second")
    with pytest.raises(VerificationFailed, match="no finished run of onnx on cpu"):
        verify(workspace.root, (), False)
    assert "onnx-cpu" not in evaluate(workspace.root, None, False)
    assert "done, outdated" in summary(workspace.root)


def test_only_outdated_runs_are_no_runs(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    _export(workspace, b"first")
    _run(workspace)
    _export(workspace, b"second")
    with pytest.raises(InputError, match="no finished run"):
        evaluate(workspace.root, None, False)


def test_an_artifact_whose_stage_is_nowhere_is_not_compared(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "onnx"):
        add_run(workspace, backend)

    def forget(manifest: Manifest) -> None:
        manifest.stages.clear()

    update_manifest(workspace.root / MANIFEST_NAME, forget)
    with pytest.raises(VerificationFailed, match="no finished run"):
        verify(workspace.root, (), False)


def test_an_evaluation_of_earlier_runs_is_not_logged(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    evaluate(workspace.root)
    add_run(workspace, "onnx", boxes={0: Boxes3D.empty()})
    # Refused before MLflow is asked for, which need not be installed.
    with pytest.raises(InputError, match=r"the evaluation is of another version of runs/onnx-cpu.*evaluate again: "):
        log_evaluation(workspace.root)
