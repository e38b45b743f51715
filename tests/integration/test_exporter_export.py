"""`exporter export` as a user runs it: what it leaves, when it does nothing, and how it refuses bad input."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from shared.errors import ConfigError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.runs import Run
from shared.workspace import Workspace
from tests.support import plugin_packages
from tests.support.exporting import CONFIGS, SMALL, built, save_checkpoint
from tests.support.killed_at import killed_at
from tests.support.processor_time import fewest_seconds

pytestmark = pytest.mark.exporter

FRAMES = 3


def write_frame(path: Path, points: np.ndarray) -> None:
    points.astype("<f4").tofile(path)


def frame(seed: int, count: int = 2500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform((-28, -20, -2, 0, 0), (28, 20, 3, 255, 31), (count, 5))


@pytest.fixture(autouse=True)
def _own_log_handlers():
    """The command line logs to the standard error of its time, which pytest closes after each test."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a deploy config, a checkpoint, and three frames of points."""
    root = tmp_path_factory.mktemp("project")
    save_checkpoint(built(SMALL)[0], root / "model.pth")
    (root / "frames").mkdir()
    for index in range(FRAMES):
        write_frame(root / "frames" / f"{index}.bin", frame(index))
    config = {
        "model": {"type": "centerpoint", "config": str(SMALL), "checkpoint": "model.pth"},
        "data": {"format": "folder", "root": "frames", "num_features": 5},
        "export": {"mode": "onnx"},
        "verification": {"num_verify_samples": 2},
    }
    (root / "deploy.yaml").write_text(yaml.safe_dump(config))
    return root


@pytest.fixture(scope="module")
def exported(project) -> Path:
    assert run(project, project / "work") == 0
    return project / "work"


@pytest.fixture
def work(exported, tmp_path) -> Path:
    """A copy of the exported workspace, to change."""
    return Path(shutil.copytree(exported, tmp_path / "work"))


def run(project: Path, work: Path, *arguments: str) -> int:
    """The command line, in this process; returns its exit code."""
    from exporter.cli import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--config", str(project / "deploy.yaml"), "--work", str(work), *arguments])
    return int(stopped.value.code or 0)


def times(work: Path) -> dict[str, int]:
    """When each artifact was written."""
    return {path: (work / path).stat().st_mtime_ns for path in Workspace.open(work).manifest().artifacts}


# -- what it leaves ----------------------------------------------------------------------------------------------------


def test_everything_is_there_and_in_the_manifest(exported):
    workspace = Workspace.open(exported)
    manifest = workspace.manifest()
    for path in (
        "onnx/pts_voxel_encoder.onnx",
        "onnx/pts_backbone_neck_head.onnx",
        "pytorch/pts_voxel_encoder.pt2",
        "pytorch/pts_backbone_neck_head.pt2",
        "reference/predictions.npz",
        "reference/raw/000001.npz",
    ):
        assert workspace.artifact(path).is_file()
    assert manifest.stages["export"].status == "done"
    assert {"checkpoint", "training_config", "dataset"} <= set(manifest.stages["export"].key["inputs"])
    assert {"torch", "mmdet3d", "onnx"} <= set(manifest.stages["export"].key["versions"])
    assert workspace.config()["verification"]["num_verify_samples"] == 2
    agreement = manifest.results["export"]["agreement"]["pts_backbone_neck_head"]
    assert len(agreement["onnx"]) == len(agreement["program"]) == 3

    spec = workspace.spec()
    assert (spec.model, spec.task) == ("centerpoint", "detection3d")
    assert [component.name for component in spec.components] == ["pts_voxel_encoder", "pts_backbone_neck_head"]
    assert spec.components[1].output_names() == ["heatmap", "reg", "height", "dim", "rot", "vel"]


def test_the_runtime_accepts_the_parameters(exported):
    from runtime.models.centerpoint.parameters import read_parameters

    parameters = read_parameters(Workspace.open(exported).spec())
    assert parameters.grid_size == (256, 192, 1)
    assert parameters.points.use_dim == (0, 1, 2, 4)


