"""3D detection: precision-recall curves, confusion, frames from above with points and boxes."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d.t4 import HEADLINE_RULE
from evaluator.metrics.detection3d import HEADLINE_RANGE, RANGES
from evaluator.report.blocks import Block, Chart, Charts, Picture, Text
from evaluator.report.counts import detection_confusion, f1
from evaluator.report.images import png
from evaluator.report.material import Material
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.arrays import UInt8
from shared.data import read_points
from shared.data.types import Sample
from shared.geometry import box_footprints, transform_points
from shared.lazy import lazy_import
from shared.metrics.average_precision import RECALLS
from shared.metrics.box_table import BoxTable, table_of, to_ego_frame
from shared.metrics.matching import descending_scores, groups_of, match_greedily, pairs_within
from shared.metrics.nuscenes import ERROR_DISTANCE

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

#: Pixels of the picture of the points, which is as wide as it is high.
_POINT_PIXELS = 1400
# Boxes end this far from the picture's edge [m].
_MARGIN = 4.0
# Closer views [m from the vehicle].
_CLOSE_UPS = (60, 30)
_RINGS = (30, 60, 90, 120)
# The vehicle, drawn at the origin: half its length and width [m].
_EGO = (2.4, 1.0)


@dataclass(frozen=True)
class _Frames:
    """Boxes that count at each class's score of the best F1, all frames, in the ego frame.

    Attributes:
        truths: labeled boxes with points, within the headline range.
        predictions: per run, boxes within the range whose score reaches that of the best F1 of their class.
    """

    truths: BoxTable
    predictions: dict[str, BoxTable]


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


def _thresholds(material: Material, run: str) -> npt.NDArray[np.float64]:
    """(C,) score of the best F1 at T4's largest distance; 0 for a class where none is known."""
    classes = material.evaluations[run]["metrics"]["t4"]["ranges"][HEADLINE_RANGE][HEADLINE_RULE]["classes"]
    best = [list(classes[name]["thresholds"].values())[-1]["optimal_confidence"] for name in material.spec.classes]
    return np.array([0.0 if value is None else value for value in best])


def _frames(material: Material, only: int | None = None) -> _Frames:
    """The boxes of all frames; or those of one, as frame 0."""
    assert material.samples is not None
    truth = material.samples.truth
    chosen = range(len(truth.positions)) if only is None else [only]
    low, high = RANGES[-1]

    def within(table: BoxTable) -> npt.NDArray[np.bool_]:
        distances = table.distances_to_ego()
        return np.asarray((distances >= low) & (distances < high))

    predictions = {}
    for name in material.pair:
        boxes = table_of(
            [
                to_ego_frame(material.runs[name].boxes(truth.positions[frame]), truth.lidar2ego[frame])
                for frame in chosen
            ]
        )
        sure = boxes.scores >= _thresholds(material, name)[boxes.labels]
        predictions[name] = boxes.select(sure & within(boxes))
    truths = truth.boxes
    if only is not None:
        own = truths.select(truths.frames == only)
        truths = replace(own, frames=np.zeros_like(own.frames))
    return _Frames(truths.select((truths.num_points != 0) & within(truths)), predictions)


