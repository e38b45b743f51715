"""Layer lists of the shipped INT8 configs: what they leave in INT8 makes no sum that TensorRT 8.6 has no kernel for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modelopt")
pytestmark = pytest.mark.exporter

import onnx  # noqa: E402
import torch  # noqa: E402

from exporter.artifacts.onnx_export import export_onnx  # noqa: E402
from exporter.models.calibration import adapter as calibration  # noqa: E402
from exporter.models.frnet import adapter as frnet  # noqa: E402
from exporter.quantize.ptq import quantize_ptq  # noqa: E402
from exporter.quantized_model import check_quantized_onnx  # noqa: E402
from exporter.training_config import random_weights, read_training_config  # noqa: E402
from shared.config import load_config  # noqa: E402
from shared.qdq_lint import float_sums  # noqa: E402
from tests.support import tiny_frnet  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"


def shipped(name: str) -> tuple[str, ...]:
    return load_config(CONFIGS / f"{name}_int8.yaml").quantization.sensitive_layers


def graph(adapter: Any, model: Any, sample: Any, options: Any, left_out: Sequence[str], path: Path) -> onnx.ModelProto:
    """The network quantized but for some layers."""
    quantize_ptq(
        model,
        [sample],
        1,
        amax_method="max",
        skip_names=left_out,
        forward=lambda batch: adapter.answer(model, batch)[0],
    )
    (component,) = adapter.components(model, sample, options)
    export_onnx(component, path, exporter="torchscript", opset_version=17)
    check_quantized_onnx(path, component, 17)
    return onnx.load(str(path))


@pytest.mark.parametrize("left_out", [shipped("frnet"), ["voxel_encoder", "decode_head"]], ids=["shipped", "less"])
def test_frnet(left_out: Sequence[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """HardSwish reads the sums of its blocks in floating point."""
    caplog.set_level(logging.WARNING, "exporter")
    model, _, options = tiny_frnet.built(tiny_frnet.write_config(tmp_path))
    sample = torch.from_numpy(tiny_frnet.points(1200))
    found = float_sums(graph(frnet, model, sample, options, left_out, tmp_path / "frnet.onnx"))
    assert (found == []) == (left_out == shipped("frnet")), found
    assert any("no kernel for" in text for text in caplog.messages) == bool(found)


def test_calibration(tmp_path: Path) -> None:
    options = calibration.read_options({})
    model = calibration.build(read_training_config(CONFIGS / "train" / "calibration_demo.py"), options)
    random_weights(model, seed=0)
    sample = torch.rand(1, 5, 64, 96, generator=torch.Generator().manual_seed(0))
    exported = graph(calibration, model, sample, options, shipped("calibration"), tmp_path / "calibration.onnx")
    assert float_sums(exported) == []
