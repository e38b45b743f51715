"""`manifest tag` and `rollback`: what was kept comes back whole, nothing is lost on the way, kills included."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared import versions
from shared.errors import EnvironmentLacks, ManifestError, UsageError
from shared.files import sha256_of_file
from shared.manifest import read_manifest
from shared.manifest_cli import cli
from shared.runs import RunWriter
from shared.stages import stage_lock
from shared.tasks.detection3d import Boxes3D
from shared.temporaries import remove_orphans
from shared.versions import KeptWorkspace, rollback, tag, untag
from shared.versions import versions as all_versions
from shared.workspace import Workspace
from tests.support.run_files import run_header

MODEL = "onnx/a.onnx"


def _do(ws: Workspace, name: str, files: dict[str, bytes], value: int = 0) -> None:
    """Run a stage that writes ``files`` and records a result ``numbers/<name>``."""
    with ws.stage(name, tool="shared", config={"value": value}) as stage:
        for relative, content in files.items():
            with stage.artifact(relative, kind="test") as path:
                path.write_bytes(content)
        stage.result("numbers", name, {"value": value})
        stage.config({"value": value})


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A workspace with a version ``v1`` that was replaced since: one file changed, one gone, one new, one kept."""
    ws = Workspace.create(tmp_path / "work")
    _do(ws, "keep", {"same": b"same"})
    _do(ws, "export", {MODEL: b"one", "onnx/gone.onnx": b"gone"}, 1)
    tag(ws.root, "v1", note="the first")
    _do(ws, "export", {MODEL: b"two", "onnx/new.onnx": b"new"}, 2)
    return ws


def _files(ws: Workspace) -> dict[str, bytes]:
    """Every file of the workspace that is not a lock and not kept for versions."""
    found = [path for path in ws.root.rglob("*") if path.is_file() and versions.FOLDER not in path.parts]
    return {str(p.relative_to(ws.root)): p.read_bytes() for p in found if not p.name.endswith(".lock")}


def test_a_version_comes_back_with_all_that_belonged_to_it(ws: Workspace) -> None:
    then = versions.read_version(ws.root, "v1").manifest
    done = rollback(ws.root, "v1")
    assert sorted(done.restored) == [MODEL, "onnx/gone.onnx"] and done.removed == ["onnx/new.onnx"]
    assert ws.manifest() == then
    files = _files(ws)
    del files["manifest.json"]
    assert files == {"same": b"same", MODEL: b"one", "onnx/gone.onnx": b"gone"}
    assert ws.artifact(MODEL).read_bytes() == b"one"
    assert ws.manifest().results["numbers"]["export"] == {"value": 1} == ws.config()
    assert ws.stage("export", tool="shared", config={"value": 1}).up_to_date()


def test_what_was_here_is_kept_and_comes_back_too(ws: Workspace) -> None:
    before = _files(ws)
    kept = rollback(ws.root, "v1").kept
    assert kept is not None and kept.startswith("before-")
    # v1 is here now, and a version has it: nothing more to keep.
    assert rollback(ws.root, kept).kept is None
    assert _files(ws) == before
    assert {version.name for version in all_versions(ws.root)} == {"v1", kept}


def test_versions_take_no_space_until_artifacts_are_replaced(ws: Workspace) -> None:
    inodes = {path.stat().st_ino for path in (ws.root / versions.FOLDER / "objects").iterdir()}
    assert ws.path("same").stat().st_ino in inodes
    tag(ws.root, "v2")
    tag(ws.root, "v3")
    objects = list((ws.root / versions.FOLDER / "objects").iterdir())
    assert len(objects) == 5, "same, one, gone, two, new: once each"
    assert all(path.stat().st_nlink == 2 for path in objects if path.read_bytes() in (b"same", b"two", b"new"))


def test_without_hard_links_versions_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str, **folders: int) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    ws = Workspace.create(tmp_path)
    _do(ws, "export", {MODEL: b"one"}, 1)
    tag(ws.root, "v1")
    ws.path(MODEL).write_bytes(b"edited in place")
    rollback(ws.root, "v1")
    assert ws.artifact(MODEL).read_bytes() == b"one"
    _do(ws, "export", {MODEL: b"two"}, 2)
    rollback(ws.root, "v1")
    assert ws.artifact(MODEL).read_bytes() == b"one"


def test_untag_frees_what_no_other_version_has(ws: Workspace) -> None:
    tag(ws.root, "v2")
    assert untag(ws.root, "v1") == len(b"one") + len(b"gone")
    assert [version.name for version in all_versions(ws.root)] == ["v2"]
    with pytest.raises(UsageError, match=r"there is no version 'v1'.*there are: v2"):
        rollback(ws.root, "v1")
    assert ws.artifact(MODEL).read_bytes() == b"two"
    assert ws.artifact("same").read_bytes() == b"same"


