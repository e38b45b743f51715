"""Labels of a run beside the truth, counted a frame at a time, and what follows from the counts.

Kept are three counts a frame and class, from which intervals are made, and the sums of the confusion: memory does not
grow with points or pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evaluator.bootstrap import Copies
from shared.arrays import Float64, Int64, UInt8
from shared.data.label_file import LabelFile
from shared.data.labels import labels_in
from shared.data.types import PointFile
from shared.errors import InputError
from shared.metrics.confusion import MOST_CLASSES, UNLABELED, Counts, confusion, mean
from shared.progress import track
from shared.runs import Run
from shared.table import MISSING, Table, number

_log = logging.getLogger("evaluate")

# Of the shares that a table shows.
_DIGITS = 4


@dataclass(frozen=True)
class Truth:
    """What is known of the labels of a list of samples. They are read when they are needed.

    Attributes:
        labels: of each labeled sample, the file of its labels.
        points: of lidar frames, the file of the points that they are of; empty for images.
        positions: positions of the labeled samples in the list.
        tokens, scenes: per labeled sample, its token and the drive it is from.
        to_model: see `shared.data.label_file.LabelFile.read`.
        num_samples: length of the list.
    """

    labels: list[LabelFile]
    points: list[PointFile]
    positions: list[int]
    tokens: list[str]
    scenes: list[str]
    to_model: Int64
    num_samples: int


def truth_of(
    samples: Iterable[Any],
    label_file: Callable[[Any], LabelFile | None],
    label_classes: Sequence[str],
    classes: Sequence[str],
    *,
    point_file: Callable[[Any], PointFile] | None = None,
) -> Truth | None:
    """What is known of samples; None where none is labeled.

    Args:
        samples: the samples of the runs, in order.
        label_file: of a sample, the file of its labels.
        label_classes: class list of the data set.
        classes: class list of the model.
        point_file: of a lidar frame, the file of its points.

    Raises:
        InputError: the model has more classes than labels can tell apart.
    """
    if len(classes) > MOST_CLASSES:
        raise InputError(f"the model has {len(classes)} classes, labels tell {MOST_CLASSES} apart", where="classes")
    to_model = labels_in(classes, label_classes)
    truth = Truth([], [], [], [], [], to_model, 0)
    count = 0
    for position, sample in enumerate(samples):
        count += 1
        file = label_file(sample)
        if file is not None:
            truth.labels.append(file)
            truth.positions.append(position)
            truth.tokens.append(sample.token)
            truth.scenes.append(sample.scene)
            if point_file is not None:
                truth.points.append(point_file(sample))
    if not truth.labels:
        return None
    lacking = [name for name in classes if name not in label_classes]
    if len(lacking) == len(classes):
        _log.warning(
            "nothing is judged: the labels are of %s, the model's classes are %s (data.classes, data.label_map)",
            ", ".join(label_classes) or "no class", ", ".join(classes),
        )  # fmt: skip
    elif lacking:
        _log.warning(
            "no label is of %s: what the model takes for that is wrong (data.classes, data.label_map)",
            ", ".join(lacking),
        )
    return replace(truth, num_samples=count)


@dataclass
class Tally:
    """Counts the labels of frames.

    Attributes:
        classes: class list that labels index.
        unit: ``points`` or ``pixels``.
        groups: names of what is counted apart as well; none of the last group, which is everything else.
    """

    classes: Sequence[str]
    unit: str
    groups: Sequence[str] = ()
    _frames: list[Int64] = field(default_factory=list)
    _matrices: Int64 = field(init=False)
    _unjudged: int = 0

    def __post_init__(self) -> None:
        count = len(self.classes)
        self._matrices = np.zeros((len(self.groups) + 1, count, count + 1), np.int64)

    def add(self, truth: UInt8, labels: UInt8, where: str, groups: Int64 | None = None) -> None:
        """Count a frame.

        Args:
            truth, labels: (N,) points or (H, W) pixels each.
            where: which frame, for messages.
            groups: (N,) position in ``groups``, or its length.

        Raises:
            InputError: not as many labels as are true, or a label outside the list of classes.
        """
        if truth.shape != labels.shape:
            raise InputError(
                f"has labels of {_size(labels)}, the ground truth of {_size(truth)}",
                where=where,
                hint="one label for each point of the point file, or each pixel of the image",
            )
        strangers = (labels >= len(self.classes)) & (labels != UNLABELED)
        if strangers.any():
            raise InputError(
                f"label {int(labels[strangers][0])} is outside the list of {len(self.classes)} classes", where=where
            )
        matrices = confusion(truth.reshape(-1), labels.reshape(-1), len(self.classes), groups, len(self._matrices))
        self._matrices += matrices
        counts = Counts.of(matrices.sum(axis=0))
        self._frames.append(np.concatenate([counts.right, counts.truths, counts.found]))
        self._unjudged += truth.size - int(counts.truths.sum())

    def matched(self, num_samples: int) -> Matched:
        """What was counted, of a run of so many samples."""
        frames = np.array(self._frames, np.int64).reshape(len(self._frames), 3 * len(self.classes))
        rings = dict(zip(self.groups, self._matrices, strict=False))
        return Matched(self.classes, self.unit, num_samples, frames, self._matrices.sum(axis=0), rings, self._unjudged)


def _size(labels: UInt8) -> str:
    if labels.ndim == 1:
        return f"{len(labels)} points"
    return f"{labels.shape[1]} x {labels.shape[0]} pixels"


@dataclass(frozen=True)
class Matched:
    """A run's labels beside the truth.

    Attributes:
        classes: class list that labels index.
        unit: ``points`` or ``pixels``.
        num_samples: of the run, labeled or not.
        frames: (F, 3 C) per labeled frame and class, what is right, what is true, what was found.
        confusion: (C, C + 1) of all frames, see `shared.metrics.confusion.confusion`.
        rings: of points, the same by distance.
        unjudged: how many points or pixels are not judged.
    """

    classes: Sequence[str]
    unit: str
    num_samples: int
    frames: Int64
    confusion: Int64
    rings: Mapping[str, Int64]
    unjudged: int


def count_run(
    run: Run,
    truth: Truth,
    kind: type[Any],
    tally: Tally,
    groups_of: Callable[[PointFile], Int64] | None = None,
) -> Matched:
    """Count the labels of a run.

    Args:
        run: the run.
        truth: what is labeled.
        kind: what the run holds, with ``labels``.
        tally: to count with.
        groups_of: of a frame's points, where each belongs in the tally's groups.

    Raises:
        InputError: another number of samples; of a sample, as `Tally.add`; labels that can't be read.
    """
    if len(run) != truth.num_samples:
        raise InputError(f"holds {len(run)} samples, the ground truth {truth.num_samples}", where=str(run.folder))
    for row, position in track(enumerate(truth.positions), f"counting {run.folder.name}", len(truth.positions)):
        wanted = truth.labels[row].read(truth.to_model)
        groups = None if groups_of is None else groups_of(truth.points[row])
        if groups is not None and len(groups) != len(wanted):
            raise InputError(
                f"has {len(wanted)} labels for the {len(groups)} points of {truth.points[row].path.name}",
                where=str(truth.labels[row].path),
            )
        given = run.predictions(position, kind).labels
        tally.add(wanted, given, f"{run.folder.name}, sample {truth.tokens[row]}", groups)
    return tally.matched(truth.num_samples)


def evaluate(matched: Matched) -> dict[str, Any]:
    """Everything about the labels.

    Returns:
        JSON: ``overall`` and ``by_class``; ``confusion`` with the truth in rows, whose last column is of no class;
        ``rings``, the same scores by distance; ``frame_mIoU``, of each labeled frame, null where nothing is judged.
    """
    return {
        "frames": len(matched.frames),
        "frames_without_labels": matched.num_samples - len(matched.frames),
        "empty_frames": int((matched.frames.sum(axis=1) == 0).sum()),
        "classes": list(matched.classes),
        "unit": matched.unit,
        "judged": int(matched.confusion.sum()),
        "not_judged": matched.unjudged,
        **_scores_json(matched.confusion, matched.classes),
        "confusion": matched.confusion.tolist(),
        "frame_mIoU": _frame_scores(matched),
        "rings": {name: _scores_json(matrix, matched.classes) for name, matrix in matched.rings.items()},
    }


def _frame_scores(matched: Matched) -> list[float | None]:
    counts = Counts(*np.moveaxis(matched.frames.reshape(len(matched.frames), 3, -1), 1, 0))
    means = [mean(row) for row in counts.iou]
    return [None if value is None else round(value, 4) for value in means]


def _scores_json(matrix: Int64, classes: Sequence[str]) -> dict[str, Any]:
    counts = Counts.of(matrix)
    columns = {"IoU": counts.iou, "precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
    return {
        "overall": {
            "mIoU": mean(counts.iou),
            "accuracy": counts.accuracy,
            "class_accuracy": mean(counts.recall),
            "mean_precision": mean(counts.precision),
            "mean_F1": mean(counts.f1),
        },
        "by_class": {
            name: {
                **{key: _known(values[row]) for key, values in columns.items()},
                "truths": int(counts.truths[row]),
                "found": int(counts.found[row]),
            }
            for row, name in enumerate(classes)
        },
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


#: Of `headline`, the numbers that are errors.
LOWER_IS_BETTER: frozenset[str] = frozenset()


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """mIoU, accuracy, mean accuracy of the classes, and each class's IoU."""
    overall = result["overall"]
    own = {_iou_name(name): values["IoU"] for name, values in result["by_class"].items()}
    return {
        "mIoU": overall["mIoU"],
        "accuracy": overall["accuracy"],
        "class accuracy": overall["class_accuracy"],
        **own,
    }


