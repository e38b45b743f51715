"""runtime trace, runtime swap, verifier attribute: a planted fault is named by the step it was planted in."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from runtime.models.centerpoint import steps as centerpoint
from runtime.swap import swap
from runtime.trace import trace
from shared.errors import InputError, ManifestError, UsageError
from shared.files import sha256_of_file
from shared.runs import Run
from shared.traces import read_step
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.killed_at import killed_at
from tests.support.opened import opened_files
from tests.support.planted import planted, scale_weights
from verifier.attribute import attribute

FRAMES = 4
STEPS = [
    "read",
    "voxelize",
    "decorate",
    "pts_voxel_encoder",
    "scatter",
    "pts_backbone_neck_head",
    "decode",
    "circle_nms",
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small CenterPoint with a trace of ONNX Runtime: more voxels than fit, so that their order matters."""
    root = tmp_path_factory.mktemp("reference")
    frames = tiny.write_frames(root / "frames", [900, 1200, 700, 1500])
    workspace = tiny.make_workspace(root / "work", frames, max_voxels=120)
    trace(workspace.root, "onnx", "cpu", num_samples=FRAMES)
    return workspace


def attributed(workspace: Workspace, reference: Workspace) -> dict[str, Any]:
    """The attribution of a workspace's ONNX Runtime run, against the reference's trace."""
    swap(workspace.root, "onnx", "cpu", "onnx-cpu", trace_work=reference.root)
    text = attribute(workspace.root, None, None, False)
    found: dict[str, Any] = json.loads(workspace.artifact("attribution/onnx-cpu.json").read_text())
    assert text.data == {"runs": {"onnx-cpu": found}}
    for step in found["responsible"]:
        assert f"{step} loses" in text
    assert [row["step"] for row in found["steps"]] == STEPS
    for metric, total in found["total"].items():
        assert sum(row["loss"][metric] for row in found["steps"]) == pytest.approx(total, abs=1e-12)
    return found


def differing(found: dict[str, Any]) -> list[str]:
    return [row["step"] for row in found["steps"] if row["differs_in"]]


def test_trace_equals_the_run(reference: Workspace) -> None:
    from runtime.run import run

    run(reference.root, "onnx", "cpu", num_samples=FRAMES)
    whole, steps = (Run.open(reference.root / folder / "onnx-cpu") for folder in ("runs", "traces"))
    for index in range(FRAMES):
        assert len(whole.boxes(index))
        for column in ("centers", "sizes", "yaws", "velocities", "labels", "scores"):
            np.testing.assert_array_equal(getattr(whole.boxes(index), column), getattr(steps.boxes(index), column))
    raw = read_step(steps.folder, 0, "pts_backbone_neck_head")
    assert {name: value.tobytes() for name, value in raw.items()} == {
        name: value.tobytes() for name, value in whole.raw(0).items()
    }


def test_frames_with_hardly_a_point(tmp_path: Path) -> None:
    """No pillar at all, and one, which the other backend's program takes only with another row."""
    frames = tiny.write_frames(tmp_path / "frames", [500, 0, 1])
    workspace = tiny.make_workspace(tmp_path / "work", frames)
    trace(workspace.root, "onnx", "cpu", num_samples=3)
    swap(workspace.root, "pytorch", "cpu", "onnx-cpu")
    attribute(workspace.root, None, None, False)
    found = json.loads(workspace.artifact("attribution/pytorch-cpu.json").read_text())
    assert found["responsible"] == [] and found["samples"] == 3
    assert set(differing(found)) <= {"pts_voxel_encoder", "pts_backbone_neck_head"}
    assert "up to date" in swap(workspace.root, "pytorch", "cpu", "onnx-cpu")
    # Another run beside it: both are told of, or the one that is asked for.
    swap(workspace.root, "onnx", "cpu", "onnx-cpu")
    both, one = (attribute(workspace.root, name, None, False) for name in (None, "onnx-cpu"))
    assert both.startswith("onnx-cpu: what") and "\n\npytorch-cpu: what" in both
    assert both.startswith(one) and "pytorch-cpu: what" not in one


