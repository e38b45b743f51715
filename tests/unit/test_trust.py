"""Code in a workspace runs where it was made, or where the user trusts it: the key, the seals, the errors."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared import trust
from shared.errors import EnvironmentLacks, ManifestError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.manifest_cli import cli
from shared.merge import merge
from shared.trust import config_is_sealed, require_artifact, require_plugins, require_training_config
from shared.user_key import KEY_VARIABLE
from shared.versions import rollback, tag
from shared.workspace import Workspace

PROGRAM, ENGINE, ONNX = "pytorch/a.pt2", "tensorrt/t/a.engine", "onnx/a.onnx"


@pytest.fixture
def training_config(tmp_path: Path) -> Path:
    path = tmp_path / "training.py"
    path.write_text("model = dict(type='A')")
    return path


@pytest.fixture
def work(tmp_path: Path, training_config: Path) -> Path:
    root = tmp_path / "work"
    make(root, {PROGRAM: b"program", ONNX: b"onnx"}, "export", {"model": {"config": str(training_config)}})
    make(root, {ENGINE: b"engine"}, "build:t")
    return root


def make(root: Path, files: dict[str, bytes], stage: str, config: dict[str, object] | None = None) -> None:
    kinds = {".pt2": "program", ".engine": "engine", ".onnx": "onnx"}
    with Workspace.create(root).stage(stage, tool="exporter") as run:
        for relative, content in files.items():
            with run.artifact(relative, kind=kinds[Path(relative).suffix]) as path:
                path.write_bytes(content)
        if config is not None:
            run.config(config)


def somebody_else(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """From here on, the user is another one."""
    key = folder / "key-of-somebody-else"
    monkeypatch.setenv(KEY_VARIABLE, str(key))
    return key


def test_what_was_made_here_runs_here_and_a_copy_of_it_too(work, tmp_path):
    for root in (work, Path(shutil.copytree(work, tmp_path / "copy"))):
        require_artifact(root, PROGRAM, "program")
        require_artifact(root, ENGINE, "engine")


def test_the_key_is_made_once_outside_of_the_workspace_and_for_this_user_alone(work, key_of_this_user):
    assert key_of_this_user.stat().st_mode & 0o777 == 0o600
    assert len(key_of_this_user.read_bytes()) == 32
    assert key_of_this_user.read_bytes().hex() not in (work / MANIFEST_NAME).read_text()


def test_what_somebody_else_made_is_refused_in_a_line_with_the_command(work, tmp_path, monkeypatch):
    somebody_else(monkeypatch, tmp_path)
    monkeypatch.setattr("sys.argv", ["runtime", "run", "--work", str(work)])
    with pytest.raises(ManifestError) as refused:
        require_artifact(work, PROGRAM, "program")
    assert refused.value.exit_code == 3
    host = Workspace.open(work).manifest().stages["export"].host
    message = str(refused.value)
    assert f"{work}/{PROGRAM}: was not made here" in message
    assert f"by exporter on {host}" in message
    assert message.endswith(f"runtime run --work {work} --trust")


def test_data_needs_no_trust(work, tmp_path, monkeypatch):
    somebody_else(monkeypatch, tmp_path)
    require_artifact(work, ONNX, "onnx")


def test_code_that_calls_itself_data_is_refused(work, tmp_path, monkeypatch):
    somebody_else(monkeypatch, tmp_path)

    def relabel(manifest: Manifest) -> None:
        manifest.artifacts[PROGRAM] = manifest.artifacts[PROGRAM].model_copy(update={"kind": "onnx"})

    update_manifest(work / MANIFEST_NAME, relabel)
    with pytest.raises(ManifestError, match="was not made here"):
        require_artifact(work, PROGRAM, "program")


def test_a_seal_is_for_one_content_and_one_kind(work):
    def swap(manifest: Manifest) -> None:
        other = manifest.artifacts[ENGINE].sha256
        manifest.artifacts[PROGRAM] = manifest.artifacts[PROGRAM].model_copy(update={"sha256": other})
        manifest.seals[PROGRAM] = manifest.seals[ENGINE]

    update_manifest(work / MANIFEST_NAME, swap)
    with pytest.raises(ManifestError, match="was not made here"):
        require_artifact(work, PROGRAM, "program")


def test_trust_says_what_will_run_and_once_is_enough(work, tmp_path, monkeypatch):
    somebody_else(monkeypatch, tmp_path)
    answer = CliRunner().invoke(cli, ["trust", "--work", str(work)])
    assert answer.exit_code == 0
    assert len(answer.output.splitlines()) == 1
    for part in (PROGRAM, ENGINE, "training config", "by exporter on "):
        assert part in answer.output
    assert ONNX not in answer.output
    require_artifact(work, PROGRAM, "program")
    assert "nothing in it runs that is not trusted here already" in trust.trust(work)


def test_two_users_of_a_workspace_trust_it_side_by_side(work, tmp_path, monkeypatch, key_of_this_user):
    somebody_else(monkeypatch, tmp_path)
    trust.trust(work)
    require_artifact(work, PROGRAM, "program")
    monkeypatch.setenv(KEY_VARIABLE, str(key_of_this_user))
    require_artifact(work, PROGRAM, "program")


def test_what_was_made_before_there_were_seals_loads_and_is_trusted_once(work):
    manifest = json.loads((work / MANIFEST_NAME).read_text())
    del manifest["seals"]
    (work / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match="was not made here"):
        require_artifact(work, PROGRAM, "program")
    trust.trust(work)
    require_artifact(work, PROGRAM, "program")


def test_merged_from_a_device_what_was_made_here_stays_sealed_and_what_it_made_needs_trust(
    work, tmp_path, monkeypatch, key_of_this_user
):
    copy = Path(shutil.copytree(work, tmp_path / "copy"))
    somebody_else(monkeypatch, tmp_path)
    trust.trust(copy)
    make(copy, {"tensorrt/device/a.engine": b"of the device"}, "build:device")
    monkeypatch.setenv(KEY_VARIABLE, str(key_of_this_user))
    merge(work, copy)
    require_artifact(work, PROGRAM, "program")
    with pytest.raises(ManifestError, match="was not made here"):
        require_artifact(work, "tensorrt/device/a.engine", "engine")
    trust.trust(work)
    require_artifact(work, "tensorrt/device/a.engine", "engine")


def test_after_a_rollback_what_was_made_here_still_runs(work):
    tag(work, "v1")
    make(work, {PROGRAM: b"another program", ONNX: b"onnx"}, "export")
    rollback(work, "v1")
    require_artifact(work, PROGRAM, "program")


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_said_to_be_one(work, tmp_path, monkeypatch, content):
    key = somebody_else(monkeypatch, tmp_path)
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(EnvironmentLacks, match="is no key"):
        require_artifact(work, PROGRAM, "program")


def test_a_key_that_others_can_read_is_not_used(work, tmp_path, monkeypatch):
    key = somebody_else(monkeypatch, tmp_path)
    key.write_bytes(b"x" * 32)
    key.chmod(0o644)
    with pytest.raises(EnvironmentLacks, match="chmod 600"):
        require_artifact(work, PROGRAM, "program")


def test_where_no_key_can_be_made_the_work_is_done_all_the_same(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "file" / "key"))
    make(tmp_path / "work", {PROGRAM: b"program"}, "export")
    assert Workspace.open(tmp_path / "work").artifact(PROGRAM).is_file()
    assert "no key can be made" in caplog.text
    with pytest.raises(ManifestError, match="was not made here"):
        require_artifact(tmp_path / "work", PROGRAM, "program")
    with pytest.raises(EnvironmentLacks, match=KEY_VARIABLE):
        trust.trust(tmp_path / "work")


def _make_as(key: Path, root: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEY_VARIABLE, str(key))
        make(root, {PROGRAM: b"program"}, "export")


def test_processes_that_start_at_once_make_one_key(tmp_path, monkeypatch):
    key = somebody_else(monkeypatch, tmp_path)
    roots = [tmp_path / f"work-{index}" for index in range(6)]
    processes = [multiprocessing.get_context("fork").Process(target=_make_as, args=(key, root)) for root in roots]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for root in roots:
        require_artifact(root, PROGRAM, "program")
    assert sorted(path.name for path in tmp_path.glob(".key*")) == []


def test_the_training_config_runs_that_was_exported_and_no_other(work, training_config, tmp_path, monkeypatch):
    require_training_config(work, training_config)
    training_config.write_text("import os")
    with pytest.raises(ManifestError, match="is not the one that was exported here"):
        require_training_config(work, training_config)


def test_a_config_that_was_changed_in_the_manifest_names_nothing_that_runs(work, training_config, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(training_config.read_text())

    def change(manifest: Manifest) -> None:
        manifest.config = {"model": {"config": str(other)}}

    update_manifest(work / MANIFEST_NAME, change)
    assert not config_is_sealed(Workspace.open(work).manifest())
    with pytest.raises(ManifestError, match="is not the one that was exported here"):
        require_training_config(work, other)
    with pytest.raises(ManifestError, match="its config names /lib/plugin"):
        require_plugins(work, [Path("/lib/plugin.so")])


def test_plugin_libraries_of_a_config_of_this_machine_load_but_not_from_the_workspace(work):
    require_plugins(work, [Path("/lib/plugin.so")])
    with pytest.raises(ManifestError, match="in the workspace"):
        require_plugins(work, [work / "plugin.so"])
