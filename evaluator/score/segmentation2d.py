"""Masks as PNG images of ids."""

from __future__ import annotations

from typing import Any

from evaluator.score import Results
from evaluator.segmentation.label_files import score_labels
from shared.data.label_file import MASK_SUFFIXES
from shared.table import Table


def score(results: Results) -> tuple[dict[str, Any], list[Table]]:
    """See `evaluator.score.Score`."""
    return score_labels(results, MASK_SUFFIXES, "pixels")