def test_nothing_is_lost_between_equals(reference: Workspace, tmp_path: Path) -> None:
    found = attributed(planted(reference, tmp_path), reference)
    assert found["responsible"] == [] and differing(found) == []
    assert found["metrics"]["reference"] == pytest.approx({"mAP": 1.0, "mAPH": 1.0}) and found["truth"] == "reference"


def test_another_suppression_rule(reference: Workspace, tmp_path: Path) -> None:
    parameters = reference.spec().parameters
    fault = planted(reference, tmp_path, parameters={"nms": {**parameters["nms"], "radius": [9.0]}})
    found = attributed(fault, reference)
    assert found["responsible"] == ["circle_nms"] == differing(found)
    assert found["total"]["mAP"] > 0.05


def test_another_voxel_order(reference: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = centerpoint.voxelize
    monkeypatch.setattr(
        centerpoint, "voxelize", lambda points, grid, table: backwards(np.ascontiguousarray(points[::-1]), grid, table)
    )
    found = attributed(planted(reference, tmp_path), reference)
    assert found["responsible"] == ["voxelize"] == differing(found)


@pytest.mark.parametrize("limit", [{"max_voxels": 60}, {"max_points_per_voxel": 3}])
def test_smaller_limits_of_voxels(reference: Workspace, tmp_path: Path, limit: dict[str, int]) -> None:
    """The reference's voxels don't fit into this model's buffers, and are still its steps' input."""
    found = attributed(planted(reference, tmp_path, parameters=limit), reference)
    assert found["responsible"] == ["voxelize"]


def test_voxels_that_are_only_numbered_otherwise_cost_nothing(
    reference: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = centerpoint._pack_tasks

    def shuffled(tasks: Any) -> Any:
        arrays = packed(tasks)
        return {name: values[::-1].copy() for name, values in arrays.items()}

    # Boxes handed over in another order: nothing is lost, and the table says why.
    monkeypatch.setattr(centerpoint, "_pack_tasks", shuffled)
    workspace = planted(reference, tmp_path)
    found = attributed(workspace, reference)
    assert found["responsible"] == []
    assert "same rows, other order" in attribute(workspace.root, None, None, False)


@pytest.mark.parametrize("component", ["pts_voxel_encoder", "pts_backbone_neck_head"])
def test_scaled_weights(reference: Workspace, tmp_path: Path, component: str) -> None:
    found = attributed(planted(reference, tmp_path, component=component, change=scale_first), reference)
    assert found["responsible"] == [component] == differing(found)


@pytest.mark.parametrize("fault", ["y_axis", "sign"])
def test_another_yaw_convention(
    reference: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "sign":
        right: Callable[..., Any] = centerpoint.decode
        monkeypatch.setattr(centerpoint, "decode", lambda *given: turned(right(*given)))
    workspace = planted(reference, tmp_path, parameters={"rot_y_axis_reference": fault == "y_axis"})
    found = attributed(workspace, reference)
    assert found["responsible"] == ["decode"]
    # A wrong heading costs nothing of mAP, which is why it must not be the only metric.
    assert found["total"]["mAP"] == 0.0 and found["total"]["mAPH"] > 0.05


def test_two_faults_are_both_named(reference: Workspace, tmp_path: Path) -> None:
    parameters = reference.spec().parameters
    fault = planted(
        reference,
        tmp_path,
        parameters={"nms": {**parameters["nms"], "radius": [9.0]}},
        component="pts_voxel_encoder",
        change=scale_first,
    )
    found = attributed(fault, reference)
    assert set(found["responsible"]) == {"pts_voxel_encoder", "circle_nms"} == set(differing(found))


def test_killed_it_goes_on_and_gives_the_same(reference: Workspace, tmp_path: Path) -> None:
    parameters = reference.spec().parameters
    changed = {"nms": {**parameters["nms"], "radius": [9.0]}}
    whole, killed = (planted(reference, tmp_path / name, parameters=changed) for name in ("whole", "killed"))
    swap(whole.root, "onnx", "cpu", "onnx-cpu", trace_work=reference.root)
    words = ("swap", "--backend", "onnx", "--trace", "onnx-cpu", "--trace-work", reference.root, "--work", killed.root)
    killed_at("shared.sample_journal:SampleJournal.add", len(STEPS) + 4, "runtime", *words)
    (journal,) = killed.root.glob("swaps/.onnx-cpu.attempt-*/read/journal.jsonl")
    assert journal.stat().st_size
    swap(killed.root, "onnx", "cpu", "onnx-cpu", trace_work=reference.root)
    for step in [*STEPS, "reference"]:
        one, other = (Run.open(each.root / "swaps" / "onnx-cpu" / step) for each in (whole, killed))
        for index in range(FRAMES):
            np.testing.assert_array_equal(one.boxes(index).scores, other.boxes(index).scores)


def test_a_swap_reads_a_manifest_once_and_hashes_a_state_once(reference: Workspace, tmp_path: Path) -> None:
    workspace = planted(reference, tmp_path / "a")
    time.sleep(0.06)  # what was written this moment is not remembered
    with opened_files() as opened:
        swap(workspace.root, "onnx", "cpu", "onnx-cpu", trace_work=reference.root)
    assert opened["manifest.json"] <= 2, "its own and the trace's"
    assert FRAMES <= opened["decorate.npz"] <= 2 * FRAMES, "once for its arrays, once for its hash if it was not known"


def test_what_can_not_be_attributed_is_said(reference: Workspace, tmp_path: Path) -> None:
    workspace = planted(reference, tmp_path / "a")
    with pytest.raises(InputError, match="no run was swapped here"):
        attribute(workspace.root, None, None, False)
    with pytest.raises(InputError, match="no current trace 'pytorch-cpu'; there are: onnx-cpu"):
        swap(workspace.root, "onnx", "cpu", "pytorch-cpu", trace_work=reference.root)
    with pytest.raises(InputError, match=r"'nonsense'.* make it: runtime trace --backend NAME --work"):
        swap(workspace.root, "onnx", "cpu", "nonsense", trace_work=reference.root)
    with pytest.raises(UsageError, match="--num-samples 0"):
        trace(workspace.root, "onnx", "cpu", num_samples=0)
    swap(workspace.root, "onnx", "cpu", "onnx-cpu", trace_work=reference.root)
    with pytest.raises(InputError, match="no run pytorch-cpu was swapped here; there are: onnx-cpu"):
        attribute(workspace.root, "pytorch-cpu", None, False)
    predictions = workspace.path("swaps/onnx-cpu/decode/predictions.npz")
    predictions.write_bytes(predictions.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="differs from its hash"):
        attribute(workspace.root, None, None, False)


def test_a_trace_of_before_a_step_was_renamed(reference: Workspace, tmp_path: Path) -> None:
    former = Workspace.open(shutil.copytree(reference.root, tmp_path / "former"))
    trace_folder = former.path("traces/onnx-cpu")
    for file in trace_folder.glob("steps/*/voxelize.npz"):
        file.rename(file.with_name("voxelise.npz"))
    header = trace_folder / "run.json"
    hashes = [sha256_of_file(header)]
    header.write_text(header.read_text().replace('"voxelize"', '"voxelise"'))
    hashes.append(sha256_of_file(header))
    manifest = former.path("manifest.json")
    manifest.write_text(manifest.read_text().replace("/voxelize.npz", "/voxelise.npz").replace(*hashes))
    attributed(planted(reference, tmp_path / "test"), former)


def test_a_changed_trace_is_refused(reference: Workspace, tmp_path: Path) -> None:
    copy = planted(reference, tmp_path / "copy")
    trace(copy.root, "onnx", "cpu", num_samples=1)
    path = copy.path("traces/onnx-cpu/steps/000000/decorate.npz")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestError, match="differs from its hash"):
        swap(planted(reference, tmp_path / "test").root, "onnx", "cpu", "onnx-cpu", trace_work=copy.root)


def scale_first(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type in ("MatMul", "Conv", "Gemm"))
    scale_weights(model, node.name, 1.5)


def turned(boxes: Any) -> Any:
    from dataclasses import replace

    return replace(boxes, yaws=-boxes.yaws)
