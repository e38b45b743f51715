"""The pillar encoder in one kernel: to the bit its NumPy, which is the graph's within rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.cuda.gpu import Gpu
from runtime.cuda.session import Origin
from runtime.models.centerpoint.device import CenterPointOnDevice
from runtime.models.centerpoint.device_encoder import EngineEncoder, KernelEncoder
from runtime.models.centerpoint.device_kernels import encode_warps
from runtime.models.centerpoint.encoder import PillarEncoder, PillarLayer, read_encoder
from runtime.models.centerpoint.parameters import CenterPointParameters
from runtime.pipeline import build_pipeline
from shared.spec import ModelSpec
from tests.support import cuda_on_cpu
from tests.support import tiny_centerpoint as tiny
from tests.support.device_double import DeviceDouble

FEATURES = 10


def pillar_graph(*widths: int, opset: int = 17, seed: int = 0, inputs: int = FEATURES) -> onnx.ModelProto:
    """A folded pillar encoder whose layers have so many channels, as the exporter leaves it."""
    rng = np.random.default_rng(seed)
    nodes, weights, current, rows = [], {}, "input_features", inputs
    for number, width in enumerate(widths):
        last = number == len(widths) - 1
        names = {
            part: f"/layers.{number}/{part}" for part in ("linear", "add", "relu", "max", "shape", "tiled", "both")
        }
        weights[f"w{number}"] = rng.normal(0, rows**-0.5, (rows, width)).astype(np.float32)
        weights[f"b{number}"] = rng.normal(0, 0.3, width).astype(np.float32)
        largest = "pillar_features" if last else names["max"]
        nodes += [
            helper.make_node("MatMul", [current, f"w{number}"], [names["linear"]], name=names["linear"]),
            helper.make_node("Add", [f"b{number}", names["linear"]], [names["add"]], name=names["add"]),
            helper.make_node("Relu", [names["add"]], [names["relu"]], name=names["relu"]),
        ]
        if opset < 18:
            nodes.append(helper.make_node("ReduceMax", [names["relu"]], [largest], name=largest, axes=[1], keepdims=1))
        else:
            weights["axes"] = np.array([1], np.int64)
            nodes.append(helper.make_node("ReduceMax", [names["relu"], "axes"], [largest], name=largest, keepdims=1))
        if not last:
            nodes += [
                helper.make_node("Shape", [names["relu"]], [names["shape"]], name=names["shape"]),
                helper.make_node("Expand", [names["max"], names["shape"]], [names["tiled"]], name=names["tiled"]),
                helper.make_node(
                    "Concat", [names["relu"], names["tiled"]], [names["both"]], name=names["both"], axis=2
                ),
            ]
        current, rows = names["both"], 2 * width
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["voxels", "points", inputs])],
        [helper.make_tensor_value_info("pillar_features", TensorProto.FLOAT, ["voxels", 1, widths[-1]])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, str(folder / "encoder.onnx"))
    return folder / "encoder.onnx"


def features(pillars: int, slots: int, seed: int, width: int = FEATURES) -> np.ndarray[Any, Any]:
    """Pillars of one point up to all slots, and empty ones."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 3, (pillars, slots, width)).astype(np.float32)
    values[np.arange(slots) >= rng.integers(0, slots + 1, pillars)[:, None]] = 0
    return values


def read(model: onnx.ModelProto, folder: Path, *, half: bool = False) -> PillarEncoder:
    encoder = read_encoder(saved(model, folder), half=half)
    assert encoder is not None
    return encoder


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("widths", [(8,), (32,), (16, 32)])
@pytest.mark.parametrize("half", [False, True])
def test_numpy_gives_what_the_graph_gives(tmp_path: Path, widths: tuple[int, ...], opset: int, half: bool) -> None:
    import onnxruntime

    model, data = pillar_graph(*widths, opset=opset), features(200, 12, 1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"input_features": data})
    got = read(model, tmp_path, half=half).encode(data)
    # FP16 has eleven bits; a pillar's values are sums of some twenty products of units.
    np.testing.assert_allclose(got, wanted, rtol=2e-3 if half else 1e-5, atol=2e-2 if half else 1e-5)
    assert half or np.abs(got - wanted).max() < 1e-5


def test_pillars_that_are_full_have_no_empty_slot(tmp_path: Path) -> None:
    (layer,) = read(pillar_graph(8), tmp_path).layers
    encoder = PillarEncoder((PillarLayer(layer.weight, np.full(8, 5, np.float32)),), half=False)
    low = np.zeros((2, 4, FEATURES), np.float32)
    low[0] = -np.linalg.pinv(layer.weight.T.astype(np.float64)) @ np.full(8, 9.0)
    answers = encoder.encode(low)[:, 0]
    np.testing.assert_allclose(answers[0], 0, atol=1e-4)
    np.testing.assert_allclose(answers[1], 5)


def _without_bias(model: onnx.ModelProto) -> None:
    del model.graph.node[1]
    model.graph.node[1].input[0] = model.graph.node[0].output[0]


