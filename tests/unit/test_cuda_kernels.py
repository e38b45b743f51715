"""Every CUDA kernel against the NumPy step it stands for, on random and on adversarial frames: equal to the bit.

On a GPU, and everywhere on a CPU that runs the same source with threads in random order (`tests.support.cuda_on_cpu`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.cuda.gpu import Gpu
from runtime.cuda.session import DeviceSession
from runtime.lidar import device_voxels as cuda_steps
from runtime.models.centerpoint.device import CenterPointOnDevice
from runtime.models.centerpoint.parameters import CenterPointParameters
from runtime.pipeline import build_pipeline
from shared.errors import InferenceError
from shared.spec import ModelSpec
from tests.support import cuda_on_cpu
from tests.support import tiny_centerpoint as tiny
from tests.support.device_double import DeviceDouble

Points = np.ndarray[Any, np.dtype[np.float32]]


def make_spec(**changes: Any) -> ModelSpec:
    """The tiny model with changed parameters; names with a dot reach into a section."""
    options = {key: changes.pop(key) for key in ("max_voxels", "two_tasks", "y_axis") if key in changes}
    spec = tiny.spec(**options)
    parameters = dict(spec.parameters)
    for name, value in changes.items():
        section, _, key = name.partition("__")
        parameters[section] = {**parameters[section], key: value} if key else value
    return spec.model_copy(update={"parameters": parameters})


def head_outputs(spec: ModelSpec, seed: int, size: int = 16, bias: float = -2.0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    outputs = {}
    for tensor in spec.components[1].outputs:
        values = rng.normal(0, 1, (1, int(tensor.shape[1]), size, size)).astype(np.float32)
        outputs[tensor.name] = values + np.float32(bias) if tensor.name.startswith("heatmap") else values
    return outputs


class Pair:
    """The same request on both sides: NumPy with a session that answers with the tensors of the double."""

    def __init__(self, gpu: Gpu, spec: ModelSpec, outputs: dict[str, Any] | None = None, **options: Any) -> None:
        self.parameters = CenterPointParameters.model_validate(spec.parameters)
        rows = self.parameters.max_voxels
        rng = np.random.default_rng(0)
        dtype = options.pop("dtype", np.float32)
        self.pillars = rng.normal(0, 1, (rows, 1, self.parameters.encoder_channels)).astype(dtype)
        self.outputs = {name: array.astype(dtype) for name, array in (outputs or head_outputs(spec, 1)).items()}
        recordable = options.pop("recordable", not isinstance(gpu, cuda_on_cpu.HostGpu))
        session = DeviceDouble(gpu, spec, self.pillars, self.outputs, recordable=recordable)
        assert isinstance(session, DeviceSession)
        self.session = session
        device = build_pipeline(spec, session)
        assert isinstance(device, CenterPointOnDevice)
        self.device = device
        self.asked: dict[str, np.ndarray[Any, Any]] = {}
        self.host = build_pipeline(spec, _HostDouble(self))

    def check(self, points: Points, *, stages: bool = False) -> None:
        self.asked.clear()
        wanted = self.host.infer(points)
        self.device.submit(points, stages=stages)
        got = self.device.collect()
        assert got.counters == wanted.counters
        count = wanted.counters["voxels"]
        if count:
            features = self.device._encoder.features.get()
            assert_equal(features[:count], self.asked["pts_voxel_encoder"][:count])
            rows = self.device._bucket(count)
            assert not features[count:rows].any()
        assert_equal(self.session.canvas, self.asked["pts_backbone_neck_head"])
        for column in ("centers", "sizes", "yaws", "velocities", "labels", "scores", "num_points"):
            assert_equal(getattr(got.predictions, column), getattr(wanted.predictions, column), column)
        for name, array in wanted.outputs.items():
            assert_equal(got.outputs[name], array, name)


class _HostDouble:
    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.settings: dict[str, Any] = {}

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        (array,) = inputs.values()
        self._pair.asked[component] = np.array(array, self._pair.pillars.dtype)
        if component == "pts_voxel_encoder":
            return {"pillar_features": self._pair.pillars[: len(array)]}
        return self._pair.outputs


def assert_equal(got: Any, wanted: Any, what: str = "") -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, what
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted)) if got.dtype.kind == "f" else got == wanted
    assert same.all(), (
        f"{what}: {np.count_nonzero(~same)} of {same.size} differ, first {got[~same][:3]} {wanted[~same][:3]}"
    )


def cloud(count: int, seed: int = 0, spread: float = 6.0) -> Points:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, spread, (count, 4)).astype(np.float32)
    points[:, 2] = rng.uniform(-4, 6, count)
    return points


def on_borders() -> Points:
    """Points on, a hair below and a hair above every edge of the grid along x and y, and on its corners."""
    edges = np.arange(-16, 17, dtype=np.float32)
    values = np.concatenate([edges, np.nextafter(edges, np.float32(-99)), np.nextafter(edges, np.float32(99))])
    x, y = np.meshgrid(values, values)
    z = np.resize(np.array([-3, 4.9999995, 5, np.nextafter(np.float32(-3), np.float32(-9)), 0], np.float32), x.size)
    return np.stack([x.ravel(), y.ravel(), z, np.zeros(x.size, np.float32)], 1).astype(np.float32)


def broken() -> Points:
    points = cloud(500, 3)
    for row, value in enumerate([np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0]):
        for column in range(4):
            points[row * 40 + column, column] = value
    return points


FRAMES: dict[str, Callable[[], Points]] = {
    "empty": lambda: np.zeros((0, 4), np.float32),
    "one point": lambda: cloud(1),
    "all in one voxel": lambda: np.tile(np.array([[0.3, 0.4, 0.5, 1.0]], np.float32), (5000, 1)),
    "one voxel, distinct": lambda: (cloud(10_000) % 1.0).astype(np.float32),
    "nothing inside": lambda: cloud(300) + np.float32(1000),
    "all NaN": lambda: np.full((300, 4), np.nan, np.float32),
    "borders": on_borders,
    "broken values": broken,
    "few": lambda: cloud(60),
    "many": lambda: cloud(12_000),
    "more than the buffers": lambda: cloud(cuda_steps.POINT_CAPACITY + 77, spread=9.0),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(gpu: Gpu, name: str) -> None:
    pair = Pair(gpu, make_spec())
    pair.check(FRAMES[name]())


def test_one_frame_after_the_other_leaves_nothing_behind(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec(max_voxels=2000))
    for number, make in enumerate(FRAMES.values()):
        pair.check(make(), stages=number % 2 == 1)
        pair.check(cloud(1000, number), stages=number % 2 == 0)


def test_more_voxels_than_fit(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec(max_voxels=50))
    for seed in range(5):
        pair.check(cloud(5000, seed))
    assert pair.host.infer(cloud(5000)).counters["voxels_dropped"] > 100


def test_without_graphs(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec(), recordable=False)
    for stages in (False, True):
        pair.check(cloud(2000), stages=stages)
        pair.check(cloud(50), stages=stages)


def test_a_request_that_failed_leaves_nothing_behind(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(gpu, make_spec(), recordable=False)
    pair.check(cloud(2000))

    def refuse() -> None:
        raise InferenceError("no")

    with monkeypatch.context() as failing, pytest.raises(InferenceError, match="no"):
        failing.setattr(pair.device._head, "enqueue", refuse)
        pair.device.infer(cloud(3000, 1))
    pair.check(cloud(500, 2))


def test_what_was_on_its_way_when_a_request_failed_is_waited_for(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, waited = Pair(gpu, make_spec(), recordable=False), 0

    def refuse() -> None:
        raise InferenceError("no")

    def synchronize(gpu: Gpu) -> None:
        nonlocal waited
        waited += 1

    monkeypatch.setattr(pair.device._head, "enqueue", refuse)
    monkeypatch.setattr(type(gpu), "synchronize", synchronize)
    with pytest.raises(InferenceError, match="no"):
        pair.device.submit(cloud(300))
    assert waited == 1


@pytest.mark.parametrize("fitting", range(3))
def test_a_frame_that_finds_no_memory_leaves_the_buffers_as_they_were(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    monkeypatch.setattr(cuda_steps, "POINT_CAPACITY", 4096)
    pair = Pair(gpu, make_spec())
    buffers = pair.device._memory
    before = [getattr(buffers, name) for name in ("frame", "host_frame", "cell_of_point", "firsts_of_tile", "capacity")]
    with monkeypatch.context() as full, pytest.raises(InferenceError, match="no memory"):
        cuda_on_cpu.full_after(full, type(gpu), fitting)
        pair.device.submit(cloud(9000))
    after = [getattr(buffers, name) for name in ("frame", "host_frame", "cell_of_point", "firsts_of_tile", "capacity")]
    assert all(old is new for old, new in zip(before, after, strict=True))
    pair.check(cloud(2000, 1))
    pair.check(cloud(9000, 2))


def test_requests_are_recorded_again_where_that_failed_after_buffers_grew(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_steps, "POINT_CAPACITY", 4096)
    pair = Pair(gpu, make_spec())
    record, recorded = pair.device._record, []

    def refuse() -> None:
        raise InferenceError("no")

    with monkeypatch.context() as failing, pytest.raises(InferenceError, match="no"):
        failing.setattr(pair.device, "_record", refuse)
        pair.device.submit(cloud(9000))
    monkeypatch.setattr(pair.device, "_record", lambda: recorded.append(record()))
    for seed in range(2):
        pair.check(cloud(2000, seed))
    assert len(recorded) == 1


def test_points_in_page_locked_memory_are_taken_from_there(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec())
    for count in (2000, 30, cuda_steps.POINT_CAPACITY + 5):
        points = cloud(count, count)
        buffer = pair.device.input_buffer(count)
        buffer[:] = points
        pair.check(buffer)
        assert_equal(buffer, points)
        pair.check(cloud(500))


def test_launching_again_answers_the_same_and_leaves_nothing_behind(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec())
    pair.check(cloud(3000))
    answer = pair.device._buffers.host_result
    before = answer.copy()
    for _ in range(3):
        answer[:] = -1
        pair.device.launch_again()
        gpu.synchronize()
        assert_equal(answer, before)
    pair.check(cloud(500, 1))


def test_float16_tensors(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec(), dtype=np.float16)
    for seed in range(3):
        pair.check(cloud(3000, seed))


@pytest.mark.parametrize(
    ("voxel_center", "cluster_center", "distance", "legacy"),
    [
        ("xyz", True, True, True),
        ("xyz", False, False, True),
        ("xy", True, False, False),
        ("xy", False, True, True),
        ("none", True, True, False),
        ("none", False, False, False),
    ],
)
def test_decorations(gpu: Gpu, voxel_center: str, cluster_center: bool, distance: bool, legacy: bool) -> None:
    decoration = {
        "raw_features": 4, "voxel_center": voxel_center, "cluster_center": cluster_center, "distance": distance,
        "legacy": legacy,
    }  # fmt: skip
    Pair(gpu, make_spec(decoration=decoration)).check(cloud(3000))


@pytest.mark.parametrize("max_points", [1, 5, 32, 40])
def test_points_per_voxel(gpu: Gpu, max_points: int) -> None:
    pair = Pair(gpu, make_spec(max_points_per_voxel=max_points))
    pair.check(cloud(9_000))
    pair.check(FRAMES["one voxel, distinct"]())


@pytest.mark.parametrize(
    "options", [{"two_tasks": True}, {"y_axis": True}, {"norm_bbox": False}, {"out_size_factor": 4}]
)
def test_heads(gpu: Gpu, options: dict[str, Any]) -> None:
    Pair(gpu, make_spec(**options)).check(cloud(1000))


def test_tasks_of_different_resolutions(gpu: Gpu) -> None:
    spec = make_spec(two_tasks=True)
    first, second = spec.parameters["tasks"]
    tasks = [first, {**second, "out_size_factor": 8}]
    Pair(gpu, spec.model_copy(update={"parameters": {**spec.parameters, "tasks": tasks}})).check(cloud(1000))


def flat(spec: ModelSpec, value: float) -> dict[str, Any]:
    outputs = head_outputs(spec, 2, size=64)
    outputs["heatmap"][:] = value
    return outputs


HEATMAPS: dict[str, Callable[[ModelSpec], dict[str, Any]]] = {
    "nothing above": lambda spec: flat(spec, -20.0),
    "all equal": lambda spec: flat(spec, 0.3),
    "all saturated": lambda spec: head_outputs(spec, 3, size=64, bias=30.0),
    "all above": lambda spec: head_outputs(spec, 4, size=64, bias=3.0),
    "infinite": lambda spec: flat(spec, np.inf),
    "minus infinite": lambda spec: flat(spec, -np.inf),
    "all NaN": lambda spec: flat(spec, np.nan),
}


@pytest.mark.parametrize("name", HEATMAPS)
@pytest.mark.parametrize("threshold", [None, 0.1])
def test_heatmaps(gpu: Gpu, name: str, threshold: float | None) -> None:
    spec = make_spec(bbox_coder__score_threshold=threshold, out_size_factor=1)
    Pair(gpu, spec, HEATMAPS[name](spec)).check(cloud(100))


def test_nan_in_outputs(gpu: Gpu) -> None:
    spec = make_spec()
    outputs = head_outputs(spec, 5)
    rng = np.random.default_rng(0)
    for array in outputs.values():
        array[rng.random(array.shape) < 0.1] = np.nan
    Pair(gpu, spec, outputs).check(cloud(100))


@pytest.mark.parametrize(
    ("max_num", "radius"), [(1, 0.85), (33, 0.85), (500, 0.0), (500, 0.85), (500, 30.0), (1000, 0.85)]
)
def test_suppression(gpu: Gpu, max_num: int, radius: float) -> None:
    nms = {"type": "circle", "radius": [radius], "pre_max_size": None, "post_max_size": 83}
    spec = make_spec(bbox_coder__max_num=max_num, nms=nms, out_size_factor=1)
    Pair(gpu, spec, head_outputs(spec, 6, size=48, bias=0.0)).check(cloud(100))


def test_a_repeat_is_equal_to_the_bit(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec(max_voxels=900))
    frames = [cloud(10_000, seed, spread=3.0) for seed in range(2)]

    def answers() -> list[bytes]:
        found = []
        for frame in frames:
            boxes = pair.device.infer(frame).predictions
            found.append(pair.device._encoder.features.get().tobytes() + b"".join(
                getattr(boxes, field.name).tobytes() for field in dataclasses.fields(boxes)
            ))  # fmt: skip
        return found

    first = answers()
    # On a CPU every launch has another order of threads, and every change of thread costs time.
    for _ in range(3 if isinstance(gpu, cuda_on_cpu.HostGpu) else 30):
        assert answers() == first


def test_one_request_at_a_time(gpu: Gpu) -> None:
    pair = Pair(gpu, make_spec())
    pair.device.submit(cloud(10))
    with pytest.raises(InferenceError, match="in flight"):
        pair.device.submit(cloud(10))
    pair.device.collect()
    with pytest.raises(InferenceError, match="no request"):
        pair.device.collect()
