"""An FRNet without its network: a spec, and sessions on the host and on a device that answer by a formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession, Lane
from shared.spec import AxisSizes, ComponentSpec, ModelSpec, TensorSpec

CLASSES = ["road", "car", "tree"]
HEIGHT, WIDTH, FRUSTUMS_WIDTH, SLOTS = 8, 64, 16, 3
STRIDES = (1, 2, 4)
ROWS, FRUSTUMS = 1500, HEIGHT * FRUSTUMS_WIDTH


def spec(*, rows: int = ROWS, frustums: int = FRUSTUMS, **changes: Any) -> ModelSpec:
    """A model of the padded form."""
    pixels = sum((HEIGHT // stride) * (FRUSTUMS_WIDTH // stride) for stride in STRIDES)
    answers = len(CLASSES) + (changes.get("ignored_class", len(CLASSES)) is not None)
    inputs: list[tuple[str, str, list[int | str]]] = [
        ("points", "float32", ["num_points", 4]),
        ("coors", "int32", ["num_points", 2]),
        ("inverse_map", "int32", ["num_points"]),
        ("frustum_points", "int32", ["num_frustums", SLOTS]),
        ("pixel_frustums", "int32", [pixels]),
    ]
    component = ComponentSpec(
        name="frnet",
        inputs=[TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in inputs],
        outputs=[TensorSpec(name="pred_probs", dtype="float32", shape=["num_points", answers])],
        onnx="onnx/frnet.onnx",
        axes={
            "num_points": AxisSizes(min=2, opt=rows // 2, max=rows, counter="num_points"),
            "num_frustums": AxisSizes(min=2, opt=frustums // 2, max=frustums, counter="num_frustums"),
        },
    )
    parameters = {
        "points": {"load_dim": 5, "use_dim": [0, 1, 2, 3], "merge_sweeps": False},
        "sensor": {"position": [1.0, 0.0, 1.75], "fov_up": 10.0, "fov_down": -30.0},
        "interpolation": {"height": HEIGHT, "width": WIDTH},
        "frustums": {"height": HEIGHT, "width": FRUSTUMS_WIDTH},
        "form": "padded",
        "strides": list(STRIDES),
        "points_per_frustum": SLOTS,
        "ignored_class": len(CLASSES),
        **changes,
    }
    return ModelSpec(
        model="frnet", task="segmentation3d", classes=CLASSES, components=[component], parameters=parameters
    )


def answer(inputs: Mapping[str, np.ndarray[Any, Any]], classes: int) -> np.ndarray[Any, Any]:
    """(N, C) float32 that depend on every input of a point; each row is computed by itself."""
    points, index = inputs["points"], inputs["frustum_points"]
    assert index.min() >= 0, "TensorRT doesn't say what it looks up there"
    rows, columns = inputs["coors"].T
    largest = points[index].max(axis=1)[inputs["inverse_map"]]
    values = [points.sum(axis=1), largest.sum(axis=1)]
    start = 0
    for stride in STRIDES:
        width = FRUSTUMS_WIDTH // stride
        shown = inputs["pixel_frustums"][start:][rows // stride * width + columns // stride]
        values.append(np.where(shown > 0, points[index[np.maximum(shown - 1, 0), 0], 0], np.float32(0)))
        start += HEIGHT // stride * width
    weights = np.random.default_rng(0).normal(0, 1, (classes, len(values))).astype(np.float32)
    odds = [1 / (1 + np.abs(sum(value * weight for value, weight in zip(values, row, strict=True)))) for row in weights]
    return np.stack([each / sum(odds) for each in odds], axis=1).astype(np.float32)


class HostSession:
    """Answers by `answer`.

    Attributes:
        inputs: those of the last call.
        calls: how many there were.
    """

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, model: ModelSpec, dtype: str = "float32") -> None:
        self._output = model.components[0].outputs[0]
        self._dtype = dtype
        self.inputs: dict[str, np.ndarray[Any, Any]] = {}
        self.calls = 0

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        """The answer to these inputs."""
        self.calls += 1
        self.inputs = {name: array.copy() for name, array in inputs.items()}
        return {self._output.name: answer(inputs, int(self._output.shape[-1])).astype(self._dtype)}


class FRNetSession(DeviceSession):
    """Answers by `answer`, through the host."""

    def __init__(self, gpu: Any, model: ModelSpec, dtype: str = "float32") -> None:
        self.gpu = gpu
        self.settings: dict[str, Any] = {}
        self.host = HostSession(model, dtype)
        self._dtype = np.dtype(dtype)

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def rows(self, component: str) -> tuple[int, int | None]:
        return 2, None

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        return self._dtype if tensor == "pred_probs" else np.dtype(np.float32 if tensor == "points" else np.int32)

    def open_lane(self) -> Lane:
        return _Lane(self)


class _Lane(Lane):
    def __init__(self, session: FRNetSession) -> None:
        self.stream = session.gpu.stream()
        self.recordable = False
        self._session = session

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:
        return _Bound(self._session, self.stream, dict(inputs), dict(outputs))


class _Bound(Bound):
    def __init__(
        self, session: FRNetSession, stream: Any, inputs: dict[str, DeviceArray], outputs: dict[str, DeviceArray]
    ) -> None:
        self.outputs = outputs
        self._session, self._stream, self._inputs = session, stream, inputs

    def enqueue(self) -> None:
        self._stream.synchronize()
        answers = self._session.host.run("frnet", {name: array.get() for name, array in self._inputs.items()})
        for name, array in answers.items():
            self._session.gpu.to_device(array, self.outputs[name].address, self._stream)
        self._stream.synchronize()
