"""Classification: ROC, confidence, confusion, recall by disturbance, crops, images with points over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.report import explained
from evaluator.report.blocks import Block, Chart, Charts
from evaluator.report.camera_views import MARGIN, within
from evaluator.report.counts import confusion_table
from evaluator.report.images import draw_dots, jpeg, read_photo
from evaluator.report.lens import project_points
from evaluator.report.material import Material
from evaluator.report.scene import Detail, Scene, numbers, title_of
from evaluator.report.svg import Line, bar_chart, counts, line_chart, linear_axis
from shared.arrays import UInt8
from shared.data import read_points
from shared.data.camera_pairs import CameraPair
from shared.data.crops import ImageCrop
from shared.geometry import transform_points
from shared.lazy import lazy_import
from shared.tasks.classification import softmax

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

# Colors run from near (red) to this distance (blue) [m].
_COLOR_RANGE = 60.0

_MEANINGS = {
    "accuracy": "share of the samples whose class is recognized",
    "balanced accuracy": "mean of the classes' recalls: a frequent class counts no more than a rare one",
    "macro F1": "mean over classes of the F1, which weighs misses and false alarms",
    "MCC": "Matthews' correlation of answers and truth; 1 is right everywhere, 0 is chance",
    "ROC AUC": "how often a disturbed sample gets a higher score than an intact one; 0.5 is chance",
    "confidence error": "how far the confidence is from the share that is right, on average (ECE)",
}


def metric_blocks(material: Material) -> list[Block]:
    """What the numbers mean, ROC and confidence of the runs, and the confusion of the shown one."""
    result = material.evaluations[material.shown]["metrics"]
    names = result["classes"]
    blocks: list[Block] = [explained.cards(material, _MEANINGS), _curves(material)]
    matrix = np.array(result["decisions"]["confusion"], np.int64)
    columns = [f"predicted {name}" for name in names]
    blocks.append(confusion_table(f"Confusion of {material.shown}", matrix, names, columns))
    return blocks


def _curves(material: Material) -> Charts:
    result = material.evaluations[material.shown]["metrics"]
    unit_x, unit_y = linear_axis("share of false alarms", 0, 1), linear_axis("recall", 0, 1)
    charts = []
    if result["separation"] is not None:
        lines = [Line([(0, 0), (1, 1)], "s7")]
        # The first run's dashes come last, so that both are seen where they agree.
        for index, run in reversed(list(enumerate(material.pair))):
            roc = material.evaluations[run]["metrics"]["separation"]["roc"]
            lines.append(Line([(x, y) for x, y in roc], f"s{index} dashed" if run != material.shown else f"s{index}"))
        auc = result["separation"]["roc_auc"]
        note = "" if auc is None else f"area {auc:.4f}"
        charts.append(Chart("Recall over false alarms (ROC)", line_chart(f"ROC, {note}", lines, unit_x, unit_y), note))
    charts.append(_reliability(material))
    if result["by_rotation"]:
        charts.append(_rotations(material))
    legend = [("s7", "chance, or a confidence that is right")]
    legend += [(f"s{i} dashed" if run != material.shown else f"s{i}", run) for i, run in enumerate(material.pair)]
    return Charts(charts, legend)


def _reliability(material: Material) -> Chart:
    confidence = material.evaluations[material.shown]["metrics"]["confidence"]
    lines = [Line([(0, 0), (1, 1)], "s7")]
    style = f"s{list(material.pair).index(material.shown)}"
    lines.append(Line([(row["confidence"], row["accuracy"]) for row in confidence["bins"]], style))
    x, y = linear_axis("confidence", 0, 1), linear_axis("share that is right", 0, 1)
    note = f"expected calibration error {confidence['expected_calibration_error']:.4f}"
    svg = line_chart(f"Accuracy over confidence, {note}", lines, x, y)
    svg = counts(svg, x, [((row["low"] + row["high"]) / 2, row["count"]) for row in confidence["bins"]])
    return Chart("What the confidence is worth", svg, f"{note}; above the axis, samples of each bin")


def _rotations(material: Material) -> Chart:
    rows = material.evaluations[material.shown]["metrics"]["by_rotation"]
    # The last bound stands for "any larger one".
    end = max((row["low"] for row in rows), default=0.0) + 2.0
    bars = [(row["low"], min(row["high"], end), row["recall"]) for row in rows]
    x, y = linear_axis("rotation of the disturbance [deg]", 0, end), linear_axis("recall", 0, 1)
    style = f"s{list(material.pair).index(material.shown)}"
    svg = bar_chart("Share of the disturbances found, by their rotation", bars, x, y, style)
    return Chart("Disturbances found", svg, f"{sum(row['count'] for row in rows)} disturbed samples")


def source(sample: CameraPair | ImageCrop) -> Path:
    """The image."""
    return sample.image


def frame_scores(material: Material) -> list[float | None]:
    """Probability that the shown run gives to the true class of each sample."""
    samples = material.evaluations[material.shown]["metrics"]["samples"]
    return [_probability(row["logits"], row["label"]) for row in samples]


def _probability(logits: list[float], label: int) -> float:
    return float(softmax([logits])[0, label])


def picture(material: Material, position: int, key: str, title: str) -> Scene:
    """The crop, or the image with the lidar's points where the calibration puts them, and what the runs say."""
    sample: CameraPair | ImageCrop = material.truth.samples[position]
    runs = material.drawn
    names = material.spec.classes
    rows = [material.evaluations[run]["metrics"]["samples"][position] for run in runs]
    truth = rows[0]["label"]
    answers = [softmax([row["logits"]])[0] for row in rows]
    said = [
        f"{run} says {names[row['decision']]}, {answer[truth]:.1%} for the truth"
        for run, row, answer in zip(runs, rows, answers, strict=True)
    ]
    by = ""
    if sample.disturbance is not None:
        by = f" by {sample.disturbance.rotation_deg:.1f} deg and {sample.disturbance.translation_m:.2f} m"
    note = f"{title}: {names[truth]}{by}. {'; '.join(said)}."
    if isinstance(sample, CameraPair):
        note += f" Red points are near, blue ones {_COLOR_RANGE:g} m away."
    head = {"kind": "classes", "classes": names, "runs": runs}
    data = {
        "truth": truth,
        "said": [row["decision"] for row in rows],
        "answers": [numbers(answer, 4) for answer in answers],
    }
    heading = ", ".join(part for part in (sample.channel, title_of(sample.scene, sample.timestamp)) if part)
    return Scene(key, heading, note, head, data, lambda detail: _media(sample, detail))