@pytest.mark.parametrize("damage", ["object edited", "object missing"])
def test_a_version_that_is_not_whole_is_refused_and_nothing_changes(ws: Workspace, damage: str) -> None:
    version = versions.read_version(ws.root, "v1")
    victim = KeptWorkspace(ws.root, version).artifact("onnx/gone.onnx")
    if damage == "object edited":
        victim.write_bytes(b"Gone")
    else:
        victim.unlink()
    before = _files(ws)
    with pytest.raises(ManifestError, match=r"onnx/gone\.onnx of version 'v1'"):
        rollback(ws.root, "v1")
    assert _files(ws) == before


def test_what_is_damaged_now_is_discarded_only_when_asked(ws: Workspace) -> None:
    ws.path(MODEL).write_bytes(b"damaged")
    before = _files(ws)
    with pytest.raises(ManifestError, match="--discard"):
        rollback(ws.root, "v1")
    assert _files(ws) == before
    assert rollback(ws.root, "v1", discard=True).kept is None
    assert ws.artifact(MODEL).read_bytes() == b"one"


def test_what_is_not_finished_is_left_out(ws: Workspace) -> None:
    with pytest.raises(RuntimeError), ws.stage("run", tool="shared"):
        raise RuntimeError("no")
    with pytest.raises(RuntimeError), ws.stage("keep", tool="shared"):
        raise RuntimeError("no")
    ws.stage("build", tool="shared").skip("no GPU")
    tagged = tag(ws.root, "v2")
    assert tagged.left_out == ["run"]
    assert set(tagged.version.manifest.stages) == {"export", "keep", "build"}
    assert tagged.version.manifest.stages["keep"].attempt is None, "an attempt is no part of a version"


def test_nothing_finished_is_refused(tmp_path: Path) -> None:
    Workspace.create(tmp_path)
    with pytest.raises(ManifestError, match="nothing is finished"):
        tag(tmp_path, "v1")


@pytest.mark.parametrize("name", ["", "../v1", ".hidden", "a/b", "a b", "x" * 81])
def test_names_that_make_no_file_name_are_refused(ws: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name"):
        tag(ws.root, name)
    with pytest.raises(UsageError, match="can't be the name"):
        rollback(ws.root, name)


def test_a_taken_name_moves_only_when_asked(ws: Workspace) -> None:
    with pytest.raises(UsageError, match="there is a version 'v1' already"):
        tag(ws.root, "v1")
    assert tag(ws.root, "v1", move=True).version.manifest.artifacts.keys() == {"same", MODEL, "onnx/new.onnx"}
    assert len(list((ws.root / versions.FOLDER / "objects").iterdir())) == 3


def test_a_stage_that_runs_is_not_disturbed(ws: Workspace) -> None:
    before = _files(ws)
    with stage_lock(ws.root, "export"):
        with pytest.raises(ManifestError, match="stage 'export' is running here"):
            rollback(ws.root, "v1")
        with pytest.raises(ManifestError, match="stage 'export' is running here"):
            tag(ws.root, "v2")
    assert _files(ws) == before


def test_a_version_file_that_is_broken_says_so(ws: Workspace) -> None:
    path = ws.root / versions.FOLDER / "v1.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ManifestError, match="can't be read as JSON"):
        rollback(ws.root, "v1")


def test_progress_of_another_run_is_not_continued_after_a_rollback(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)

    def run(fingerprint: str, score: float) -> None:
        stage = ws.stage("run:onnx-cpu", tool="shared", config={"fingerprint": fingerprint})
        with stage:
            writer = RunWriter.open(ws.path("runs/onnx-cpu"), run_header(1, fingerprint=fingerprint))
            writer.commit(0, Boxes3D.build([[0, 0, 0]], [[1, 1, 1]], [0], scores=[score]), {"total": 1.0})
            for relative in writer.finish():
                stage.add_artifact(f"runs/onnx-cpu/{relative}", "run")

    run("one", 0.1)
    tag(ws.root, "v1")
    run("two", 0.2)
    rollback(ws.root, "v1")
    resumed = RunWriter.open(ws.path("runs/onnx-cpu"), run_header(1, fingerprint="one"))
    assert not resumed.done


ROLLBACKS = """
import sys
from pathlib import Path
from shared.versions import rollback
print("begun", flush=True)
while True:
    rollback(Path(sys.argv[1]), "one")
    rollback(Path(sys.argv[1]), "two")
"""
TAGS = """
import sys
from pathlib import Path
from shared.versions import tag
print("begun", flush=True)
while True:
    tag(Path(sys.argv[1]), "moving", move=True)
"""


def _kill_after(seconds: float, code: str, root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _two_versions(root: Path) -> tuple[Workspace, list[str]]:
    """A workspace with versions ``one`` and ``two``, which is here now, and the paths of what differs."""
    ws = Workspace.create(root)
    names = [f"onnx/{index}.onnx" for index in range(12)]
    for version in (b"one", b"two"):
        _do(ws, "export", dict.fromkeys(names, version * 20_000), len(version))
        _do(ws, "build", {"tensorrt/engine": version})
        tag(ws.root, version.decode())
    return ws, names


def _check_both_come_back(ws: Workspace, names: list[str]) -> None:
    for version in ("one", "two"):
        rollback(ws.root, version)
        assert {ws.artifact(name).read_bytes() for name in names} == {version.encode() * 20_000}
        assert ws.artifact("tensorrt/engine").read_bytes() == version.encode()
    assert {version.name for version in all_versions(ws.root)} == {"one", "two"}
    remove_orphans(ws.root)
    assert sorted(path.name for path in (ws.root / "onnx").iterdir()) == sorted(Path(name).name for name in names)


def test_a_rollback_killed_at_any_moment_can_be_run_again(tmp_path: Path) -> None:
    ws, names = _two_versions(tmp_path)
    random.seed(0)
    for _ in range(8):
        _kill_after(random.uniform(0.0, 0.15), ROLLBACKS, ws.root)
        manifest = read_manifest(ws.root / "manifest.json")
        if manifest.stages["export"].status == "done":
            assert len({ws.artifact(name).read_bytes() for name in names}) == 1
    _check_both_come_back(ws, names)


KILLED_HALF_WAY = """
import os, sys
from pathlib import Path
from shared import versions
from shared.work_path import WorkPath
rename, seen = WorkPath.take_place_of, []
def rename_and_die(source, target):
    if target.parent.name == "onnx":
        seen.append(target)
    if len(seen) == 5:
        os.kill(os.getpid(), 9)
    rename(source, target)
WorkPath.take_place_of = rename_and_die
versions.rollback(Path(sys.argv[1]), "one")
"""


def test_a_rollback_killed_half_way_is_ended_by_the_next_command(tmp_path: Path) -> None:
    ws, names = _two_versions(tmp_path)
    answer = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, str(ws.root)], check=False)
    assert answer.returncode == -signal.SIGKILL
    assert len({ws.path(name).read_bytes() for name in names}) == 2, "some files are of one version, some of the other"
    assert {ws.artifact(name).read_bytes() for name in names} == {b"one" * 20_000}
    assert len({ws.path(name).read_bytes() for name in names}) == 1
    _check_both_come_back(ws, names)


