"""Train the demo FRNet on scenes that are generated as it trains (`exporter.demo_training`).

    PYTHONPATH=. python -m exporter.models.frnet.demo --out models/frnet_demo.pth

A CPU trains it: a frame takes about a second on one core, and another core makes the scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.labels import SEGMENTS
from demo.lidar import POSITION
from demo.recording import Sweep, draw_scene, record_frame, record_scene, scene_lengths
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, Recipe, figures, run
from exporter.models.frnet.build import build, classes
from exporter.models.frnet.components import padded, strides
from exporter.models.frnet.framework import answer, grouped, interpolated, prepared
from exporter.models.frnet.frustums import PaddedFrustums
from exporter.models.frnet.options import Options
from exporter.training_config import read_training_config
from shared.metrics.confusion import Counts, agreement, confusion

RECIPE = Recipe(
    config=Path("configs/train/frnet_demo.py"),
    steps=2500,
    batch=1,
    minutes=55.0,
    learning_rate=4e-3,
    max_gradient_norm=10.0,
    significant_bits=8,
)
OPTIONS = Options(points_per_frustum=16, sensor_position=tuple(POSITION.tolist()))
FRAMES_PER_TRAINING_SCENE = 2
# In the cross-entropy, of the classes in their order: what there is little of counts more.
WEIGHTS = (1.5, 2.0, 4.0, 4.0, 5.0, 0.7, 1.0, 0.7, 1.0)


def training_sample(model: Any, sweep: Sweep) -> tuple[Tensor, ...]:
    """Inputs of the padded form, then labels (N,) int64 of their points."""
    assert sweep.labels is not None
    points, usable = prepared(model, sweep.points[:, :4])
    labels, seen = sweep.labels[usable].astype(np.int64), model.data_preprocessor
    _, added = interpolated(points[: len(labels)], model.deploy.interpolation, seen.fov_up, seen.fov_down, labels)
    ignored = model.decode_head.ignore_index
    targets = torch.from_numpy(np.concatenate([labels, np.where(added < 0, ignored, added)]))
    return (*padded(grouped(model, points), model, OPTIONS.points_per_frustum), targets)


def lovasz(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The Lovász extension of 1 - IoU (Berman et al., 2018), mean over the classes that are there.

    Args:
        probabilities: (N, C).
        labels: (N,) in 0 … C - 1.
    """

    def of_classes() -> Iterator[Tensor]:
        for label in torch.unique(labels).tolist():
            wanted = (labels == label).to(probabilities.dtype)
            errors, order = (wanted - probabilities[:, label]).abs().sort(descending=True)
            truth = wanted[order]
            missed = truth.sum() - truth.cumsum(0)
            union = truth.sum() + (1 - truth).cumsum(0)
            loss = 1 - missed / union
            yield errors @ torch.cat([loss[:1], loss[1:] - loss[:-1]])

    return torch.stack(list(of_classes())).mean()


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    unit = "frames"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.model: nn.Module = build(read_training_config(options.config), OPTIONS)
        self.model.requires_grad_(True)
        self.classes = classes(self.model)

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Of training frame ``index``: see `training_sample`."""
        seed, (number, which) = self.options.seed, divmod(index, FRAMES_PER_TRAINING_SCENE)
        scene = draw_scene(seed, "train", number, FRAMES_PER_TRAINING_SCENE)
        frame = record_frame(scene, seed, "train", number, which, cameras=False, previous=False, labels=True)
        return training_sample(self.model, frame.key)

    def collate(self, samples: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """As they are: frames have different numbers of points, and go through the network one by one."""
        return samples

    def loss(self, batch: list[tuple[Tensor, ...]], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Cross-entropy of the points, and what is missing in the IoU of the classes."""
        model: Any = self.model
        weights = torch.tensor(WEIGHTS)
        parts = []
        for points, *index, labels in batch:
            frustums = PaddedFrustums(model.backbone.size, strides(model), *index)
            logits = model(points, frustums)
            judged = labels != model.decode_head.ignore_index
            entropy = functional.cross_entropy(logits[judged], labels[judged], weights.to(logits.device))
            parts.append(torch.stack([entropy, lovasz(logits[judged].softmax(dim=1), labels[judged])]))
        entropy, missing = torch.stack(parts).mean(dim=0)
        return entropy + missing, {"cross-entropy": entropy, "1 - IoU": missing}

    def held_out(self) -> HeldOut:
        """mIoU on the demo's evaluation frames."""
        self.model.eval()
        count = len(self.classes)
        pairs = np.zeros((count, count + 1), np.int64)
        for number, frames in enumerate(scene_lengths(HELD_OUT_FRAMES)):
            recorded = record_scene(HELD_OUT_SEED, "eval", number, frames, cameras=False, labels=True)
            for frame in recorded.frames:
                points = torch.from_numpy(frame.key.points[:, :4].copy())
                _, found, _ = answer(self.model, points.to(self.options.device))
                assert frame.key.labels is not None
                pairs += confusion(frame.key.labels, found.labels, count)[0]
        values = {f"IoU/{name}": float(iou) for name, iou in zip(self.classes, Counts.of(pairs).iou, strict=True)}
        metrics = {**agreement(pairs), **values}
        return HeldOut([figures(metrics)], metrics)


if __name__ == "__main__":
    assert SEGMENTS[:8] == ("car", "truck", "bus", "bicycle", "pedestrian", "road", "sidewalk", "structure")
    run("exporter.models.frnet.demo", __doc__ or "", RECIPE, Training)