def test_onnx_files_are_stamped(exported):
    import onnx

    model = onnx.load(exported / "onnx" / "pts_backbone_neck_head.onnx")
    values = {entry.key: entry.value for entry in model.metadata_props}
    assert model.producer_name == "awml-deploy"
    assert values["module"] == "pts_backbone_neck_head" and values["config_name"] == "small.py"
    assert values["exported_with"].startswith("pytorch ")
    assert len(values["checkpoint_sha256"]) == 64


def test_reference_is_what_mmdet3d_answers_through_its_own_pipeline(project, exported):
    """Points by mmdet3d's loading transforms, boxes by ``test_step``: nothing of ours between."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    from exporter.training_config import read_training_config

    model = built(SMALL)[0]
    init_default_scope("mmdet3d")
    pipeline = Compose(list(read_training_config(SMALL).pipeline)[:3])
    reference = Run.open(exported / "reference")
    assert reference.header.backend == "framework" and len(reference) == 2
    captured = []
    hook = model.pts_bbox_head.register_forward_hook(lambda _, __, output: captured.append(output))
    for index in range(2):
        path = str(project / "frames" / f"{index}.bin")
        # The frames of a folder list no earlier ones; to mmdet3d that is an empty list.
        loaded = pipeline({"lidar_points": {"lidar_path": path}, "timestamp": 0.0, "lidar_sweeps": []})
        sample = Det3DDataSample(metainfo={"box_type_3d": LiDARInstance3DBoxes})
        answer = model.test_step({"inputs": {"points": [loaded["points"].tensor]}, "data_samples": [sample]})[0]
        expected, boxes = answer.pred_instances_3d, reference.boxes(index)
        assert len(boxes) == len(expected.scores_3d) > 0
        tensor = expected.bboxes_3d.tensor
        np.testing.assert_array_equal(boxes.labels, expected.labels_3d.numpy())
        for actual, wanted in (
            (boxes.centers, expected.bboxes_3d.gravity_center),
            (boxes.sizes, tensor[:, 3:6]),
            (boxes.yaws, tensor[:, 6]),
            (boxes.velocities, tensor[:, 7:]),
            (boxes.scores, expected.scores_3d),
        ):
            # The same kernels, but not always the same memory layout: the last bit may differ.
            np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-5, atol=1e-5)
        raw = reference.raw(index)
        for name, value in captured[-1][0][0].items():
            np.testing.assert_allclose(raw[name], value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
    hook.remove()


# -- when it does nothing, and when it does not ------------------------------------------------------------------------


def test_second_run_changes_nothing(project, work, caplog):
    before = times(work)
    assert run(project, work) == 0
    assert times(work) == before


def test_tolerances_reach_the_manifest_without_a_new_export(project, work):
    before = times(work)
    assert run(project, work, "--set", "verification.tolerance=0.25") == 0
    assert times(work) == before
    assert Workspace.open(work).config()["verification"]["tolerance"] == 0.25


def test_what_was_changed_is_made_again(project, work):
    (work / "onnx" / "pts_voxel_encoder.onnx").write_bytes(b"something else")
    assert run(project, work) == 0
    assert Workspace.open(work).artifact("onnx/pts_voxel_encoder.onnx").stat().st_size > 1000


def test_options_of_the_model_are_a_reason_to_export_again(project, work, capsys):
    assert run(project, work, "--set", "model.options.rot_y_axis_reference=true") == 0
    assert Workspace.open(work).spec().parameters["rot_y_axis_reference"] is True
    assert "replaces" not in capsys.readouterr().err


def test_that_another_model_is_replaced_is_said_before(project, work, capsys):
    def other(manifest: Manifest) -> None:
        manifest.spec = manifest.spec.model_copy(update={"model": "yolox"})
        del manifest.stages["export"]

    update_manifest(work / MANIFEST_NAME, other)
    assert run(project, work, "--set", "model.options.nope=1") == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "replaces" in line]
    assert "holds a model of type yolox, which one of type centerpoint replaces" in said
    assert "(engines, runs) is out of date" in said


def test_files_axes_and_exporter_as_configured(project, work):
    import onnx

    component = "components.pts_backbone_neck_head"
    assert (
        run(
            project, work,
            "--set", f"{component}.onnx_file=head_v2.onnx",
            "--set", f"{component}.io.dynamic_axes={{}}",
            "--set", "export.exporter=dynamo",
            "--set", "export.opset_version=18",
            "--set", "export.simplify=onnxslim",
        )
        == 0
    )  # fmt: skip
    workspace = Workspace.open(work)
    assert workspace.spec().components[1].inputs[0].shape == [1, 32, 192, 256]
    assert workspace.spec().components[1].outputs[0].shape == [1, 5, 96, 128]
    model = onnx.load(workspace.artifact("onnx/head_v2.onnx"))
    assert model.opset_import[0].version == 18
    # The file of the first export is gone: nobody can take it for the current one.
    assert not (work / "onnx" / "pts_backbone_neck_head.onnx").exists()


def test_an_interrupted_reference_goes_on_where_it_stopped(project, tmp_path, monkeypatch):
    from exporter.models.centerpoint import adapter as centerpoint

    calls = []
    answer = centerpoint.answer

    def interrupted(model, model_input):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(model, model_input)

    monkeypatch.setattr(centerpoint, "answer", interrupted)
    assert run(project, tmp_path / "work") == 130
    assert Workspace.open(tmp_path / "work").manifest().stages["export"].status == "failed"
    assert run(project, tmp_path / "work") == 0
    assert len(calls) == 3


def test_frames_without_points_and_with_nan_are_part_of_the_reference(project, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    write_frame(frames / "0.bin", frame(0))
    write_frame(frames / "1.bin", np.zeros((0, 5)))
    broken = frame(1)
    broken[::10, 0] = np.nan
    write_frame(frames / "2.bin", broken)
    write_frame(frames / "3.bin", frame(1)[np.arange(2500) % 10 != 0])
    arguments = ("--data", str(frames), "--set", "verification.num_verify_samples=4")
    assert run(project, tmp_path / "work", *arguments) == 0
    reference = Run.open(tmp_path / "work" / "reference")
    assert reference.counters[1] == {"points": 0, "voxels": 0}
    assert reference.raw(1)["heatmap"].shape == (1, 5, 96, 128)
    # Points that are NaN are as good as absent.
    np.testing.assert_array_equal(reference.boxes(2).scores, reference.boxes(3).scores)


# -- bad input: one clear line, the right exit code --------------------------------------------------------------------


def truncated(project, tmp_path):
    content = (project / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(content[: len(content) // 2])
    return ["--set", f"model.checkpoint={tmp_path / 'model.pth'}"]


def other_model(project, tmp_path):
    path = save_checkpoint(built(CONFIGS / "small_intensity.py")[0], tmp_path / "other.pth")
    return ["--set", f"model.checkpoint={path}"]


class _Payload:
    def __reduce__(self):
        return print, ("run by the checkpoint",)


def malicious(project, tmp_path):
    return ["--set", f"model.checkpoint={save_checkpoint(built(SMALL)[0], tmp_path / 'evil.pth', extra=_Payload())}"]


def config_typo(project, tmp_path):
    path = tmp_path / "typo.py"
    path.write_text(f'_base_ = ["{SMALL}"]\nmodel = dict(pts_backbone=dict(type="SECONDD"))\n')
    return ["--set", f"model.config={path}"]


def short_frame(project, tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "0.bin").write_bytes(b"\0" * 2001)
    return ["--data", str(tmp_path / "short")]


def empty_frame(project, tmp_path):
    (tmp_path / "empty").mkdir()
    write_frame(tmp_path / "empty" / "0.bin", np.zeros((0, 5)))
    return ["--data", str(tmp_path / "empty")]


def no_frames(project, tmp_path):
    (tmp_path / "none").mkdir()
    return ["--data", str(tmp_path / "none")]


BAD = [
    (lambda *_: ["--set", "model.checkpoint=/nowhere/model.pth"], 3, "/nowhere/model.pth"),
    (truncated, 3, "not a whole PyTorch checkpoint"),
    (other_model, 3, "have another shape"),
    (malicious, 3, "refused"),
    (config_typo, 2, "SECONDD"),
    (lambda *_: ["--set", "model.config=/nowhere/config.py"], 2, "/nowhere/config.py"),
    (lambda *_: ["--set", "export.opset=17"], 2, "opset_version"),
    (lambda *_: ["--set", "model.type=centrepoint"], 2, "centerpoint"),
    (lambda *_: ["--set", "model.options.rot_y=true"], 2, "rot_y_axis_reference"),
    (lambda *_: ["--set", "data.sample_idx=99"], 2, "has 3 samples"),
    (lambda *_: ["--set", "components.head.onnx_file=h.onnx"], 2, "pts_backbone_neck_head"),
    (short_frame, 3, "not a whole number of points"),
    (empty_frame, 5, "no point of the sample"),
    (no_frames, 3, "none"),
]


@pytest.mark.parametrize(("spoil", "code", "text"), BAD, ids=[row[2] for row in BAD])
def test_bad_input(project, tmp_path, capsys, spoil, code, text):
    assert run(project, tmp_path / "work", *spoil(project, tmp_path)) == code
    told = capsys.readouterr()
    errors = [line for line in told.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and text in errors[0]
    assert "Traceback" not in told.err
    assert "run by the checkpoint" not in told.out
    assert not list((tmp_path / "work").rglob("*.onnx"))


def test_no_gpu_here(project, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert run(project, tmp_path / "work", "--device", "cuda") == 4
    assert "--device cuda: PyTorch finds no CUDA device" in capsys.readouterr().err


def test_devices_by_alias(project, work, capsys):
    assert run(project, work, "--device", "car", "--set", "devices.car=cpu") == 0
    assert run(project, work, "--device", "gpu") == 2
    assert "--device: no such device 'gpu'" in capsys.readouterr().err


def test_that_an_export_is_up_to_date_is_known_without_pytorch(project, work):
    code = "import sys; sys.modules['torch'] = None; from exporter.cli import cli; cli()"
    arguments = ["export", "--config", str(project / "deploy.yaml"), "--work", str(work)]
    answer = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (answer.returncode, "export: up to date" in answer.stderr) == (0, True), answer.stderr


@pytest.mark.parametrize("mistake", ["data.sample_idx=99", "model.options.nope=1"])
def test_a_failed_export_leaves_the_one_before_in_use(project, work, mistake, capsys):
    before = Workspace.open(work).manifest()
    assert run(project, work, "--set", mistake) == 2
    workspace = Workspace.open(work)
    stage = workspace.manifest().stages["export"]
    assert stage.attempt is not None and stage.attempt.status == "failed"
    assert (stage.status, stage.command) == ("done", before.stages["export"].command)
    for relative in workspace.manifest().artifacts:
        workspace.artifact(relative)
    assert run(project, work) == 0
    assert "export: up to date" in capsys.readouterr().err


# -- kills and full disks: real processes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "number"), [("_announced", 4), ("record_reference", 1)])
def test_a_killed_export_leaves_no_half_file_and_the_next_one_succeeds(project, work, before, number):
    """Killed before or after its last program, when an earlier export is there, which the new one was to replace."""
    (work / "onnx" / "pts_voxel_encoder.onnx").write_bytes(b"changed, so that the export runs")
    words = ("export", "--config", project / "deploy.yaml", "--work", work)
    killed_at(f"exporter.export:{before}", number, "exporter", *words)
    assert list((work / "onnx").glob(".pts_backbone_neck_head.onnx.partial-*")), "its temporaries are still there"
    workspace = Workspace.open(work)
    stage = workspace.manifest().stages["export"]
    assert stage.status == "done" and stage.attempt is not None and stage.attempt.status == "running"
    for relative, record in workspace.manifest().artifacts.items():
        if relative != "onnx/pts_voxel_encoder.onnx":
            assert (work / relative).stat().st_size == record.bytes
    assert run(project, work) == 0
    assert not [path for path in work.rglob("*") if "partial" in path.name]
    for relative in workspace.manifest().artifacts:
        workspace.artifact(relative)


@pytest.mark.parametrize("limit", [300_000, 780_000])
def test_a_full_disk(project, tmp_path, limit):
    """A limit on the size of files stands for the disk: the first stops the ONNX file, the second the program."""
    import resource

    work = tmp_path / "work"
    words = ("exporter", "export", "--config", project / "deploy.yaml", "--work", work)
    limits = (limit, resource.RLIM_INFINITY)
    answer = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )  # fmt: skip
    assert answer.returncode == 4, answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "larger than the limit" in errors[0]
    assert Workspace.open(work).manifest().stages["export"].status == "failed"
    assert not list(work.rglob("*.onnx")) and not list(work.rglob("*.pt2"))


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_package_outside_adds_a_model(monkeypatch, tmp_path):
    from exporter import models, traces

    plugin_packages.install(
        monkeypatch,
        tmp_path,
        "yoloz_package",
        {
            "yoloz/adapter.py": "from exporter.models.centerpoint.adapter import *",
            "yoloz/trace.py": "from exporter.models.centerpoint.trace import STEPS, states",
        },
        {"awml_deploy.exporter_models": {"yoloz": "yoloz_package.yoloz", "broken": "no_such_package"}},
    )
    assert {"centerpoint", "yoloz"} <= set(models.available())
    assert models.find("yoloz").TASK == "detection3d"
    assert traces.find("yoloz").STEPS == traces.find("centerpoint").STEPS
    with pytest.raises(ConfigError, match=r"model.type: no model 'nothing'. there are: .*centerpoint"):
        models.find("nothing")
    from shared.errors import EnvironmentLacks

    with pytest.raises(EnvironmentLacks, match="'broken' of no_such_package can't be imported"):
        models.find("broken")


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("classes(model)", "return model.pts_bbox_head.train_cfg['names']"),
        ("load_input(sample, parameters)", "return torch.tensor(sample.load()[:, parameters['columns']])"),
        ("components(model, model_input, options)", "limits = int(str(model.pts_bbox_head.loss_cls))"),
    ],
)
def test_a_value_that_a_package_cant_read_is_told_with_where_it_is_read(
    project, monkeypatch, tmp_path, capsys, head, line
):
    own = f"import torch\nfrom exporter.models.centerpoint.adapter import *\ndef {head}:\n    {line}\n"
    plugin_packages.install(
        monkeypatch,
        tmp_path / "site",
        "yoloz_package",
        {"yoloz/adapter.py": own},
        {"awml_deploy.exporter_models": {"yoloz": "yoloz_package.yoloz"}},
    )
    assert run(project, tmp_path / "work", "--set", "model.type=yoloz") == 2
    (error,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert f"{SMALL}: a value is missing or not what it should be (" in error
    assert error.endswith(f"it is read here: {line}")


def test_help_is_quick():
    command = [sys.executable, "-m", "exporter", "export", "--help"]

    def show():
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert "Example: exporter export" in done.stdout
        return done

    assert fewest_seconds(show, enough=0.5) < 0.5


def test_a_trace_runs_no_training_config_but_the_one_that_was_exported(work, tmp_path):
    from exporter.trace import trace
    from shared.errors import ManifestError

    ran = tmp_path / "ran"
    theirs = tmp_path / "theirs.py"
    theirs.write_text(f"open({str(ran)!r}, 'w')\n{SMALL.read_text()}")

    def change(manifest: Manifest) -> None:
        manifest.config = {**manifest.config, "model": {**manifest.config["model"], "config": str(theirs)}}

    update_manifest(work / "manifest.json", change)
    with pytest.raises(ManifestError, match="is not the one that was exported here"):
        trace(work, num_samples=1)
    assert not ran.exists()


def test_an_export_that_is_up_to_date_makes_the_config_the_user_s_own(project, work, monkeypatch, tmp_path):
    from shared.trust import config_is_sealed
    from shared.user_key import KEY_VARIABLE

    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    assert not config_is_sealed(Workspace.open(work).manifest())
    assert run(project, work) == 0
    assert config_is_sealed(Workspace.open(work).manifest())
