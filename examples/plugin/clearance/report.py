"""The page of the report: errors by distance, and frames from above."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearance.geometry import REACH, SECTORS
from clearance.task import Clearance
from evaluator.report.blocks import Block, Chart, Charts, Picture
from evaluator.report.material import Material
from evaluator.report.svg import bar_chart, linear_axis
from shared.data import Sample, read_points
from shared.lazy import lazy_import

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")


def metric_blocks(material: Material) -> list[Block]:
    """The mean error of the shown run by true distance."""
    rows = material.evaluations[material.shown]["metrics"]["by_distance"]
    bars = [(row["low"], row["high"], row["mean error"]) for row in rows]
    x = linear_axis("true distance [m]", 0, REACH)
    y = linear_axis("mean error [m]", 0, max(value for *_, value in bars))
    return [Charts([Chart(f"Errors of {material.shown}", bar_chart("Mean error by true distance", bars, x, y))])]


def source(sample: Sample) -> Path:
    """The sample's points."""
    return sample.lidar.path


def frame_scores(material: Material) -> list[float | None]:
    """1 for a frame without error, 0 where the mean error is the whole reach."""
    return [1 - error / REACH for error in material.evaluations[material.shown]["metrics"]["frames"]]


def picture(material: Material, position: int, key: str, title: str) -> Picture:
    """A frame from above, forward up: what is free, as labeled (filled) and as the runs say (lines)."""
    assert material.samples is not None
    truth = material.samples.truth
    shapes = [f'<polygon class="area s2" points="{_outline(truth.distances[position])}"/>']
    for index, name in enumerate(material.pair):
        said = material.runs[name].predictions(truth.positions[position], Clearance)
        shapes.append(
            f'<polygon class="line s{index}" style="fill:none;stroke-width:0.3" points="{_outline(said.distances)}"/>'
        )
    label = html.escape(f"{title}: free in each direction, from above")
    svg = (
        f'<svg viewBox="{-REACH} {-REACH} {2 * REACH} {2 * REACH}" role="img" aria-label="{label}">'
        f"{''.join(shapes)}</svg>"
    )
    error = material.evaluations[material.shown]["metrics"]["frames"][position]
    note = f"Filled: labeled. Lines: {', '.join(material.pair)}. Mean error {error:.2f} m; {REACH:g} m to each side."
    return Picture(key, title, svg, note=note)


def log(stream: Any, material: Material, position: int) -> None:
    """Points, and what the shown run says is free."""
    assert material.samples is not None
    truth = material.samples.truth
    sample = material.samples.dataset.sample(truth.positions[position])
    said = material.runs[material.shown].predictions(truth.positions[position], Clearance)
    stream.log("lidar", rr.Points3D(read_points(sample.lidar)[:, :3]))
    for name, distances in (("labeled", truth.distances[position]), ("said", said.distances)):
        corners = _corners(distances)
        stream.log(f"clearance/{name}", rr.LineStrips3D([np.pad(corners, ((0, 0), (0, 1)))]))


def _corners(distances: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(2 S, 2) x and y of the outline of what is free: both ends of each sector's arc."""
    edges = np.arange(SECTORS + 1) * 2 * np.pi / SECTORS
    angles, radii = np.stack([edges[:-1], edges[1:]], axis=1).ravel(), np.repeat(distances, 2)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _outline(distances: npt.NDArray[np.float32]) -> str:
    """Points of an SVG polygon: x forward becomes up, y left stays left."""
    return " ".join(f"{-y:.2f},{-x:.2f}" for x, y in _corners(distances))
