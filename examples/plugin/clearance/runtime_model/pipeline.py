"""From points to distances, in NumPy around the network: grid -> sector_net -> distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clearance.task import Clearance
from runtime.backends import Session
from runtime.parameters import Parameters, validated
from runtime.pipeline import (
    ArraysByName,
    HostPipeline,
    Interface,
    Pipeline,
    PipelineInput,
    Step,
    component_step,
    one_array,
    predictions_of,
)
from shared.data import Sample, read_points
from shared.spec import ModelSpec

Float32 = npt.NDArray[np.float32]


class SectorNetParameters(Parameters):
    """What the exporter wrote: sectors, cells up to the reach [m], and the heights between which points count [m]."""

    sectors: int
    cells: int
    reach: float
    heights: tuple[float, float]


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a model of this kind."""
    parameters = validated(SectorNetParameters, spec)
    network = spec.components[0]
    steps = [
        Step("grid", lambda points: polar_grid(points, parameters), one_array("grid")),
        component_step(network, session),
        Step("distances", lambda outputs: distances(outputs, parameters), predictions_of(spec)),
    ]
    return HostPipeline(Interface(read, one_array("points")), steps)


def read(sample: Sample) -> PipelineInput:
    """(N, 3) float32 points: x, y, z [m]."""
    points = read_points(sample.lidar)[:, :3]
    whole = np.isfinite(points).all(axis=1)
    return PipelineInput(points[whole], {"points": int(whole.sum()), "points_nan": int((~whole).sum())})


def polar_grid(points: Float32, parameters: SectorNetParameters) -> Float32:
    """(1, 2, cells, sectors): per cell the greatest height, and how many points there are, both scaled."""
    x, y, z = points.astype(np.float64).T
    cell = np.floor(np.hypot(x, y) / (parameters.reach / parameters.cells)).astype(np.int64)
    sector = np.floor(np.arctan2(y, x) / (2 * np.pi / parameters.sectors)).astype(np.int64) % parameters.sectors
    low, high = parameters.heights
    kept = (cell < parameters.cells) & (z >= low) & (z < high)
    places = (cell * parameters.sectors + sector)[kept]
    size = parameters.cells * parameters.sectors
    heights = np.zeros(size, np.float32)
    np.maximum.at(heights, places, points[kept, 2])
    counts = np.bincount(places, minlength=size).astype(np.float32)
    grid = np.stack([heights / np.float32(high), np.log1p(counts) / np.float32(4)])
    return grid.reshape(1, 2, parameters.cells, parameters.sectors)


def distances(outputs: ArraysByName, parameters: SectorNetParameters) -> Clearance:
    """The distance up to which all is free, more likely than not; linear within the cell in which that ends."""
    logits = np.asarray(outputs["logits"][0], np.float64)
    free = np.cumprod(1 / (1 + np.exp(np.clip(logits, -80, 80))), axis=0)
    free = np.concatenate([np.ones((1, parameters.sectors)), free])
    ends = np.argmax(free[1:] < 0.5, axis=0)  # 0 where it never does, too
    before, after = np.take_along_axis(free, np.stack([ends, ends + 1]), axis=0)
    cells = np.where(after < 0.5, ends + (before - 0.5) / np.maximum(before - after, 1e-12), parameters.cells)
    return Clearance((cells * (parameters.reach / parameters.cells)).astype(np.float32))
