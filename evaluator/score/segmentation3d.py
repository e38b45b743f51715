"""Labels of points: SemanticKITTI's ``.label``, nuScenes' lidarseg and T4's ``.bin``."""

from __future__ import annotations

from typing import Any

from evaluator.score import Results
from evaluator.segmentation.label_files import score_labels
from shared.data.label_file import POINT_SUFFIXES
from shared.table import Table


def score(results: Results) -> tuple[dict[str, Any], list[Table]]:
    """See `evaluator.score.Score`."""
    return score_labels(results, POINT_SUFFIXES, "points")
