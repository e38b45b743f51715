"""Train the demo YOLOX-ELAN on camera images that are rendered as it trains (`exporter.demo_training`).

    PYTHONPATH=. python -m exporter.models.yolox.demo --out models/yolox_elan_demo.pth

mmdet's own losses and assignment; the L1 loss joins for the last part, as in YOLOX's schedule. About 60,000 images take
4.5 minutes on an H200 with 16 cores, of which 15 render. A CPU trains the same way, at a few images a second: enough to
go on from a checkpoint (``--start``), too slow for a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from demo.objects import CLASSES
from exporter.demo_training import (
    HELD_OUT_FRAMES,
    HELD_OUT_SEED,
    HeldOut,
    Option,
    Recipe,
    Samples,
    figures,
    initialize,
    one_thread,
    run,
)
from exporter.models.yolox.demo_images import (
    CAMERAS,
    LabeledImage,
    compressed,
    held_out_image,
    training_image,
)
from exporter.training_config import build_model, read_training_config

RECIPE = Recipe(
    config=Path("configs/train/yolox_elan_demo.py"),
    steps=2500,
    batch=32,
    minutes=4.5,
    learning_rate=2e-3,
    betas=(0.9, 0.99),
    max_gradient_norm=10.0,
)
L1_FROM = 0.8  # share of the training after which the L1 loss joins
FILL = 114.0  # what letterboxing fills with


Batch = tuple[Tensor, list[Tensor], list[Tensor]]


def collate(samples: list[LabeledImage]) -> Batch:
    """Pixels (B, H, W, 3) uint8, and per image corners (N, 4) and labels (N,)."""
    return (
        torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        [torch.from_numpy(sample.corners) for sample in samples],
        [torch.from_numpy(sample.labels) for sample in samples],
    )


def letterboxed(pixels: Tensor, size: int) -> tuple[Tensor, float]:
    """Scale images to fit a square, aligned to its top left corner.

    Args:
        pixels: (B, H, W, 3) uint8.
        size: side of the square [px].

    Returns:
        (B, 3, size, size) float32 in 0-255, and the scale.
    """
    height, width = pixels.shape[1:3]
    scale = min(size / width, size / height)
    values = pixels.permute(0, 3, 1, 2).float()
    values = functional.interpolate(
        values, (round(height * scale), round(width * scale)), mode="bilinear", align_corners=False
    )
    return functional.pad(values, (0, size - values.shape[3], 0, size - values.shape[2]), value=FILL), scale


def build(config_path: Path) -> tuple[Any, int]:
    """Build the model of a training config for training; returns it and the side of its input."""
    config = read_training_config(config_path)
    model = build_model(config, "mmdet")
    initialize(model)
    resize = next(step for step in config.pipeline if step["type"] == "Resize")
    return model, int(max(resize["scale"]))


def head_outputs(model: Any, images: Tensor, amp: bool) -> list[list[Tensor]]:
    """Class scores, boxes and objectness per level, raw, float32."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        outputs = model.bbox_head(model.neck(model.backbone(images.contiguous(memory_format=torch.channels_last))))
    return [[level.float() for level in kind] for kind in outputs]


def loss_of(model: Any, batch: Batch, size: int, amp: bool) -> Tensor:
    """The sum of mmdet's losses of a batch."""
    from mmengine.structures import InstanceData

    images, scale = letterboxed(batch[0], size)
    truths = [
        InstanceData(bboxes=corners * scale, labels=labels) for corners, labels in zip(batch[1], batch[2], strict=True)
    ]
    metas = [{"img_shape": (size, size)}] * len(truths)
    parts = model.bbox_head.loss_by_feat(*head_outputs(model, images, amp), truths, metas)
    total: Tensor = sum(parts.values(), torch.zeros((), device=images.device))
    return total


@torch.no_grad()
def held_out(
    model: Any,
    size: int,
    device: torch.device,
    *,
    workers: int,
    jpeg: int | None = None,
    frames: int = HELD_OUT_FRAMES,
) -> dict[str, float]:
    """AP at IoU 0.5 (11 points, legacy coordinates) on the demo's evaluation images, by mmdet's own prediction."""
    from mmdet.evaluation.functional import eval_map

    model.eval()
    detections, truths = [], []
    # The scenes depend on how many frames the whole data set has.
    samples = Samples(
        lambda index: compressed(held_out_image(HELD_OUT_SEED, HELD_OUT_FRAMES, index), jpeg), frames * CAMERAS
    )
    loader = DataLoader(samples, batch_size=8, num_workers=workers, collate_fn=collate, worker_init_fn=one_thread)
    for pixels, corners, labels in loader:
        images, scale = letterboxed(pixels.to(device), size)
        metas = [{"img_shape": (size, size), "scale_factor": (scale, scale)}] * len(images)
        outputs = head_outputs(model, images, amp=False)
        for detected in model.bbox_head.predict_by_feat(*outputs, metas, rescale=True):
            rows = torch.cat([detected.bboxes, detected.scores[:, None]], dim=1).cpu().numpy()
            detections.append([rows[detected.labels.cpu().numpy() == label] for label in range(len(CLASSES))])
        truths += [
            {"bboxes": boxes.numpy(), "labels": names.numpy()} for boxes, names in zip(corners, labels, strict=True)
        ]
    mean, classes = eval_map(
        detections, truths, iou_thr=0.5, eval_mode="11points", use_legacy_coordinate=True, logger="silent", nproc=1
    )
    return {
        "mAP": float(mean),
        **{f"AP/{name}": float(result["ap"]) for name, result in zip(CLASSES, classes, strict=True)},
    }


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    classes = CLASSES
    unit = "images"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.model, self.size = build(options.config)

    def sample(self, index: int) -> LabeledImage:
        """Training image ``index`` with its boxes."""
        return compressed(training_image(self.options.seed, index), self.options.jpeg)

    def collate(self, samples: list[LabeledImage]) -> Batch:
        """See `collate`."""
        return collate(samples)

    def loss(self, batch: Batch, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of mmdet's losses."""
        self.model.bbox_head.use_l1 = progress >= L1_FROM
        loss = loss_of(self.model, batch, self.size, amp=True)
        return loss, {"loss": loss}

    def held_out(self) -> HeldOut:
        """AP at IoU 0.5."""
        options = self.options
        device = torch.device(options.device)
        metrics = held_out(self.model, self.size, device, workers=options.workers, jpeg=options.jpeg)
        return HeldOut([f"IoU 0.5: {figures(metrics)}"], metrics)


if __name__ == "__main__":
    run(
        "exporter.models.yolox.demo",
        __doc__ or "",
        RECIPE,
        Training,
        Option("--jpeg", int, "compress images with this quality; the demo data set has 90"),
    )
