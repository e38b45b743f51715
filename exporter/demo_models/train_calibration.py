"""Train the demo calibration status classifier on scenes that are generated as it trains.

    PYTHONPATH=. python -m exporter.demo_models.train_calibration --out models/calibration_demo.pth \\
        --steps 2000 --batch 2 --draws 1 --minutes 30 --workers 1 --keep work/frames

Frames of split ``train``, every camera image in both states; held-out figures come from split ``eval`` with the demo's
own seed and its own disturbances, which training never sees. The learning rate follows one cycle over the steps, or
over the time allowed where that is shorter.

A step of 24 inputs takes 0.3 s of one core, and rendering a frame of six cameras 0.2 s. With ``--keep``, frames are
rendered once and used again, each time with other disturbances and in another light.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from demo.camera import camera_rig
from demo.recording import record_scene, scene_lengths
from exporter.demo_models.calibration_frames import (
    kept_views,
    lidar_channels,
    straight_image,
    training_samples,
    training_views,
)
from exporter.demo_models.recipe import Log, half_precision, one_thread, source_digest
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.models.calibration.image_classifier import build_image_classifier
from exporter.schedule import one_cycle
from shared.data.miscalibration import Miscalibration, disturbance_of

HELD_OUT_SEED, HELD_OUT_FRAMES = 7, 40  # what `python -m demo generate` makes by default, and the demo evaluates on
STATES = ("miscalibrated", "calibrated")

MAX_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 2.0  # AWML's
LABEL_SMOOTHING = 0.1  # AWML's
GRAY = 0.45  # of the image that says nothing
LOG_EVERY = 25  # steps


class Frames(Dataset[tuple[Tensor, Tensor]]):
    """Item i is training frame i, or with a folder to keep frames in, i modulo their number.

    An item has twelve inputs and their labels `draws` times, newly disturbed each time.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def __len__(self) -> int:
        return int(self.options.steps * self.options.batch)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        options = self.options
        if options.keep is None:
            views = training_views(options.seed, index)
        else:
            views = kept_views(options.seed, index % options.frames, options.keep)
        rng = np.random.default_rng([options.seed, index, 1])
        parts = [training_samples(views, rng, options.preset) for _ in range(options.draws)]
        inputs = np.concatenate([part[0] for part in parts])
        return torch.from_numpy(inputs), torch.from_numpy(np.concatenate([part[1] for part in parts]))


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
def held_out(model: Any, device: torch.device, preset: str) -> dict[str, float]:
    """Return accuracy on the demo's evaluation images, over all and by state: as many samples as the evaluator has.

    Beside it, the accuracy when every image is gray: a network that compares points with the image can't tell then
    (0.5), one that has learned where a rig's points lie still can.
    """
    model.eval()
    law = Miscalibration(preset=preset)
    right: dict[str, list[bool]] = {state: [] for state in STATES}
    without_image: dict[str, list[bool]] = {state: [] for state in STATES}
    for number, length in enumerate(scene_lengths(HELD_OUT_FRAMES)):
        recording = record_scene(HELD_OUT_SEED, "eval", number, length, cameras=True)
        for index, frame in enumerate(recording.frames):
            for camera in camera_rig():
                image = straight_image(frame.pictures[camera.channel].image, camera.channel)
                name = f"{recording.name}/{index}/{camera.channel}"
                for label, state in enumerate(STATES):
                    wrong = disturbance_of(law, name) if label == 0 else None
                    lidar = lidar_channels(frame.key.points, camera, wrong)
                    channels = torch.from_numpy(np.concatenate([image, lidar]) / np.float32(255))[None]
                    right[state].append(int(model(channels.to(device))[0].argmax()) == label)
                    channels[:, :3] = GRAY
                    without_image[state].append(int(model(channels.to(device))[0].argmax()) == label)
    accuracy = {state: float(np.mean(values)) for state, values in right.items()}
    blind = float(np.mean([np.mean(values) for values in without_image.values()]))
    return {"accuracy": float(np.mean([*accuracy.values()])), **accuracy, "with a gray image": blind}


