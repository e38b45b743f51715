"""Doubles of TensorRT for what needs a GPU: they record what the builder asks for, and answer as told.

`make` gives a module with the names that a release has (by the table in `compat`, which the contract test checks
against the real bindings): ``8.6.0`` is weakly typed and shows no progress, ``10.9.0`` knows both ways of typing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx

HEADER = b"ftrt" + bytes(20)


@dataclass
class Recorded:
    """What the builder did.

    Attributes:
        network_flags: as given to create_network.
        flags: builder flags that are set.
        limits, options: memory limits and attributes of the builder config.
        precisions: layer name to the precision that was set on it.
        outputs: layer name to the type that was set on its outputs.
        profiles: shapes per profile.
        caches: timing caches given to builds.
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
        seconds: how long it takes.
        takes_cache: whether it accepts timing caches that it is given.
        refuses_to_load: the engine does not load.
        chooses: what editable timing caches hold after a build, from what they held before.
    """

    precision_of: Callable[[str, str | None], str] = lambda name, asked: asked or "FP32"
    says: list[tuple[str, str]] = field(default_factory=list)
    fails: bool = False
    seconds: float = 0.0
    takes_cache: bool = True
    refuses_to_load: bool = False
    chooses: Callable[[dict[str, int]], dict[str, int]] | None = None


def make(version: str, recorded: Recorded, behavior: Behavior | None = None) -> Any:
    """A module that stands for ``tensorrt``."""
    how = behavior or Behavior()
    major = int(version.split(".", 1)[0])
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    weak, modern = major <= 10, major >= 10

    def enum(name: str, *members: str) -> Any:
        return IntEnum(name, {member: index for index, member in enumerate(members)})

    trt.BuilderFlag = enum(
        "BuilderFlag", "TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", "REFIT",
        *(("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS") if weak else ()),
        *(("BF16",) if weak and modern else ()), *(("STRIP_PLAN",) if modern else ()),
        *(("EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE", "ERROR_ON_TIMING_CACHE_MISS") if modern else ()),
    )  # fmt: skip
    trt.NetworkDefinitionCreationFlag = enum(
        "NetworkDefinitionCreationFlag",
        *(("EXPLICIT_BATCH",) if weak else ("UNUSED",)),
        *(("STRONGLY_TYPED",) if modern else ()),
    )
    trt.DataType = enum("DataType", "FLOAT", "HALF", "INT8", "INT32", *(("BF16",) if modern else ()))
    trt.TacticSource = enum(
        "TacticSource",
        "EDGE_MASK_CONVOLUTIONS",
        "JIT_CONVOLUTIONS",
        *(("CUBLAS", "CUBLAS_LT", "CUDNN") if weak else ()),
    )
    trt.LayerType = enum("LayerType", "CONVOLUTION", "CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "OTHER")
    trt.MemoryPoolType = enum("MemoryPoolType", "WORKSPACE")
    trt.ProfilingVerbosity = enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED")
    trt.HardwareCompatibilityLevel = enum(
        "HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", *(("SAME_COMPUTE_CAPABILITY",) if modern else ())
    )
    trt.DeviceType = enum("DeviceType", "GPU", "DLA")
    trt.LayerInformationFormat = enum("LayerInformationFormat", "ONELINE", "JSON")
    severity = enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    trt.ILogger = type("ILogger", (), {"Severity": severity, "__init__": lambda self: None})
    if weak:
        trt.ILayer = type("ILayer", (), {"precision": True, "set_output_type": True})
    else:
        trt.ILayer = type("ILayer", (), {})
    trt.ParserError = type("ParserError", (), {"node_name": True, "node_operator": True} if modern else {})
    trt.IBuilderConfig = type("IBuilderConfig", (), {"progress_monitor": True} if modern else {})
    trt.ITimingCache = EditableCache if modern else FakeCache
    memory = {"device_memory_size": 0} if weak else {"device_memory_size_v2": 0}
    trt.ICudaEngine = type("ICudaEngine", (), memory)
    if modern:
        trt.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    trt.init_libnvinfer_plugins = lambda logger, namespace: True

    class Builder:
        num_DLA_cores = 0  # noqa: N815 - TensorRT's name

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Any:
            recorded.network_flags = flags
            return SimpleNamespace(layers=[])

        def create_builder_config(self) -> Any:
            return _config(trt, recorded, how)

        def create_optimization_profile(self) -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(shapes=shapes, set_shape=lambda name, *values: shapes.update({name: values}))

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            for level, text in how.says:
                self.logger.log(severity[level], text)
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building engine", None, 100)
            end = time.monotonic() + how.seconds
            step = 0
            while time.monotonic() < end:
                time.sleep(0.01)
                step += 1
                if monitor is not None and not monitor.step_complete("Building engine", step):
                    self.logger.log(severity.ERROR, "Error Code 7: BuildCanceled")
                    return None
            if how.fails:
                return None
            layers = []
            for layer in network.layers:
                asked = recorded.precisions.get(layer.name)
                word = how.precision_of(layer.name, asked)
                layers.append(_layer_json(layer, word))
            return HEADER + bytes(40) + json.dumps({"Layers": layers}).encode()

    trt.Builder = Builder
    trt.OnnxParser = lambda network, logger: _Parser(trt, network, recorded, modern)
    trt.Runtime = lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda plan: None if how.refuses_to_load else _engine(plan)
    )
    return trt


def _layer_json(layer: Any, word: str) -> dict[str, Any]:
    tensor = {"Name": "t", "Format/Datatype": f"Row major linear {word} format"}
    kind = "CaskConvolution" if layer.operator in onnx_matrix() else "PointWise"
    return {"Name": layer.name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "TacticName": "kernel"}


def onnx_matrix() -> set[str]:
    return {"Conv", "ConvTranspose", "MatMul", "Gemm"}


def _engine(plan: bytes) -> Any:
    text = plan[len(HEADER) + 40 :].decode()
    return SimpleNamespace(text=text, device_memory_size=123, device_memory_size_v2=123)


def _config(trt: Any, recorded: Recorded, how: Behavior) -> Any:
    recorded.flags = {"TF32"}
    recorded.profiles.clear()
    state: dict[str, Any] = {}

    def set_timing_cache(cache: Any, ignore_mismatch: bool) -> bool:
        accepted = how.takes_cache or cache.payload == b""
        if accepted:
            state["cache"] = cache
            recorded.caches.append(cache.payload)
        return accepted

    return SimpleNamespace(
        set_memory_pool_limit=lambda pool, size: recorded.options.update({pool.name: size}),
        set_flag=lambda flag: recorded.flags.add(flag.name),
        clear_flag=lambda flag: recorded.flags.discard(flag.name),
        set_tactic_sources=lambda mask: setattr(recorded, "tactic_sources", mask),
        add_optimization_profile=lambda profile: recorded.profiles.append(profile.shapes),
        create_timing_cache=FakeCache if how.chooses is None else EditableCache,
        set_timing_cache=set_timing_cache,
        get_timing_cache=lambda: _after_build(state["cache"], how),
        progress_monitor=None,
    )


def _after_build(cache: Any, how: Behavior) -> Any:
    if how.chooses is None:
        return cache.after_build()
    cache.choices = how.chooses(cache.choices)
    return cache


class FakeCache:
    """A timing cache whose bytes are a sorted JSON list of what was measured."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.entries = set(json.loads(payload)) if payload else set()

    def after_build(self) -> FakeCache:
        """The cache with what a build measured added."""
        self.entries.add(f"measured at {time.monotonic_ns()}")
        return self

    def combine(self, other: FakeCache, ignore_mismatch: bool) -> bool:
        self.entries |= other.entries
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.entries)).encode()


