"""FRNet's steps around the network: projection, gaps, frustums, classes; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.models.frnet.group import group, padded_index, pixel_map
from runtime.models.frnet.interpolate import interpolate
from runtime.models.frnet.parameters import RangeImage, Sensor, read_parameters
from runtime.models.frnet.project import project
from runtime.pipeline import HostPipeline, build_pipeline
from shared.errors import InferenceError, ManifestError
from shared.metrics.confusion import UNLABELED
from tests.support import tiny_frnet as tiny

AT_ORIGIN = Sensor(position=(0.0, 0.0, 0.0), fov_up=10.0, fov_down=-30.0)


def seen(azimuth: float, pitch: float, distance: float, intensity: float = 0.0) -> list[float]:
    """A point by its direction [deg] from a sensor at the origin."""
    a, p = np.radians([azimuth, pitch])
    return [np.cos(a) * np.cos(p) * distance, np.sin(a) * np.cos(p) * distance, np.sin(p) * distance, intensity]


class StandIn:
    """A session that answers with each point's intensity as its class, with certainty."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def run(self, component: str, inputs: dict[str, Any]) -> dict[str, Any]:
        assert component == "frnet"
        self.calls.append(inputs)
        answer = np.zeros((len(inputs["points"]), len(tiny.CLASSES) + 1), np.float32)
        answer[np.arange(len(answer)), inputs["points"][:, 3].astype(int)] = 1
        return {"pred_probs": answer}


def test_rows_go_down_and_columns_clockwise_from_behind() -> None:
    image = RangeImage(height=4, width=8)
    cloud = np.array(
        [seen(-1, -1, 9), seen(89, -1, 9), seen(-91, -1, 9), seen(179, -1, 9), seen(-179, -1, 9), seen(1, 9, 5),
         seen(1, -29, 5), seen(1, 60, 5), seen(1, -80, 5)],
        np.float32,
    )  # fmt: skip
    rows, columns = project(cloud, AT_ORIGIN, image)
    assert columns.tolist() == [4, 2, 6, 0, 7, 3, 3, 3, 3]
    assert rows.tolist() == [1, 1, 1, 1, 1, 0, 3, 0, 3]


def test_a_gap_gets_the_mean_of_the_nearest_points_beside_it() -> None:
    image = RangeImage(height=1, width=8)
    somewhere, left, gap, right = (seen(180 - 45 * (column + 0.5), 0, 10) for column in (0, 3, 4, 5))
    near, far = np.array(left) * [0.5, 0.5, 0.5, 1], [*left[:3], 7.0]
    cloud = np.array([somewhere, far, near, right], np.float32)
    filled = interpolate(cloud, AT_ORIGIN, image)
    np.testing.assert_array_equal(filled[:4], cloud)
    np.testing.assert_array_equal(filled[4:], [(cloud[2] + cloud[3]) / 2])
    # Of equally near points the first is shown; the pixel that shows the frame's very first point counts as empty.
    twice = np.array([somewhere, [*left[:3], 1.0], [*left[:3], 2.0], right], np.float32)
    np.testing.assert_array_equal(interpolate(twice, AT_ORIGIN, image)[4:], [(twice[1] + twice[3]) / 2])
    assert len(interpolate(twice[1:], AT_ORIGIN, image)) == 3
    between = np.array([gap, left, right], np.float32)
    np.testing.assert_array_equal(interpolate(between, AT_ORIGIN, image)[3:], [(between[1] + between[2]) / 2])


def test_autowares_gaps_are_between_the_farthest_points_in_half_precision() -> None:
    image = RangeImage(height=1, width=8)
    left, right = (seen(180 - 45 * (column + 0.5), 0, 10) for column in (3, 5))
    far, near = [*left[:3], 7.0], [*np.array(left[:3]) / 2, 1.0]
    cloud = np.array([far, near, right], np.float32)
    (added,) = interpolate(cloud, AT_ORIGIN, image, "autoware")[3:]
    np.testing.assert_array_equal(added, (cloud[0].astype(np.float16) + cloud[2].astype(np.float16)) / np.float32(2))
    assert not np.array_equal(added, (cloud[0] + cloud[2]) / 2)
    # In half precision they are equally far: the first is shown. What it can't hold counts as its largest.
    alike = np.array([far, np.multiply(far, [1.00001, 1.00001, 1, 0]), right], np.float32)
    np.testing.assert_array_equal(interpolate(alike, AT_ORIGIN, image, "autoware")[3:], [added])
    beyond = np.array([np.multiply(far, 1e5), right], np.float32)
    assert np.isfinite(interpolate(beyond, AT_ORIGIN, image, "autoware")).all()


