"""From the demo's checkpoint to the bundle, through the tools' commands."""

from __future__ import annotations

from pathlib import Path

import awml_deploy_traffic_light
import onnx
import pytest
from click.testing import CliRunner

from exporter import random_checkpoint
from shared.manifest import read_manifest
from tests.support.jobs import tool

CONFIG = Path(awml_deploy_traffic_light.__file__).parent / "configs" / "traffic_light.yaml"
FRAMES = 6
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of the demo's classifier, of a batch of six, on the lights of a few images."""
    folder = tmp_path_factory.mktemp("traffic_light")
    work = folder / "work"
    tool("demo", "generate", "--out", folder / "demo", "--frames", str(FRAMES), "--for", "traffic_light")
    settings = {"data.root": folder / "demo", "model.options.batch_size": "6", "verification.num_verify_samples": "4"}
    sets = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    tool("exporter", "export", "--config", CONFIG, "--work", work, *sets)
    for backend in ("pytorch", "onnx"):
        tool("runtime", "run", "--work", work, "--backend", backend, "--readers", "0")
    tool("verifier", "verify", "--work", work)
    tool("evaluator", "evaluate", "--work", work)
    return work


def test_the_lights_of_cars_are_recognized_by_every_backend(work: Path) -> None:
    manifest = read_manifest(work / "manifest.json")
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"} <= done
    runs = [manifest.results["runs"][run]["samples"] for run in ("pytorch-cpu", "onnx-cpu")]
    assert runs == [8 * FRAMES, 8 * FRAMES]
    for run in ("pytorch-cpu", "onnx-cpu"):
        assert manifest.results["metrics"][run]["accuracy"] >= 0.97


def test_the_file_ends_in_a_softmax_under_awmls_names(work: Path) -> None:
    graph = onnx.load(str(work / "onnx" / "classifier.onnx")).graph
    shapes = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output"]
    assert shapes == [[6, 3, 96, 96], [6, 11]]
    assert next(node.op_type for node in graph.node if "output" in node.output) == "Softmax"


def test_autoware_gets_its_bundle(work: Path, tmp_path: Path) -> None:
    tool("exporter", "package", "autoware", "--work", work, "--out", tmp_path / "bundle", "--precision", "fp16")
    names = {path.name for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    network = "traffic_light_classifier_mobilenetv2_batch_6.onnx"
    assert names >= {network, "lamp_labels.txt", "car_traffic_light_classifier.param.yaml"}


def test_lights_of_pedestrians_get_a_bundle_of_their_own_from_awmls_deploy_config(work: Path, tmp_path: Path) -> None:
    """AWML's form of a deploy config; random weights."""
    training = CONFIG.with_name("traffic_light_pedestrian_demo.py")
    weights, deploy = tmp_path / "random.pth", tmp_path / "projects" / "MobileNetv2" / "ped_batch_4.py"
    written = CliRunner().invoke(random_checkpoint.cli, ["write", "--config", str(training), "--out", str(weights)])
    assert written.exit_code == 0, written.output
    deploy.parent.mkdir(parents=True)
    shape = "[4, 3, 96, 96]"
    deploy.write_text(
        'codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")\n'
        'onnx_config = dict(type="onnx", opset_version=11, save_file="ped.onnx", input_shape=[96, 96],\n'
        '    input_names=["input"], output_names=["output"])\n'
        'backend_config = dict(type="tensorrt", model_inputs=[dict(\n'
        f"    input_shapes=dict(input=dict(min_shape={shape}, opt_shape={shape}, max_shape={shape})))])\n"
    )
    settings = {
        "model.config": training, "model.checkpoint": weights, "export.mode": "onnx", "data.format": "crops",
        "data.root": work.parent / "demo", "data.sources": "[{format: info, info_file: info/tlr_infos_eval.json}]",
    }  # fmt: skip
    sets = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    tool("exporter", "export", "--config", deploy, "--work", tmp_path / "work", *sets)
    bundle = ("--out", tmp_path / "bundle", "--precision", "fp16")
    tool("exporter", "package", "autoware", "--work", tmp_path / "work", *bundle)
    assert (tmp_path / "bundle" / "lamp_labels_ped.txt").read_text().split() == ["red", "green", "unknown"]
    file = tmp_path / "bundle" / "ped_traffic_light_classifier_mobilenetv2_batch_4.onnx"
    (output,) = onnx.load(str(file)).graph.output
    assert [axis.dim_value for axis in output.type.tensor_type.shape.dim] == [4, 3]
