"""FRNet through the tools: exported, run, verified against the framework, and built by TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from shared.errors import InputError
from tests.support import tiny_frnet as tiny
from tests.support.trt_rtx import python, trt_builder

pytestmark = pytest.mark.exporter


@pytest.fixture(scope="module", name="config")
def _config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deploy config with its model, checkpoint and two frames; the second has a point that is none."""
    from tests.support.exporting import save_checkpoint

    root = tmp_path_factory.mktemp("frnet")
    training = tiny.write_config(root)
    save_checkpoint(tiny.built(training)[0], root / "model.pth")
    (root / "frames").mkdir()
    for index in range(2):
        points = np.concatenate([tiny.points(2000, seed=index), np.zeros((2000, 1), np.float32)], axis=1)
        points[:index, 1] = np.nan
        points.tofile(root / "frames" / f"{index}.bin")
    deploy = {
        "task_type": "segmentation3d",
        "model": {
            "type": "frnet", "config": training.name, "checkpoint": "model.pth",
            "options": {"sensor_position": tiny.SENSOR["position"], "num_points": [2000, 4000]},
        },
        "data": {"format": "folder", "root": "frames", "num_features": 5},
        "export": {"mode": "both"},
        "verification": {"num_verify_samples": 2},
    }  # fmt: skip
    (root / "deploy.yaml").write_text(yaml.safe_dump(deploy))
    return root / "deploy.yaml"


def test_every_backend_answers_as_the_framework_does(config: Path) -> None:
    from exporter.export import export
    from runtime.run import run
    from shared.runs import Run
    from shared.tasks.segmentation3d import PointClasses
    from verifier.verify import verify

    work = config.parent / "padded"
    export(config, work)
    for backend in ("pytorch", "onnx"):
        run(work, backend, device="cpu")
    verify(work)
    answers = [
        Run.open(folder).predictions(1, PointClasses) for folder in (work / "reference", work / "runs" / "onnx-cpu")
    ]
    assert [len(answer) for answer in answers] == [2000, 2000]
    assert [answer.labels[0] for answer in answers] == [255, 255]
    assert (answers[0].labels != 255).mean() > 0.5


def test_what_a_step_loses_is_attributed(config: Path) -> None:
    """After the test above, whose workspace it is."""
    from runtime.swap import swap
    from runtime.trace import trace
    from verifier.attribute import attribute

    work = config.parent / "padded"
    trace(work, "pytorch", "cpu")
    swap(work, "onnx", "cpu", "pytorch-cpu")
    steps = [line.split()[0] for line in attribute(work, None, None, force=False).splitlines()[3:8]]
    assert steps == ["read", "interpolate", "group", "frnet", "classify"]


def test_tensorrt_for_rtx_builds_the_padded_form_and_refuses_the_other(config: Path) -> None:
    """After the test above, whose export it builds."""
    from exporter.export import export

    python()  # skips where there is none
    done = trt_builder("build", "--work", config.parent / "padded", "--target", "rtx")
    assert done.returncode == 0, done.stderr
    assert "100% fp16 of the matrix layers" in done.stderr or "100% fp32 of the matrix layers" in done.stderr
    export(config, config.parent / "scatter", ["model.options.form=scatter", "export.opset_version=18"])
    refused = trt_builder("build", "--work", config.parent / "scatter", "--target", "rtx")
    assert refused.returncode != 0
    assert "reduction" in refused.stderr


def test_a_bundle_in_fp16_by_types_is_checked_on_a_trace(config: Path) -> None:
    from exporter.autoware import BundleOptions
    from exporter.autoware.package import package_autoware
    from exporter.export import export
    from runtime.trace import trace

    work, out = config.parent / "typed", config.parent / "bundle"
    export(config, work, ["model.options.form=scatter", "export.opset_version=18"])
    with pytest.raises(InputError, match="runtime trace"):
        package_autoware(work, out, BundleOptions(precision="strongly-typed"))
    trace(work, "onnx", "cpu")
    package_autoware(work, out, BundleOptions(precision="strongly-typed"))
    about = yaml.safe_load((out / "deploy_metadata.yaml").read_text())
    assert about["typed_fp16"]["frnet_ot128.fp16.onnx"]["fp16_nodes"] > 0
    node = yaml.safe_load((out / "frnet.param.yaml").read_text())["/**"]["ros__parameters"]
    assert (out / node["onnx_path"].removeprefix("$(var model_path)/")).name == "frnet_ot128.fp16.onnx"
    assert (out / "frnet_ot128.fp16.onnx").is_file()
