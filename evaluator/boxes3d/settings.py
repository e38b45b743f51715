"""The T4 metric as the config's section ``evaluation.t4`` asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluator.boxes3d import t4, t4_matching
from evaluator.boxes3d.presentation import PASS_FAIL, pass_fail_json, t4_json
from shared.config.check_sections import T4Metric
from shared.errors import UsageError
from shared.metrics.box_table import BoxTable

USUAL = T4Metric()


def candidates(
    predictions: BoxTable, truths: BoxTable, classes: Sequence[str], settings: T4Metric
) -> t4_matching.Candidates:
    """`t4_matching.find_candidates` with these settings.

    Raises:
        UsageError: ``min_points`` names a class that the model does not have.
    """
    strangers = sorted(set(settings.min_points) - set(classes))
    if strangers:
        raise UsageError(
            f"'{strangers[0]}' is not among the classes", where="min_points", hint=f"there are: {', '.join(classes)}"
        )
    return t4_matching.find_candidates(
        predictions,
        truths,
        compatibility=t4_matching.AS_AWML if settings.compat == "awml" else t4_matching.RIGHT,
        any_label=settings.label_policy == "allow_any",
        min_points=np.array([settings.min_points.get(name, 1) for name in classes], np.int64),
    )


def range_json(matches: t4_matching.Matches, classes: Sequence[str]) -> dict[str, Any]:
    """All rules of one range, and how many boxes passed."""
    return {**t4_json(t4.score(matches, classes)), PASS_FAIL: pass_fail_json(t4.pass_fail(matches))}


def chosen(settings: T4Metric, options: dict[str, Any], classes: Sequence[str]) -> T4Metric:
    """``settings`` with what a command line says in place.

    Args:
        settings: of the config.
        options: ``compat``, ``label_policy``, and ``min_points`` as text (``5``, or ``car=5,pedestrian=1``).
        classes: class list.

    Raises:
        UsageError: ``min_points`` is neither a number nor numbers by class.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if "min_points" in given:
        given["min_points"] = {**settings.min_points, **_by_class(given["min_points"], classes)}
    return settings.model_copy(update=given)


def _by_class(text: str, classes: Sequence[str]) -> dict[str, int]:
    fewest: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        if not number.strip().isdecimal():
            raise UsageError(
                f"'{part}' is not a number of points", where="--min-points", hint="write 5, or car=5,pedestrian=1"
            )
        fewest.update(dict.fromkeys([name.strip()] if name else classes, int(number)))
    return fewest
