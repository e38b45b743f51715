"""Train the demo calibration status classifier on scenes that are generated as it trains (`exporter.demo_training`).

    PYTHONPATH=. python -m exporter.models.calibration.demo --out models/calibration_demo.pth \\
        --steps 2000 --batch 2 --draws 1 --minutes 30 --workers 1 --keep work/frames

Every camera image is learned in both states; held-out figures are of the demo's own disturbances, which training never
sees. A step of 24 inputs takes 0.3 s of one core, and rendering a frame of six cameras 0.2 s. With ``--keep``, frames
are rendered once and used again, each time with other disturbances and in another light.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from demo.camera import camera_rig
from demo.recording import record_scene, scene_lengths
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, Option, Recipe, concatenated, figures, run
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.models.calibration.demo_frames import (
    kept_views,
    painted,
    straight_image,
    training_samples,
    training_views,
)
from exporter.models.calibration.image_classifier import build_image_classifier
from shared.data.camera_pairs import STATES
from shared.data.miscalibration import Miscalibration, disturbance_of

RECIPE = Recipe(
    config=Path("configs/train/calibration_demo.py"),
    steps=1500,
    batch=4,
    minutes=4.5,
    learning_rate=2e-3,
    max_gradient_norm=2.0,  # AWML's
    log_every=25,
)
LABEL_SMOOTHING = 0.1  # AWML's
GRAY = 0.45  # of the image that says nothing


def build(config_path: Path) -> Any:
    """Build the classifier of a training config; the weights are random, by the seed of torch."""
    provide_mmcv_ops()
    from mmengine import Config

    model = build_image_classifier(Config.fromfile(config_path).model.to_dict())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


@torch.no_grad()
def held_out(model: Any, device: torch.device, preset: str, frames: int = HELD_OUT_FRAMES) -> dict[str, float]:
    """Return accuracy on the demo's evaluation images, over all and by state: as many samples as the evaluator has.

    Beside it, the accuracy when every image is gray: a network that compares points with the image can't tell then
    (0.5), one that has learned where a rig's points lie still can.
    """
    model.eval()
    law = Miscalibration(preset=preset)
    right: dict[str, list[bool]] = {state: [] for state in STATES}
    without_image: dict[str, list[bool]] = {state: [] for state in STATES}
    for number, length in enumerate(scene_lengths(frames)):
        recording = record_scene(HELD_OUT_SEED, "eval", number, length, cameras=True)
        for index, frame in enumerate(recording.frames):
            for camera in camera_rig():
                image = straight_image(frame.pictures[camera.channel].image, camera)
                name = f"{recording.name}/{index}/{camera.channel}"
                for label, state in enumerate(STATES):
                    wrong = disturbance_of(law, name) if label == 0 else None
                    lidar = painted(frame.key.points, camera, wrong)
                    channels = torch.from_numpy(np.concatenate([image, lidar]) / np.float32(255))[None]
                    right[state].append(int(model(channels.to(device))[0].argmax()) == label)
                    channels[:, :3] = GRAY
                    without_image[state].append(int(model(channels.to(device))[0].argmax()) == label)
    accuracy = {state: float(np.mean(values)) for state, values in right.items()}
    blind = float(np.mean([np.mean(values) for values in without_image.values()]))
    return {"accuracy": float(np.mean([*accuracy.values()])), **accuracy, "with a gray image": blind}


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    classes = STATES

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.unit = f"frames, {2 * len(camera_rig()) * options.draws} inputs each,"
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
        self.model = build(options.config)

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Of training frame ``index``, or with a folder to keep frames in, modulo their number: twelve inputs `draws`
        times, newly disturbed each time, (B, 5, H, W) float16, and their labels (B,)."""
        options = self.options
        if options.keep is None:
            views = training_views(options.seed, index)
        else:
            views = kept_views(options.seed, index % options.frames, options.keep)
        rng = np.random.default_rng([options.seed, index, 1])
        drawn = [training_samples(views, rng, options.preset) for _ in range(options.draws)]
        return concatenated([(torch.from_numpy(inputs), torch.from_numpy(labels)) for inputs, labels in drawn])

    def collate(self, samples: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Those of all frames together."""
        return concatenated(samples)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Cross entropy with smoothed labels."""
        inputs, labels = batch
        images = inputs.to(torch.float32).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(images).float()
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
        return loss, {"loss": loss, "accuracy of the batch": (logits.argmax(1) == labels).float().mean()}

    def held_out(self) -> HeldOut:
        """Accuracy by state."""
        metrics = held_out(self.model, self.device, self.options.preset)
        return HeldOut([f"{len(camera_rig())} cameras in both states: {figures(metrics)}"], metrics)


if __name__ == "__main__":
    run(
        "exporter.models.calibration.demo",
        __doc__ or "",
        RECIPE,
        Training,
        Option("--preset", str, "law of the disturbances: awml or autoware_ml", "awml"),
        Option("--draws", int, "how often a frame's images are used, newly disturbed", 2),
        Option("--keep", Path, "folder for rendered frames, which are then used again and again"),
        Option("--frames", int, "with --keep: how many; 3.3 MB each", 600),
    )
