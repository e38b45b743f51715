"""Trailers become part of the truck that draws them, as AWML's converter has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shared.data.formats.t4.trailers import merge_trailers
from shared.tasks.detection3d import Boxes3D
from tests.unit.test_t4_tables import OBJECT_YAW, Tables, opened, write_scene

TRUCK, TRAILER = 1, 5


def frame(*rows: tuple[int, float, float, float, float], **columns: object) -> Boxes3D:
    """Boxes from label, x, y, length and yaw; trucks are 2.5 m wide and 3 m high, trailers 2.6 and 4."""
    labels = [row[0] for row in rows]
    sizes = [(row[3], 2.6, 4.0) if row[0] == TRAILER else (row[3], 2.5, 3.0) for row in rows]
    centers = [(row[1], row[2], size[2] / 2) for row, size in zip(rows, sizes, strict=True)]
    return Boxes3D.build(centers, sizes, [row[4] for row in rows], labels=labels, **columns)  # type: ignore[arg-type]


def test_the_larger_box_ends_where_the_smaller_one_does() -> None:
    """A truck of 6 m half a meter in front of a trailer of 12 m."""
    numbers = {"velocities": [[10.0, 0.0], [8.0, 2.0]], "num_points": [30, 70]}
    merged = merge_trailers(frame((TRUCK, 0, 0, 6, 0.1), (TRAILER, -9.5, 0, 12, 0.0), **numbers), TRUCK, TRAILER)
    assert merged.labels.tolist() == [TRUCK] and merged.num_points.tolist() == [100]
    front = 3 * np.cos(0.1)  # the truck's, on the axis of the trailer, which ends at -15.5
    assert merged.sizes[0, 0] == pytest.approx(front + 15.5) and merged.sizes[0, 1] == pytest.approx(2.6)
    np.testing.assert_allclose(merged.centers[0, :2], [(front - 15.5) / 2, 0], atol=1e-6)
    assert merged.yaws.tolist() == [0.0], "that of the larger"
    np.testing.assert_allclose(merged.velocities[0], [9.0, 1.0])
    # AWML takes centers for bottoms: the lower center, and from there to the top above the higher one.
    assert (merged.centers[0, 2], merged.sizes[0, 2]) == pytest.approx((1.5, 2.0 + 4.0 - 1.5))


@pytest.mark.parametrize(
    ("x", "y", "yaw", "belongs"),
    [
        (-10.9, 0.0, 0.0, True),  # 1.9 m between the truck's back and the trailer's front
        (-11.1, 0.0, 0.0, False),  # 2.1 m
        (0.0, 2.5, 0.0, True),  # side by side, overlapping by 5 cm
        (0.0, 3.4, 0.0, False),  # side by side, 0.85 m apart, fronts too far
        (-3.0, -7.0, np.pi / 2, True),  # across the truck's back
    ],
)
def test_near_or_overlapping_ones_belong_together(x: float, y: float, yaw: float, belongs: bool) -> None:
    merged = merge_trailers(frame((TRUCK, 0, 0, 6, 0.0), (TRAILER, x, y, 12, yaw)), TRUCK, TRAILER)
    assert (merged.sizes[0, 0] > 6.0) == belongs
    assert merged.labels.tolist() == [TRUCK], "a trailer alone is ignored"


def test_each_takes_part_once_and_others_stay() -> None:
    boxes = frame((0, 50, 0, 4, 0.0), (TRUCK, 0, 0, 6, 0.0), (TRUCK, -20, 0, 6, 0.0), (TRAILER, -10, 0, 12, 0.0))
    merged = merge_trailers(boxes, TRUCK, TRAILER)
    assert merged.labels.tolist() == [0, TRUCK, TRUCK]
    assert merged.sizes[:, 0].tolist() == pytest.approx([4, 19, 6])
    assert len(merge_trailers(Boxes3D.empty(), TRUCK, TRAILER)) == 0


def test_t4_scenes_are_read_so(tmp_path: Path) -> None:
    """For models without the class trailer; and no speed is above 50 m/s."""

    def lorry(tables: Tables) -> None:
        tables["category"] += [{"token": "c2", "name": "vehicle.truck"}, {"token": "c3", "name": "semi_trailer"}]
        tables["instance"] += [{"token": "i2", "category_token": "c2"}, {"token": "i3", "category_token": "c3"}]
        first = tables["sample_annotation"][0] | {"prev": "", "next": "", "velocity": [30.0, 80.0, 0.0]}
        x, y, z = first["translation"]
        behind = [x - 5.5 * np.cos(OBJECT_YAW), y - 5.5 * np.sin(OBJECT_YAW), z]
        tables["sample_annotation"] += [
            first | {"token": "t2", "instance_token": "i2"},
            first | {"token": "t3", "instance_token": "i3", "translation": behind},
        ]

    write_scene(tmp_path, lorry)
    truth = opened(tmp_path, classes=("car", "truck")).sample(0).ground_truth
    assert truth is not None and truth.labels.tolist() == [0, 1]
    assert truth.sizes[:, 0].tolist() == pytest.approx([4.5, 4.5 + 5.5], abs=0.02)  # the lidar is mounted askew
    assert np.linalg.norm(truth.velocities[1]) == pytest.approx(50.0, abs=0.01)
    apart = opened(tmp_path, classes=("car", "truck", "trailer")).sample(0).ground_truth
    assert apart is not None and apart.labels.tolist() == [0, 1, 2]