def _other_activation(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "Sigmoid"


def _over_channels(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].ints[:] = [2]


def _one_more(model: onnx.ModelProto) -> None:
    model.graph.node[3].output[0] = "largest"
    model.graph.node.append(helper.make_node("Relu", ["largest"], ["pillar_features"]))


def _weights_not_known(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


@pytest.mark.parametrize("change", [_without_bias, _other_activation, _over_channels, _one_more, _weights_not_known])
@pytest.mark.parametrize("widths", [(8,), (16, 8)])
def test_graphs_of_another_form_are_left_to_the_engine(
    tmp_path: Path, widths: tuple[int, ...], change: Callable[[onnx.ModelProto], None]
) -> None:
    model = pillar_graph(*widths)
    change(model)
    assert read_encoder(saved(model, tmp_path), half=False) is None


def test_three_layers_and_maxima_in_front_are_left_to_the_engine(tmp_path: Path) -> None:
    assert read_encoder(saved(pillar_graph(8, 8, 8), tmp_path), half=False) is None
    model = pillar_graph(8, 8)
    joined = model.graph.node[6]
    joined.input[:] = reversed(joined.input)
    assert read_encoder(saved(model, tmp_path), half=False) is None


def test_what_the_kernel_has_no_room_for_is_left_to_the_engine(tmp_path: Path) -> None:
    parameters = CenterPointParameters.model_validate(tiny.spec().parameters)
    assert encode_warps(read(pillar_graph(tiny.CHANNELS), tmp_path), parameters) == 8
    wide = parameters.model_copy(update={"encoder_channels": 512})
    assert encode_warps(read(pillar_graph(512), tmp_path), wide) == 0
    deep = parameters.model_copy(update={"max_points_per_voxel": 2000})
    assert encode_warps(read(pillar_graph(tiny.CHANNELS), tmp_path), deep) == 0
    assert encode_warps(read(pillar_graph(tiny.CHANNELS, inputs=7), tmp_path), parameters) == 0


# ---- the kernel


class WithOrigin(DeviceDouble):
    """A double that says what its encoder computes, and how its head's input is laid out."""

    def __init__(self, *arguments: Any, origin: Origin | None, last: bool, canvas: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._origin, self._last, self._canvas_type = origin, last, np.dtype(canvas)

    def origin(self, component: str) -> Origin | None:
        return self._origin

    def channels_last(self, component: str, tensor: str) -> bool:
        return self._last

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        return self._canvas_type if tensor == "spatial_features" else super().dtype(component, tensor)


class NumpySession:
    """The encoder in NumPy; the head answers with its double's outputs, and the canvas is kept."""

    def __init__(self, encoder: PillarEncoder, outputs: dict[str, Any]) -> None:
        self.settings: dict[str, Any] = {}
        self._encoder, self._outputs = encoder, outputs
        self.canvas = np.zeros(0, np.float32)

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        (array,) = inputs.values()
        if component == "pts_voxel_encoder":
            return {"pillar_features": self._encoder.encode(array)}
        self.canvas = array.copy()
        return self._outputs


class Both:
    """One request by the kernels and by NumPy."""

    def __init__(
        self, gpu: Gpu, folder: Path, widths: tuple[int, ...], *, half: bool, canvas: str = "float32",
        last: bool = False, kernel: bool = True, **changes: Any,
    ) -> None:  # fmt: skip
        spec = tiny.spec(max_voxels=changes.pop("max_voxels", 400))
        parameters = {**spec.parameters, "encoder_channels": widths[-1], **changes}
        encoder, head = spec.components
        head = head.model_copy(
            update={"inputs": [head.inputs[0].model_copy(update={"shape": (1, widths[-1], 32, 32)})]}
        )
        spec = spec.model_copy(update={"parameters": parameters, "components": [encoder, head]})
        validated = CenterPointParameters.model_validate(parameters)
        path = saved(pillar_graph(*widths, inputs=validated.decoration.num_features), folder)
        found = read_encoder(path, half=half)
        assert found is not None
        rng = np.random.default_rng(1)
        outputs = {
            tensor.name: rng.normal(0, 1, (1, int(tensor.shape[1]), 16, 16)).astype(np.float32) - 2
            for tensor in spec.components[1].outputs
        }
        self.last, self.canvas_type = last, canvas
        self.host_session = NumpySession(found, outputs)
        self.host: Any = build_pipeline(spec, self.host_session)
        pillars = np.zeros((validated.max_voxels, 1, widths[-1]), np.float32)
        self.session = WithOrigin(
            gpu, spec, pillars, outputs, origin=Origin(path, half) if kernel else None, last=last, canvas=canvas,
            recordable=not isinstance(gpu, cuda_on_cpu.HostGpu),
        )  # fmt: skip
        built = build_pipeline(spec, self.session)
        assert isinstance(built, CenterPointOnDevice)
        self.device = built

    def check(self, points: np.ndarray[Any, Any], *, stages: bool = False) -> None:
        wanted = self.host.infer(points)
        self.device.submit(points, stages=stages)
        got = self.device.collect()
        assert got.counters == wanted.counters
        canvas = self.host_session.canvas.astype(self.canvas_type)
        np.testing.assert_array_equal(self.canvas(), canvas)
        assert got.predictions.centers.tobytes() == wanted.predictions.centers.tobytes()

    def canvas(self) -> np.ndarray[Any, Any]:
        given = self.session.canvas
        _, channels, height, width = given.shape
        return np.moveaxis(given.reshape(1, height, width, channels), -1, 1) if self.last else given


def cloud(count: int, seed: int = 0, spread: float = 6.0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, spread, (count, 4)).astype(np.float32)
    points[:, 2] = rng.uniform(-4, 6, count)
    return points


FRAMES: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "empty": lambda: np.zeros((0, 4), np.float32),
    "one point": lambda: cloud(1),
    "the origin": lambda: np.zeros((3, 4), np.float32),
    "one voxel": lambda: np.tile(np.array([[0.3, 0.4, 0.5, 1.0]], np.float32), (500, 1)),
    "all NaN": lambda: np.full((40, 4), np.nan, np.float32),
    "huge": lambda: cloud(300) * np.array([1, 1, 1, 1e30], np.float32),
    "many": lambda: cloud(1500),
}


@pytest.mark.parametrize(("widths", "half"), [((8,), False), ((40,), True), ((16, 32), False), ((8, 72), True)])
def test_frames(gpu: Gpu, tmp_path: Path, widths: tuple[int, ...], half: bool) -> None:
    both = Both(gpu, tmp_path, widths, half=half)
    assert isinstance(both.device._encoder, KernelEncoder)
    for number, make in enumerate(FRAMES.values()):
        with np.errstate(over="ignore", invalid="ignore"):
            both.check(make(), stages=number % 2 == 1)


@pytest.mark.parametrize(
    ("kernel", "canvas", "last"), [(True, "float16", True), (True, "float16", False), (False, "float16", True)]
)
def test_layouts_of_the_head_s_input(gpu: Gpu, tmp_path: Path, last: bool, canvas: str, kernel: bool) -> None:
    both = Both(gpu, tmp_path, (16,), half=True, canvas=canvas, last=last, kernel=kernel)
    assert isinstance(both.device._encoder, KernelEncoder if kernel else EngineEncoder)
    if kernel:
        both.check(cloud(700))
        both.check(cloud(300, 1))
        return
    # The double's encoder answers with what it was made with.
    both.session.pillars[:] = np.random.default_rng(0).normal(0, 1, both.session.pillars.shape)
    for count in (700, 300):
        both.device.infer(cloud(count, count))
        cells = np.abs(both.canvas()).sum(axis=1).reshape(-1)
        voxels = both.host.infer(cloud(count, count)).counters["voxels"]
        assert np.count_nonzero(cells) == voxels
        expected = np.abs(both.session.pillars[:voxels].astype(canvas).astype(np.float64)).sum()
        assert cells.astype(np.float64).sum() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("voxel_center", "cluster_center", "distance", "legacy"),
    [("xyz", True, True, True), ("none", False, True, False)],
)
def test_decorations(
    gpu: Gpu, tmp_path: Path, voxel_center: str, cluster_center: bool, distance: bool, legacy: bool
) -> None:
    decoration = {
        "raw_features": 4, "voxel_center": voxel_center, "cluster_center": cluster_center, "distance": distance,
        "legacy": legacy,
    }  # fmt: skip
    Both(gpu, tmp_path, (16, 32), half=True, decoration=decoration).check(cloud(700))


@pytest.mark.parametrize("max_points", [1, 40])
def test_points_per_voxel_and_voxels_that_do_not_fit(gpu: Gpu, tmp_path: Path, max_points: int) -> None:
    both = Both(gpu, tmp_path, (16, 32), half=False, max_points_per_voxel=max_points, max_voxels=60)
    both.check(cloud(1000))
    both.check((cloud(600) % 1.0).astype(np.float32))


def test_a_form_that_the_kernel_lacks_runs_on_the_engine(gpu: Gpu, tmp_path: Path) -> None:
    spec: ModelSpec = tiny.spec()
    pillars = np.zeros((400, 1, tiny.CHANNELS), np.float32)
    outputs = {
        tensor.name: np.zeros((1, int(tensor.shape[1]), 16, 16), np.float32) for tensor in spec.components[1].outputs
    }
    origin = Origin(saved(pillar_graph(8, 8, tiny.CHANNELS), tmp_path), half=False)
    session = WithOrigin(
        gpu, spec, pillars, outputs, origin=origin, last=False, canvas="float32",
        recordable=not isinstance(gpu, cuda_on_cpu.HostGpu),
    )  # fmt: skip
    built: Any = build_pipeline(spec, session)
    assert isinstance(built._encoder, EngineEncoder)
    assert built.stages[1:4] == ("decorate", "pts_voxel_encoder", "scatter")
