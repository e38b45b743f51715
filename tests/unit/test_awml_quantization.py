"""AWML's quantization keys leave the same layers in float as they do in AWML, and start from the weights in float."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from shared.config import DeployConfig, load_config
from shared.config.awml import read_awml
from shared.config.convert import convert_awml

START = """
checkpoint_path = "quantized.pth"
export = dict(mode="none")
components = dict(
    pts_voxel_encoder=dict(onnx_file="e.onnx", engine_file="e.engine",
                           io=dict(inputs=[dict(name="input_features")], outputs=[dict(name="pillar_features")])),
    pts_backbone_neck_head=dict(onnx_file="h.onnx", engine_file="h.engine",
                                io=dict(inputs=[dict(name="spatial_features")], outputs=[dict(name="heatmap")])))
"""


def load(folder: Path, **section: Any) -> tuple[DeployConfig, str]:
    """The config with a section ``quantization``, and the notes on it."""
    path = folder / "deploy_config.py"
    path.write_text(f"{START}quantization = {section!r}\n", encoding="utf-8")
    return load_config(path), "\n".join(map(str, read_awml(path).notes))


@pytest.mark.parametrize(
    ("section", "in_float"),
    [
        ({}, []),
        ({"quant_voxel_encoder": False}, ["pts_voxel_encoder"]),
        (
            {"quant_backbone": False, "quant_neck": False, "quant_head": False},
            ["pts_backbone", "pts_neck", "pts_bbox_head"],
        ),
        ({"quant_head": True, "skip_backbone_stages": []}, []),
        ({"skip_backbone_first_stages": 2}, ["pts_backbone.blocks.0", "pts_backbone.blocks.1"]),
        ({"skip_backbone_stages": [0, 2]}, ["pts_backbone.blocks.0", "pts_backbone.blocks.2"]),
        ({"skip_backbone_first_stages": 1, "skip_backbone_stages": [0]}, ["pts_backbone.blocks.0"]),
        ({"skip_vovnet_stages": [0, 1, 3]}, ["pts_backbone.stem", "pts_backbone.stage2", "pts_backbone.stage4"]),
        ({"sensitive_layers": ["pts_neck.deblocks.0.0"], "fuse_bn": True}, ["pts_neck.deblocks.0.0"]),
        ({"keep_fp16": ["pts_voxel_encoder", "pts_backbone.stem"]}, ["pts_voxel_encoder", "pts_backbone.stem"]),
    ],
)
def test_what_stays_in_float(tmp_path: Path, section: dict[str, Any], in_float: list[str]) -> None:
    config, _ = load(tmp_path, enabled=True, **section)
    assert list(config.quantization.sensitive_layers) == in_float


# Names of modules as CenterPoints have them: every layer's parents are modules, too.
LAYERS = [
    "pts_voxel_encoder.pfn_layers.0.linear",
    *(f"pts_backbone.blocks.{stage}.{layer}" for stage in (0, 1, 10) for layer in (0, 3)),
    *(f"pts_neck.deblocks.{block}.{layer}" for block in (0, 1) for layer in (0, 1)),
    "pts_bbox_head.shared_conv.conv",
    "pts_bbox_head.task_heads.0.heatmap.1",
]
MODULES = sorted({".".join(name.split(".")[:n]) for name in LAYERS for n in range(1, name.count(".") + 2)})


@settings(max_examples=300)
@given(st.sampled_from(MODULES), st.data())
def test_patterns_of_keep_fp16_choose_what_they_choose_in_awml(module: str, data: st.DataObject) -> None:
    """AWML: a pattern stands for the modules that it matches, and for all that is in them."""
    from shared.config.awml_quantization import _expression

    parts = [
        data.draw(st.sampled_from([part, "*", "?", f"{part[:1]}*", f"[{part[:1]}]*"])) for part in module.split(".")
    ]
    pattern = ".".join(parts)
    matched = [name for name in MODULES if fnmatch.fnmatchcase(name, pattern)]
    in_awml = {layer for layer in LAYERS for name in matched if layer == name or layer.startswith(f"{name}.")}
    expression = _expression(pattern)
    if expression == pattern:  # a plain name: ours take it for a block, too
        here = {layer for layer in LAYERS if layer == pattern or layer.startswith(f"{pattern}.")}
    else:
        here = {layer for layer in LAYERS if re.search(expression, layer)}
    assert here == in_awml


def test_what_has_another_name_or_no_counterpart_is_told(tmp_path: Path) -> None:
    config, notes = load(
        tmp_path,
        enabled=True,
        mode="ptq",
        fuse_bn=False,
        default_precision="int8",
        disable_recipes=["add"],
        quant_backbone=True,
        calib_cache_path="a.calib",
        ptq={"checkpoint": "float.pth", "calibrate_samples": 400, "batch_size": 4, "calib_seed": 0},
    )
    assert not config.quantization.fusion.fuse_bn
    assert config.quantization.calibration.num_batches == 400
    assert config.model.checkpoint == tmp_path / "float.pth"
    for line in (
        "quantization.fuse_bn: is quantization.fusion.fuse_bn here",
        "quantization.default_precision: dropped: so it is anyway",
        "quantization.disable_recipes: dropped: a skip connection gets Q/DQ nodes",
        "quantization.calib_cache_path: dropped: a cache of pytorch-quantization can't be read",
        "quantization.ptq.calibrate_samples: is quantization.calibration.num_batches here",
        "quantization.ptq.batch_size: dropped",
        "quantization.ptq.checkpoint: is model.checkpoint here",
        "checkpoint_path: dropped: it names weights that AWML's tool has quantized",
        "quantization.quant_backbone: a backbone's Linear layers",
    ):
        assert line in notes


def test_fine_tuning(tmp_path: Path) -> None:
    config, notes = load(
        tmp_path,
        enabled=True,
        mode="qat",
        keep_fp16=["pts_voxel_encoder"],
        ptq=None,
        qat={"train_cfg": "train.py", "checkpoint": "float.pth", "epochs": 3, "lr": 1e-4, "calibrate_samples": 50},
    )
    assert config.quantization.mode == "qat"
    assert config.model.config == tmp_path / "train.py"
    assert config.model.checkpoint == tmp_path / "float.pth"
    assert config.quantization.calibration.num_batches == 50
    assert "quantization.qat.epochs: dropped: give --epochs 3 to exporter quantize qat" in notes
    assert "quantization.qat.lr: dropped: give --lr 0.0001 to exporter quantize qat" in notes


def test_quantized_weights_without_those_in_float_are_asked_for(tmp_path: Path) -> None:
    config, notes = load(tmp_path, enabled=True, fuse_bn=True)
    assert config.model.checkpoint is None
    assert "give those with --set model.checkpoint=PATH" in notes
    off, notes = load(tmp_path, enabled=False, fuse_bn=True)
    assert off.model.checkpoint == tmp_path / "quantized.pth"
    assert "checkpoint_path: is model.checkpoint here" in notes


def test_the_section_of_the_seed_documents_is_ours(tmp_path: Path) -> None:
    config, _ = load(
        tmp_path,
        enabled=True,
        mode="qat",
        calibration={"num_batches": 5, "method": "histogram", "amax_method": "entropy"},
        fusion={"fuse_bn": False},
        sensitive_layers=["head"],
    )
    assert config.model.checkpoint == tmp_path / "quantized.pth"
    assert config.quantization.calibration.amax_method == "entropy"
    assert not config.quantization.fusion.fuse_bn


def test_the_conversion_means_the_same(tmp_path: Path) -> None:
    section = {"enabled": True, "keep_fp16": ["pts_neck.deblocks.*.0"], "ptq": {"checkpoint": "float.pth"}}
    config, _ = load(tmp_path, **section)
    out = tmp_path / "c.yaml"
    out.write_text(convert_awml(tmp_path / "deploy_config.py", out)[0], encoding="utf-8")
    assert load_config(out) == config


@pytest.mark.exporter
@pytest.mark.parametrize(
    "section",
    [
        {"fuse_bn": True},
        {"quant_voxel_encoder": False, "skip_backbone_stages": [0]},
        {"quant_head": False, "skip_backbone_first_stages": 2, "sensitive_layers": ["pts_neck.deblocks.0.0"]},
        {"keep_fp16": ["pts_voxel_encoder", "pts_backbone.blocks.0", "pts_neck.deblocks.*.0", "*.task_heads.?.h*"]},
    ],
)
def test_a_networks_layers_in_int8_are_those_of_awml(tmp_path: Path, section: dict[str, Any]) -> None:
    nn = pytest.importorskip("torch.nn")
    from exporter.quantize.layers import select
    from tests.support.exporting import built

    model, _, _ = built(Path(__file__).parents[2] / "configs" / "train" / "centerpoint_demo.py")
    names = [name for name, _ in model.named_modules() if name]
    skipped = {
        *section.get("sensitive_layers", ()),
        *(f"pts_backbone.blocks.{stage}" for stage in section.get("skip_backbone_stages", ())),
        *(f"pts_backbone.blocks.{stage}" for stage in range(section.get("skip_backbone_first_stages", 0))),
        *(name for pattern in section.get("keep_fp16", ()) for name in fnmatch.filter(names, pattern)),
    }
    towers = {
        "pts_voxel_encoder": (section.get("quant_voxel_encoder", True), nn.Linear),
        "pts_backbone": (section.get("quant_backbone", True), (nn.Conv2d, nn.ConvTranspose2d)),
        "pts_neck": (section.get("quant_neck", True), (nn.Conv2d, nn.ConvTranspose2d)),
        "pts_bbox_head": (section.get("quant_head", True), (nn.Conv2d, nn.ConvTranspose2d)),
    }
    in_awml = [
        name
        for name, layer in model.named_modules()
        if (tower := name.partition(".")[0]) in towers
        and towers[tower][0]
        and isinstance(layer, towers[tower][1])
        and not any(name == block or name.startswith(f"{block}.") for block in skipped)
    ]
    config, _ = load(tmp_path, enabled=True, **section)
    assert select(model, config.quantization.sensitive_layers) == in_awml
    assert len(in_awml) > 5
