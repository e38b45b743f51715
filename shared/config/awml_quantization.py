"""AWML's section ``quantization`` as ours: which layers stay in float, and whose weights are quantized.

The seed documents have the keys that ours has. AWML's own loaders read others: first a switch for each tower of
CenterPoint and numbers of the backbone's stages, later patterns (``keep_fp16``). Either leaves whole blocks in float,
which is what our ``sensitive_layers`` does.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Any

from shared.config.awml_notes import Notes
from shared.config.awml_schema import AwmlQuantization
from shared.config.walk import KeyPath

_TOWERS = {
    "quant_voxel_encoder": "pts_voxel_encoder",
    "quant_backbone": "pts_backbone",
    "quant_neck": "pts_neck",
    "quant_head": "pts_bbox_head",
}
_PLACED = (
    "dropped: a skip connection gets Q/DQ nodes where the layers on both sides of it are in INT8, pooling and eSE get "
    "none of their own; which layers are in INT8 does not depend on it"
)
_DROPPED = {
    "quant_add": _PLACED,
    "quant_ese_mul_identity": _PLACED,
    "quant_ese_pool_input": _PLACED,
    "quant_maxpool_input": _PLACED,
    "disable_recipes": _PLACED,
    "calib_cache_path": "dropped: a cache of pytorch-quantization can't be read; the ranges are found anew",
    "ptq_checkpoint": "dropped: quantized/ptq.pth in the workspace is the checkpoint",
}
_DROPPED_OF_PRODUCER = {
    "batch_size": "dropped: samples are calibrated on one by one, which gives the same ranges",
    "calib_seed": "dropped: the samples are spread evenly over the data set, so nothing is drawn",
    "calib_shuffle": "dropped: the samples are spread evenly over the data set, so nothing is drawn",
    "calib_cache": "dropped: a cache of pytorch-quantization can't be read; the ranges are found anew",
    "work_dir": "dropped: give --work to a tool",
    "epochs": "dropped: give --epochs to exporter quantize qat",
    "lr": "dropped: give --lr to exporter quantize qat",
}
# What the seed documents and ours have; any other key says that the file is for AWML's own loaders.
_COMMON = {"enabled", "mode", "calibration", "fusion", "sensitive_layers"}


@dataclass(frozen=True)
class Quantization:
    """The section as ours, and what it says about other sections.

    Attributes:
        section: ours; None where AWML has none.
        takes_quantized_weights: ``checkpoint_path`` names what AWML's tool has quantized. Ours starts from float.
        checkpoint: key path of the weights in float; None where the file does not name them.
        training_config: key path of the training config that fine-tuning takes; None likewise.
    """

    section: dict[str, Any] | None = None
    takes_quantized_weights: bool = False
    checkpoint: KeyPath | None = None
    training_config: KeyPath | None = None


def convert_quantization(config: AwmlQuantization | None, notes: Notes) -> Quantization:
    """Convert the section; what can't be said here is dropped with a note."""
    if config is None:
        return Quantization()
    for key in ("enabled", "mode", "calibration", "fusion"):
        notes.moved(("quantization", key), ("quantization", key))
    section: dict[str, Any] = {"enabled": config.enabled, "mode": config.mode}
    if config.calibration is not None:
        section["calibration"] = config.calibration.model_dump(mode="json", exclude_unset=True)
    if config.fusion is not None:
        section["fusion"] = config.fusion.model_dump(mode="json", exclude_unset=True)
    if config.fuse_bn is not None:
        section["fusion"] = {"fuse_bn": config.fuse_bn}
        notes.moved(("quantization", "fuse_bn"), ("quantization", "fusion", "fuse_bn"))
    layers = _layers_in_float(config, notes)
    if layers:
        section["sensitive_layers"] = layers
    for key, text in _DROPPED.items():
        if (value := notes.value("quantization", key)) is not None:
            notes.dropped(("quantization", key), text, changed=bool(value))
    producer = _producer(config, section, notes)
    of_awml = bool(config.model_fields_set - _COMMON)
    return Quantization(
        section,
        takes_quantized_weights=of_awml and config.enabled,
        checkpoint=_if_set(notes, (*producer, "checkpoint")),
        training_config=_if_set(notes, (*producer, "train_cfg")),
    )


def _layers_in_float(config: AwmlQuantization, notes: Notes) -> list[str]:
    """Names of blocks, and expressions on names of layers, that stay in float."""
    target = ("quantization", "sensitive_layers")
    notes.moved(target, target)
    found = {key: [tower] if notes.value("quantization", key) is False else [] for key, tower in _TOWERS.items()}
    first = range(config.skip_backbone_first_stages or 0)
    found |= {
        "skip_backbone_first_stages": [f"pts_backbone.blocks.{stage}" for stage in first],
        "skip_backbone_stages": [f"pts_backbone.blocks.{stage}" for stage in config.skip_backbone_stages or ()],
        # 0 is the stem, 1 is stage2.
        "skip_vovnet_stages": [
            f"pts_backbone.stage{stage + 1}" if stage else "pts_backbone.stem"
            for stage in config.skip_vovnet_stages or ()
        ],
        "keep_fp16": [_expression(pattern) for pattern in config.keep_fp16 or ()],
    }
    for key, names in found.items():
        if names:
            notes.moved_into(("quantization", key), target, ", ".join(names))
        else:
            notes.same_anyway(("quantization", key))
    notes.same_anyway(("quantization", "default_precision"))
    if config.quant_linear_backbone:
        notes.same_anyway(("quantization", "quant_linear_backbone"))
    elif config.quant_backbone:
        key = "quant_backbone" if config.quant_linear_backbone is None else "quant_linear_backbone"
        notes.changed(
            ("quantization", key),
            "a backbone's Linear layers (ConvNeXt has some, SECOND none) stay in float in AWML; here they are in INT8 "
            "unless quantization.sensitive_layers names them",
        )
    return list(dict.fromkeys((*config.sensitive_layers, *(name for names in found.values() for name in names))))


def _expression(pattern: str) -> str:
    """A shell pattern on names of blocks as a regular expression on names of layers; a plain name stays one."""
    if not set(pattern) & set("*?["):
        return pattern
    body = re.sub(r"\\[zZ]$", "", fnmatch.translate(pattern))
    return rf"^{body}(\.|$)"


def _producer(config: AwmlQuantization, section: dict[str, Any], notes: Notes) -> KeyPath:
    """Convert ``ptq`` or ``qat``, whichever the mode says; its key path."""
    producer = ("quantization", config.mode)
    settings = config.ptq if config.mode == "ptq" else config.qat
    if settings is not None and settings.calibrate_samples is not None:
        section["calibration"] = {**section.get("calibration", {}), "num_batches": settings.calibrate_samples}
        notes.moved((*producer, "calibrate_samples"), ("quantization", "calibration", "num_batches"))
    for key, text in _DROPPED_OF_PRODUCER.items():
        value = notes.value(*producer, key)
        if value is not None:
            notes.changed((*producer, key), text.replace(f"--{key} ", f"--{key} {value} "))
    other = ("quantization", "qat" if config.mode == "ptq" else "ptq")
    if notes.value(*other) is not None:
        notes.changed(other, f"dropped: quantization.mode is {config.mode}")
    return producer


def _if_set(notes: Notes, keys: KeyPath) -> KeyPath | None:
    return keys if notes.value(*keys) is not None else None
