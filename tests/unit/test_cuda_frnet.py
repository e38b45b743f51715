"""The kernels of FRNet, against its NumPy steps: the same inputs of the network and the same classes, bit for bit.

On a GPU, and everywhere on a CPU that runs the same source with threads in random order (`tests.support.cuda_on_cpu`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.models.frnet import device as frnet
from runtime.models.frnet.device import FRNetOnDevice
from runtime.pipeline import HostPipeline, Inference, build_pipeline
from shared.errors import InferenceError
from shared.metrics.confusion import UNLABELED
from shared.spec import ModelSpec
from tests.support import frnet_device as double

Points = np.ndarray[Any, np.dtype[np.float32]]


def cloud(count: int, seed: int = 0) -> Points:
    """Points around the sensor, many of them below it, some in one direction."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 12, (count, 4)).astype(np.float32)
    points[:, 2] = rng.normal(0, 3, count)
    heap = rng.integers(0, count, count // 4)
    points[heap, :2] = points[heap // 2, :2] * np.float32(1.5)
    return points


class Pair:
    """A frame through NumPy's steps and through the kernels."""

    def __init__(self, gpu: Any, spec: ModelSpec | None = None, dtype: str = "float32") -> None:
        self.spec = double.spec() if spec is None else spec
        self.host_session = double.HostSession(self.spec, dtype)
        self.host = build_pipeline(self.spec, self.host_session)
        self.session = double.FRNetSession(gpu, self.spec, dtype)
        device = build_pipeline(self.spec, self.session)
        assert isinstance(device, FRNetOnDevice)
        self.device = device

    def check(self, points: Points) -> Inference:
        with np.errstate(over="ignore", invalid="ignore"):
            wanted, got = self.host.infer(points), self.device.infer(points)
        assert got.counters == wanted.counters
        for column in ("labels", "scores", "margins"):
            np.testing.assert_array_equal(
                getattr(got.predictions, column), getattr(wanted.predictions, column), column, strict=True
            )
        np.testing.assert_array_equal(got.outputs["pred_probs"], wanted.outputs["pred_probs"])
        return got

    def same_inputs(self, points: Points) -> None:
        """The network was given the same, and zeros behind it."""
        answer = self.check(points)
        given, wanted = self.session.host.inputs, self.host_session.inputs
        for name, array in wanted.items():
            np.testing.assert_array_equal(given[name][: len(array)], array, name)
        assert answer.counters["num_frustums"] <= len(given["frustum_points"])
        for name, count in (("points", "num_points"), ("coors", "num_points"), ("frustum_points", "num_frustums")):
            assert not given[name][answer.counters[count] :].any()


@pytest.mark.parametrize("count", [2, 30, 400, 1100])
def test_the_network_is_given_the_same(gpu: Any, count: int) -> None:
    pair = Pair(gpu)
    for seed in range(3):
        pair.same_inputs(cloud(count, seed))


def test_gaps_are_filled_and_frustums_overflow(gpu: Any) -> None:
    counters = Pair(gpu).check(cloud(900)).counters
    assert counters["num_points"] > 900
    assert counters["points_over"] > 100
    assert 20 < counters["num_frustums"] < double.FRUSTUMS


def test_points_without_a_direction_get_no_class(gpu: Any) -> None:
    points = cloud(300)
    for row, value in enumerate([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-30]):
        for column in range(4):
            points[5 + 7 * row + column, column] = value
    points[[0, 60, 61, 299], :3] = 1.0, 0.0, 1.75
    labels = Pair(gpu).check(points).predictions.labels
    assert (labels[[0, 5, 6, 60, 61, 299]] == UNLABELED).all()


def test_frames_of_nothing(gpu: Any) -> None:
    pair = Pair(gpu)
    for points in (cloud(0), np.full((3, 4), np.nan, np.float32), cloud(1)):
        pair.check(points)


def test_equally_near_points_and_the_first_of_all(gpu: Any) -> None:
    """The nearest point of a pixel shows, of equally near ones the first; a pixel of the very first counts as empty."""
    ring = np.linspace(-np.pi, np.pi, 33, endpoint=False, dtype=np.float32)
    flat = np.stack([np.cos(ring) * 9 + np.float32(1), np.sin(ring) * 9, np.full(33, 1.5), ring], axis=1)
    points = np.concatenate([flat, flat[::-1], flat]).astype(np.float32)
    assert Pair(gpu).check(points).counters["num_points"] > len(points) + 20


def test_gaps_as_autoware_fills_them(gpu: Any) -> None:
    """Between the farthest points in half precision, in which many are equally far; the first pixel counts."""
    pair = Pair(gpu, double.spec(gaps="autoware"))
    for count in (2, 400, 1100):
        pair.check(cloud(count))
    points = cloud(900, seed=3)
    points[::3] *= np.float32(1.0001)
    points[5], points[6, :3] = 1e6, -1e5
    pair.same_inputs(points)


def test_columns_of_the_image_at_its_edges(gpu: Any) -> None:
    turns = np.arange(-64, 65) * (np.pi / 64)
    hair = np.concatenate([np.nextafter(turns, -9), turns, np.nextafter(turns, 9)])
    points = np.stack([np.cos(hair) * 7 + 1, np.sin(hair) * 7, np.resize([-9, 0.2, 1.75, 9], hair.size), hair], axis=1)
    Pair(gpu, double.spec(ignored_class=None)).check(points.astype(np.float32))


def test_half_precision(gpu: Any) -> None:
    Pair(gpu, dtype="float16").check(cloud(500))


def test_points_as_others_lay_them_out(gpu: Any) -> None:
    pair, points = Pair(gpu), cloud(200)
    wanted = pair.check(points).predictions.labels
    np.testing.assert_array_equal(pair.device.infer(points.astype(np.float64)).predictions.labels, wanted)
    np.testing.assert_array_equal(pair.device.infer(np.asfortranarray(points)).predictions.labels, wanted)


def test_a_frame_larger_than_the_one_before(gpu: Any) -> None:
    pair = Pair(gpu)
    sizes = []
    for count in (40, 900, 30, 30, 600):
        answer = pair.check(cloud(count, count))
        assert set(answer.latency_ms) >= {"upload", "interpolate", "group", "frnet", "classify", "download"}
        sizes.append(len(pair.session.host.inputs["points"]))
    assert sizes[3] < sizes[4]
    assert sizes[0] == double.ROWS, "nothing is known before the first"


def test_of_frames_that_take_turns_none_is_run_twice(gpu: Any) -> None:
    """Of as many points, one has gaps in all directions and the other is a wall that has none."""
    pair = Pair(gpu)
    wall = np.stack([np.full(400, 9.0), np.linspace(-1, 1, 400), np.full(400, 1.5), np.ones(400)], axis=1)
    frames = [cloud(400), wall.astype(np.float32)]
    gaps = [pair.check(points).counters["num_points"] - 400 for points in frames * 2]
    assert gaps[0] > 50 > gaps[1]
    before = pair.session.host.calls
    for points in frames * 2:
        pair.device.infer(points)
    assert pair.session.host.calls == before + 4


def test_a_frame_that_is_run_again_asks_for_no_row_that_is_not_there(gpu: Any) -> None:
    """Of this cloud one frustum has a filled gap alone, and that is no row of the bucket that it runs with first."""
    turns = np.repeat((np.arange(double.FRUSTUMS_WIDTH) + 0.5) * (2 * np.pi / double.FRUSTUMS_WIDTH), double.HEIGHT)
    slopes = np.tan(np.radians(7.5 - 5 * np.tile(np.arange(double.HEIGHT), double.FRUSTUMS_WIDTH)))
    scattered = np.stack([9 * np.cos(turns) + 1, 9 * np.sin(turns), 1.75 + 9 * slopes, turns], 1).astype(np.float32)
    pair = Pair(gpu)
    assert pair.check(np.resize(scattered, (374, 4))).counters["num_points"] == 374, "no gaps to expect"
    assert pair.check(cloud(374, 175)).counters["num_points"] == 434


def test_the_network_runs_with_little_more_than_the_frame_has(gpu: Any) -> None:
    pair = Pair(gpu)
    for seed in range(3):
        counters = pair.check(cloud(900, seed)).counters
    given = pair.session.host.inputs
    assert counters["num_points"] <= len(given["points"]) < 1.08 * counters["num_points"]
    assert counters["num_frustums"] <= len(given["frustum_points"]) < 1.1 * counters["num_frustums"]


def test_buckets_are_only_so_many(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frnet, "MOST_BUCKETS", frnet.QUARTERS + 2)
    pair = Pair(gpu)
    for count in (300, 300, 700, 700, 500, 500, 20, 1100):
        pair.same_inputs(cloud(count, count))
    assert len(pair.device._buckets) == frnet.QUARTERS + 2


@pytest.mark.parametrize("most", [2, 7, 128, 60_000])
def test_a_size_holds_what_it_is_for(most: int) -> None:
    for count in range(most + 2):
        size = frnet._next_size(count, 2, most)
        assert min(count, most) <= size <= most
        assert size <= max(2, 1.045 * count + 1)


def test_lanes_do_not_mix(gpu: Any) -> None:
    pair = Pair(gpu)
    lanes = [pair.device, pair.device.another(), pair.device.another()]
    clouds = [cloud(100 + 200 * number, number) for number in range(len(lanes))]
    for lane, points in zip(lanes, clouds, strict=True):
        lane.submit(points)
    for lane, points in zip(reversed(lanes), reversed(clouds), strict=True):
        wanted = pair.host.infer(points).predictions
        np.testing.assert_array_equal(lane.collect().predictions.labels, wanted.labels)


def test_what_is_too_large_is_refused(gpu: Any) -> None:
    pair = Pair(gpu, double.spec(rows=300))
    with pytest.raises(InferenceError, match="a frame of 301 points: the network takes at most 300"):
        pair.device.infer(cloud(301))
    with pytest.raises(InferenceError, match=r"points, gaps filled, in .* the network takes at most 300"):
        pair.device.infer(cloud(299))
    pair.check(cloud(100))
    few = Pair(gpu, double.spec(frustums=20))
    with pytest.raises(InferenceError, match=r"in 20$"):
        few.device.infer(cloud(400))
    with pytest.raises(InferenceError, match=r"shape \(3, 5\)"):
        few.device.infer(np.zeros((3, 5), np.float32))
    assert few.device.input_shapes(cloud(3), {"num_points": 7, "num_frustums": 1})["frnet"]["frustum_points"] == (2, 3)


def test_inputs_whose_size_the_host_must_know_stay_there(gpu: Any) -> None:
    model = double.spec(form="scatter")
    assert isinstance(build_pipeline(model, double.FRNetSession(gpu, model)), HostPipeline)
