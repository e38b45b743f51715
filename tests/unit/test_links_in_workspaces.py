"""No command writes, renames or removes anything outside a workspace because of a symbolic link in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.errors import ManifestError
from shared.files import write_text
from shared.journal import Journal
from shared.locks import Lock
from shared.manifest import update_manifest
from shared.merge import merge
from shared.runs import RunWriter
from shared.tasks.detection3d import Boxes3D
from shared.temporaries import remove_orphans
from shared.traces import write_step
from shared.versions import rollback, tag, untag
from shared.work_path import WorkPath
from shared.workspace import Workspace
from tests.support.run_files import run_header

HEADER = run_header(1, raw_samples=[0])


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody, with a file and a folder in it."""
    folder = tmp_path / "outside"
    (folder / "deeper").mkdir(parents=True)
    for name in ("precious", "deeper/precious", "0" * 64, "journal.jsonl"):
        (folder / name).write_text("precious")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    ws = Workspace.create(tmp_path / "work")
    _export(ws.root)
    tag(ws.root, "v1")
    return ws.root


def _export(work: Path, content: bytes = b"one") -> None:
    with Workspace(work).stage("export", tool="exporter", config={"content": content.decode()}) as stage:
        stage.bytes_artifact("onnx/a.onnx", "onnx", content)


def _run(work: Path) -> None:
    with Workspace(work).stage("run:onnx-cpu", tool="runtime") as stage:
        writer = RunWriter.open(stage.folder("runs/onnx-cpu"), HEADER)
        writer.commit(
            0, Boxes3D.build(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), {"total": 1.0}, {}, {"x": [1.0]}
        )
        for name in writer.finish():
            stage.add_artifact(f"runs/onnx-cpu/{name}", "run")


def _attempt(work: Path) -> Path:
    stage = Workspace(work).stage("run:onnx-cpu", tool="runtime")
    return work / f"runs/.onnx-cpu.attempt-{stage.fingerprint[:8]}"


def _merge(work: Path) -> None:
    copy = work.with_name("copy")
    shutil.copytree(work, copy, ignore=shutil.ignore_patterns(".locks", "tensorrt", "*.lock"))
    with Workspace(copy).stage("build", tool="trt_builder") as stage:
        stage.bytes_artifact("tensorrt/t/a.engine", "engine", b"engine")
    merge(work, copy)


def _switch(work: Path) -> None:
    """What a hostile manifest says is still to be done."""
    value = (work / "manifest.json").read_text()
    switch = '{"replace": [{"source": "onnx/a.onnx", "target": "link/precious"}], "remove": ["link/deeper"]}'
    (work / "manifest.json").write_text(value.rstrip()[:-1] + f', "switch": {switch}}}')
    Workspace.open(work)


# What is a link in the workspace, and a command that used it. "FILE": the link is to a file.
CASES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "tag, .versions": (".versions", lambda work: tag(work, "v2")),
    "tag, objects": (".versions/objects", lambda work: tag(work, "v2")),
    "untag, objects": (".versions/objects", lambda work: untag(work, "v1")),
    "rollback, objects": (".versions/objects", lambda work: rollback(work, "v1")),
    "rollback, artifacts": ("onnx", lambda work: rollback(work, "v1", discard=True)),
    "versions' lock": (".versions/lock", lambda work: tag(work, "v2")),
    "export, artifacts": ("onnx", lambda work: _export(work, b"two")),
    "export, .locks": (".locks", lambda work: _export(work, b"two")),
    "export, its lock": (".locks/export.lock", lambda work: _export(work, b"two")),
    "manifest's lock": ("manifest.lock", lambda work: _export(work, b"two")),
    "run, runs": ("runs", _run),
    "run, its folder": ("runs/ATTEMPT", _run),
    "run, raw": ("runs/ATTEMPT/raw", _run),
    "run, journal": ("runs/ATTEMPT/journal.bin", _run),
    "merge": ("tensorrt", _merge),
    "switch": ("link", _switch),
    "search journal": ("quantized", lambda work: Journal.open(WorkPath(work, "quantized/j"), "f", afresh=False)),
    "trace step": ("traces", lambda work: write_step(WorkPath(work, "traces/a"), 0, "x", {})),
    "text": ("tensorrt", lambda work: write_text(WorkPath(work, "tensorrt/t/rejected.json"), "{}")),
    "lock": ("tensorrt", lambda work: Lock(WorkPath(work, "tensorrt/timing.lock")).acquire()),
    "remove": ("quantized", lambda work: WorkPath(work, "quantized/deeper").remove()),
    "manifest": ("manifest.json", lambda work: update_manifest(work / "manifest.json", lambda manifest: None)),
}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_a_link_is_refused_by_name_and_nothing_outside_changes(work: Path, outside: Path, case: str) -> None:
    name, command = CASES[case]
    if "ATTEMPT" in name:
        # An attempt that was interrupted, and whose header fits.
        attempt = _attempt(work)
        with pytest.raises(KeyboardInterrupt), Workspace(work).stage("run:onnx-cpu", tool="runtime") as stage:
            RunWriter.open(stage.folder("runs/onnx-cpu"), HEADER)
            raise KeyboardInterrupt
        name = name.replace("runs/ATTEMPT", str(attempt.relative_to(work)))
    link = work / name
    is_file = link.is_file()
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "precious" if is_file else outside)
    before = _files(outside)
    with pytest.raises(ManifestError, match=f"{link.name}: is a symbolic link"):
        command(work)
    assert _files(outside) == before


def test_links_are_removed_not_followed(work: Path, outside: Path) -> None:
    orphan = work / "onnx/.folder.partial-4f1c0ffee123-17-0123abcd"
    orphan.mkdir()
    (orphan / "link").symlink_to(outside)
    link = work / "onnx/.link.partial-unlocked-0123abcd"
    link.symlink_to(outside)
    for path in (orphan, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    (work / "elsewhere").symlink_to(outside)
    before = _files(outside)
    assert remove_orphans(work) == [orphan, link]
    assert not orphan.exists() and not link.is_symlink()
    assert _files(outside) == before


def test_the_workspace_itself_may_be_a_link(work: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(work)
    _export(tmp_path / "link", b"two")
    assert (work / "onnx/a.onnx").read_bytes() == b"two"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_a_path_stays_below_its_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(ManifestError, match="leaves the workspace"):
        WorkPath(tmp_path, path)


@pytest.mark.parametrize("path", ["../x", "", "manifest.json", ".locks/x", ".versions/objects", "a//b"])
def test_a_manifest_that_has_other_things_switched_is_refused(work: Path, path: str) -> None:
    value = (work / "manifest.json").read_text()
    (work / "manifest.json").write_text(value.rstrip()[:-1] + f', "switch": {{"remove": ["{path}"]}}}}')
    with pytest.raises(ManifestError, match=r"switch\.remove\.0"):
        Workspace.open(work)
