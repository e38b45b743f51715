"""The double's builder: records what it is asked for, and answers as `Behavior` says."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import onnx

from tests.support.tensorrt_double import plans
from tests.support.tensorrt_double.names import Names
from tests.support.tensorrt_double.plans import Plan

_MATRIX = {"Conv", "ConvTranspose", "MatMul", "Gemm"}


@dataclass
class Recorded:
    """What the builder did.

    Attributes:
        network_flags: as given to create_network.
        flags: builder flags that are set.
        tactic_sources: as given to the config.
        options: memory limits by pool.
        precisions: layer name to the precision that was set on it, of the last network.
        outputs: layer name to the type that was set on its outputs, of the last network.
        profiles: shapes per profile.
        caches: timing caches given to builds, as bytes.
    """

    network_flags: int = 0
    flags: set[str] = field(default_factory=set)
    tactic_sources: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    precisions: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    caches: list[bytes] = field(default_factory=list)


@dataclass
class Behavior:
    """How the double answers.

    Attributes:
        precision_of: layer name and what was asked of it (or None) to what the engine runs it in.
        says: messages of the build, as (severity, text).
        fails: the build gives nothing.
        goes_on: whether the build does, asked every 10 ms.
        takes_cache: whether it accepts timing caches that it is given.
        refuses_to_load: the engine does not load.
        chooses: what the timing cache holds after a build, from what it held before: problem to kernel.
        kernel: the name of every layer's kernel.
    """

    precision_of: Callable[[str, str | None], str] = lambda name, asked: asked or "FP32"
    says: list[tuple[str, str]] = field(default_factory=list)
    fails: bool = False
    goes_on: Callable[[], bool] = lambda: False
    takes_cache: bool = True
    refuses_to_load: bool = False
    chooses: Callable[[dict[str, int]], dict[str, int]] = lambda before: {**before, str(time.monotonic_ns()): 1}
    kernel: str = "kernel"


def add_builder(trt: Any, names: Names, recorded: Recorded, behavior: Behavior) -> None:
    """Add the builder, its config, the parser and the timing cache to a module."""
    trt.ILayer = names.cls("ILayer", _Layer)
    trt.ParserError = names.cls("ParserError", _ParserError)
    trt.IBuilderConfig = names.cls("IBuilderConfig", _Config)
    trt.ITimingCache = names.cls("ITimingCache", TimingCache)
    trt.init_libnvinfer_plugins = lambda logger, namespace: True
    trt.Builder = functools.partial(_Builder, trt, recorded, behavior)
    trt.OnnxParser = functools.partial(_Parser, trt, recorded)


class _Builder:
    num_DLA_cores = 0  # noqa: N815 (TensorRT's name)

    def __init__(self, trt: Any, recorded: Recorded, behavior: Behavior, logger: Any) -> None:
        self._trt, self._recorded, self._behavior, self._logger = trt, recorded, behavior, logger

    def create_network(self, flags: int) -> Any:
        self._recorded.network_flags = flags
        self._recorded.precisions.clear()
        self._recorded.outputs.clear()
        return SimpleNamespace(layers=[], onnx=b"", inputs=[])

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig(self._trt, self._recorded, self._behavior)

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *values: shapes.update({name: values}))

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        behavior, severity = self._behavior, self._trt.ILogger.Severity
        for level, text in behavior.says:
            self._logger.log(severity[level], text)
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 100)
        step = 0
        while behavior.goes_on():
            time.sleep(0.01)
            step += 1
            if monitor is not None and not monitor.step_complete("Building engine", step):
                self._logger.log(severity.ERROR, "Error Code 7: BuildCanceled")
                return None
        if behavior.fails:
            return None
        plan = Plan(
            network.onnx,
            self._recorded.profiles[0] if self._recorded.profiles else {},
            [self._layer(layer) for layer in network.layers],
            "VERSION_COMPATIBLE" in self._recorded.flags,
            {tensor.name: self._taken_as(tensor) for tensor in network.inputs if tensor.dtype.name != "FLOAT"},
        )
        return plans.write(plan, self._trt.__version__)

    def _taken_as(self, tensor: Any) -> tuple[str, str]:
        """Type and layout: of those that are allowed, the double finds the last the fastest."""
        formats = self._trt.TensorFormat
        return tensor.dtype.name, [layout.name for layout in formats if tensor.allowed_formats >> layout & 1][-1]

    def _layer(self, layer: Any) -> dict[str, Any]:
        precision = self._behavior.precision_of(layer.name, self._recorded.precisions.get(layer.name))
        tensor = {"Name": "t", "Format/Datatype": f"Row major linear {precision} format"}
        kind = "CaskConvolution" if layer.operator in _MATRIX else "PointWise"
        kernel = self._behavior.kernel
        return {"Name": layer.name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "TacticName": kernel}


class _Config:
    def __init__(self, trt: Any, recorded: Recorded, behavior: Behavior) -> None:
        self._trt, self._recorded, self._behavior = trt, recorded, behavior
        self._cache: Any = None
        self._monitor: Any = None
        recorded.flags = {"TF32"}
        recorded.profiles.clear()

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._monitor = monitor

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._recorded.options[pool.name] = size

    def set_flag(self, flag: Any) -> None:
        self._recorded.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._recorded.flags.discard(flag.name)

    def set_tactic_sources(self, mask: int) -> None:
        self._recorded.tactic_sources = mask

    def add_optimization_profile(self, profile: Any) -> None:
        self._recorded.profiles.append(profile.shapes)

    def create_timing_cache(self, payload: bytes) -> Any:
        return self._trt.ITimingCache(payload)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        accepted = self._behavior.takes_cache or cache.payload == b""
        if accepted:
            self._cache = cache
            self._recorded.caches.append(cache.payload)
        return accepted

    def get_timing_cache(self) -> Any:
        """What the build has measured is in it."""
        self._cache.choices = self._behavior.chooses(self._cache.choices)
        return self._cache


class TimingCache:
    """What was measured, as JSON: problem to the kernel that won."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.choices: dict[str, int] = json.loads(payload) if payload else {}
        self.pinned: set[str] = set()

    def combine(self, other: TimingCache, ignore_mismatch: bool) -> bool:
        self.choices = {**other.choices, **self.choices}
        return True

    def serialize(self) -> bytes:
        return json.dumps(self.choices).encode()

    def queryKeys(self) -> list[str]:  # noqa: N802 (TensorRT's name)
        return sorted(self.choices)

    def query(self, key: str) -> Any:
        return SimpleNamespace(tacticHash=self.choices[key])

    def update(self, key: str, value: Any) -> bool:
        self.pinned.add(key)
        return bool(self.choices[key] == value.tacticHash)


