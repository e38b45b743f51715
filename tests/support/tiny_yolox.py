"""A YOLOX-ELAN small enough for tests: its training config, random weights, images, and specs for stand-in sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.spec import ComponentSpec, ModelSpec, TensorSpec

CLASSES = ["car", "truck", "pedestrian"]
SIZE = 96
STRIDES = (8, 16, 32)
ROWS = sum((SIZE // stride) ** 2 for stride in STRIDES)

TRAINING_CONFIG = f"""
custom_imports = dict(imports=["projects.YOLOX_opt_elan.yolox.models"], allow_failed_imports=False)
act_cfg = dict(type="ReLU6")
model = dict(
    type="YOLOX",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
    backbone=dict(type="ELANDarknet", deepen_factor=1, widen_factor=0.125, out_indices=(2, 3, 4), act_cfg=act_cfg),
    neck=dict(type="YOLOXPAFPN_ELAN", in_channels=[16, 32, 64], out_channels=16, num_elan_blocks=1, act_cfg=act_cfg),
    bbox_head=dict(type="YOLOXHead", num_classes={len(CLASSES)}, in_channels=16, feat_channels=16, act_cfg=act_cfg),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=({SIZE}, {SIZE}), keep_ratio=True),
    dict(type="Pad", pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(
    dataset=dict(type="T4Dataset", metainfo=dict(classes={CLASSES!r}), pipeline=test_pipeline))
"""


def write_config(folder: Path, text: str = TRAINING_CONFIG) -> Path:
    """The training config as a file."""
    path = folder / "tiny_yolox.py"
    path.write_text(text)
    return path


def write_images(folder: Path, sizes: tuple[tuple[int, int], ...] = ((120, 80), (60, 100), (96, 96))) -> list[Path]:
    """Images of given width and height, of noise and rectangles."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(sizes):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.rectangle(image, (5, 5), (width // 2, height // 2), (40, 200, 90), -1)
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


def built(
    folder: Path, options: dict[str, Any] | None = None, text: str = TRAINING_CONFIG, seed: int | None = 0
) -> tuple[Any, Any, Any]:
    """Model with random weights, its training config, and its checked options.

    Without a seed the weights are PyTorch's own, and batch norms have seen noise: for networks whose activations have
    no limit.
    """
    import torch

    from exporter.models.yolox import adapter as yolox
    from exporter.training_config import random_weights, read_training_config

    # The same weights whatever ran before in the process.
    torch.manual_seed(1)
    training = read_training_config(write_config(folder, text))
    checked = yolox.read_options(options or {})
    model = yolox.build(training, checked)
    if seed is not None:
        random_weights(model, seed=seed)
    else:
        settle(model)
    return model, training, checked


def settle(model: Any) -> None:
    """Give batch norms the statistics of noise images, layer by layer."""
    import torch

    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, 3, SIZE, SIZE) * 255, mode="tensor")
    model.eval()


def parameters(**changes: Any) -> dict[str, Any]:
    """Parameters of a model spec."""
    return {
        "image": {
            "height": SIZE,
            "width": SIZE,
            "fill": 114,
            "color": "bgr",
            "mean": None,
            "std": None,
            "resize": "mmdet",
        },
        "strides": list(STRIDES),
        "output": "raw",
        "score_threshold": 0.01,
        "nms": {"convention": "mmdet", "iou_threshold": 0.65, "class_agnostic": False, "max_boxes": None},
        **changes,
    }


def spec(batch: int | str = 1, size: int = SIZE, **changes: Any) -> ModelSpec:
    """A model spec of rows, for square images of a size."""
    rows = sum((size // stride) ** 2 for stride in STRIDES)
    changes.setdefault("image", {**parameters()["image"], "height": size, "width": size})
    component = ComponentSpec(
        name="yolox",
        inputs=[TensorSpec(name="images", dtype="float32", shape=[batch, 3, size, size])],
        outputs=[TensorSpec(name="output", dtype="float32", shape=[batch, rows, 5 + len(CLASSES)])],
        onnx="onnx/yolox.onnx",
    )
    return ModelSpec(
        model="yolox", task="detection2d", classes=CLASSES, components=[component], parameters=parameters(**changes)
    )


class StandIn:
    """A session whose network answers with given rows (N, 5 + C), whatever the image."""

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, rows: npt.NDArray[np.float32]) -> None:
        self.rows = rows
        self.images: npt.NDArray[np.float32] | None = None

    def run(self, component: str, inputs: Any) -> dict[str, npt.NDArray[np.float32]]:
        """The rows, for every image of the batch."""
        self.images = inputs["images"].copy()
        return {"output": np.repeat(self.rows[None], len(self.images), axis=0)}


def random_rows(seed: int, count: int = ROWS) -> npt.NDArray[np.float32]:
    """Rows as a network gives them: offsets and logarithms about 0, probabilities from 0 to 1."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.7, (count, 5 + len(CLASSES)))
    rows[:, 4:] = rng.uniform(0, 1, (count, 1 + len(CLASSES))) ** 3
    return rows.astype(np.float32)
