"""`manifest merge`: what another machine added to a copy of a workspace comes back; nothing here is lost on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.errors import ManifestError, UsageError
from shared.files import inside
from shared.manifest import Manifest, update_manifest
from shared.manifest_cli import cli
from shared.merge import merge
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.stages import stage_lock
from shared.workspace import Workspace

TENSOR = TensorSpec(name="x", dtype="float32", shape=[1])
SPEC = ModelSpec(
    model="centerpoint",
    task="detection3d",
    classes=["car"],
    components=[ComponentSpec(name="a", inputs=[TENSOR], outputs=[TENSOR], onnx="onnx/a.onnx")],
)


def _do(ws: Workspace, name: str, files: dict[str, bytes], *, made_from: str | None = None, result: int = 1) -> None:
    """Run a stage that writes ``files`` and records a result ``numbers/<name>``."""
    inputs = {made_from: ws.input_hash(made_from)} if made_from else {}
    stage = ws.stage(name, tool="runtime", inputs=inputs)
    with stage:
        for relative, content in files.items():
            with stage.artifact(relative, kind="test") as path:
                path.write_bytes(content)
        stage.result("numbers", name, {"value": result})
        if name == "export":
            stage.spec(SPEC)
            stage.config({"export": "both"})


@pytest.fixture
def ours(tmp_path: Path) -> Workspace:
    ws = Workspace.create(tmp_path / "ours")
    _do(ws, "export", {"onnx/a.onnx": b"the model"})
    ws.stage("build", tool="trt_builder").skip("no GPU")
    return ws


@pytest.fixture
def theirs(ours: Workspace, tmp_path: Path) -> Workspace:
    return _copy(ours, tmp_path / "theirs")


def _copy(ws: Workspace, to: Path) -> Workspace:
    shutil.copytree(ws.root, to)
    return Workspace.open(to)


def _content(ws: Workspace) -> dict[str, bytes]:
    """Every file of a workspace but locks."""
    files = {str(p.relative_to(ws.root)): p.read_bytes() for p in ws.root.rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if not name.endswith(".lock")}


def test_what_the_device_built_comes_back(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/t/a.engine": b"engine"}, made_from="onnx/a.onnx", result=7)
    _do(theirs, "bench", {"runs/t/bench.json": b"{}"}, made_from="tensorrt/t/a.engine")
    before = _content(theirs)
    plan = merge(ours.root, theirs.root)
    assert sorted(plan.stages) == ["bench", "build"]
    assert ours.artifact("tensorrt/t/a.engine").read_bytes() == b"engine"
    manifest = ours.manifest()
    assert manifest.stages == theirs.manifest().stages
    assert manifest.results == theirs.manifest().results
    assert _content(theirs) == before, "the copy is only read"
    assert merge(ours.root, theirs.root).changes_nothing


def test_work_of_both_sides_is_kept(ours: Workspace, theirs: Workspace) -> None:
    _do(ours, "run:onnx-cpu", {"runs/onnx-cpu/predictions.npz": b"here"})
    _do(theirs, "run:tensorrt", {"runs/tensorrt/predictions.npz": b"there"})
    merge(ours.root, theirs.root)
    assert ours.artifact("runs/onnx-cpu/predictions.npz").read_bytes() == b"here"
    assert ours.artifact("runs/tensorrt/predictions.npz").read_bytes() == b"there"
    assert set(ours.manifest().results["numbers"]) == {"export", "run:onnx-cpu", "run:tensorrt"}


def test_conflicts_are_shown_and_change_nothing(ours: Workspace, theirs: Workspace) -> None:
    _do(ours, "evaluate", {"evaluation/r.json": b"ours"})
    _do(theirs, "evaluate", {"evaluation/r.json": b"theirs"})
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    before = _content(ours)
    with pytest.raises(ManifestError, match=r"stage evaluate: here done .* there done .*--prefer") as error:
        merge(ours.root, theirs.root)
    assert error.value.exit_code == 3
    assert _content(ours) == before


@pytest.mark.parametrize("prefer", ["ours", "theirs"])
def test_the_preferred_side_counts(ours: Workspace, theirs: Workspace, prefer: str) -> None:
    _do(ours, "evaluate", {"evaluation/r.json": b"ours", "evaluation/only_ours.json": b"ours"}, result=1)
    _do(theirs, "evaluate", {"evaluation/r.json": b"theirs"}, result=2)
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    merge(ours.root, theirs.root, prefer=prefer)  # type: ignore[arg-type]
    assert ours.artifact("evaluation/r.json").read_bytes() == prefer.encode()
    assert ours.manifest().results["numbers"]["evaluate"] == {"value": 1 if prefer == "ours" else 2}
    assert ours.path("evaluation/only_ours.json").exists() == (prefer == "ours")
    assert ours.artifact("tensorrt/a.engine").read_bytes() == b"engine"


@pytest.mark.parametrize("prefer", [None, "ours"])
def test_engines_of_another_export_stay_there(ours: Workspace, theirs: Workspace, prefer: str | None) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"}, made_from="onnx/a.onnx")
    _do(theirs, "bench", {"runs/b.json": b"{}"}, made_from="tensorrt/a.engine")
    _do(ours, "export", {"onnx/a.onnx": b"a newer model"})
    if prefer is None:
        with pytest.raises(ManifestError, match=r"stage build: here is another onnx/a\.onnx"):
            merge(ours.root, theirs.root)
    else:
        plan = merge(ours.root, theirs.root, prefer="ours")
        assert not plan.stages
        assert set(plan.left_out) == {"build", "bench"}
        assert not ours.path("tensorrt/a.engine").exists()


def test_a_done_stage_is_not_replaced_by_a_skipped_one(ours: Workspace, theirs: Workspace) -> None:
    _do(ours, "build", {"tensorrt/a.engine": b"engine"})
    assert merge(ours.root, theirs.root).changes_nothing
    assert ours.manifest().stages["build"].status == "done"


def test_stages_that_failed_there_stay_there(ours: Workspace, theirs: Workspace) -> None:
    with pytest.raises(RuntimeError), theirs.stage("bench", tool="runtime"):
        raise RuntimeError("no")
    plan = merge(ours.root, theirs.root)
    assert plan.left_out == {"bench": "it is 'failed' there"}
    assert "bench" not in ours.manifest().stages


def test_a_changed_file_of_theirs_is_refused(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine", "tensorrt/b.engine": b"engine"})
    theirs.path("tensorrt/b.engine").write_bytes(b"enginE")
    before = _content(ours)
    with pytest.raises(ManifestError, match="differs from its hash"):
        merge(ours.root, theirs.root)
    assert _content(ours) == before


def test_paths_of_theirs_cannot_leave(ours: Workspace, theirs: Workspace, tmp_path: Path) -> None:
    (tmp_path / "loot").write_bytes(b"engine")
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})

    def point_outside(manifest: Manifest) -> None:
        manifest.artifacts["../loot"] = manifest.artifacts.pop("tensorrt/a.engine")
        manifest.stages["build"].outputs = ["../loot"]

    update_manifest(theirs.root / "manifest.json", point_outside)
    with pytest.raises(ManifestError, match="leaves the workspace"):
        merge(ours.root, theirs.root)


def test_symbolic_links_of_theirs_cannot_leave(ours: Workspace, theirs: Workspace, tmp_path: Path) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    secret = tmp_path / "secret"
    theirs.path("tensorrt/a.engine").rename(secret)
    theirs.path("tensorrt/a.engine").symlink_to(secret)
    with pytest.raises(ManifestError, match="is a symbolic link"):
        merge(ours.root, theirs.root)


def test_a_copy_whose_manifest_lacks_a_result_changes_nothing(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine", "tensorrt/b.engine": b"engine"})
    update_manifest(theirs.root / "manifest.json", lambda manifest: manifest.results.clear())
    before = _content(ours)
    with pytest.raises(ManifestError, match=r"stage 'build' recorded the result numbers/build, which is missing"):
        merge(ours.root, theirs.root)
    assert _content(ours) == before


def test_an_attempt_of_theirs_stays_there(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    with pytest.raises(RuntimeError), theirs.stage("build", tool="runtime", config={"new": 1}):
        raise RuntimeError("no")
    merge(ours.root, theirs.root)
    assert ours.manifest().stages["build"].attempt is None
    assert ours.artifact("tensorrt/a.engine").read_bytes() == b"engine"


def test_a_stage_that_runs_here_is_not_replaced(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    with stage_lock(ours.root, "build"), pytest.raises(ManifestError, match="is running here"):
        merge(ours.root, theirs.root)
    assert not inside(ours.root, "tensorrt/a.engine").exists()


def test_an_empty_workspace_takes_model_and_config(tmp_path: Path, ours: Workspace) -> None:
    empty = Workspace.create(tmp_path / "empty")
    merge(empty.root, ours.root)
    assert empty.spec() == SPEC
    assert empty.config() == {"export": "both"}
    assert empty.artifact("onnx/a.onnx").read_bytes() == b"the model"


def test_the_workspace_itself(ours: Workspace) -> None:
    with pytest.raises(UsageError, match="itself"):
        merge(ours.root, ours.root / ".")


def test_command_shows_what_it_does(ours: Workspace, theirs: Workspace) -> None:
    _do(theirs, "build", {"tensorrt/a.engine": b"engine"})
    dry = CliRunner().invoke(cli, ["merge", "--work", str(ours.root), str(theirs.root), "--dry-run"])
    assert "take      tensorrt/a.engine" in dry.output
    assert not ours.path("tensorrt/a.engine").exists()
    CliRunner().invoke(cli, ["merge", "--work", str(ours.root), str(theirs.root)])
    again = CliRunner().invoke(cli, ["merge", "--work", str(ours.root), str(theirs.root)])
    assert "nothing to take" in again.output