def _matches(predictions: BoxTable, truths: BoxTable, families: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    """(N,) ground truth of each prediction, -1 for none, at the distance at which nuScenes measures errors."""
    pairs = pairs_within(predictions, truths, ERROR_DISTANCE, families=families)
    order = descending_scores(predictions.scores)
    groups, limits = groups_of(predictions, families), np.array([ERROR_DISTANCE])
    return np.asarray(match_greedily(pairs, groups, len(truths), order, limits)[0])


def _confusion(material: Material) -> Block:
    frames = _frames(material)
    predictions, truths = frames.predictions[material.shown], frames.truths
    # All classes are one family: a box in the right place counts, whatever its class.
    matched = _matches(predictions, truths, np.zeros(len(material.spec.classes), np.int64))
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
    frames = _frames(material)
    predictions, truths = frames.predictions[material.shown], frames.truths
    hit = _matches(predictions, truths, None) >= 0
    count = len(material.samples.truth.tokens)
    hits, predicted, wanted = (
        np.bincount(values, minlength=count) for values in (predictions.frames[hit], predictions.frames, truths.frames)
    )
    return [f1(int(a), int(b), int(c)) for a, b, c in zip(hits, predicted, wanted, strict=True)]


def picture(material: Material, position: int, key: str, title: str) -> Picture:
    """The frame from above, forward up: points, ground truth, and the pair of runs."""
    frames = _frames(material, position)
    truths, layers = frames.truths, frames.predictions
    reach = _reach([truths, *layers.values()])
    points = _points(material, position)
    body = [
        f'<image class="points layer-points" x="{-reach}" y="{-reach}" width="{2 * reach}" height="{2 * reach}" '
        f'href="{png(_raster(points, reach))}"/>',
        *(f'<circle class="ring" r="{ring}"/>' for ring in _RINGS if ring < reach),
        f'<rect class="ego" x="{-_EGO[1]}" y="{-_EGO[0]}" width="{2 * _EGO[1]}" height="{2 * _EGO[0]}"/>',
        _boxes(truths, "truth", material.spec.classes, scores=False),
    ]
    controls = [("points", "points"), ("truth", "ground truth")]
    for style, (name, boxes) in zip(("first", "second"), layers.items(), strict=False):
        body.append(_boxes(boxes, style, material.spec.classes, scores=True))
        controls.append((style, name))
    view = f"{-reach} {-reach} {2 * reach} {2 * reach}"
    label = html.escape(f"{title}, seen from above: {len(truths)} labeled boxes")
    svg = f'<svg viewBox="{view}" role="img" aria-label="{label}">{"".join(body)}</svg>'
    close = [near for near in _CLOSE_UPS if near < reach]
    views = [(f"{reach:.0f} m", view), *((f"{near} m", f"{-near} {-near} {2 * near} {2 * near}") for near in close)]
    return Picture(key, title, svg, controls, views if close else [], _note(truths, layers))


def _note(truths: BoxTable, layers: dict[str, BoxTable]) -> str:
    parts = []
    for name, boxes in layers.items():
        hits = int((_matches(boxes, truths, None) >= 0).sum())
        score = f1(hits, len(boxes), len(truths))
        f1_text = "" if score is None else f", F1 {score:.3f}"
        parts.append(f"{name}: {hits} found, {len(truths) - hits} missed, {len(boxes) - hits} wrong{f1_text}")
    return f"{'; '.join(parts)}. Boxes from each class's score of the best F1 on; forward is up, rings every 30 m."


def _reach(tables: list[BoxTable]) -> float:
    """Half the width of the picture [m]: all boxes fit, and so does the nearest close-up."""
    farthest = max((float(np.abs(table.centers[:, :2]).max(initial=0)) for table in tables), default=0.0)
    return float(np.ceil(max(farthest, min(_CLOSE_UPS)) + _MARGIN))


def _points(material: Material, position: int) -> npt.NDArray[np.float64]:
    """(N, 3) points of the frame in the ego frame [m]."""
    assert material.samples is not None
    sample: Sample = material.samples.dataset.sample(material.samples.truth.positions[position])
    points = read_points(sample.lidar)[:, :3]
    return transform_points(sample.lidar2ego, points[np.isfinite(points).all(axis=1)])


def _raster(points: npt.NDArray[np.float64], reach: float) -> UInt8:
    """(P, P, 4) gray points on nothing, the more opaque the more there are in a pixel."""
    scale = _POINT_PIXELS / (2 * reach)
    columns = np.floor((reach - points[:, 1]) * scale).astype(np.int64)
    rows = np.floor((reach - points[:, 0]) * scale).astype(np.int64)
    inside = (columns >= 0) & (columns < _POINT_PIXELS) & (rows >= 0) & (rows < _POINT_PIXELS)
    counts = np.bincount(rows[inside] * _POINT_PIXELS + columns[inside], minlength=_POINT_PIXELS**2)
    # Few steps of opacity keep the file small.
    opacity = np.array([0, 150, 200, 255], np.uint8)[np.minimum(counts, 3)]
    image = np.full((_POINT_PIXELS * _POINT_PIXELS, 4), 130, np.uint8)
    image[:, 3] = opacity
    image[opacity == 0] = 0
    return image.reshape(_POINT_PIXELS, _POINT_PIXELS, 4)


def _boxes(table: BoxTable, style: str, classes: Any, *, scores: bool) -> str:
    """Footprints with a line from the center to the front; x forward is up, y left is left."""
    footprints = box_footprints(table.centers, table.sizes, table.yaws)
    parts = []
    for corners, center, label, score in zip(footprints, table.centers, table.labels, table.scores, strict=True):
        front = (corners[0] + corners[3]) / 2
        outline = "L".join(f"{-y:.2f} {-x:.2f}" for x, y in corners)
        heading = f"M{-center[1]:.2f} {-center[0]:.2f}L{-front[1]:.2f} {-front[0]:.2f}"
        name = html.escape(str(classes[label])) + (f" {score:.2f}" if scores else "")
        parts.append(f'<path class="box" d="M{outline}Z{heading}"><title>{name}</title></path>')
    return f'<g class="layer-{style}">{"".join(parts)}</g>'


def log(stream: Any, material: Material, position: int) -> None:
    """Points, ground truth and boxes of the frame, in the ego frame."""
    frames = _frames(material, position)
    stream.log("points", rr.Points3D(_points(material, position), radii=0.04))
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
