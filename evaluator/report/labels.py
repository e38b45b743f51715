"""What the pages of points and of pixels share: colors, bars, confusion, and the labels of a frame as data."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluator.report import explained
from evaluator.report.blocks import Block, Cell, Grid
from evaluator.report.material import Material
from evaluator.report.scene import Detail, Scene, deflated
from shared.arrays import Int64, UInt8
from shared.lazy import lazy_import
from shared.metrics.confusion import Counts, confusion
from shared.table import number

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

#: A cell of an image where there is nothing, for ``static/labels.js``. A class of this number would look empty.
EMPTY = 254

_MEANINGS = {
    "mIoU": "mean over the classes of the IoU: what is right, of all that is of the class or said to be; 1 is best",
    "accuracy": "share of what is judged that has the right label: large classes decide it",
    "class accuracy": "mean over the classes of the share that was found (recall)",
}
# A turn of the hue from class to class that comes near no recent one, and brightness that parts those that are near.
_GOLDEN = 0.618034
_BRIGHTNESS = (0.32, 0.64, 0.4, 0.56, 0.48)
# Of red, green and blue to what the eye takes for bright.
_LUMA = (0.299, 0.587, 0.114)


def colors(count: int) -> list[str]:
    """A color for each class, told apart on light and dark ground, as ``#rrggbb``."""
    found = []
    for index in range(count):
        shades = [colorsys.hls_to_rgb(0.58 + _GOLDEN * index, percent / 100, 0.65) for percent in range(25, 80)]
        wanted = _BRIGHTNESS[index % len(_BRIGHTNESS)]
        shade = min(shades, key=lambda rgb: abs(float(np.dot(rgb, _LUMA)) - wanted))
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in shade))
    return found


def label_blocks(material: Material) -> list[Block]:
    """What the numbers mean, bars of the IoU of both runs, and the confusion of the shown one."""
    return [explained.cards(material, _MEANINGS), _bars(material), _confusion(material)]


def _bars(material: Material) -> Grid:
    runs = [material.evaluations[name]["metrics"]["by_class"] for name in material.drawn]
    rows: list[list[str | Cell]] = []
    for name, values in runs[0].items():
        if any(run[name]["IoU"] is not None for run in runs):
            bars = [
                Cell(number(run[name]["IoU"], 4), share=run[name]["IoU"] or 0.0, series=i) for i, run in enumerate(runs)
            ]
            rows.append([name, *bars, str(values["truths"])])
    columns = ["class", *(f"IoU, {run}" for run in material.drawn), "truths"]
    return Grid("Intersection over union by class", columns, rows)


def _confusion(material: Material) -> Grid:
    """Shares of what is truly of a class, in rows."""
    result = material.evaluations[material.shown]["metrics"]
    matrix: Int64 = np.array(result["confusion"], np.int64)
    names = [*result["classes"], "no class"]
    columns = [label for label in range(len(names)) if matrix[:, label].any() or matrix[label : label + 1].any()]
    rows: list[list[str | Cell]] = []
    for label, counts in enumerate(matrix):
        total = int(counts.sum())
        if total:
            shares = [_share(counts[column] / total) for column in columns]
            rows.append([names[label], *shares, str(total)])
    title = f"Confusion of {material.shown}: what became of the {result['unit']} of a class"
    return Grid(title, ["truth", *(names[column] for column in columns), "sum"], rows)


def _share(share: float) -> Cell:
    return Cell(f"{share:.1%}" if share else "0", tone="" if share else "muted", heat=float(share))


def frame_scores(material: Material) -> list[float | None]:
    """mIoU of the shown run in each frame."""
    scores: list[float | None] = material.evaluations[material.shown]["metrics"]["frame_mIoU"]
    return scores


@dataclass(frozen=True)
class FrameLabels:
    """Labels of a frame: what is true, then what each drawn run says. Arrays of one shape."""

    truth: UInt8
    runs: Sequence[UInt8]

    def planes(self) -> UInt8:
        """(1 + R, ...) truth and runs."""
        return np.stack([self.truth, *self.runs])


def labels_at(material: Material, position: int, kind: type[Any]) -> FrameLabels:
    """The labels at ``position`` of the truth.

    Raises:
        InputError: the file of labels is missing or broken.
    """
    truth = material.truth
    runs = [material.runs[name].predictions(truth.positions[position], kind).labels for name in material.drawn]
    return FrameLabels(truth.labels[position].read(truth.to_model), runs)


def scene(
    material: Material,
    key: str,
    title: str,
    note: str,
    labels: FrameLabels,
    media: Callable[[Detail], dict[str, Any]],
    *,
    cloud: bool,
) -> Scene:
    """A frame with its labels, see `evaluator.report.scene.Scene`; ``cloud``: it is one of points."""
    classes = material.spec.classes
    head = {
        "kind": "labels",
        "classes": classes,
        "colors": colors(len(classes)),
        "runs": material.drawn,
        "cloud": cloud,
        "unit": "points" if cloud else "pixels",
    }
    return Scene(key, title, note, head, _counts(labels, len(classes)), media)


def _counts(labels: FrameLabels, num_classes: int) -> dict[str, Any]:
    """Per class, how much is true, found and right, and of how much the runs differ."""
    flat = [plane.reshape(-1) for plane in labels.planes()]
    counts = Counts.of(confusion(flat[0], flat[1], num_classes)[0])
    found: Mapping[str, Int64] = {
        "truths": np.asarray(counts.truths),
        "found": np.asarray(counts.found),
        "right": np.asarray(counts.right),
        "differs": _differing(flat[1:], num_classes),
    }
    return {name: values.tolist() for name, values in found.items()}


def _differing(runs: Sequence[UInt8], num_classes: int) -> Int64:
    """(C,) how often one run says a class where the other says another."""
    if len(runs) == 1:
        return np.zeros(num_classes, np.int64)
    apart = runs[0] != runs[1]
    both = np.concatenate([runs[0][apart], runs[1][apart]])
    return np.asarray(np.bincount(both, minlength=256)[:num_classes], np.int64)


def raster(planes: UInt8, name: str = "") -> dict[str, Any]:
    """Labels (1 + R, H, W) as an image for ``static/labels.js``."""
    return {"name": name, "width": planes.shape[2], "height": planes.shape[1], "labels": deflated(planes)}


def log_classes(stream: Any, classes: Sequence[str]) -> None:
    """Tell a Rerun stream names and colors of the labels."""
    entries = [
        rr.AnnotationInfo(id=label, label=name, color=tuple(bytes.fromhex(shade[1:])))
        for label, (name, shade) in enumerate(zip(classes, colors(len(classes)), strict=True))
    ]
    stream.log("/", rr.AnnotationContext(entries), static=True)
