"""`exporter quantize ptq` and the export of what it made, as a user runs them, and how they refuse bad input."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("modelopt")

from exporter.cli import cli
from shared.runs import Run
from shared.workspace import Workspace
from tests.support.exporting import SMALL, built, save_checkpoint
from tests.support.killed_at import killed_at

pytestmark = pytest.mark.exporter

FRAMES, CALIBRATION_FRAMES = 2, 4
SKIPPED = ["pts_voxel_encoder", r"task_heads\.\d+\.\w+\.1$"]


@pytest.fixture(autouse=True)
def _own_log_handlers():
    """The command line logs to the standard error of its time, which pytest closes after each test."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


def write_frames(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        rng.uniform((-28, -20, -2, 0, 0), (28, 20, 3, 255, 31), (1500, 5)).astype("<f4").tofile(folder / f"{index}.bin")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a deploy config, a checkpoint, frames, and other frames to calibrate on."""
    root = tmp_path_factory.mktemp("project")
    save_checkpoint(built(SMALL)[0], root / "model.pth")
    write_frames(root / "frames", FRAMES, 11)
    write_frames(root / "more", CALIBRATION_FRAMES, 1)
    config = {
        "model": {"type": "centerpoint", "config": str(SMALL), "checkpoint": "model.pth"},
        "data": {"format": "folder", "root": "frames", "num_features": 5},
        "export": {"mode": "onnx"},
        "verification": {"num_verify_samples": 1},
        "quantization": {
            "enabled": True,
            "calibration": {"num_batches": 4, "data": {"format": "folder", "root": "more", "num_features": 5}},
            "sensitive_layers": SKIPPED,
        },
    }
    (root / "deploy.yaml").write_text(yaml.safe_dump(config))
    return root


def command(project: Path, work: Path, *arguments: str) -> list[str]:
    config = ["--config", str(project / "deploy.yaml"), "--work", str(work)]
    if arguments[:1] == ("export",):
        return ["export", *config, *arguments[1:]]
    return ["quantize", "ptq", *config, *arguments]


def run(project: Path, work: Path, *arguments: str) -> int:
    """`exporter quantize ptq`, or `exporter export` where that is the first argument; returns its exit code."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(command(project, work, *arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def made(project) -> Path:
    """A workspace, quantized and exported."""
    work = project / "work"
    assert run(project, work, "--method", "max") == 0
    assert run(project, work, "export") == 0
    return work


@pytest.fixture
def work(made, tmp_path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(made, tmp_path / "work"))


# -- what it leaves ---------------------------------------------------------------------------------------------------


def test_checkpoint_cache_and_provenance_are_artifacts(made):
    workspace = Workspace.open(made)
    for name in ("ptq.pth", "calibration.json", "provenance.json"):
        assert workspace.artifact(f"quantized/{name}").is_file()
    told = json.loads((made / "quantized" / "provenance.json").read_text())
    assert (told["method"], told["samples"], told["skipped"]) == ("max", CALIBRATION_FRAMES, SKIPPED)
    assert len({sample["sha256"] for sample in told["samples_seen"]}) == CALIBRATION_FRAMES
    assert 0 < told["distribution"]["points"]["p50"] < 5000
    assert 0 < told["distribution"]["voxels"]["least"] <= told["distribution"]["voxels"]["most"]
    result = workspace.manifest().results["quantize"]["ptq"]
    assert result["quantized"] == len(told["layers"]) < result["layers"]


def test_the_exported_files_have_qdq_nodes_at_the_quantized_layers_alone(made):
    import onnx

    layers = json.loads((made / "quantized" / "provenance.json").read_text())["layers"]
    head = onnx.load(made / "onnx" / "pts_backbone_neck_head.onnx").graph
    kinds = [node.op_type for node in head.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2 * len(layers)
    encoder = onnx.load(made / "onnx" / "pts_voxel_encoder.onnx").graph
    assert not any(node.op_type == "QuantizeLinear" for node in encoder.node)
    agreement = Workspace.open(made).manifest().results["export"]["agreement"]["pts_backbone_neck_head"]
    assert max(entry["largest_relative"] for entry in agreement["onnx"]) < 0.01
    assert all(entry["largest_relative"] < 1e-5 for entry in agreement["program"])


def test_the_framework_reference_is_that_of_the_quantized_model(made, project, tmp_path):
    assert run(project, tmp_path, "export", "--set", "quantization.enabled=false") == 0
    quantized, plain = (Run.open(folder / "reference").raw(0)["heatmap"] for folder in (made, tmp_path))
    error = np.abs(quantized - plain).max() / np.abs(plain).max()
    assert 1e-4 < error < 0.5, error


def test_a_second_call_does_nothing_and_a_changed_one_does(project, made, capsys):
    before = (made / "quantized" / "ptq.pth").stat().st_mtime_ns
    assert run(project, made, "--method", "max") == 0
    assert run(project, made, "export") == 0
    assert (made / "quantized" / "ptq.pth").stat().st_mtime_ns == before
    assert "quantize:ptq: up to date" in (told := capsys.readouterr().err) and "export: up to date" in told


def test_a_cache_gives_the_same_checkpoint(project, made, tmp_path):
    cache, copied = str(made / "quantized" / "calibration.json"), tmp_path / "copied.pth"
    assert run(project, tmp_path / "work", "--load-cache", cache, "--output", str(copied)) == 0
    import torch

    first, second = (torch.load(path)["state_dict"] for path in (made / "quantized" / "ptq.pth", copied))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def outputs(model) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [given.shape[1] if axis == 1 else (1, 0, 64, 64)[axis] for axis in range(4)]
    return session.run(None, {given.name: np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)})


def test_what_the_export_keeps_is_enough_to_put_layers_back_into_float(project, made, tmp_path):
    """Cut out of the graph, without PyTorch, they leave what an export without them in INT8 leaves, to the bit."""
    import onnx

    from shared.qdq_cut import cut_out

    cache, block = str(made / "quantized" / "calibration.json"), "pts_backbone.blocks.0"
    assert run(project, tmp_path / "work", "--load-cache", cache, "--skip", block) == 0
    assert run(project, tmp_path / "work", "export") == 0
    file = "onnx/pts_backbone_neck_head.onnx"
    layers = json.loads((made / "quantized" / "layers.json").read_text())["pts_backbone_neck_head"]
    weights = np.load(made / "quantized" / "weights.npz")
    assert (
        set(layers)
        == set(weights.files)
        == set(json.loads((made / "quantized" / "provenance.json").read_text())["layers"])
    )
    in_float = json.loads((made / "quantized" / "float_layers.json").read_text())
    assert any(name.startswith("pts_voxel_encoder.") for name in in_float) and layers.keys().isdisjoint(in_float)
    assert len(layers) + len(in_float) == Workspace.open(made).manifest().results["quantize"]["ptq"]["layers"]
    leaving = [layer for layer in layers if layer.startswith(f"{block}.")]
    assert leaving
    cut = cut_out(
        onnx.load(made / file),
        {layers[name]["node"] for name in leaving},
        {layers[name]["weight"]: weights[name] for name in leaving},
    )
    for ours, right in zip(outputs(cut), outputs(onnx.load(tmp_path / "work" / file)), strict=True):
        np.testing.assert_array_equal(ours, right)


# -- what it refuses --------------------------------------------------------------------------------------------------


def refused(capsys, project: Path, work: Path, *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(project, work, *arguments)
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, error
    return code, error[0]


def test_an_export_before_the_quantization_names_the_command(project, tmp_path, capsys):
    code, error = refused(capsys, project, tmp_path, "export")
    assert code == 3
    assert f"exporter quantize ptq --config {project / 'deploy.yaml'} --work {tmp_path}" in error


def test_a_skip_pattern_that_matches_nothing_names_near_ones(project, tmp_path, capsys):
    code, error = refused(capsys, project, tmp_path, "--skip", "pts_backbone.block.0")
    assert code == 2 and "did you mean pts_backbone.blocks.0" in error
    assert error.startswith("error: --skip: ")


def test_a_cache_of_another_model_is_refused(project, made, tmp_path, capsys):
    model = built(SMALL)[0]
    model.pts_backbone.blocks[0][0].weight.data *= 2
    other = save_checkpoint(model, tmp_path / "other.pth")
    cache = made / "quantized" / "calibration.json"
    arguments = ("--set", f"model.checkpoint={other}", "--load-cache", str(cache))
    code, error = refused(capsys, project, tmp_path / "work", *arguments)
    assert code == 3 and "calibration of a model with other weights" in error


def test_a_quantized_checkpoint_of_another_training_is_refused(project, work, tmp_path, capsys):
    model = built(SMALL)[0]
    model.pts_backbone.blocks[0][0].weight.data *= 2
    other = save_checkpoint(model, tmp_path / "other.pth")
    code, error = refused(capsys, project, work, "export", "--set", f"model.checkpoint={other}")
    assert code == 3 and "was made of another checkpoint than model.checkpoint" in error


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("quantization.calibration.amax_method=entropy", "quantization.calibration.method (max, not entropy)"),
        ("quantization.calibration.num_batches=3", "quantization.calibration.num_batches (4, not 3)"),
        ("quantization.calibration.percentile=99", "quantization.calibration.percentile (99.99, not 99.0)"),
        ("quantization.fusion.fuse_bn=false", "quantization.fusion.fuse_bn (True, not False)"),
        ("quantization.sensitive_layers=[pts_voxel_encoder]", "quantization.sensitive_layers. quantize again"),
    ],
)
def test_a_quantized_checkpoint_of_other_settings_is_refused(project, work, capsys, setting, told):
    before = Workspace.open(work).config()
    code, error = refused(capsys, project, work, "export", "--set", setting)
    assert code == 3 and f"quantized/ptq.pth: was made with other settings: {told}" in error
    again = shlex.join(["--config", str(project / "deploy.yaml"), "--work", str(work), "--set", setting])
    assert error.endswith(f"quantize again: exporter quantize ptq {again}")
    assert Workspace.open(work).config() == before