def headline_names(classes: Sequence[str]) -> list[str]:
    """Of `headline`."""
    return ["mIoU", "accuracy", "class accuracy", *map(_iou_name, classes)]


def _iou_name(name: str) -> str:
    return f"IoU {name}"


def resample(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """The headline numbers if each frame counted ``copies`` (F,) times."""
    totals: Float64 = copies.astype(np.float64) @ matched.frames
    counts = Counts(*totals.reshape(3, -1))
    own = {_iou_name(name): _known(value) for name, value in zip(matched.classes, counts.iou, strict=True)}
    return {"mIoU": mean(counts.iou), "accuracy": counts.accuracy, "class accuracy": mean(counts.recall), **own}


def per_class(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """IoU, precision and recall."""
    keys = ("IoU", "precision", "recall")
    return {name: {key: values[key] for key in keys} for name, values in result["by_class"].items()}


def tables(result: dict[str, Any]) -> list[Table]:
    """Per class that is there or found, and over all; of points by distance, too."""
    unit, overall = result["unit"], result["overall"]
    keys = ("IoU", "precision", "recall", "F1")
    rows = [
        [name, str(values["truths"]), str(values["found"]), *(number(values[key], _DIGITS) for key in keys)]
        for name, values in result["by_class"].items()
        if values["IoU"] is not None
    ]
    means = [overall[key] for key in ("mIoU", "mean_precision", "class_accuracy", "mean_F1")]
    rows.append(["mean", str(result["judged"]), "", *(number(value, _DIGITS) for value in means)])
    accuracy = number(overall["accuracy"], _DIGITS)
    title = f"Labels of {result['judged']} {unit} in {result['frames']} frames, {accuracy} of them right"
    found = [Table(title, ["class", "truths", "found", *keys], rows)]
    if result["rings"]:
        found.append(_ring_table(result["rings"]))
    return found


def _ring_table(rings: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, ring in rings.items():
        overall = ring["overall"]
        keys = ("mIoU", "accuracy", "mean_precision", "class_accuracy", "mean_F1")
        total = sum(values["truths"] for values in ring["by_class"].values())
        rows.append([name, str(total) if total else MISSING, *(number(overall[key], _DIGITS) for key in keys)])
    columns = ["distance [m]", "points", "mIoU", "accuracy", "precision", "recall", "F1"]
    return Table("By distance from the lidar, means of the classes", columns, rows)
