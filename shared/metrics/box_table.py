"""All boxes of a data set as parallel columns, so that metrics work on arrays instead of on objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool
from shared.errors import InputError
from shared.tasks.detection3d import Boxes3D

Float = npt.NDArray[np.floating]
Int = npt.NDArray[np.int64]

#: Attribute code of a box whose attribute (moving, parked, sitting ...) is not known.
NO_ATTRIBUTE = -1
_IDENTITY = np.eye(4)


@dataclass(frozen=True)
class BoxTable:
    """N boxes over many frames. Rows are parallel; order of frames and of boxes in a frame is kept.

    Attributes:
        frames: (N,) int64, position of the frame in the data set.
        labels: (N,) int64, index into the class list.
        centers: (N, 3) float, gravity centers [m] in the ego frame (x forward, y left, z up).
        sizes: (N, 3) float, length, width, height [m], all > 0.
        yaws: (N,) float, heading [rad], counter-clockwise from +x.
        velocities: (N, 2) float [m/s], NaN where unknown.
        scores: (N,) float, confidence; ones for ground truth.
        num_points: (N,) int64, lidar points inside (ground truth); meaningless for predictions.
        attributes: (N,) int64, code of the attribute, ``NO_ATTRIBUTE`` where unknown.
    """

    frames: Int
    labels: Int
    centers: Float
    sizes: Float
    yaws: Float
    velocities: Float
    scores: Float
    num_points: Int
    attributes: Int

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, index: Bool | Int) -> BoxTable:
        """The rows at ``index``, a mask (N,) or positions (K,)."""
        return BoxTable(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def of_frames(self, first: int, end: int) -> BoxTable:
        """The rows of the frames from ``first`` to before ``end``, of a table in the order of its frames."""
        start, stop = np.searchsorted(self.frames, (first, end))
        return self.select(np.arange(start, stop))

    def distances_to_ego(self) -> npt.NDArray[np.float64]:
        """(N,) distance [m] of the centers from the origin in the ground plane."""
        xy = self.centers[:, :2].astype(np.float64)
        return np.sqrt(xy[:, 0] ** 2 + xy[:, 1] ** 2)


def table_of(frames: Sequence[Boxes3D], first: int = 0) -> BoxTable:
    """Stack the boxes of ``frames``, frame i getting the number ``first + i``."""
    counts = [len(boxes) for boxes in frames]
    stacked = {
        field.name: np.concatenate([getattr(boxes, field.name) for boxes in (Boxes3D.empty(), *frames)])
        for field in fields(Boxes3D)
    }
    return BoxTable(
        frames=np.repeat(np.arange(first, first + len(frames), dtype=np.int64), counts),
        attributes=np.full(sum(counts), NO_ATTRIBUTE, np.int64),
        **stacked,
    )


def join_tables(tables: Sequence[BoxTable]) -> BoxTable:
    """The boxes of all ``tables``, in their order."""
    return BoxTable(
        **{field.name: np.concatenate([getattr(table, field.name) for table in tables]) for field in fields(BoxTable)}
    )


def check_table(table: BoxTable, classes: Sequence[str], what: str) -> None:
    """Refuse boxes that no metric can be computed from.

    Args:
        table: the boxes.
        classes: class list that the labels index.
        what: what the boxes are, for the message ("predictions of onnx-cpu", "ground truth").

    Raises:
        InputError: NaN in a center, size, yaw or score; a size that is not positive; a label outside ``classes``.
    """
    columns: dict[str, Float] = {
        "center": table.centers,
        "size": table.sizes,
        "yaw": table.yaws[:, None],
        "score": table.scores[:, None],
    }
    for name, values in columns.items():
        bad = np.asarray(~np.isfinite(values).all(axis=1))
        _refuse(bad, table, f"the {name} is not a finite number", what)
    _refuse(np.asarray((table.sizes <= 0).any(axis=1)), table, "a box side is not longer than 0 m", what)
    outside = (table.labels < 0) | (table.labels >= len(classes))
    _refuse(outside, table, f"the label is outside the list of {len(classes)} classes ({', '.join(classes)})", what)


def _refuse(bad: Bool, table: BoxTable, problem: str, what: str) -> None:
    if not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    raise InputError(
        f"{problem} (box {first} in frame {int(table.frames[first])}, {int(bad.sum())} in all)",
        where=what,
        hint="the run or the labels are broken; make them again",
    )


def to_ego_frame(boxes: Boxes3D, lidar2ego: npt.NDArray[np.floating]) -> Boxes3D:
    """The boxes of a sample's lidar frame in its ego frame.

    Ranges are distances from the vehicle, not from the lidar; for T4 data (``lidar2ego`` the identity) nothing
    changes.

    Args:
        boxes: boxes in the lidar frame.
        lidar2ego: (4, 4) pose of the lidar on the vehicle.
    """
    if np.array_equal(lidar2ego, _IDENTITY):
        return boxes
    rotation, translation = lidar2ego[:3, :3].astype(np.float64), lidar2ego[:3, 3].astype(np.float64)
    headings = np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws), np.zeros_like(boxes.yaws)], axis=1) @ rotation.T
    # The upright velocity has no z component in either frame's data; its image's z is dropped, as nuscenes-devkit does.
    velocities = boxes.velocities.astype(np.float64) @ rotation[:2, :2].T
    return Boxes3D.build(
        centers=boxes.centers.astype(np.float64) @ rotation.T + translation,
        sizes=boxes.sizes,
        yaws=np.arctan2(headings[:, 1], headings[:, 0]),
        velocities=velocities,
        labels=boxes.labels,
        scores=boxes.scores,
        num_points=boxes.num_points,
    )
