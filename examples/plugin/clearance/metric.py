"""The metric: how far off the distances are, and how often a model sees room where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from clearance.geometry import REACH
from clearance.task import NEAR_ENOUGH, TASK, Clearance
from evaluator.bootstrap import Copies
from shared.data import Sample
from shared.errors import InputError
from shared.runs import Run
from shared.table import Table, number

#: Bounds of the true distance by which errors are broken down [m].
BOUNDS = (0.0, 10.0, 20.0, 30.0, 40.0, REACH)
_NAMES = ("mean error", "within 1 m", "too far by 2 m")
_TOO_FAR = 2.0


@dataclass(frozen=True)
class Truth:
    """What is true of the labeled samples: their positions in the run, tokens, drives, and (F, SECTORS) distances."""

    positions: list[int]
    tokens: list[str]
    scenes: list[str]
    distances: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Matched:
    """(F, SECTORS) what is true, and what a run said."""

    truth: npt.NDArray[np.float32]
    said: npt.NDArray[np.float32]


def ground_truth(samples: Iterable[Sample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:  # noqa: ARG001
    """The distances to the labeled boxes; None when no sample has any."""
    no_classes = np.zeros(0, np.int64)
    labeled = [
        (position, sample, labels)
        for position, sample in enumerate(samples)
        if (labels := TASK.labels_of(sample, no_classes)) is not None
    ]
    if not labeled:
        return None
    return Truth(
        [position for position, _, _ in labeled],
        [sample.token for _, sample, _ in labeled],
        [sample.scene for _, sample, _ in labeled],
        np.stack([labels.distances for _, _, labels in labeled]),
    )


def match(run: Run, truth: Truth, classes: Sequence[str], evaluation: Any) -> Matched:  # noqa: ARG001
    """The answers of a run beside the truth.

    Raises:
        InputError: an answer has another number of sectors, or one that is no number.
    """
    said = [run.predictions(position, Clearance).distances for position in truth.positions]
    for token, distances in zip(truth.tokens, said, strict=True):
        if distances.shape != truth.distances.shape[1:] or not np.isfinite(distances).all():
            raise InputError(f"sample {token} is no distance for each sector", where=str(run.folder))
    return Matched(truth.distances, np.stack(said))


def evaluate(matched: Matched) -> dict[str, Any]:
    """The headline, and the mean error by true distance."""
    errors = np.abs(matched.said - matched.truth)
    inside = [(matched.truth >= low) & (matched.truth < high) for low, high in pairwise(BOUNDS)]
    return {
        "headline": _numbers(matched, np.ones(len(matched.truth), np.int64)),
        "by_distance": [
            {"low": low, "high": high, "sectors": int(mask.sum()), "mean error": float(errors[mask].mean())}
            for (low, high), mask in zip(pairwise(BOUNDS), inside, strict=True)
            if mask.any()
        ],
        "frames": errors.mean(axis=1).tolist(),
    }


def _numbers(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """Means over the sectors if each frame counted ``copies`` (F,) times."""
    errors = matched.said - matched.truth
    columns = (np.abs(errors), np.abs(errors) <= NEAR_ENOUGH, errors > _TOO_FAR)
    total = copies.sum()
    means = [float(copies @ column.mean(axis=1) / total) if total else None for column in columns]
    return dict(zip(_NAMES, means, strict=True))


#: Of `headline`, the numbers that are errors.
LOWER_IS_BETTER = frozenset({_NAMES[0], _NAMES[2]})


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """Mean error [m], share within 1 m, and share where a road user is 2 m nearer than the run says, or more."""
    numbers: dict[str, float | None] = result["headline"]
    return numbers


def headline_names(classes: Sequence[str]) -> list[str]:  # noqa: ARG001
    """Of `headline`."""
    return list(_NAMES)


def resample(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """The headline if each frame counted ``copies`` (F,) times."""
    return _numbers(matched, copies)


def per_class(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:  # noqa: ARG001
    """Nothing: there are no classes to compare models by."""
    return {}


def tables(result: dict[str, Any]) -> list[Table]:
    """Errors by distance."""
    rows = [
        [f"{row['low']:g} to {row['high']:g}", str(row["sectors"]), number(row["mean error"], 2)]
        for row in result["by_distance"]
    ]
    return [Table("Error by true distance", ["distance [m]", "sectors", "mean error [m]"], rows)]
