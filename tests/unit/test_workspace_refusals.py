"""What a workspace refuses: newer schemas, changed artifacts, paths that leave it, disks that are full or read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import EnvironmentLacks, ManifestError
from shared.files import atomic_path, write_json
from shared.manifest import SCHEMA_VERSION, read_manifest
from shared.workspace import Workspace


def _python(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)


@pytest.fixture
def exported(tmp_path: Path) -> Workspace:
    ws = Workspace.create(tmp_path / "ws")
    stage = ws.stage("export", tool="exporter")
    with stage, stage.artifact("onnx/a.onnx", kind="onnx") as path:
        path.write_bytes(b"the model")
    return ws


def test_newer_schema(exported: Workspace) -> None:
    path = exported.root / "manifest.json"
    value = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1, "from_the_future": 1}
    before = json.dumps(value)
    path.write_text(before)
    with pytest.raises(ManifestError, match="newer than this tool's"):
        Workspace.create(exported.root)
    assert path.read_text() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1, "stages": 3}', '{"schema_version": "x"}'])
def test_broken_manifest(exported: Workspace, content: str) -> None:
    path = exported.root / "manifest.json"
    path.write_text(content)
    with pytest.raises(ManifestError) as error:
        Workspace.open(exported.root)
    assert str(path) in str(error.value)
    assert path.read_text() == content


def test_what_is_no_object_is_told_in_words(exported: Workspace) -> None:
    (exported.root / "manifest.json").write_text("[]")
    with pytest.raises(ManifestError, match=r"manifest\.json: not a manifest, which is an object$"):
        exported.manifest()


def test_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest here") as error:
        Workspace.open(tmp_path)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("content", [b"the modeL", b"the mode", b""])
def test_changed_artifact_is_not_loaded(exported: Workspace, content: bytes) -> None:
    exported.path("onnx/a.onnx").write_bytes(content)
    with pytest.raises(ManifestError, match=r"differs from its hash.*run again: "):
        exported.artifact("onnx/a.onnx")
    assert not exported.stage("export", tool="exporter").up_to_date()


def test_missing_artifact(exported: Workspace) -> None:
    exported.path("onnx/a.onnx").unlink()
    with pytest.raises(ManifestError, match=r"not on disk\. copy it here if .*, or run again: "):
        exported.artifact("onnx/a.onnx")


def test_a_copied_workspace_says_how_to_rebuild_it_where_it_is_now(
    exported: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/exporter", "export", "--work", "work/there", "--set", "a=[1, 2]"])
    with exported.stage("other", tool="exporter") as stage, stage.artifact("onnx/b.onnx", kind="onnx") as path:
        path.write_bytes(b"b")
    copy = Path(shutil.copytree(exported.root, tmp_path / "here"))
    (copy / "onnx/b.onnx").unlink()
    with pytest.raises(ManifestError) as error:
        Workspace.open(copy).artifact("onnx/b.onnx")
    assert str(error.value).endswith(f"run again: exporter export --work {copy} --set 'a=[1, 2]' --force")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "onnx/../../x"])
def test_paths_stay_inside(exported: Workspace, path: str) -> None:
    with pytest.raises(ManifestError, match="leaves the workspace"):
        exported.path(path)


@pytest.mark.parametrize("path", ["link", "link/x"])
@pytest.mark.parametrize("target", ["/tmp", "onnx"])
def test_links_lead_nowhere(exported: Workspace, path: str, target: str) -> None:
    (exported.root / "link").symlink_to(target)
    with pytest.raises(ManifestError, match="link: is a symbolic link; nothing in a workspace may be one"):
        exported.path(path)


def test_a_manifest_that_points_outside_is_refused(exported: Workspace) -> None:
    path = exported.root / "manifest.json"
    value = json.loads(path.read_text())
    value["artifacts"]["../../etc/passwd"] = value["artifacts"].pop("onnx/a.onnx")
    path.write_text(json.dumps(value))
    with pytest.raises(ManifestError, match="leaves the workspace"):
        exported.artifact("../../etc/passwd")


def test_full_disk(exported: Workspace) -> None:
    """A file size limit stands for the full disk: the same kind of failing write."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from shared.workspace import Workspace\n"
        "from shared.cli import tool_group\n"
        "cli = tool_group('t', 'help')\n"
        "@cli.command()\n"
        "def go():\n"
        "    stage = Workspace.open(Path(sys.argv[1])).stage('export', tool='exporter', config={'new': 1})\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    with stage, stage.artifact('onnx/a.onnx', kind='onnx') as path:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "        path.write_bytes(b'x' * 10**6)\n"
        "cli.main(['go'])"
    )
    answer = _python(code, exported.root)
    assert answer.returncode == 4, answer.stderr
    assert "larger than the limit" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert exported.path("onnx/a.onnx").read_bytes() == b"the model"
    assert [path.name for path in exported.path("onnx").iterdir()] == ["a.onnx"]
    export = read_manifest(exported.root / "manifest.json").stages["export"]
    assert export.status == "done" and export.attempt is not None and export.attempt.status == "failed"


def test_no_space_left(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    with pytest.raises(EnvironmentLacks, match="no space left"), atomic_path(tmp_path / "x"):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/proc/self/ns", os.R_OK), reason="needs /proc")
def test_read_only_workspace(exported: Workspace) -> None:
    """As an ordinary user on a folder that may not be written; root may write anywhere, so root steps down first."""
    for folder in (exported.root, exported.root / "onnx"):
        folder.chmod(0o555)
    for parent in (exported.root.parent, *exported.root.parent.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom shared.workspace import Workspace\n"
        "from shared.errors import DeployError\n"
        "stage = Workspace.open(Path(sys.argv[1])).stage('export', tool='exporter', config={'new': 1})\n"
        "if os.geteuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        "try:\n"
        "    with stage:\n        pass\n"
        "except DeployError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    answer = _python(code, exported.root)
    assert answer.returncode == 4, answer.stdout + answer.stderr
    assert "no permission to write" in answer.stdout
    assert exported.manifest().stages["export"].status == "done"


def test_write_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"nan": float("nan")})
    assert not list(tmp_path.iterdir())
