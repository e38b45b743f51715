"""What the training scripts of the demo models share: log, learning rate, half precision, digest of the sources."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

WARM_UP = 0.3  # share of the training in which the learning rate rises
START_DIVISOR, END_DIVISOR = 10.0, 1e4  # of the greatest learning rate


class Log:
    """Lines that go to the screen and, at the end, into the log file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def one_cycle(progress: float, greatest: float) -> float:
    """Return the learning rate at a share of the training: cosine up to the greatest, cosine down."""
    if progress < WARM_UP:
        start, end, share = greatest / START_DIVISOR, greatest, progress / WARM_UP
    else:
        start, end = greatest, greatest / END_DIVISOR
        share = min((progress - WARM_UP) / (1 - WARM_UP), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round weights to float16, counters left as they are."""
    return {
        name: value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()
        for name, value in state.items()
    }


def source_digest() -> str:
    """Return the sha256 over the generator's and the training's sources, in order of their paths."""
    root = Path(__file__).resolve().parents[2]
    files = sorted([*(root / "demo").glob("*.py"), *Path(__file__).resolve().parent.glob("*.py")])
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def one_thread(_worker: int) -> None:
    """Initialise a worker process: one thread, there is one worker a core."""
    torch.set_num_threads(1)