class _Layer:
    def __init__(self, trt: Any, recorded: Recorded, node: onnx.NodeProto, dtype: Any) -> None:
        self._recorded, self._dtype = recorded, dtype
        self.name = node.name
        self.operator = node.op_type
        self.num_outputs = len(node.output)
        kinds = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Constant": "CONSTANT"}
        self.type = trt.LayerType[kinds.get(node.op_type, "OTHER")]

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype=self._dtype)

    @property
    def precision(self) -> Any:
        return self._recorded.precisions[self.name]

    @precision.setter
    def precision(self, value: Any) -> None:
        self._recorded.precisions[self.name] = {"FLOAT": "FP32", "HALF": "FP16"}.get(value.name, value.name)

    def set_output_type(self, index: int, value: Any) -> None:
        self._recorded.outputs[self.name] = value.name


class _ParserError:
    def __init__(self, position: int, node: onnx.NodeProto) -> None:
        self._position, self._node = position, node

    def node(self) -> int:
        return self._position

    def desc(self) -> str:
        return "Plugin not found"

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class _Parser:
    def __init__(self, trt: Any, recorded: Recorded, network: Any, logger: Any) -> None:
        self._trt, self._recorded, self._network = trt, recorded, network
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        from shared.onnx_graph import tensor_types

        model = onnx.load(path)
        types = tensor_types(model)
        names = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}
        for position, node in enumerate(model.graph.node):
            if node.op_type == "RoiAlign" and not hasattr(self._trt.ParserError, "node_name"):
                # Seen on 8.6.0, whose wheel doesn't bring this library.
                raise RuntimeError("Unable to open library: libnvinfer_vc_plugin.so.8")
            if node.domain not in ("", "ai.onnx"):
                self._errors.append(self._trt.ParserError(position, node))
            dtype = self._trt.DataType[names.get(types.get(node.output[0], 0), "INT32")]
            self._network.layers.append(self._trt.ILayer(self._trt, self._recorded, node, dtype))
        for value in model.graph.input:
            shape = tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim)
            dtype = self._trt.DataType[names.get(value.type.tensor_type.elem_type, "INT32")]
            self._network.inputs.append(SimpleNamespace(name=value.name, dtype=dtype, shape=shape, allowed_formats=1))
        self._network.num_inputs = len(self._network.inputs)
        self._network.get_input = lambda index: self._network.inputs[index]
        self._network.onnx = model.SerializeToString()
        self._network.num_layers = len(self._network.layers)
        self._network.get_layer = lambda index: self._network.layers[index]
        return not self._errors
