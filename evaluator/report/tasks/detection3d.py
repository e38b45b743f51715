"""3D detection: precision-recall curves, confusion, frames with points, cameras and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluator.metrics.detection3d import HEADLINE_RANGE
from evaluator.report import explained, over_distance, over_score
from evaluator.report.blocks import Block, Chart, Charts, Text
from evaluator.report.boxes3d import BEST_F1_DISTANCE, Frames, frames_of, matches, thresholds
from evaluator.report.counts import detection_confusion, f1
from evaluator.report.material import Material
from evaluator.report.over_score import Detections
from evaluator.report.scene import Scene
from evaluator.report.scene3d import points_of, scene
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.data.types import Sample
from shared.lazy import lazy_import
from shared.metrics.average_precision import RECALLS
from shared.metrics.nuscenes import ERROR_DISTANCE

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

_MEANINGS = {
    "mAP": "mean average precision over classes and center distances of 0.5, 1, 2 and 4 m; 1 is best",
    "NDS": "nuScenes detection score: half mAP, half the five errors below, each as 1 less the error; 1 is best",
    "NDS without AAE": "the same of the other four errors, for models that have no attributes",
    "ATE": "translation: how far centers of hits are off in the ground plane [m]",
    "ASE": "scale: 1 less the IoU of hits with center and heading laid together",
    "AOE": "orientation: how far headings of hits are off [rad]",
    "AVE": "velocity: how far velocities of hits are off [m/s]",
    "AAE": "attribute: share of hits whose attribute (parked, moving …) is wrong; 1 where the model has none",
    "T4 mAP": "as mAP, by TIER IV's perception_eval: the best precision at each recall or a higher one",
    "T4 mAPH": "the same, with each hit weighed by how well its heading fits",
}


def metric_blocks(material: Material) -> list[Block]:
    """What the numbers mean, curves over recall, score and distance, and the confusion of the shown run."""
    blocks: list[Block] = [explained.cards(material, _MEANINGS), _curves(material)]
    if material.samples is None:
        blocks.append(Text(f"No curves over score and distance, no table of confusion: {material.missing}.", "muted"))
    else:
        frames = frames_of(material)
        sure = frames.sure(material)
        blocks.append(over_score.charts(_detections(material, frames), f"centers within {BEST_F1_DISTANCE:g} m"))
        blocks.append(over_distance.charts(sure, material.drawn, material.spec.classes))
        blocks.append(_confusion(material, sure))
    return blocks


def _detections(material: Material, frames: Frames) -> list[Detections]:
    """Hits and false alarms of the shown run, by class."""
    boxes, best = frames.predictions[material.shown], thresholds(material, material.shown)
    right = matches(boxes, frames.truths, limit=BEST_F1_DISTANCE) >= 0
    found = []
    for label, name in enumerate(material.spec.classes):
        own = boxes.labels == label
        scores = boxes.scores[own].astype(np.float64)
        labeled = int((frames.truths.labels == label).sum())
        known = float(best[label]) if right[own].any() else None
        found.append(Detections(name, scores, right[own], ~right[own], labeled, known))
    return found


def _curves(material: Material) -> Charts:
    results = {name: material.evaluations[name]["metrics"]["nuscenes"] for name in material.pair}
    shown = results[material.shown]
    x, y = linear_axis("recall", 0, 1), linear_axis("precision", 0, 1)
    classes = shown["ranges"][HEADLINE_RANGE]["classes"]
    charts = []
    for name, values in classes.items():
        if not values["num_truths"]:
            continue
        lines = []
        for run in reversed(material.pair):
            style = "" if run == material.shown else " dashed"
            for index, curve in enumerate(results[run]["curves"][name].values()):
                lines.append(Line(list(zip(RECALLS.tolist(), curve, strict=True)), f"s{index}{style}"))
        # The dashed ones come last, so that both are seen where they agree.
        lines.sort(key=lambda line: "dashed" in line.style)
        label = f"Precision over recall of {name}; AP {values['AP']:.3f}"
        note = f"AP {values['AP']:.4f}, {values['num_truths']} labeled"
        charts.append(Chart(name, line_chart(label, lines, x, y), note))
    distances = next(iter(shown["curves"].values()))
    legend = [(f"s{index}", f"{float(distance):g} m") for index, distance in enumerate(distances)]
    if len(material.pair) > 1:
        legend += [("s7", f"{material.shown}, solid"), ("s7 dashed", f"{material.first}, dashed")]
    title = f"Precision over recall, nuScenes' center distances, {HEADLINE_RANGE} m"
    return Charts(charts, legend, title)


def _confusion(material: Material, frames: Frames) -> Block:
    predictions, truths = frames.predictions[material.shown], frames.truths
    # All classes are one family: a box in the right place counts, whatever its class.
    matched = matches(predictions, truths, np.zeros(len(material.spec.classes), np.int64))
    hit = np.flatnonzero(matched >= 0)
    return detection_confusion(
        np.column_stack([truths.labels[matched[hit]], predictions.labels[hit]]),
        truths.labels,
        predictions.labels,
        material.spec.classes,
        f"Confusion of {material.shown}, centers within {ERROR_DISTANCE:g} m, scores from the best F1 on",
    )


def source(sample: Sample) -> Path:
    """The sample's points."""
    return sample.lidar.path


def frame_scores(material: Material) -> list[float | None]:
    """F1 of the shown run in each frame."""
    frames = frames_of(material).sure(material)
    predictions, truths = frames.predictions[material.shown], frames.truths
    hit = matches(predictions, truths) >= 0
    count = len(material.truth.tokens)
    hits, predicted, wanted = (
        np.bincount(values, minlength=count) for values in (predictions.frames[hit], predictions.frames, truths.frames)
    )
    return [f1(int(a), int(b), int(c)) for a, b, c in zip(hits, predicted, wanted, strict=True)]


def picture(material: Material, position: int, key: str, title: str) -> Scene:
    """The frame with points, cameras, ground truth and the pair of runs."""
    return scene(material, position, key, title)


def log(stream: Any, material: Material, position: int) -> None:
    """Points, ground truth and boxes of the frame, in the ego frame."""
    frames = frames_of(material, position).sure(material)
    stream.log("points", rr.Points3D(points_of(material, position), radii=0.04))
    tables = {"ground truth": frames.truths, **frames.predictions}
    colors = [(60, 220, 100), (80, 170, 255), (255, 160, 60)]
    for (name, boxes), color in zip(tables.items(), colors, strict=False):
        half = boxes.yaws / 2
        zeros = np.zeros(len(boxes))
        stream.log(
            name.replace(" ", "_"),
            rr.Boxes3D(
                centers=boxes.centers,
                half_sizes=boxes.sizes / 2,
                quaternions=np.stack([zeros, zeros, np.sin(half), np.cos(half)], axis=1),
                labels=[material.spec.classes[label] for label in boxes.labels],
                colors=[color] * len(boxes),
                show_labels=False,
            ),
        )
