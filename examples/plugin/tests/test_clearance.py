"""The package by itself: geometry, the two grids, the two decoders, metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clearance import metric
from clearance.geometry import REACH, SECTORS, nearest_boxes
from clearance.network import CELLS, HEIGHTS, loss, median_distances
from clearance.network import polar_grid as trained_grid
from clearance.runtime_model.pipeline import SectorNetParameters, distances, polar_grid
from clearance.task import TASK, Clearance

from shared.tasks.detection3d import Boxes3D

PARAMETERS = SectorNetParameters(sectors=SECTORS, cells=CELLS, reach=REACH, heights=HEIGHTS)


def boxes(*rows: tuple[float, float, float], points: int = 5) -> Boxes3D:
    """Boxes of 4 x 2 m at x, y, with a yaw."""
    places = np.array(rows)
    count = len(rows)
    return Boxes3D.build(
        np.c_[places[:, :2], np.ones(count)], [[4, 2, 1.5]] * count, places[:, 2], num_points=[points] * count
    )


def test_the_nearest_side_counts() -> None:
    ahead = nearest_boxes(boxes((10.0, 0.0, 0.0), (20.0, 0.0, 0.0)))
    assert ahead[0] == pytest.approx(8.0, abs=0.05)
    across = nearest_boxes(boxes((10.0, 0.0, np.pi / 2)))
    assert across[0] == pytest.approx(9.0, abs=0.05)
    assert (ahead[10:-10] == REACH).all()


def test_the_vehicle_inside_a_box_has_no_room() -> None:
    assert (nearest_boxes(boxes((0.0, 0.0, 0.3))) == 0).all()


def test_what_has_no_point_is_unknown() -> None:
    assert (nearest_boxes(boxes((10.0, 0.0, 0.0), points=0)) == REACH).all()
    assert (nearest_boxes(Boxes3D.empty()) == REACH).all()


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_the_runtime_makes_the_grid_that_the_network_was_trained_on(count: int) -> None:
    rng = np.random.default_rng(count)
    points = rng.normal(0, (25, 25, 2), (count, 3)).astype(np.float32)
    np.testing.assert_allclose(polar_grid(points, PARAMETERS), trained_grid(points).numpy(), atol=1e-6)


def test_the_runtime_decodes_as_training_does() -> None:
    logits = np.random.default_rng(0).normal(-4, 3, (1, CELLS, SECTORS)).astype(np.float32)
    logits[0, :, 0] = -90
    logits[0, 0, 1] = 90
    said = distances({"logits": logits}, PARAMETERS).distances
    np.testing.assert_allclose(said, median_distances(torch.from_numpy(logits))[0].numpy(), atol=1e-3)
    assert said[0] == REACH
    assert said[1] < 1


def test_the_loss_is_least_where_the_distance_is() -> None:
    logits = torch.full((1, CELLS, SECTORS), -6.0)
    logits[0, 20] = 6.0
    losses = [float(loss(logits, torch.full((1, SECTORS), value))) for value in (10.5, 20.5, 30.5)]
    assert min(losses) == losses[1]


def test_the_metric_of_a_run_that_is_right_and_of_one_that_is_too_far() -> None:
    truth = np.full((2, SECTORS), 20.0, np.float32)
    right = metric.headline(metric.evaluate(metric.Matched(truth, truth)))
    assert right == {"mean error": 0.0, "within 1 m": 1.0, "too far by 2 m": 0.0}
    far = metric.headline(metric.evaluate(metric.Matched(truth, truth + 3)))
    assert far == {"mean error": 3.0, "within 1 m": 0.0, "too far by 2 m": 1.0}


def test_two_answers_are_compared_sector_by_sector() -> None:
    one = Clearance(np.array([1.0, 2.0, np.nan], np.float32))
    pairing = TASK.pair(one, Clearance(np.array([1.5, 2.0, 3.0], np.float32)))
    assert (pairing.matched, pairing.non_finite) == (2, 2)
    assert pairing.errors["distance"].tolist() == [0.5, 0.0]