def _media(sample: CameraPair | ImageCrop, detail: Detail) -> dict[str, Any]:
    image = _image(sample)
    height, width = image.shape[:2]
    uri = jpeg(image, 2 * detail.width, detail.quality)
    return {"photo": {"uri": uri, "width": width, "height": height, "name": sample.channel}}


def _image(sample: CameraPair | ImageCrop) -> UInt8:
    """(H, W, 3) red, green, blue of what was classified."""
    if isinstance(sample, CameraPair):
        return _overlay(sample)
    image = read_photo(sample.image, upright=True)
    left, top, right, bottom = sample.pixels(image.shape[1], image.shape[0])
    return image[top:bottom, left:right]


def _overlay(sample: CameraPair) -> UInt8:
    """(H, W, 3) the image as it was taken, points at where lens and calibration put them, colored by distance."""
    image = read_photo(sample.image, upright=False)
    height, width = image.shape[:2]
    pixels, depths = _project(sample, height, width)
    order = np.argsort(-depths)
    return draw_dots(image, pixels[order], _heat(1 - depths[order] / _COLOR_RANGE), max(1, width // 640))


def _heat(shares: npt.NDArray[np.float64]) -> UInt8:
    """(N, 3) colors from blue (0) over green to red (1)."""
    steps = 4 * np.clip(shares, 0, 1)[:, None] - np.array([3, 2, 1])
    colors: UInt8 = (255 * np.clip(1.5 - np.abs(steps), 0, 1)).astype(np.uint8)
    return colors


def _project(sample: CameraPair, height: int, width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(N, 2) pixels and (N,) distances along the optical axis [m] of the points that the image shows."""
    points = read_points(sample.lidar)[:, :3]
    camera = sample.camera
    seen = transform_points(camera.lidar2cam, points[np.isfinite(points).all(axis=1)])
    seen = seen[seen[:, 2] > 0.1]
    seen = seen[within(camera, (width, height), seen, MARGIN)]
    if not len(seen):
        return np.zeros((0, 2)), np.zeros(0)
    pixels = project_points(seen, camera.intrinsics, camera.distortion)
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
    return pixels[inside], seen[inside, 2]


def log(stream: Any, material: Material, position: int) -> None:
    """The crop, or the image with the points over it."""
    sample: CameraPair | ImageCrop = material.truth.samples[position]
    stream.log(f"image/{sample.channel}", rr.Image(_image(sample)).compress())