def test_frustums_are_the_pixels_with_points() -> None:
    cloud = tiny.points()
    image = RangeImage(height=tiny.HEIGHT, width=tiny.WIDTH)
    frustums = group(cloud, Sensor(**tiny.SENSOR), image)
    places = [tuple(row) for row in frustums.voxel_coors.tolist()]
    assert places == sorted(set(map(tuple, frustums.coors.tolist())))
    np.testing.assert_array_equal(frustums.voxel_coors[frustums.inverse_map], frustums.coors)


def test_free_slots_repeat_the_first_point_and_others_are_counted() -> None:
    index, over = padded_index(np.array([1, 0, 1, 1, 1, 2]), 3, 3)
    assert index.tolist() == [[1, 1, 1], [0, 2, 3], [5, 5, 5]]
    assert over == 1


def test_of_several_frustums_in_a_pixel_the_last_is_shown() -> None:
    voxels = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 3, 3]])
    shown = pixel_map(voxels, RangeImage(height=4, width=4), (1, 2))
    assert shown[:16].reshape(4, 4).tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]]
    assert shown[16:].reshape(2, 2).tolist() == [[3, 0], [0, 4]]


@pytest.mark.parametrize("form", ["padded", "scatter"])
def test_every_point_of_the_file_gets_an_answer_in_its_place(form: str) -> None:
    cloud = tiny.points(500)
    cloud[:, 3] = np.arange(500) % (len(tiny.CLASSES) + 1)
    cloud[7, 1], cloud[9, 3], cloud[11, :3] = np.nan, np.inf, tiny.SENSOR["position"]
    pipeline = build_pipeline(tiny.spec(form), StandIn())
    answer = pipeline.infer(cloud)
    expected = cloud[:, 3].copy()
    expected[[7, 9, 11]] = UNLABELED
    expected[expected == len(tiny.CLASSES)] = UNLABELED
    np.testing.assert_array_equal(answer.predictions.labels, expected)
    assert answer.predictions.scores[[7, 9, 11]].tolist() == [0, 0, 0]
    assert answer.counters["num_points"] == len(answer.outputs["pred_probs"]) > 497


@pytest.mark.parametrize("form", ["padded", "scatter"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_frames_of_hardly_any_points(form: str, count: int) -> None:
    """An axis of one is a constant to torch.export: the component gets two of each."""
    cloud = np.repeat(tiny.points(1), count, axis=0)
    cloud[:, 3] = 2
    session = StandIn()
    answer = build_pipeline(tiny.spec(form), session).infer(cloud)
    assert answer.predictions.labels.tolist() == [2] * count
    for inputs in session.calls:
        assert all(len(array) >= 2 for array in inputs.values())
    assert len(session.calls) == (count > 0)


def test_a_kept_state_goes_on_as_the_whole_does() -> None:
    cloud = tiny.points(300)
    cloud[:, 3] = 1
    pipeline = build_pipeline(tiny.spec(points_per_frustum=2), StandIn())
    assert isinstance(pipeline, HostPipeline)
    state: Any = cloud
    for step in pipeline.steps[1:]:
        state = step.packing.unpack(step.packing.pack(step.run(state)))
    np.testing.assert_array_equal(state.labels, pipeline.infer(cloud).predictions.labels)


def test_what_a_user_is_told() -> None:
    pipeline = build_pipeline(tiny.spec(points_per_frustum=1), StandIn())
    counters = {"points": 400, "read_nan": 2, **pipeline.infer(np.abs(tiny.points(400)) % 5).counters}
    assert counters["points_over"] > 0
    invalid, over = pipeline.alerts(counters)
    assert invalid == "2 of 400 points are NaN or infinite and get no class"
    assert over.startswith(f"{counters['points_over']} of {counters['num_points']} points are beyond the 1 ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [1, 3]}, "don't divide"),
        ({"ignored_class": 3}, "class to be ignored is the last"),
        ({"ignored_class": None}, "has 8 classes and answers 9"),
        ({"points": {"load_dim": 5, "use_dim": [0, 1, 2], "merge_sweeps": False}}, "x, y, z and intensity"),
        ({"points": {"load_dim": 5, "columns": 4}}, "unknown key columns"),
        ({"sensor": {**tiny.SENSOR, "fov_up": 0.0, "fov_down": 0.0}}, "fov_up and fov_down are 0"),
    ],
)
def test_parameters_that_fit_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_parameters(tiny.spec(**changes))


def test_points_of_another_width_are_refused() -> None:
    with pytest.raises(InferenceError, match=r"the shape \(5, 3\)"):
        build_pipeline(tiny.spec(), StandIn()).infer(np.ones((5, 3), np.float32))