def test_options_of_the_quantization_stand_above_the_config(project, made, tmp_path):
    """An export takes the config that was quantized with, and one that says what the options did."""
    work, skip = tmp_path / "work", tmp_path / "skip.yaml"
    skipped = ["pts_backbone", "pts_voxel_encoder"]
    skip.write_text(yaml.safe_dump({"sensitive_layers": skipped}))
    options = ["--method", "max", "--num-samples", "2", "--skip-from", str(skip)]
    assert run(project, work, *options) == 0
    assert json.loads((work / "quantized" / "provenance.json").read_text())["skipped"] == skipped
    assert run(project, work, "export") == 0
    done = [
        "quantization.calibration.method=max", "quantization.calibration.num_batches=2",
        f"quantization.sensitive_layers={json.dumps(skipped)}",
    ]  # fmt: skip
    assert run(project, work, "export", *(part for each in done for part in ("--set", each))) == 0
    # Of the samples the content counts, and not where they lie.
    moved = shutil.copytree(project / "more", tmp_path / "more")
    assert run(project, made, "export", "--set", f"quantization.calibration.data.root={moved}") == 0


def test_after_quantizing_again_the_settings_are_those_of_the_config(project, work):
    setting = ["--set", "quantization.calibration.percentile=99"]
    assert run(project, work, "--method", "max", *setting) == 0
    assert run(project, work, "export", *setting) == 0
    assert Workspace.open(work).config()["quantization"]["calibration"]["percentile"] == 99


