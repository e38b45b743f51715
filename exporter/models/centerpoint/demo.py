"""Train the demo CenterPoint on scenes that are generated as it trains (`exporter.demo_training`).

    PYTHONPATH=. python -m exporter.models.centerpoint.demo --out models/centerpoint_demo.pth

8,000 steps of 8 frames take 6.5 minutes on an H200 with 16 cores, of which 15 generate scenes. A CPU trains the same
way, at about one frame a second on two cores: enough to try a change, too slow for a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from demo.objects import CLASSES
from demo.recording import record_scene, scene_lengths
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, Recipe, figures, run
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.models.centerpoint.demo_frames import (
    Grid,
    augmented,
    head_targets,
    labeled_boxes,
    merged_points,
    training_frame,
)
from shared.metrics import nuscenes
from shared.tasks.detection3d import Boxes3D

RANGES = (50.0, 121.0)  # [m]

RECIPE = Recipe(
    config=Path("configs/train/centerpoint_demo.py"),
    steps=8000,
    batch=8,
    minutes=6.5,
    learning_rate=3e-3,
    betas=(0.95, 0.99),
    max_gradient_norm=10.0,
)


class Frames(Dataset[dict[str, Any]]):
    """Sample i is training frame i, augmented: points (n, 4) and the head's targets."""

    def __init__(self, seed: int, count: int, grid: Grid) -> None:
        self.seed, self.count, self.grid = seed, count, grid

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        frame = training_frame(self.seed, index)
        points, boxes = augmented(merged_points(frame), labeled_boxes(frame), np.random.default_rng([self.seed, index]))
        return {"points": points, **head_targets(boxes, self.grid)}


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack targets; join points to one tensor (n, 5) with the sample's number in front."""
    points = [
        np.concatenate([np.full((len(s["points"]), 1), i, np.float32), s["points"]], axis=1)
        for i, s in enumerate(samples)
    ]
    batch = {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in ("cells", "values", "mask")}
    batch["heatmap"] = torch.from_numpy(np.stack([s["heatmap"] for s in samples]).astype(np.float16))
    batch["points"] = torch.from_numpy(np.concatenate(points))
    return batch


