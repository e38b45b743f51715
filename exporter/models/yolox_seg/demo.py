"""Train the mask head of the demo YOLOX-ELAN on rendered camera images; the detector stays as it is.

    PYTHONPATH=. python -m exporter.models.yolox_seg.demo --out models/yolox_elan_demo.pth

The head learns from the detector's features of some hundred images, which are computed once and kept in memory: a core
makes three steps a second with them. The checkpoint holds the detector's weights, the very same, and the head's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demo.labels import SEGMENTS
from demo.objects import CLASSES
from exporter.checkpoints import read_checkpoint, read_state_dict
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, Option, Recipe, figures, run
from exporter.models.yolox.demo import build, letterboxed
from exporter.models.yolox.demo_images import CAMERAS, LabeledImage, compressed, held_out_image, training_image
from exporter.models.yolox.graph import STRIDES
from shared.metrics.confusion import UNLABELED, Counts, confusion, mean

RECIPE = Recipe(
    config=Path("configs/train/yolox_seg_demo.py"),
    steps=6000,
    batch=2,
    minutes=20,
    learning_rate=4e-3,
    max_gradient_norm=5.0,
)
DETECTOR = Path("models/yolox_elan_demo.pth")
# Every how many of the evaluation images the figures are of.
HELD_OUT_EVERY = 4


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    # Of the detector, whose checkpoint this is: `meta` keeps what it says of it.
    classes = CLASSES
    unit = "images"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.model, self.size = build(options.config)
        self._detector = json.loads(read_checkpoint(options.detector)["meta"]["held_out"])
        trained = read_state_dict(options.detector)
        detector = {name: value for name, value in trained.items() if not name.startswith("mask_head.")}
        fit = self.model.load_state_dict(detector, strict=False)
        assert not fit.unexpected_keys and all(name.startswith("mask_head.") for name in fit.missing_keys)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("mask_head."))
        self._features = functools.cache(self._features_of)

    def sample(self, index: int) -> int:
        """The number of a training image; every image comes once in every turn."""
        turn, place = divmod(index, self.options.images)
        return int(np.random.default_rng(turn).permutation(self.options.images)[place])

    def collate(self, samples: list[int]) -> tuple[Tensor]:
        """(B,) numbers."""
        return (torch.tensor(samples),)

    def loss(self, batch: tuple[Tensor], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The head's cross entropy, of one pixel of each two by two, which have the same logits."""
        known = [self._features(int(number)) for number in batch[0]]
        levels = [torch.cat(level).float() for level in zip(*(levels for levels, _ in known), strict=True)]
        masks = torch.cat([mask for _, mask in known]).long()
        loss = self.model.mask_head.loss(self.model.mask_head.at_half_size(levels), masks)
        return loss, {"loss": loss}

    def _features_of(self, number: int) -> tuple[list[Tensor], Tensor]:
        """The detector's levels (1, C, H, W) of training image ``number``, in half precision, and its mask at half size
        (1, H, W); both without the lines below the image, of which there is nothing to learn.
        """
        image = compressed(training_image(self.options.seed, number, masks=True), self.options.jpeg)
        levels, mask = features(self.model, image, self.size)
        labeled = (mask != UNLABELED).any(dim=2).nonzero()[-1, 1] + 1
        lines = -(-int(labeled) // max(STRIDES)) * max(STRIDES)
        kept = [level[:, :, : lines // stride].half() for level, stride in zip(levels, STRIDES, strict=True)]
        return kept, mask[:, :lines:2, ::2].clone()

    def held_out(self) -> HeldOut:
        """IoU on evaluation images, as the evaluator computes it, in the pixels of the images."""
        count = len(SEGMENTS)
        pairs = np.zeros((count, count + 1), np.int64)
        self.model.eval()
        for number in range(0, HELD_OUT_FRAMES * CAMERAS, HELD_OUT_EVERY):
            image = held_out_image(HELD_OUT_SEED, HELD_OUT_FRAMES, number, masks=True)
            assert image.mask is not None
            levels, _ = features(self.model, compressed(image, self.options.jpeg), self.size)
            height, width = image.mask.shape
            scale = min(self.size / width, self.size / height)
            meta = {"scale_factor": (scale, scale), "ori_shape": (height, width)}
            with torch.no_grad():
                labels = self.model.mask_head.in_image(self.model.mask_head(levels)[0], meta).argmax(dim=0)
            pairs += confusion(image.mask.ravel(), labels.numpy().astype(np.uint8).ravel(), count)[0]
        counts = Counts.of(pairs)
        metrics = {
            "mIoU": mean(counts.iou) or 0.0,
            **{f"IoU/{name}": float(value) for name, value in zip(SEGMENTS, counts.iou, strict=True)},
        }
        line = f"pixels of every {HELD_OUT_EVERY}th image: {figures(metrics)}"
        return HeldOut([line], {**self._detector, **metrics})


@torch.no_grad()
def features(model: Any, image: LabeledImage, size: int) -> tuple[list[Tensor], Tensor]:
    """The detector's levels of an image, and its mask (1, size, size), scaled to the nearest pixel, as letterboxed.

    The detector is left in evaluation mode, in which batch norms learn nothing.
    """
    for part in (model.backbone, model.neck):
        part.eval()
    pixels, scale = letterboxed(torch.from_numpy(image.pixels[None]), size)
    assert image.mask is not None
    height, width = image.mask.shape
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(image.mask)[None, None].float(), (round(height * scale), round(width * scale)), mode="nearest"
    )[0].to(torch.uint8)
    mask = torch.full((1, size, size), UNLABELED, dtype=torch.uint8)
    mask[:, : scaled.shape[1], : scaled.shape[2]] = scaled
    return list(model.neck(model.backbone(pixels))), mask


if __name__ == "__main__":
    run(
        "exporter.models.yolox_seg.demo",
        __doc__ or "",
        RECIPE,
        Training,
        Option("--jpeg", int, "compress images with this quality; the demo data set has 90", 90),
        Option("--images", int, "training images, all of which are kept in memory", 400),
        Option("--detector", Path, "checkpoint of the detector", DETECTOR),
    )
