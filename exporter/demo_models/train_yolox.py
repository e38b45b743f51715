"""Train the demo YOLOX-ELAN on camera images that are rendered as it trains.

    PYTHONPATH=. python -m exporter.demo_models.train_yolox --out models/yolox_elan_demo.pth

One pass over fresh images of split ``train``, with mmdet's own losses and assignment; held-out figures come from split
``eval`` with the demo's own seed, which training never sees. The learning rate follows one cycle over the steps, or
over the time allowed where that is shorter; the L1 loss joins for the last part, as in YOLOX's schedule.

About 60,000 images take 4.5 minutes on an H200 with 16 cores, of which 15 render. A CPU trains the same way, at a few
images a second: enough to go on from a checkpoint (``--start``), too slow for a model.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from demo.objects import CLASSES
from exporter.checkpoints import load_weights
from exporter.demo_models.pictures import (
    CAMERAS,
    LabeledPicture,
    compressed,
    held_out_picture,
    training_picture,
)
from exporter.demo_models.recipe import Log, half_precision, one_thread, source_digest
from exporter.schedule import one_cycle
from exporter.training_config import build_model, read_training_config

HELD_OUT_SEED, HELD_OUT_FRAMES = 7, 40  # what `python -m demo generate` makes by default, and the demo evaluates on

MAX_LEARNING_RATE = 2e-3
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 10.0
L1_FROM = 0.8  # share of the training after which the L1 loss joins
FILL = 114.0  # what letterboxing fills with
LOG_EVERY = 50  # steps


class Pictures(Dataset[LabeledPicture]):
    """Sample i is training image i, or held-out image i; compressed, with a JPEG quality."""

    def __init__(self, seed: int, count: int, held_out: bool, jpeg: int | None) -> None:
        self.seed, self.count, self.held_out, self.jpeg = seed, count, held_out, jpeg

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabeledPicture:
        if self.held_out:
            taken = held_out_picture(self.seed, HELD_OUT_FRAMES, index)
        else:
            taken = training_picture(self.seed, index)
        return taken if self.jpeg is None else compressed(taken, self.jpeg)


Batch = tuple[Tensor, list[Tensor], list[Tensor]]


def collate(pictures: list[LabeledPicture]) -> Batch:
    """Pixels (B, H, W, 3) uint8, and per image corners (N, 4) and labels (N,)."""
    return (
        torch.from_numpy(np.stack([taken.pixels for taken in pictures])),
        [torch.from_numpy(taken.corners) for taken in pictures],
        [torch.from_numpy(taken.labels) for taken in pictures],
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
    from mmengine.logging import MMLogger

    MMLogger.get_instance("mmengine", log_level="WARNING")  # it reports the initialization of every tensor otherwise
    config = read_training_config(config_path)
    model = build_model(config, "mmdet")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.init_weights()
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
def held_out(model: Any, size: int, device: torch.device, workers: int, jpeg: int | None = None) -> dict[str, float]:
    """AP at IoU 0.5 (11 points, legacy coordinates) on the demo's evaluation images, by mmdet's own prediction."""
    from mmdet.evaluation.functional import eval_map

    model.eval()
    detections, truths = [], []
    pictures = Pictures(HELD_OUT_SEED, HELD_OUT_FRAMES * CAMERAS, held_out=True, jpeg=jpeg)
    loader = DataLoader(pictures, batch_size=8, num_workers=workers, collate_fn=collate, worker_init_fn=one_thread)
    for pixels, corners, labels in loader:
        images, scale = letterboxed(pixels.to(device), size)
        metas = [{"img_shape": (size, size), "scale_factor": (scale, scale)}] * len(images)
        outputs = head_outputs(model, images, amp=False)
        for found in model.bbox_head.predict_by_feat(*outputs, metas, rescale=True):
            rows = torch.cat([found.bboxes, found.scores[:, None]], dim=1).cpu().numpy()
            detections.append([rows[found.labels.cpu().numpy() == label] for label in range(len(CLASSES))])
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


def train(model: Any, size: int, options: argparse.Namespace, log: Log) -> int:
    """Train in place; returns the number of steps done."""
    device = torch.device(options.device)
    loader = DataLoader(
        Pictures(options.seed, options.steps * options.batch, held_out=False, jpeg=options.jpeg),
        batch_size=options.batch,
        num_workers=options.workers,
        collate_fn=collate,
        worker_init_fn=one_thread,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if options.workers else None,
    )
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    model.train()
    started = time.monotonic()
    step = 0
    for step, batch in enumerate(_on_device(loader, device), start=1):
        elapsed = time.monotonic() - started
        progress = max(step / options.steps, elapsed / (60 * options.minutes))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(progress, options.rate)
        model.bbox_head.use_l1 = progress >= L1_FROM
        loss = loss_of(model, batch, size, amp=True)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        if step % LOG_EVERY == 0 or step == 1 or progress >= 1.0:
            now = float(loss.detach())
            log.line(f"step {step:6d}  {elapsed:6.1f} s  lr {one_cycle(progress, options.rate):.2e}  loss {now:.3f}")
            if not math.isfinite(now):
                raise FloatingPointError(f"the loss is not finite at step {step}; try another --seed")
        if progress >= 1.0:
            break
    return step


def _on_device(loader: DataLoader[Any], device: torch.device) -> Iterator[Batch]:
    for pixels, corners, labels in loader:
        yield (
            pixels.to(device, non_blocking=True),
            [boxes.to(device, non_blocking=True) for boxes in corners],
            [names.to(device, non_blocking=True) for names in labels],
        )


def main() -> None:
    """Train, round the weights to half precision, evaluate what was rounded, and save it with its log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/train/yolox_elan_demo.py"))
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write; the log goes beside it (.log)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=4.5, help="end after this time at the latest")
    parser.add_argument("--workers", type=int, default=2, help="processes that render images")
    parser.add_argument("--rate", type=float, default=MAX_LEARNING_RATE, help="the greatest learning rate")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, with a smaller --rate and another --seed")
    parser.add_argument("--jpeg", type=int, help="compress images with this quality; the demo data set has 90")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    # Full single precision outside autocast, for the held-out figures.
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    log = Log()
    log.line("command: python -m exporter.demo_models.train_yolox " + " ".join(sys.argv[1:]))
    log.line(f"seed: {options.seed}  sources: {source_digest()}")
    log.line(f"torch {torch.__version__}, Python {platform.python_version()}, {hardware}, {options.workers} workers")
    model, size = build(options.config)
    if options.start is not None:
        load_weights(model, options.start)
    model.to(device, memory_format=torch.channels_last)
    log.line(f"parameters: {sum(p.numel() for p in model.parameters())}")
    started = time.monotonic()
    steps = train(model, size, options, log)
    log.line(f"trained {steps} steps of {options.batch} images in {time.monotonic() - started:.0f} s")
    state = half_precision(model.state_dict())
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in state.items()})
    metrics = held_out(model, size, device, options.workers, options.jpeg)
    log.line(
        f"held out: split eval, seed {HELD_OUT_SEED}, {HELD_OUT_FRAMES} frames of {CAMERAS} cameras, half precision"
    )
    log.line("IoU 0.5: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    meta = {"seed": options.seed, "steps": steps, "classes": list(CLASSES), "held_out": json.dumps(metrics)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "meta": meta}, options.out)
    options.out.with_suffix(".log").write_text("\n".join(log.lines) + "\n")


if __name__ == "__main__":
    main()
