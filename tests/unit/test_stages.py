"""When a stage runs, what it leaves behind, and what it says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import ExportError
from shared.manifest_cli import cli
from shared.workspace import Workspace


def _export(ws: Workspace, names: tuple[str, ...] = ("a",), **config: object) -> None:
    stage = ws.stage("export", tool="exporter", config=dict(config))
    with stage:
        for name in names:
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                path.write_text(f"{name} {config}")


def test_up_to_date_until_something_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ws = Workspace.create(tmp_path)
    stage = ws.stage(
        "export", tool="exporter", config={"opset": 17}, inputs={"checkpoint": "1"}, versions={"torch": "2"}
    )
    assert not stage.up_to_date()
    assert stage.changes() == ["it never ran"]
    with stage:
        pass
    same = ws.stage(
        "export", tool="exporter", config={"opset": 17}, inputs={"checkpoint": "1"}, versions={"torch": "2"}
    )
    with caplog.at_level(logging.INFO):
        assert same.up_to_date()
    assert "export: up to date" in caplog.text
    other = ws.stage("export", tool="exporter", config={"opset": 18}, inputs={"checkpoint": "2"}, versions={})
    assert not other.up_to_date()
    assert other.changes() == [
        "config.opset: 17 -> 18",
        "inputs.checkpoint: '1' -> '2'",
        "versions.torch: gone, was '2'",
    ]


def test_failure_keeps_what_was_there(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws)
    before = ws.path("onnx/a.onnx").read_text()
    with pytest.raises(ExportError), ws.stage("export", tool="exporter", config={"new": 1}) as stage:
        with stage.artifact("onnx/a.onnx", kind="onnx") as path:
            path.write_text("half")
        raise ExportError("node X can't be exported", where="pts_voxel_encoder")
    assert ws.path("onnx/a.onnx").read_text() == before
    assert [path.name for path in ws.path("onnx").iterdir()] == ["a.onnx"]
    record = ws.manifest().stages["export"]
    assert (record.status, record.reason) == ("failed", "pts_voxel_encoder: node X can't be exported")
    shown = CliRunner().invoke(cli, ["show", "--work", str(tmp_path)]).stdout.splitlines()
    assert shown[1].split() == ["stage", "status", "ended", "host", "files", "reason"]
    assert shown[3].split()[:2] == ["export", "failed"] and shown[3].endswith("node X can't be exported")


def test_artifacts_that_are_made_no_longer_go(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws, ("a", "b"))
    _export(ws, ("b", "c"), new=1)
    assert sorted(ws.manifest().artifacts) == ["onnx/b.onnx", "onnx/c.onnx"]
    assert sorted(path.name for path in ws.path("onnx").iterdir()) == ["b.onnx", "c.onnx"]


def test_ended_between_the_files_the_manifest_describes_only_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws, ("a", "b", "c"))
    replaced: list[Path] = []

    def no_more(folder: Path) -> None:
        replaced.append(folder)
        raise KeyboardInterrupt  # as SIGKILL would, after the first file got its name

    monkeypatch.setattr("shared.stages.flush_to_disk", no_more)
    with pytest.raises(KeyboardInterrupt), ws.stage("export", tool="exporter", config={"new": 1}) as stage:
        for name in ("a", "b"):
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                path.write_text(f"other {name}")
    assert replaced
    manifest = ws.manifest()
    assert manifest.stages["export"].status == "running"
    for relative, artifact in manifest.artifacts.items():
        assert artifact.describes(ws.path(relative))
    monkeypatch.undo()
    _export(ws, ("a", "b"), new=1)
    assert sorted(ws.manifest().artifacts) == ["onnx/a.onnx", "onnx/b.onnx"]


def test_skipped_with_the_reason(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    ws.stage("build", tool="trt_builder").skip("no GPU here")
    record = ws.manifest().stages["build"]
    assert (record.status, record.reason) == ("skipped", "no GPU here")


def test_workspace_works_elsewhere(tmp_path: Path) -> None:
    _export(Workspace.create(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert Workspace.open(tmp_path / "there").artifact("onnx/a.onnx").read_text() == "a {}"
    assert Workspace.open(tmp_path / "there").stage("export", tool="exporter").up_to_date()


def test_skipping_again_for_the_same_reason_changes_nothing(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    ws.stage("build", tool="shared").skip("no GPU")
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    ws.stage("build", tool="shared").skip("no GPU")
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before
    ws.stage("build", tool="shared").skip("no TensorRT")
    assert ws.manifest().stages["build"].reason == "no TensorRT"
