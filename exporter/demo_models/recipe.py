"""What the training scripts of the demo models share: log, half precision, digest of the sources."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor


class Log:
    """Lines that go to the screen and, at the end, into the log file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


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
    """Initialize a worker process: one thread, there is one worker a core."""
    torch.set_num_threads(1)
