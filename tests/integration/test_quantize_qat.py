"""`exporter quantize qat` on a small YOLOX: from a checkpoint and labeled images to an exported INT8 graph."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.errors import ConfigError, InputError, TrainingError
from shared.manifest import read_manifest
from tests.support import tiny_yolox
from tests.support.exporting import save_checkpoint

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")
pytest.importorskip("modelopt")

from exporter.quantize import qat as recipe  # noqa: E402

TRAINED = tiny_yolox.TRAINING_CONFIG.replace(
    "test_cfg=", "train_cfg=dict(assigner=dict(type='SimOTAAssigner')),\n    test_cfg="
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deploy config with three labeled images to evaluate on and four to train on."""
    root = tmp_path_factory.mktemp("model")
    model, _, _ = tiny_yolox.built(root, text=TRAINED)
    save_checkpoint(model, root / "model.pth")
    for name, sizes in (
        ("eval", ((120, 80), (60, 100), (96, 96))),
        ("train", ((120, 80), (60, 100), (96, 96), (90, 60))),
    ):
        _write_set(root / name, sizes, name)
    content = {
        "task_type": "detection2d",
        "model": {"type": "yolox", "config": str(root / "tiny_yolox.py"), "checkpoint": str(root / "model.pth")},
        "data": _section(root / "eval"),
        "quantization": {
            "enabled": True,
            "mode": "qat",
            "calibration": {"num_batches": 4, "data": _section(root / "train")},
            "sensitive_layers": ["bbox_head"],
        },
        "verification": {"num_verify_samples": 1},
    }
    path = root / "deploy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _section(root: Path) -> dict[str, Any]:
    return {"format": "info", "root": str(root), "info_file": "info.json", "classes": tiny_yolox.CLASSES}


def _write_set(root: Path, sizes: Any, name: str, labeled: bool = True) -> None:
    truth = {"instances": [{"bbox": [5, 5, 40, 40], "bbox_label": 1, "ignore_flag": 0}]} if labeled else {}
    entries = [
        {
            "img_id": f"{name}{number}", "img_path": path.name, "width": sizes[number][0], "height": sizes[number][1],
            **truth,
        }
        for number, path in enumerate(tiny_yolox.write_images(root, sizes))
    ]  # fmt: skip
    (root / "info.json").write_text(json.dumps({"metainfo": {"classes": tiny_yolox.CLASSES}, "data_list": entries}))


def _run(config: Path, work: Path, **options: Any) -> str:
    settings: dict[str, Any] = {"steps": 4, "batch_size": 2, "learning_rate": 1e-4, **options}
    return recipe.qat(config, work, settings.pop("overrides", ()), **settings)


def test_from_checkpoint_to_exported_graph(config: Path, tmp_path: Path) -> None:
    import onnx

    from exporter.cli import cli
    from exporter.quantize.checkpoint import load_ptq_model

    work, copy = tmp_path / "work", tmp_path / "copy.pth"
    arguments = [
        *("quantize", "qat", "--config", str(config), "--work", str(work)),
        *("--steps", "4", "--batch-size", "2", "--lr", "1e-4"),
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--output", str(copy)])
    assert ended.value.code == 0
    model = tiny_yolox.built(tmp_path, text=TRAINED)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = load_ptq_model(model, copy)
    assert (record["mode"], record["steps"], record["samples"]) == ("qat", 4, 4)
    assert not any(name.startswith("bbox_head") for name in record["layers"])
    after = model.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name.startswith("bbox_head"))

    manifest = read_manifest(work / "manifest.json")
    assert set(manifest.stages["quantize:qat"].outputs) == {"quantized/qat.pth", "quantized/qat_losses.json"}
    losses = json.loads((work / "quantized" / "qat_losses.json").read_text())["losses"]
    assert [report["step"] for report in losses] == [1, 2, 3, 4]
    assert not (work / recipe.STATE).exists()

    # A checkpoint that was trained elsewhere is taken over as it is.
    elsewhere = tmp_path / "elsewhere"
    assert recipe.take_over(config, elsewhere, (), copy) == str(elsewhere / recipe.CHECKPOINT)
    taken = torch.load(elsewhere / recipe.CHECKPOINT, weights_only=True)
    assert taken["quantization"]["steps"] == 4
    assert all(torch.equal(taken["state_dict"][name], value) for name, value in after.items())

    made = (work / recipe.CHECKPOINT).stat().st_mtime_ns
    _run(config, work)
    assert (work / recipe.CHECKPOINT).stat().st_mtime_ns == made

    with pytest.raises(SystemExit) as ended:
        cli.main(["export", "--config", str(config), "--work", str(work)])
    assert ended.value.code == 0
    kinds = {node.op_type for node in onnx.load(work / "onnx" / "yolox.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_a_killed_run_goes_on(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    step, calls = recipe._step, []

    def stopping(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            _run(config, tmp_path / "work")
    caplog.clear()
    _run(config, tmp_path / "work")
    assert "going on after step 2" in caplog.text
    assert "calibration" not in caplog.text
    _run(config, tmp_path / "whole")
    states = [torch.load(tmp_path / name / recipe.CHECKPOINT, weights_only=True) for name in ("work", "whole")]
    assert states[0]["quantization"] == states[1]["quantization"]
    for name, value in states[1]["state_dict"].items():
        torch.testing.assert_close(states[0]["state_dict"][name], value, rtol=0, atol=0, msg=name)


def test_what_cant_be_trained(config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["quantization"]["calibration"].pop("data")
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"quantization.calibration.data: is missing: training on"):
        _run(alone, tmp_path / "work")

    _write_set(tmp_path / "bare", ((60, 60), (60, 60)), "bare", labeled=False)
    overrides = [f"quantization.calibration.data.root={tmp_path / 'bare'}"]
    with pytest.raises((InputError, ConfigError), match=r"labels|instances"):
        _run(config, tmp_path / "work", overrides=overrides)

    with pytest.raises(TrainingError, match="lower the learning rate"):
        _run(config, tmp_path / "work", learning_rate=1e30)
    assert read_manifest(tmp_path / "work" / "manifest.json").stages["quantize:qat"].status == "failed"