def test_a_quantized_checkpoint_in_place_of_the_float_one_is_told(project, made, tmp_path, capsys):
    checkpoint = made / "quantized" / "ptq.pth"
    code, error = refused(
        capsys, project, tmp_path, "export", "--set", f"model.checkpoint={checkpoint}",
        "--set", "quantization.enabled=false",
    )  # fmt: skip
    assert code == 3 and "this is a quantized checkpoint, with batch norms folded in" in error


def test_an_empty_calibration_set_is_refused_and_a_single_frame_warns(project, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    nothing = f"quantization.calibration.data.root={tmp_path / 'empty'}"
    code, error = refused(capsys, project, tmp_path, "--set", nothing)
    assert code == 3 and str(tmp_path / "empty") in error
    assert run(project, tmp_path / "work", "--num-samples", "1") == 0
    assert "calibration on 1 samples only: give at least 16" in capsys.readouterr().err


def test_progress_is_of_the_frames_that_there_are(project, tmp_path, monkeypatch):
    totals = []
    monkeypatch.setattr("exporter.quantize.calibrate.track", lambda items, _, total: totals.append(total) or items)
    assert run(project, tmp_path, "--method", "max", "--num-samples", "100") == 0
    assert totals == [CALIBRATION_FRAMES]


def test_killed_in_mid_calibration_the_checkpoint_before_stays_and_it_runs_again(project, work):
    before = Workspace.open(work).artifact("quantized/ptq.pth").read_bytes()
    more = command(project, work, "--method", "mse")
    killed_at("exporter.quantize.ptq:_Seen.forward", 2, "exporter", *more)
    assert Workspace.open(work).manifest().stages["quantize:ptq"].attempt is not None
    assert Workspace.open(work).artifact("quantized/ptq.pth").read_bytes() == before
    assert run(project, work, "--method", "mse") == 0
    stage = Workspace.open(work).manifest().stages["quantize:ptq"]
    assert stage.status == "done" and stage.attempt is None
    assert Workspace.open(work).artifact("quantized/ptq.pth").read_bytes() != before
