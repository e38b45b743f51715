"""3D detection: precision-recall curves, confusion, frames with points, cameras and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluator.metrics.detection3d import HEADLINE_RANGE
from evaluator.report.blocks import Block, Chart, Charts, Text
from evaluator.report.boxes3d import frames_of, matches
from evaluator.report.counts import detection_confusion, f1
from evaluator.report.material import Material
from evaluator.report.scene import Scene
from evaluator.report.scene3d import points_of, scene
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.data.types import Sample
from shared.lazy import lazy_import
from shared.metrics.average_precision import RECALLS
from shared.metrics.nuscenes import ERROR_DISTANCE

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")


def metric_blocks(material: Material) -> list[Block]:
    """Precision-recall curves of the pair of runs, and the confusion of the shown one."""
    blocks: list[Block] = [_curves(material)]
    if material.samples is None:
        blocks.append(Text(f"No table of confusion: {material.missing}.", "muted"))
    else:
        blocks.append(_confusion(material))
    return blocks


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


def _confusion(material: Material) -> Block:
    frames = frames_of(material).sure(material)
    predictions, truths = frames.predictions[material.shown], frames.truths
    # All classes are one family: a box in the right place counts, whatever its class.
    matched = matches(predictions, truths, np.zeros(len(material.spec.classes), np.int64))
    pairs = [
        (int(truths.labels[column]), int(predictions.labels[row])) for row, column in enumerate(matched) if column >= 0
    ]
    return detection_confusion(
        pairs,
        truths.labels.tolist(),
        predictions.labels.tolist(),
        material.spec.classes,
        f"Confusion of {material.shown}, centers within {ERROR_DISTANCE:g} m, scores from the best F1 on",
    )


def source(sample: Sample) -> Path:
    """The sample's points."""
    return sample.lidar.path


def frame_scores(material: Material) -> list[float | None]:
    """F1 of the shown run in each frame."""
    assert material.samples is not None
    frames = frames_of(material).sure(material)
    predictions, truths = frames.predictions[material.shown], frames.truths
    hit = matches(predictions, truths) >= 0
    count = len(material.samples.truth.tokens)
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
