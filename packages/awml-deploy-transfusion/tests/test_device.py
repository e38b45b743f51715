"""The kernels, compiled for a CPU: the network is given what the host gives it, and boxes are the host's to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awml_deploy_transfusion.names import BOXES, COMPONENT, COORS, NUM_POINTS, ROTATIONS, SCORES, VOXELS, VOXELS_AXIS
from awml_deploy_transfusion.runtime_model import device
from awml_deploy_transfusion.runtime_model.pipeline import build

from runtime.backends import Session
from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession, Lane
from shared.spec import AxisSizes, ComponentSpec, ModelSpec, TensorSpec
from shared.tasks.detection3d import Boxes3D
from tests.support import cuda_on_cpu

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler")

MAX_VOXELS, SLOTS, COLUMNS, CLASSES, QUERIES = 300, 4, 5, 3, 70


def make_spec(numbers: int = 8, **changes: Any) -> ModelSpec:
    shapes: dict[str, tuple[str, list[int | str]]] = {
        VOXELS: ("float32", [VOXELS_AXIS, SLOTS, COLUMNS]), NUM_POINTS: ("int32", [VOXELS_AXIS]),
        COORS: ("int32", [VOXELS_AXIS, 4]), SCORES: ("float32", [1, CLASSES, QUERIES]),
        BOXES: ("float32", [1, numbers, QUERIES]), ROTATIONS: ("float32", [1, 2, QUERIES]),
    }  # fmt: skip
    tensors = [TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in shapes.items()]
    network = ComponentSpec(
        name=COMPONENT, inputs=tensors[:3], outputs=tensors[3:], onnx="onnx/transfusion.onnx",
        axes={VOXELS_AXIS: AxisSizes(min=1, opt=MAX_VOXELS, max=MAX_VOXELS, counter="voxels")},
    )  # fmt: skip
    parameters = {
        "point_cloud_range": [-12.8, -12.8, -3.0, 12.8, 12.8, 5.0], "voxel_size": [0.8, 0.8, 8.0],
        "grid_size": [32, 32, 1], "max_points_per_voxel": SLOTS, "max_voxels": MAX_VOXELS, "out_size_factor": 4,
        "points": {"load_dim": 5, "use_dim": [0, 1, 2, 3, 4]},
        "post_center_range": [-10.0, -10.0, -10.0, 10.0, 10.0, 10.0], **changes,
    }  # fmt: skip
    return ModelSpec(
        model="transfusion", task="detection3d", classes=["a", "b", "c"], components=[network], parameters=parameters
    )


def said(spec: ModelSpec, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    """What a network may say, with equal scores, boxes out of range, and numbers that are none."""
    rng = np.random.default_rng(seed)
    outputs = {
        tensor.name: rng.normal(0, 1, tuple(int(axis) for axis in tensor.shape)).astype(dtype)
        for tensor in spec.components[0].outputs
    }
    outputs[SCORES] = np.abs(outputs[SCORES]).round(1)
    outputs[BOXES][:, :2] = rng.uniform(0, 8, (1, 2, QUERIES))
    outputs[SCORES][0, 1, 3] = outputs[BOXES][0, 4, 5] = outputs[ROTATIONS][0, 0, 7] = np.nan
    return outputs


class Double(DeviceSession):
    """A network that notes what it is given, and says what the test chose."""

    def __init__(self, gpu: Any, outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.gpu = gpu
        self.settings: dict[str, Any] = {}
        self.outputs = {name: gpu.upload(array) for name, array in outputs.items()}
        self.asked: dict[str, np.ndarray[Any, Any]] = {}

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def rows(self, component: str) -> tuple[int, int | None]:  # noqa: ARG002
        return 2, MAX_VOXELS

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:  # noqa: ARG002
        integers = (NUM_POINTS, COORS)
        return np.dtype(np.int32) if tensor in integers else next(iter(self.outputs.values())).dtype

    def open_lane(self) -> Lane:
        return DoubleLane(self)


class DoubleLane(Lane):
    recordable = False

    def __init__(self, session: Double) -> None:
        self._session, self.stream = session, session.gpu.stream()

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:  # noqa: ARG002
        return DoubleBound(self._session, dict(inputs))


class DoubleBound(Bound):
    def __init__(self, session: Double, inputs: dict[str, DeviceArray]) -> None:
        self._session, self._inputs, self.outputs = session, inputs, session.outputs

    def enqueue(self) -> None:
        self._session.asked = {name: array.get().copy() for name, array in self._inputs.items()}


class OnHost(Session):
    def __init__(self, outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._outputs = dict(outputs)
        self.asked: dict[str, np.ndarray[Any, Any]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def run(self, component: str, inputs: Any) -> dict[str, Any]:  # noqa: ARG002
        self.asked = {name: np.array(array) for name, array in inputs.items()}
        return self._outputs


def cloud(count: int, spread: float = 8.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(count)
    points = rng.normal(0, (spread, spread, 1.0, 0.4, 0.1), (count, COLUMNS)).astype(np.float32)
    points[::50, 3] = np.nan
    return points


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are kept."""
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "spec",
    [
        make_spec(),
        make_spec(6, score_threshold=0.6, circle_nms=[{"label": 1, "radius": 4.0, "most": 3}]),
    ],
    ids=["all", "some"],
)
def test_requests_are_answered_as_on_the_host(
    kernels: Path, monkeypatch: pytest.MonkeyPatch, spec: ModelSpec, dtype: Any
) -> None:
    outputs = said(spec, dtype=dtype)
    gpu = cuda_on_cpu.use(monkeypatch, kernels, seed=3)
    session, on_host = Double(gpu, outputs), OnHost(outputs)
    lane, host = build(spec, session), build(spec, on_host)
    assert isinstance(lane, device.TransFusionOnDevice)
    # More voxels than before, than there is room for, than points had; none at all; none in range.
    for points in (cloud(30), cloud(2000), cloud(20_000, 30.0), cloud(1), cloud(0), cloud(40) + 100, cloud(100)):
        wanted, got = host.infer(points), lane.infer(points)
        assert got.counters == wanted.counters
        rows = len(session.asked[VOXELS])
        found = wanted.counters["voxels"]
        for name, given in session.asked.items():
            expected = on_host.asked[name].astype(given.dtype)[: max(found, 1)]
            np.testing.assert_array_equal(given[: len(expected)], expected, err_msg=name)
            # Behind them the first one again.
            np.testing.assert_array_equal(given[len(expected) :], np.repeat(expected[:1], rows - len(expected), axis=0))
        assert isinstance(got.predictions, Boxes3D)
        assert isinstance(wanted.predictions, Boxes3D)
        assert len(got.predictions) > 0
        for column in Boxes3D.columns():
            np.testing.assert_array_equal(
                getattr(got.predictions, column), getattr(wanted.predictions, column), err_msg=column
            )


def test_too_many_queries_run_on_the_host(monkeypatch: pytest.MonkeyPatch, kernels: Path) -> None:
    spec = make_spec()
    (network,) = spec.components
    wide = [tensor.model_copy(update={"shape": [*tensor.shape[:2], 1025]}) for tensor in network.outputs]
    spec = spec.model_copy(update={"components": [network.model_copy(update={"outputs": wide})]})
    session = Double(cuda_on_cpu.use(monkeypatch, kernels), said(make_spec()))
    assert "1025 queries" in str(device.unsupported(spec))
    assert not isinstance(build(spec, session), device.TransFusionOnDevice)
