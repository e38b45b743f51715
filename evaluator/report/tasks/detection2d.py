"""2D detection: precision-recall curves, confusion, images with boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.report import explained, over_score
from evaluator.report.blocks import Block, Chart, Charts, Text
from evaluator.report.counts import detection_confusion, f1
from evaluator.report.images import read_photo
from evaluator.report.material import Material
from evaluator.report.over_score import Detections
from evaluator.report.scene import Detail, Scene, numbers, photo, title_of
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.arrays import Int64
from shared.data.types import ImageSample
from shared.geometry import overlaps_2d
from shared.lazy import lazy_import
from shared.metrics import voc
from shared.tasks.detection2d import Boxes2D

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

# Curves of data sets with many classes: those with the most labeled boxes.
_MOST_CURVES = 12
# Points of a curve that is drawn.
_CURVE_POINTS = 120
# Boxes of a run that an image of the page holds: the surest ones.
_MOST_BOXES = 150

_MEANINGS = {
    "mAP": "Pascal VOC's mean average precision, as mmdet's VOCMetric: a hit overlaps by half (IoU 0.5); per class, "
    "the mean of the best precision at recalls of 0, 0.1 … 1",
    "COCO AP": "mean average precision over classes and IoUs of 0.5, 0.55 … 0.95",
    "COCO AP50": "the same at IoU 0.5 alone",
    "COCO AP75": "the same at IoU 0.75 alone: boxes have to fit well",
    "COCO AR100": "mean recall over the same IoUs, with up to 100 boxes an image",
}


def metric_blocks(material: Material) -> list[Block]:
    """What the numbers mean, curves over recall and score, and the confusion of the shown run."""
    meanings = explained.cards(material, _MEANINGS)
    if material.samples is None:
        return [meanings, Text(f"No curves and no table of confusion: {material.missing}.", "muted")]
    truth = material.samples.truth
    matches = {
        run: voc.match(
            [_found(material, run, at) for at in range(len(truth.images))], truth.images, len(material.spec.classes)
        )
        for run in material.pair
    }
    by_score = over_score.charts(_detections(material, matches[material.shown]), f"IoU from {voc.IOU_THRESHOLD:g} on")
    return [meanings, _curves(material, matches), by_score, _confusion(material)]


def _detections(material: Material, matches: Sequence[voc.ClassMatches]) -> list[Detections]:
    """Hits and false alarms of the shown run, by class."""
    classes = material.evaluations[material.shown]["metrics"]["voc"]["classes"]
    return [
        Detections(
            name,
            one.scores.astype(np.float64),
            one.right,
            one.wrong,
            int(one.wanted.sum()),
            classes[name]["optimal_score"],
        )
        for name, one in zip(material.spec.classes, matches, strict=True)
    ]


def _curves(material: Material, matches: Mapping[str, Sequence[voc.ClassMatches]]) -> Charts:
    classes = material.evaluations[material.shown]["metrics"]["voc"]["classes"]
    wanted = [(int(values["truths"]), name) for name, values in classes.items() if values["AP"] is not None]
    names = [name for _, name in sorted(wanted, reverse=True)[:_MOST_CURVES]]
    x, y = linear_axis("recall", 0, 1), linear_axis("precision", 0, 1)
    charts = []
    for name in names:
        label = material.spec.classes.index(name)
        lines = [
            Line(_curve(matches[run][label]), "s0" if run == material.shown else "s1 dashed")
            for run in (material.shown, *(run for run in material.pair if run != material.shown))
        ]
        ap = classes[name]["AP"]
        text = f"AP {ap:.4f}, {int(classes[name]['truths'])} labeled"
        charts.append(Chart(name, line_chart(f"Precision over recall of {name}; AP {ap:.3f}", lines, x, y), text))
    legend = [("s0", material.shown)]
    if len(material.pair) > 1:
        legend.append(("s1 dashed", material.first))
    cut = f", the {_MOST_CURVES} classes with the most boxes" if len(wanted) > _MOST_CURVES else ""
    return Charts(charts, legend, f"Precision over recall, IoU {voc.IOU_THRESHOLD:g}{cut}")


def _curve(matches: voc.ClassMatches) -> list[tuple[float, float]]:
    right, wrong = np.cumsum(matches.right), np.cumsum(matches.wrong)
    judged = right + wrong
    if not len(judged) or not judged[-1]:
        return []
    first = int(np.flatnonzero(judged)[0])
    chosen = np.unique(np.linspace(first, len(judged) - 1, _CURVE_POINTS).round().astype(int))
    whole = max(1, int(matches.wanted.sum()))
    return [(float(right[at] / whole), float(right[at] / judged[at])) for at in chosen]


def _thresholds(material: Material, run: str) -> npt.NDArray[np.float64]:
    """(C,) score of the best F1; of a class where nothing was found, the lowest of the others'."""
    classes = material.evaluations[run]["metrics"]["voc"]["classes"]
    best = [classes[name]["optimal_score"] for name in material.spec.classes]
    known = [value for value in best if value is not None]
    return np.array([min(known, default=0.0) if value is None else value for value in best])


def _found(material: Material, run: str, position: int) -> Boxes2D:
    """The boxes of a run on a labeled image."""
    return material.runs[run].predictions(material.truth.positions[position], Boxes2D)


def _sure(material: Material, run: str, position: int) -> Boxes2D:
    """The boxes of a run on a labeled image that reach the score of the best F1 of their class."""
    boxes = _found(material, run, position)
    return boxes.select(boxes.scores >= _thresholds(material, run)[boxes.labels])


