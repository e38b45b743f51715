"""A command reads the manifest once and hashes an artifact once, and still notices every change."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ManifestError
from shared.files import sha256_of_file
from shared.manifest import read_manifest, update_manifest
from shared.workspace import Workspace
from tests.support.opened import opened_files


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    with opened_files() as counter:
        yield counter


def _settle() -> None:
    """Wait until a write to the files that are there would change their time stamps."""
    time.sleep(0.06)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace.create(tmp_path / "work")
    with workspace.stage("export", tool="shared") as stage:
        for name in ("a", "b", "c"):
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                path.write_bytes(name.encode() * 1000)
    _settle()
    return workspace


def test_many_questions_one_reading(ws: Workspace, opened: Counter[str]) -> None:
    for _ in range(5):
        for name in ("a", "b", "c"):
            Workspace.open(ws.root).artifact(f"onnx/{name}.onnx")
            ws.input_hash(f"onnx/{name}.onnx")
    assert ws.stage("export", tool="shared").up_to_date()
    assert opened["manifest.json"] <= 1
    assert {opened[f"{name}.onnx"] for name in ("a", "b", "c")} == {1}


def test_stages_read_the_manifest_no_more_often(ws: Workspace, opened: Counter[str]) -> None:
    for number in range(4):
        with ws.stage(f"build:{number}", tool="shared") as stage:
            stage.json_artifact(f"tensorrt/{number}.json", "engine-record", {"inputs": ws.input_hash("onnx/a.onnx")})
    assert opened["manifest.json"] <= 1
    assert len(ws.manifest().artifacts) == 7


def test_what_another_process_writes_is_read(ws: Workspace) -> None:
    assert "run:other" not in ws.manifest().stages
    code = "import sys; from pathlib import Path; from shared.workspace import Workspace\n"
    code += "with Workspace(Path(sys.argv[1])).stage('run:other', tool='shared'): pass"
    subprocess.run([sys.executable, "-c", code, str(ws.root)], check=True)
    assert ws.manifest().stages["run:other"].status == "done"
    update_manifest(ws.root / "manifest.json", lambda manifest: None)
    assert "run:other" in ws.manifest().stages


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_change_in_place_of_the_same_size_is_noticed(ws: Workspace, keep_times: bool) -> None:
    path = ws.artifact("onnx/a.onnx")
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"b")
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ManifestError, match="differs from its hash"):
        ws.artifact("onnx/a.onnx")


def test_changes_within_one_tick_of_the_clock_are_noticed(tmp_path: Path) -> None:
    """Time stamps don't tell two writes of the same millisecond apart; what was just written is not remembered."""
    path = tmp_path / "file"
    digests = set()
    for number in range(50):
        path.write_bytes(b"%04d" % number)
        digests.add(sha256_of_file(path))
    assert len(digests) == 50


def test_what_a_caller_changes_later_is_not_in_the_manifest(ws: Workspace) -> None:
    value: dict[str, Any] = {"mAP": 0.5, "classes": ("car",)}
    with ws.stage("evaluate", tool="shared") as stage:
        stage.result("metrics", "onnx", value)
    value["mAP"] = 0.9
    assert ws.manifest().results["metrics"]["onnx"] == {"mAP": 0.5, "classes": ["car"]}


def test_a_change_that_fails_leaves_no_trace(ws: Workspace) -> None:
    def change(manifest: Any) -> None:
        manifest.stages.clear()
        manifest.results["metrics"] = {}
        raise ValueError("half way")

    before = ws.manifest().model_copy(deep=True)
    with pytest.raises(ValueError, match="half way"):
        update_manifest(ws.root / "manifest.json", change)
    assert read_manifest(ws.root / "manifest.json") == before