def test_a_full_disk_is_told_and_changes_nothing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str, **folders: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = _files(ws)
    monkeypatch.setattr(os, "link", full)
    for call in (
        lambda: tag(ws.root, "v2"),
        lambda: rollback(ws.root, "v1"),
        lambda: rollback(ws.root, "v1", discard=True),
    ):
        with pytest.raises(EnvironmentLacks, match="no space left"):
            call()
        assert _files(ws) == before
    assert [version.name for version in all_versions(ws.root)] == ["v1"]


def test_tools_that_tag_at_once_lose_nothing(ws: Workspace) -> None:
    code = "import sys; from pathlib import Path; from shared.versions import tag\n"
    code += "for index in range(4): tag(Path(sys.argv[1]), f'{sys.argv[2]}-{index}')"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(ws.root), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    names = {version.name for version in all_versions(ws.root)}
    assert names == {"v1", *(f"{name}-{index}" for name in "abc" for index in range(4))}
    rollback(ws.root, "v1")
    assert ws.artifact(MODEL).read_bytes() == b"one"


def test_a_tag_killed_at_any_moment_is_there_or_not(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    random.seed(1)
    for index in range(6):
        _do(ws, "export", {f"onnx/{file}.onnx": f"{index} {file}".encode() * 9000 for file in range(8)}, index)
        _kill_after(random.uniform(0.0, 0.06), TAGS, ws.root)
        for version in all_versions(ws.root):
            for relative, record in version.manifest.artifacts.items():
                assert sha256_of_file(KeptWorkspace(ws.root, version).artifact(relative)) == record.sha256
    tag(ws.root, "last", move=True)
    assert ws.stage("export", tool="shared", config={"value": 5}).up_to_date()


def test_commands_say_what_they_did(ws: Workspace) -> None:
    def call(*words: str) -> str:
        answer = CliRunner().invoke(cli, [words[0], "--work", str(ws.root), *words[1:]])
        assert answer.exit_code == 0, answer.output
        return str(answer.output)

    assert "v2: 2 stages, 3 artifacts" in call("tag", "v2", "--note", "the second")
    listed = call("tags")
    assert "the first" in listed and "the second" in listed
    assert "back at v1: 2 artifacts restored, 1 removed" in call("rollback", "v1")
    assert "v2 is gone" in call("untag", "v2")
    assert CliRunner().invoke(cli, ["rollback", "--work", str(ws.root), "v9"]).exit_code == 2