def _pairs(predictions: Boxes2D, truths: Boxes2D, *, same_class: bool) -> list[tuple[int, int]]:
    """Rows of predictions and labeled boxes that overlap enough, the surest prediction first, one to one."""
    overlaps = overlaps_2d(predictions.corners, truths.corners)
    if same_class:
        overlaps[predictions.labels[:, None] != truths.labels] = 0
    pairs = []
    for row in np.argsort(-predictions.scores, kind="stable"):
        if len(truths) and overlaps[row].max() >= voc.IOU_THRESHOLD:
            column = int(overlaps[row].argmax())
            pairs.append((int(row), column))
            overlaps[:, column] = 0
    return pairs


def _labeled(material: Material, position: int) -> Boxes2D:
    """The labeled boxes of an image that count."""
    image = material.truth.images[position]
    boxes: Boxes2D = image.boxes.select(~image.ignored)
    return boxes


def _confusion(material: Material) -> Block:
    pairs: list[Int64] = [np.zeros((0, 2), np.int64)]
    truths: list[Int64] = [np.zeros(0, np.int64)]
    predictions: list[Int64] = [np.zeros(0, np.int64)]
    for position in range(len(material.truth.images)):
        found, wanted = _sure(material, material.shown, position), _labeled(material, position)
        truths.append(wanted.labels)
        predictions.append(found.labels)
        matched = _pairs(found, wanted, same_class=False)
        pairs.append(np.array([(wanted.labels[column], found.labels[row]) for row, column in matched]).reshape(-1, 2))
    title = f"Confusion of {material.shown}, IoU from {voc.IOU_THRESHOLD:g} on, scores from the best F1 on"
    matches, true, predicted = (np.concatenate(parts).astype(np.int64) for parts in (pairs, truths, predictions))
    return detection_confusion(matches, true, predicted, material.spec.classes, title)


def source(sample: ImageSample) -> Path:
    """The image."""
    return sample.image


def frame_scores(material: Material) -> list[float | None]:
    """F1 of the shown run in each image."""
    scores = []
    for position in range(len(material.truth.images)):
        found, wanted = _sure(material, material.shown, position), _labeled(material, position)
        scores.append(f1(len(_pairs(found, wanted, same_class=True)), len(found), len(wanted)))
    return scores


def picture(material: Material, position: int, key: str, title: str) -> Scene:
    """The image with ground truth and the pair of runs."""
    sample: ImageSample = material.sample(position)
    wanted = _labeled(material, position)
    runs = material.drawn
    found = [_surest(_found(material, run, position)) for run in runs]
    tables = [
        {
            **_places(boxes),
            "scores": numbers(boxes.scores, 3),
            "match": _partners(boxes, wanted, same_class=True),
            "near": _nearest(boxes, wanted),
        }
        for boxes in found
    ]
    for other, table in zip(found[1:], tables[1:], strict=True):
        tables[0]["partner"] = _partners(found[0], other, same_class=True)
        back = {partner: row for row, partner in enumerate(tables[0]["partner"])}
        table["partner"] = [back.get(row, -1) for row in range(len(other))]
    head = {
        "kind": "boxes2d",
        "classes": material.spec.classes,
        "runs": runs,
        "thresholds": [numbers(_thresholds(material, run), 4) for run in runs],
    }
    note = f"{title}. Found: a box of the class that overlaps the label with an IoU of {voc.IOU_THRESHOLD:g} or more."
    data = {"truth": _places(wanted), "runs": tables}
    return Scene(key, _title(sample), note, head, data, lambda detail: _media(sample, detail))


def _title(sample: ImageSample) -> str:
    """Drive and time; the file's name where no time is known."""
    return title_of(sample.scene, sample.timestamp) if sample.timestamp > 0 else sample.image.name


def _surest(boxes: Boxes2D) -> Boxes2D:
    kept: Boxes2D = boxes.select(np.argsort(-boxes.scores, kind="stable")[:_MOST_BOXES])
    return kept


def _places(boxes: Boxes2D) -> dict[str, Any]:
    """Four numbers a box: left, top, right, bottom [pixels]."""
    return {"boxes": numbers(boxes.corners, 1), "labels": boxes.labels.tolist()}


def _partners(boxes: Boxes2D, others: Boxes2D, *, same_class: bool) -> list[int]:
    """Per box, the row of the other that it is the same as, -1 for none."""
    partners = [-1] * len(boxes)
    for row, column in _pairs(boxes, others, same_class=same_class):
        partners[row] = column
    return partners


def _nearest(boxes: Boxes2D, truths: Boxes2D) -> list[int]:
    """Per box, the labeled one of any class that it overlaps most, -1 where that is too little."""
    if not len(truths):
        return [-1] * len(boxes)
    overlaps = overlaps_2d(boxes.corners, truths.corners)
    near: list[int] = np.where(overlaps.max(axis=1) >= voc.IOU_THRESHOLD, overlaps.argmax(axis=1), -1).tolist()
    return near


def _media(sample: ImageSample, detail: Detail) -> dict[str, Any]:
    return {"photo": photo(sample.image, 2 * detail.width, detail.quality, upright=True)}


def log(stream: Any, material: Material, position: int) -> None:
    """Image, ground truth and boxes."""
    image = read_photo(material.sample(position).image, upright=True)
    stream.log("image", rr.Image(image).compress())
    tables = {"ground_truth": _labeled(material, position)}
    tables |= {run: _sure(material, run, position) for run in material.pair}
    for name, boxes in tables.items():
        labels = [material.spec.classes[label] for label in boxes.labels]
        left_top, sizes = boxes.corners[:, :2], boxes.corners[:, 2:] - boxes.corners[:, :2]
        stream.log(f"image/{name}", rr.Boxes2D(mins=left_top, sizes=sizes, labels=labels))
