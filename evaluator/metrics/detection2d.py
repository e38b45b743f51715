"""Metrics of 2D detection: Pascal VOC's AP at IoU 0.5, which AWML reports, and COCO's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluator.bootstrap import Copies
from evaluator.boxes2d import coco
from shared.config.check_sections import Evaluation
from shared.data.labels import labels_in
from shared.data.types import ImageLabels, ImageSample
from shared.errors import InputError
from shared.metrics import voc
from shared.metrics.labeled_image import check_boxes, labels_of_model
from shared.runs import Run
from shared.table import Table, number
from shared.tasks.detection2d import Boxes2D

_COCO_HEADLINE = ("AP", "AP50", "AP75", "AR100")


@dataclass(frozen=True)
class Truth:
    """Ground truth of a list of samples.

    Attributes:
        images: per labeled sample, its boxes.
        positions: positions of the labeled samples in the list; predictions on the others can't be judged.
        tokens, scenes: per labeled sample, its token and the drive it is from.
        num_samples: length of the list.
    """

    images: list[ImageLabels]
    positions: list[int]
    tokens: list[str]
    scenes: list[str]
    num_samples: int


def ground_truth(samples: Iterable[ImageSample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:
    """Ground truth of ``samples``, labels indexing ``classes``; None when no sample is labeled.

    Boxes of classes that the model does not know are left out: they are neither wanted nor wrong.

    Raises:
        InputError: labels that make no sense.
    """
    to_model = labels_in(classes, label_classes)
    images, labeled = [], []
    count = 0
    for position, sample in enumerate(samples):
        count += 1
        if sample.labels is None:
            continue
        where = f"ground truth of sample {sample.token}"
        check_boxes(sample.labels.boxes, label_classes, where)
        images.append(labels_of_model(sample.labels, to_model))
        labeled.append((position, sample))
    if not images:
        return None
    return Truth(
        images=images,
        positions=[position for position, _ in labeled],
        tokens=[sample.token for _, sample in labeled],
        scenes=[sample.scene for _, sample in labeled],
        num_samples=count,
    )


@dataclass(frozen=True)
class Matched:
    """A run's boxes beside the truth.

    Attributes:
        truth: the truth.
        classes: class list that labels index.
        predictions: the run's boxes on each labeled image.
        voc: per class, the matches of Pascal VOC's metric.
    """

    truth: Truth
    classes: Sequence[str]
    predictions: list[Boxes2D]
    voc: list[voc.ClassMatches]


def match(run: Run, truth: Truth, classes: Sequence[str], _: Evaluation) -> Matched:
    """Match the run's boxes with ``truth``.

    Raises:
        InputError: another number of samples; NaN in a box or score, labels outside the list.
    """
    if len(run) != truth.num_samples:
        raise InputError(f"holds {len(run)} samples, the ground truth {truth.num_samples}", where=str(run.folder))
    predictions = list(run.predictions_at(truth.positions, Boxes2D))
    for token, boxes in zip(truth.tokens, predictions, strict=True):
        check_boxes(boxes, classes, f"{run.folder.name}, sample {token}")
    return Matched(truth, classes, predictions, voc.match(predictions, truth.images, len(classes)))


def evaluate(matched: Matched) -> dict[str, Any]:
    """Both metrics of matched boxes.

    Returns:
        JSON: ``voc`` and ``coco``, each with a summary and its numbers per class.
    """
    truth, classes = matched.truth, matched.classes
    scores = [voc.score(matches) for matches in matched.voc]
    return {
        "frames": len(truth.positions),
        "frames_without_labels": truth.num_samples - len(truth.positions),
        "classes": list(classes),
        "voc": {
            "iou_threshold": voc.IOU_THRESHOLD,
            "mAP": voc.mean_ap(scores),
            "classes": {name: _voc_json(value) for name, value in zip(classes, scores, strict=True)},
        },
        "coco": coco.evaluate(matched.predictions, truth.images, classes),
    }


def _voc_json(score: voc.ClassScore) -> dict[str, float | None]:
    f1, threshold = score.best_f1 or (None, None)
    return {
        "AP": score.ap,
        "truths": score.wanted,
        "predictions": score.detections,
        "recall": score.recall,
        "max_f1": f1,
        "optimal_score": threshold,
    }


#: Of `headline`, the numbers that are errors.
LOWER_IS_BETTER: frozenset[str] = frozenset()


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """The VOC metric's mAP, which is AWML's, and COCO's AP."""
    summary = result["coco"]["summary"]
    return {"mAP": result["voc"]["mAP"], **{f"COCO {name}": summary[name] for name in _COCO_HEADLINE}}


def headline_names(_: Sequence[str]) -> list[str]:
    """Of `headline`."""
    return ["mAP", *(f"COCO {name}" for name in _COCO_HEADLINE)]


def resample(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """The VOC metric's mAP if each image counted ``copies`` (F,) times."""
    return {"mAP": voc.mean_ap([voc.score(matches, copies) for matches in matched.voc])}


def per_class(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """AP of Pascal VOC and of COCO."""
    own, other = result["voc"]["classes"], result["coco"]["classes"]
    return {name: {"AP": own[name]["AP"], "COCO AP": other[name]["AP"]} for name in result["classes"]}


def tables(result: dict[str, Any]) -> list[Table]:
    """Both metrics, per class with labeled boxes, and over all."""
    rows = []
    for name in result["classes"]:
        own, other = result["voc"]["classes"][name], result["coco"]["classes"][name]
        if own["AP"] is not None:
            rows.append(
                [
                    name, str(int(own["truths"])), str(int(own["predictions"])), number(own["AP"], 4),
                    number(own["recall"], 4), number(own["max_f1"], 4), number(own["optimal_score"], 3),
                    *(number(other[key], 4) for key in ("AP", "AP50", "AP75")),
                ]
            )  # fmt: skip
    summary = result["coco"]["summary"]
    means = [number(summary[key], 4) for key in ("AP", "AP50", "AP75")]
    rows.append(["mean", "", "", number(result["voc"]["mAP"], 4), "", "", "", *means])
    columns = ["class", "truths", "found", "VOC AP", "recall", "max F1", "at score", "COCO AP", "AP50", "AP75"]
    title = f"2D boxes of {result['frames']} images: Pascal VOC (IoU 0.5, 11 points, as AWML reports it) and COCO"
    sizes = [[number(summary[key], 4) for key in coco.SUMMARY[3:]]]
    return [Table(title, columns, rows), Table("COCO by size, and recall", list(coco.SUMMARY[3:]), sizes)]
