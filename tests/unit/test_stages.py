"""When a stage runs, what it leaves behind, and what it says."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import EnvironmentLacks, ExportError
from shared.files import write_text
from shared.locks import Lock
from shared.manifest_cli import cli
from shared.work_path import WorkPath
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


def test_a_result_that_is_gone_is_made_again(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    stage = ws.stage("verify", tool="verifier")
    with stage:
        stage.result("verification", "summary", {"passed": True})
    assert ws.stage("verify", tool="verifier").up_to_date()
    content = json.loads((tmp_path / "manifest.json").read_text())
    del content["results"]["verification"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert not ws.stage("verify", tool="verifier").up_to_date()


def test_the_command_is_recorded_as_a_user_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of ``python -m exporter``, whose program is ``exporter/__main__.py``."""
    ws = Workspace.create(tmp_path)
    for program in ("/venv/bin/exporter", "/checkout/exporter/__main__.py"):
        monkeypatch.setattr("sys.argv", [program, "export", "--work", "a b"])
        with ws.stage("export", tool="exporter"):
            pass
        assert ws.manifest().stages["export"].command == "exporter export --work 'a b'"


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
    assert (record.status, record.reason) == ("done", None)
    assert record.attempt is not None
    assert (record.attempt.status, record.attempt.reason) == (
        "failed",
        "pts_voxel_encoder: node X can't be exported",
    )
    assert ws.artifact("onnx/a.onnx").read_text() == before
    assert ws.stage("export", tool="exporter").up_to_date(), "the old result is still usable"
    shown = CliRunner().invoke(cli, ["show", "--work", str(tmp_path)]).stdout.splitlines()
    assert shown[1].split() == ["stage", "status", "verdict", "ended", "host", "files", "reason"]
    assert shown[3].split()[:2] == ["export", "done"]
    assert shown[4].split()[:3] == ["last", "attempt", "failed"] and "node X can't be exported; " in shown[4]


def test_a_stage_that_never_ended_well_failed(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    with pytest.raises(ExportError), ws.stage("export", tool="exporter"):
        raise ExportError("node X can't be exported")
    record = ws.manifest().stages["export"]
    assert (record.status, record.reason, record.attempt) == ("failed", "node X can't be exported", None)


def test_an_interrupt_is_an_attempt_and_the_next_result_clears_it(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws)
    with pytest.raises(KeyboardInterrupt), ws.stage("export", tool="exporter", config={"new": 1}):
        raise KeyboardInterrupt
    record = ws.manifest().stages["export"]
    assert record.status == "done" and record.attempt is not None and record.attempt.status == "interrupted"
    _export(ws, new=1)
    assert ws.manifest().stages["export"].attempt is None
    assert "attempt" not in (tmp_path / "manifest.json").read_text(), "earlier versions read it"


def test_artifacts_that_are_made_no_longer_go(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws, ("a", "b"))
    _export(ws, ("b", "c"), new=1)
    assert sorted(ws.manifest().artifacts) == ["onnx/b.onnx", "onnx/c.onnx"]
    assert sorted(path.name for path in ws.path("onnx").iterdir()) == ["b.onnx", "c.onnx"]


def test_ended_between_the_files_the_next_reader_ends_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws, ("a", "b", "c"))
    rename = WorkPath.take_place_of

    def once(source: WorkPath, target: WorkPath) -> None:
        if target.name == "b.onnx":
            raise KeyboardInterrupt  # again and again: nothing that this process does after it helps
        rename(source, target)

    monkeypatch.setattr(WorkPath, "take_place_of", once)
    with pytest.raises(KeyboardInterrupt), ws.stage("export", tool="exporter", config={"new": 1}) as stage:
        for name in ("a", "b"):
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                path.write_text(f"other {name}")
    assert "switch" in json.loads((tmp_path / "manifest.json").read_text())
    monkeypatch.undo()
    assert ws.artifact("onnx/b.onnx").read_text() == "other b"
    assert "switch" not in json.loads((tmp_path / "manifest.json").read_text())
    assert sorted(path.name for path in ws.path("onnx").iterdir()) == ["a.onnx", "b.onnx"]
    assert ws.stage("export", tool="exporter", config={"new": 1}).up_to_date()


def test_a_commit_that_can_not_be_ended_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = Workspace.create(tmp_path)
    _export(ws)
    path = tmp_path / "manifest.json"
    value = json.loads(path.read_text()) | {"switch": {"remove": ["onnx/old.onnx"]}}
    path.write_text(json.dumps(value))

    def read_only(lock: Lock) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Lock, "__enter__", read_only)
    with pytest.raises(EnvironmentLacks, match=r"a commit was interrupted here.*read-only.*where it can be written"):
        Workspace.open(tmp_path)
    monkeypatch.undo()
    assert Workspace.open(tmp_path).artifact("onnx/a.onnx").is_file()


def test_a_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    for number, names in enumerate((("x", "y"), ("y", "z"))):
        with ws.stage("run", tool="runtime", config={"number": number}) as stage:
            for name in names:
                write_text(stage.folder("runs/a") / name, f"{number}")
                stage.add_artifact(f"runs/a/{name}", "test")
            if number:
                assert ws.artifact("runs/a/x").read_text() == "0", "the old one is whole until the end"
    assert sorted(path.name for path in ws.path("runs").iterdir()) == ["a"]
    assert sorted(path.name for path in ws.path("runs/a").iterdir()) == ["y", "z"]
    assert sorted(ws.manifest().artifacts) == ["runs/a/y", "runs/a/z"]


def test_a_failed_attempt_is_gone_on_with_and_another_one_drops_it(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)

    def attempt(number: int) -> list[str]:
        with pytest.raises(ExportError), ws.stage("run", tool="runtime", config={"number": number}) as stage:
            folder = stage.folder("runs/a")
            before = folder.names()
            write_text(folder / f"{number}", "half")
            raise ExportError("no")
        return before

    assert [attempt(number) for number in (0, 0, 1, 1, 0)] == [[], ["0"], [], ["1"], []]
    assert len(list(ws.path("runs").iterdir())) == 1


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
