"""Models for tests of the exporter: built from a training config, with random weights, and points to run them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIGS = Path(__file__).parent.parent / "data" / "awml_configs"
SMALL = CONFIGS / "small.py"


def built(config: Path, options: dict[str, Any] | None = None) -> tuple[Any, Any, Any]:
    """Model with random weights, its training config, and its checked options."""
    from exporter.models.centerpoint import adapter as centerpoint
    from exporter.training_config import random_weights, read_training_config

    training = read_training_config(config)
    checked = centerpoint.read_options(options or {})
    model = centerpoint.build(training, checked)
    random_weights(model, seed=0)
    return model, training, checked


def save_checkpoint(model: Any, path: Path, **also: Any) -> Path:
    """A checkpoint in mmengine's form."""
    import torch

    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict(), **also}, path)
    return path


def points(columns: int, count: int = 3000, spread: float = 12.0) -> Any:
    """(count, columns) float32 points about the origin."""
    import torch

    rng = np.random.default_rng(0)
    values: npt.NDArray[np.float64] = rng.normal(size=(count, columns)) * (
        [spread, spread, 1.0] + [0.3] * (columns - 3)
    )
    return torch.from_numpy(values.astype(np.float32))