class _Layer:
    def __init__(self, trt: Any, recorded: Recorded, node: onnx.NodeProto, dtype: Any) -> None:
        self._trt, self._recorded, self._dtype = trt, recorded, dtype
        self.name = node.name
        self.operator = node.op_type
        self.num_outputs = len(node.output)
        kinds = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Constant": "CONSTANT"}
        self.type = trt.LayerType[kinds.get(node.op_type, "OTHER")]

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype=self._dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "precision":
            self._recorded.precisions[self.name] = {"FLOAT": "FP32", "HALF": "FP16"}.get(value.name, value.name)
        super().__setattr__(name, value)

    def set_output_type(self, index: int, value: Any) -> None:
        self._recorded.outputs[self.name] = value.name


class _Parser:
    def __init__(self, trt: Any, network: Any, recorded: Recorded, named: bool) -> None:
        self._trt, self._network, self._recorded, self._named = trt, network, recorded, named
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        from trt_builder.onnx_graph import tensor_types

        model = onnx.load(path)
        types = tensor_types(model)
        names = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}
        for position, node in enumerate(model.graph.node):
            if node.domain not in ("", "ai.onnx"):
                error = {"node": lambda position=position: position, "desc": lambda: "Plugin not found"}
                if self._named:
                    error |= {"node_name": lambda node=node: node.name, "node_operator": lambda node=node: node.op_type}
                self._errors.append(SimpleNamespace(**error))
            dtype = self._trt.DataType[names.get(types.get(node.output[0], 0), "INT32")]
            self._network.layers.append(_Layer(self._trt, self._recorded, node, dtype))
        self._network.num_layers = len(self._network.layers)
        self._network.get_layer = lambda index: self._network.layers[index]
        return not self._errors


class EditableCache(FakeCache):
    """A timing cache as 10.9 and newer have it: what it chose can be read and pinned."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.choices: dict[str, int] = json.loads(payload) if payload else {}
        self.pinned: set[str] = set()

    def queryKeys(self) -> list[str]:  # noqa: N802 - TensorRT's name
        return sorted(self.choices)

    def query(self, key: str) -> Any:
        return SimpleNamespace(tacticHash=self.choices[key])

    def update(self, key: str, value: Any) -> bool:
        self.pinned.add(key)
        return self.choices[key] == value.tacticHash

    def serialize(self) -> bytes:
        return json.dumps(self.choices).encode()