def voxelize(points: Tensor, layer: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Group points into pillars, the first `max_num_points` of each; there is no limit on pillars.

    Args:
        points: (n, 1 + F), sample number, x, y, z and other features.
        layer: the config's ``voxel_layer``.

    Returns:
        voxels (V, max_num_points, F), padded with zeros; number of points (V,); cells (V, 4) as sample, z, y, x.
    """
    low = points.new_tensor(layer["point_cloud_range"][:3])
    high = points.new_tensor(layer["point_cloud_range"][3:])
    size = points.new_tensor(layer["voxel_size"])
    limit: int = layer["max_num_points"]
    grid = torch.round((high - low) / size).long()
    cell = torch.floor((points[:, 1:4] - low) / size).long()
    inside = ((cell >= 0) & (cell < grid)).all(dim=1)
    points, cell = points[inside], cell[inside]
    flat = ((points[:, 0].long() * grid[2] + cell[:, 2]) * grid[1] + cell[:, 1]) * grid[0] + cell[:, 0]
    order = torch.argsort(flat, stable=True)
    pillars, pillar, counts = torch.unique_consecutive(flat[order], return_inverse=True, return_counts=True)
    slot = torch.arange(len(order), device=points.device) - (torch.cumsum(counts, 0) - counts)[pillar]
    kept = slot < limit
    voxels = points.new_zeros(len(pillars), limit, points.shape[1] - 1)
    voxels[pillar[kept], slot[kept]] = points[order[kept], 1:]
    x, rest = pillars % grid[0], pillars // grid[0]
    y, rest = rest % grid[1], rest // grid[1]
    cells = torch.stack([rest // grid[2], rest % grid[2], y, x], dim=1).int()
    return voxels, counts.clamp(max=limit), cells


def head_outputs(model: Any, points: Tensor, batch_size: int, layer: dict[str, Any], amp: bool) -> dict[str, Tensor]:
    """Run the model on joined points; returns the head's raw maps by name."""
    voxels, counts, cells = voxelize(points, layer)
    # The encoder stays in float32: coordinates of 100 m need more digits than bfloat16 has.
    pillars = model.pts_voxel_encoder(voxels, counts, cells)
    with torch.autocast(points.device.type, torch.bfloat16, enabled=amp):
        canvas = model.pts_middle_encoder(pillars, cells, batch_size)
        canvas = canvas.contiguous(memory_format=torch.channels_last)
        outputs: dict[str, Tensor] = model.pts_bbox_head(model.pts_neck(model.pts_backbone(canvas)))[0][0]
    return {name: value.float() for name, value in outputs.items()}


def losses(outputs: dict[str, Tensor], batch: dict[str, Tensor], code_weights: list[float]) -> tuple[Tensor, Tensor]:
    """Return CenterHead's two losses: Gaussian focal loss of the heat map, L1 of the boxes (weight 0.25)."""
    target = batch["heatmap"].float()
    score = torch.sigmoid(outputs["heatmap"]).clamp(1e-4, 1 - 1e-4)
    center = (target == 1.0).float()
    positive = -torch.log(score) * (1 - score) ** 2 * center
    negative = -torch.log(1 - score) * score**2 * (1 - target) ** 4
    heat = (positive + negative).sum() / center.sum().clamp(min=1.0)
    maps = torch.cat([outputs[name] for name in ("reg", "height", "dim", "rot", "vel")], dim=1).flatten(2)
    predicted = maps.gather(2, batch["cells"][:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    weights = batch["mask"][..., None] * maps.new_tensor(code_weights)
    box = 0.25 * ((predicted - batch["values"]).abs() * weights).sum() / batch["mask"].sum().clamp(min=1.0)
    return heat, box


def build(config_path: Path) -> tuple[Any, dict[str, Any]]:
    """Build the model of a training config for training; returns it and the ``model`` section."""
    provide_mmcv_ops()
    import mmdet3d.models  # noqa: F401  registers the module types
    from mmdet3d.registry import MODELS
    from mmengine import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet3d")
    MMLogger.get_instance("mmengine", log_level="WARNING")  # it reports the initialization of every tensor otherwise
    config = Config.fromfile(config_path)
    section = config.model.to_dict()
    model = MODELS.build(config.model)
    model.init_weights()
    return model, section


@torch.no_grad()
def held_out(
    model: Any, section: dict[str, Any], device: torch.device, frames: int = HELD_OUT_FRAMES
) -> dict[str, dict[str, float]]:
    """Return the metrics on the demo's evaluation frames, by range: mmdet3d's own decoding and suppression."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    model.eval()
    predictions, truths = [], []
    for number, length in enumerate(scene_lengths(frames)):
        for frame in record_scene(HELD_OUT_SEED, "eval", number, length, cameras=False).frames:
            merged = torch.from_numpy(merged_points(frame)).to(device)
            points = torch.cat([torch.zeros_like(merged[:, :1]), merged], dim=1)
            outputs = head_outputs(model, points, 1, section["data_preprocessor"]["voxel_layer"], amp=False)
            sample = Det3DDataSample(metainfo={"box_type_3d": LiDARInstance3DBoxes})
            detections = model.pts_bbox_head.predict_by_feat(([outputs],), [sample.metainfo])[0].cpu().numpy()
            boxes = detections.bboxes_3d.tensor
            predictions.append(
                Boxes3D.build(
                    boxes[:, :3], boxes[:, 3:6], boxes[:, 6], boxes[:, 7:9], detections.labels_3d, detections.scores_3d
                )
            )
            truth = labeled_boxes(frame)
            truths.append(Boxes3D.build(truth.centers, truth.sizes, truth.yaws, truth.velocities, truth.labels))
    scores = {limit: nuscenes.score_frames(predictions, truths, CLASSES, limit) for limit in RANGES}
    return {f"0-{limit:.0f} m": _numbers(score) for limit, score in scores.items()}


def _numbers(score: nuscenes.NuscenesScore) -> dict[str, float]:
    """What the checkpoint and the log keep of the metric."""
    numbers: dict[str, float] = {}
    for name, values in score.classes.items():
        numbers |= {f"AP/{name}": values.mean_average_precision, f"AOE/{name}": values.errors["AOE"]}
    return {**numbers, "mAP": score.mean_average_precision, "mAOE": score.errors["AOE"], "mAVE": score.errors["AVE"]}


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    classes = CLASSES
    unit = "frames"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.model, self.section = build(options.config)

    def samples(self) -> Frames:
        """Frames with the head's targets."""
        return Frames(self.options.seed, self.options.steps * self.options.batch, Grid.from_config(self.section))

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """See `collate`."""
        return collate(samples)

    def loss(self, batch: dict[str, Tensor], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The two losses of the head."""
        layer = self.section["data_preprocessor"]["voxel_layer"]
        amp = self.device.type == "cuda"
        outputs = head_outputs(self.model, batch["points"], self.options.batch, layer, amp)
        heat, box = losses(outputs, batch, self.section["train_cfg"]["pts"]["code_weights"])
        return heat + box, {"heat map": heat, "boxes": box}

    def held_out(self) -> HeldOut:
        """Metrics by range."""
        metrics = held_out(self.model, self.section, self.device)
        return HeldOut([f"{limit}: {figures(values)}" for limit, values in metrics.items()], metrics)


if __name__ == "__main__":
    run("exporter.models.centerpoint.demo", __doc__ or "", RECIPE, Training)
