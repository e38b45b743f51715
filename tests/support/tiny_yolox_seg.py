"""A YOLOX-ELAN with a mask head small enough for tests: its training config, and specs for stand-in sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from tests.support import tiny_yolox as tiny

MASK_CLASSES = ["car", "truck", "road", "sky"]
CLASSES = [*(f"detection2d/{name}" for name in tiny.CLASSES), *(f"segmentation2d/{name}" for name in MASK_CLASSES)]

TRAINING_CONFIG = (
    tiny.TRAINING_CONFIG.replace('type="YOLOX",', 'type="YOLOXMultiTask",')
    .replace(
        '"projects.YOLOX_opt_elan.yolox.models"',
        '"projects.YOLOX_opt_elan.yolox.models", "projects.YOLOX_opt_elan.yolox.models.yolox_multitask"',
    )
    .replace(
        "    test_cfg=",
        f'    mask_head=dict(type="YOLOXSegHead", in_channels=[16, 16, 16], feat_channels=16,\n'
        f"        num_classes={len(MASK_CLASSES)}, act_cfg=act_cfg, loss=dict(type='CrossEntropyLoss')),\n"
        "    test_cfg=",
    )
)


def built(folder: Path, options: dict[str, Any], text: str = TRAINING_CONFIG) -> tuple[Any, Any, Any]:
    """Model with random weights and logits of a trained one's size, its training config, and its checked options."""
    import torch

    from exporter.models.yolox_seg import adapter
    from exporter.training_config import random_weights, read_training_config

    torch.manual_seed(1)
    training = read_training_config(tiny.write_config(folder, text))
    checked = adapter.read_options({"mask_classes": MASK_CLASSES, **options})
    model = adapter.build(training, checked)
    random_weights(model, seed=0)
    out_conv = model.mask_head.out_conv
    with torch.no_grad():
        features = model.mask_head.at_half_size(model.extract_feat(torch.rand(1, 3, tiny.SIZE, tiny.SIZE) * 255))
        out_conv.weight.mul_(3 / features.std())
        out_conv.bias.zero_()
    return model, training, checked


def spec(**changes: Any) -> ModelSpec:
    """A model spec."""
    size = tiny.SIZE
    mask = {"convention": changes.pop("mask", "awml"), "compared_every": 4}
    return ModelSpec(
        model="yolox_seg",
        task="detection2d+segmentation2d",
        classes=CLASSES,
        components=[
            ComponentSpec(
                name="yolox",
                inputs=[TensorSpec(name="images", dtype="float32", shape=[1, 3, size, size])],
                outputs=[
                    TensorSpec(name="output", dtype="float32", shape=[1, tiny.ROWS, 5 + len(tiny.CLASSES)]),
                    TensorSpec(name="mask", dtype="float32", shape=[1, len(MASK_CLASSES), size, size]),
                ],
                onnx="onnx/yolox.onnx",
            )
        ],
        parameters={**tiny.parameters(**changes), "mask": mask},
    )


class StandIn:
    """A session whose network answers with given rows (N, 5 + C) and probabilities (K, H, W), whatever the image."""

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, rows: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]) -> None:
        self.rows, self.probabilities = rows, probabilities

    def run(self, component: str, inputs: Any) -> dict[str, npt.NDArray[np.float32]]:
        """Both, for one image."""
        return {"output": self.rows[None], "mask": self.probabilities[None]}
