"""A package's version and code are part of the keys of the stages that it takes part in."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from runtime.run import run
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.workspace import Workspace
from tests.support import plugin_packages
from tests.support import tiny_centerpoint as tiny

FILES = {
    "ours/pipeline.py": "from runtime.models.centerpoint.pipeline import build\n",
    "ours/kernel.cu": "// a kernel\n",
}


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str = "1.0", **changed: str) -> None:
    files = {**FILES, **{f"ours/{name.replace('_', '.')}": text for name, text in changed.items()}}
    points = {"awml_deploy.pipelines": {"ours": "ours_plugin.ours"}}
    plugin_packages.install(monkeypatch, folder, "ours_plugin", files, points, version)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_frames(tmp_path_factory.mktemp("frames"), [500, 300])


@pytest.fixture
def workspace(tmp_path: Path, frames: Path) -> Workspace:
    """A workspace whose model is of the package's kind."""

    def of_its_kind(manifest: Manifest) -> None:
        assert manifest.spec is not None
        manifest.spec = manifest.spec.model_copy(update={"model": "ours"})

    made = tiny.make_workspace(tmp_path / "work", frames)
    update_manifest(made.root / MANIFEST_NAME, of_its_kind)
    return made


def outcome(workspace: Workspace) -> str:
    return run(workspace.root, "onnx", "cpu").splitlines()[0]


def test_what_is_edited_or_upgraded_runs_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    install(monkeypatch, site)
    assert "done" in outcome(workspace)
    assert "up to date" in outcome(workspace)
    versions = workspace.manifest().stages["run:onnx-cpu"].key["versions"]
    assert versions["ours_plugin"].startswith("1.0, code ")
    install(monkeypatch, site, pipeline_py=FILES["ours/pipeline.py"] + "# edited\n")
    assert "done" in outcome(workspace)
    assert "up to date" in outcome(workspace)
    install(monkeypatch, site, kernel_cu="// another kernel\n")
    assert "done" in outcome(workspace)
    install(monkeypatch, site, version="1.1", kernel_cu="// another kernel\n")
    assert "done" in outcome(workspace)
    assert "up to date" in outcome(workspace)


def test_a_package_that_takes_no_part_changes_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site")
    assert "done" in outcome(workspace)
    points = {"awml_deploy.pipelines": {"others": "others_plugin.others"}}
    plugin_packages.install(monkeypatch, tmp_path / "others", "others_plugin", {"others.py": ""}, points)
    assert "up to date" in outcome(workspace)