def train(model: Any, options: argparse.Namespace, log: Log) -> int:
    """Train in place; returns the number of steps done."""
    device = torch.device(options.device)
    loader = DataLoader(
        Frames(options),
        batch_size=options.batch,
        num_workers=options.workers,
        collate_fn=_joined,
        worker_init_fn=one_thread,
        prefetch_factor=2 if options.workers else None,
    )
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    model.train()
    started = time.monotonic()
    step = 0
    for step, (inputs, labels) in enumerate(loader, start=1):
        elapsed = time.monotonic() - started
        progress = max(step / options.steps, elapsed / (60 * options.minutes))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(progress, MAX_LEARNING_RATE)
        images = inputs.to(device, torch.float32).contiguous(memory_format=torch.channels_last)
        target = labels.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(images).float()
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        if step % LOG_EVERY == 0 or step == 1 or progress >= 1.0:
            now = float(loss.detach())
            accuracy = float((logits.detach().argmax(1) == target).float().mean())
            log.line(
                f"step {step:6d}  {elapsed:6.1f} s  lr {one_cycle(progress, MAX_LEARNING_RATE):.2e}  loss {now:.4f}  "
                f"accuracy of the batch {accuracy:.3f}"
            )
            if not math.isfinite(now):
                raise FloatingPointError(f"the loss is not finite at step {step}; try another --seed")
        if progress >= 1.0:
            break
    return step


def _joined(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([inputs for inputs, _ in items]), torch.cat([labels for _, labels in items])


def main() -> None:
    """Train, round the weights to half precision, evaluate what was rounded, and save it with its log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/train/calibration_demo.py"))
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write; the log goes beside it (.log)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes, weights, disturbances and augmentation")
    parser.add_argument("--preset", default="awml", help="law of the disturbances: awml or autoware_ml")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=4, help="frames a step")
    parser.add_argument("--draws", type=int, default=2, help="how often a frame's images are used, newly disturbed")
    parser.add_argument("--minutes", type=float, default=4.5, help="end after this time at the latest")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate scenes")
    parser.add_argument("--keep", type=Path, help="folder for rendered frames, which are then used again and again")
    parser.add_argument("--frames", type=int, default=600, help="with --keep: how many; 3.3 MB each")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # the held-out figures are those of full single precision
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    log = Log()
    log.line("command: python -m exporter.demo_models.train_calibration " + " ".join(sys.argv[1:]))
    log.line(f"seed: {options.seed}  sources: {source_digest()}")
    log.line(f"torch {torch.__version__}, Python {platform.python_version()}, {hardware}, {options.workers} workers")
    model = build(options.config)
    model.to(device, memory_format=torch.channels_last)
    log.line(f"parameters: {sum(p.numel() for p in model.parameters())}")
    started = time.monotonic()
    steps = train(model, options, log)
    seconds = time.monotonic() - started
    images = 2 * len(camera_rig()) * options.draws * options.batch
    log.line(f"trained {steps} steps of {images} inputs ({options.batch} frames) in {seconds:.0f} s")
    state = half_precision(model.state_dict())
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in state.items()})
    accuracy = held_out(model, device, options.preset)
    log.line(f"held out: split eval, seed {HELD_OUT_SEED}, {HELD_OUT_FRAMES} frames of {len(camera_rig())} cameras in "
             "both states, weights in half precision")  # fmt: skip
    log.line("  ".join(f"{name} {value:.4f}" for name, value in accuracy.items()))
    meta = {"seed": options.seed, "steps": steps, "classes": list(STATES), "held_out": json.dumps(accuracy)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "meta": meta}, options.out)
    options.out.with_suffix(".log").write_text("\n".join(log.lines) + "\n")


if __name__ == "__main__":
    main()
