"""From a checkpoint to metrics through the tools' commands, in which nothing is changed for the package."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import onnx
import pytest
from awml_deploy_transfusion import configs
from awml_deploy_transfusion.exporter_model import adapter
from awml_deploy_transfusion.names import INPUTS, OUTPUTS, VOXELS_AXIS
from awml_deploy_transfusion.runtime_model.device import TransFusionOnDevice

from exporter.checkpoints import load_weights
from exporter.training_config import read_training_config
from runtime.model import open_model
from shared.data import DataSettings, open_dataset
from shared.manifest import read_manifest
from shared.tasks import find
from shared.workspace import Workspace
from tests.support import backends_on_cpu, cuda_on_cpu, trt_rtx
from tests.support.jobs import tool
from trt_builder.build_plan import read_config
from trt_builder.jobs import make_jobs

TRAINING_CONFIG = Path(configs.__path__[0]) / "transfusion_demo.py"
FRAMES = 3
MIN_MAP = 0.6
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with everything in it: the demo model on a few of the demo's frames."""
    folder = tmp_path_factory.mktemp("transfusion")
    work = folder / "work"
    tool("demo", "generate", "--out", folder / "demo", "--frames", str(FRAMES), "--no-cameras")
    settings = {"data.root": folder / "demo", "verification.num_verify_samples": FRAMES}
    sets = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    tool("exporter", "export", "--config", "transfusion", "--work", work, *sets)
    for backend in ("pytorch", "onnx"):
        tool("runtime", "run", "--work", work, "--backend", backend)
    tool("verifier", "verify", "--work", work)
    tool("evaluator", "evaluate", "--work", work)
    return work


def test_every_stage_is_done_and_the_backends_agree(work: Path) -> None:
    manifest = read_manifest(work / "manifest.json")
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"} <= done
    metrics = [manifest.results["metrics"][run] for run in ("pytorch-cpu", "onnx-cpu")]
    assert {manifest.results["runs"][run]["samples"] for run in ("pytorch-cpu", "onnx-cpu")} == {FRAMES}
    assert metrics[0]["mAP"] == pytest.approx(metrics[1]["mAP"], abs=1e-3)
    assert metrics[0]["mAP 0-50 m"] > MIN_MAP


def test_the_file_has_the_names_that_autoware_binds(work: Path) -> None:
    model = onnx.load(str(work / "onnx" / "transfusion.onnx"))

    def tensors(values: object) -> dict[str, list[object]]:
        return {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in values  # type: ignore[attr-defined]  # protobuf's repeated field
        }

    assert tensors(model.graph.input) == dict(
        zip(INPUTS, ([VOXELS_AXIS, 20, 5], [VOXELS_AXIS], [VOXELS_AXIS, 4]), strict=True)
    )
    assert tensors(model.graph.output) == dict(zip(OUTPUTS, ([1, 5, 100], [1, 8, 100], [1, 2, 100]), strict=True))


def test_the_graph_has_standard_operators_and_a_fixed_k(work: Path) -> None:
    model = onnx.load(str(work / "onnx" / "transfusion.onnx"))
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    (top,) = (node for node in model.graph.node if node.op_type == "TopK")
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in model.graph.initializer}
    assert onnx.numpy_helper.to_array(constants[top.input[1]]).tolist() == [100]


def test_engines_compute_coordinates_in_fp32(work: Path) -> None:
    config = read_config(Workspace.open(work), ["tensorrt.precision_policy=fp16"])
    (job,) = make_jobs(Workspace.open(work), config)
    nodes = [node for node in onnx.load(str(job.onnx)).graph.node if node.name in job.policy.keep]
    kept = {node.op_type for node in nodes}
    # Centers of pillars, means of their points, what is added to points; centers of boxes.
    assert {"Sub", "ReduceSum", "Div", "Concat", "Add"} <= kept
    assert not kept & {"MatMul", "ScatterND"}
    # TensorRT 8.6 has no kernel that multiplies in FP16 and adds the cells' centers in FP32.
    assert {node.name.split("/center/")[0] for node in nodes if node.op_type == "Conv"} == {"/prediction_heads.0"}
    assert job.free_inputs == frozenset()  # voxels come in FP32


def test_inspect_says_what_an_export_would_be() -> None:
    said = json.loads(tool("exporter", "inspect", TRAINING_CONFIG, "--json"))
    assert said["model"] == "transfusion"
    assert said["outputs"]["transfusion"] == dict(zip(OUTPUTS, ([1, 5, 100], [1, 8, 100], [1, 2, 100]), strict=True))


def test_tensorrt_for_rtx_builds_the_network(work: Path) -> None:
    answer = trt_rtx.trt_builder("build", "--work", work)
    assert answer.returncode == 0, answer.stderr
    (engine,) = read_manifest(work / "manifest.json").results["engines"]
    assert engine.endswith("/transfusion")


@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder of real frames (docs/data.md)")
@pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler")
def test_real_frames_are_answered_as_by_the_framework(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch and ONNX Runtime, and the first frame between kernels, too: a CPU takes 9 s for it."""
    backends_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    in_numpy = [open_model(work, name, "cpu").load()[1] for name in ("pytorch", "onnx")]
    on_kernels = open_model(work, "onnx", "cuda").load()[1]
    assert isinstance(on_kernels, TransFusionOnDevice)
    options = adapter.read_options({})
    config = read_training_config(TRAINING_CONFIG)
    framework = adapter.build(config, options)
    load_weights(framework, TRAINING_CONFIG.with_suffix(".pth"))
    parameters = adapter.parameters(framework, config, options)
    task, errors = find("detection3d"), defaultdict[str, float](float)
    samples = open_dataset(DataSettings(format="real"), root=Path(os.environ["REAL_DATA"]))
    for index in range(len(samples)):
        sample = samples.sample(index)
        _, boxes, counted = adapter.answer(framework, adapter.load_input(sample, parameters))
        for pipeline in (*in_numpy, *([] if index else [on_kernels])):
            answer = pipeline.infer(pipeline.read(sample).data)
            pairs = task.pair(boxes, answer.predictions)
            assert answer.counters["voxels"] == counted["voxels"]
            assert len(pairs.reference_alone) == len(pairs.test_alone) == pairs.label_flips == 0, sample.token
            for name, values in pairs.errors.items():
                errors[name] = max(errors[name], values.max())
    assert errors.keys() == task.errors.keys()
    assert all(error < task.errors[name].exact for name, error in errors.items()), errors
