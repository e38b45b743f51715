"""One double of TensorRT, for what builds engines and for what runs them.

`make` gives a module with the names that a release has. Its builder records what it is asked for and answers as
`Behavior` says; its engines are ONNX files that ONNX Runtime runs (`tests.support.engines_on_cpu`).
"""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np

from tests.support.tensorrt_double import building, running
from tests.support.tensorrt_double.building import Behavior, Recorded
from tests.support.tensorrt_double.names import Names

__all__ = ["Behavior", "Recorded", "make"]


def make(version: str, recorded: Recorded | None = None, behavior: Behavior | None = None) -> Any:
    """A module that stands for ``tensorrt``.

    Args:
        version: the release, for example ``8.6.0``.
        recorded: what the builder is asked for goes there.
        behavior: how it answers.
    """
    how = behavior or Behavior()
    names = Names(version)
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    trt.BuilderFlag = names.enum("BuilderFlag", "TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", "REFIT")
    trt.NetworkDefinitionCreationFlag = names.enum("NetworkDefinitionCreationFlag")
    trt.DataType = names.enum("DataType", "FLOAT", "HALF", "INT8", "INT32")
    trt.DataType.itemsize = property(lambda kind: np.dtype(trt.nptype(kind)).itemsize)
    trt.nptype = lambda kind: {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32}[kind.name]
    trt.TacticSource = names.enum("TacticSource", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    trt.HardwareCompatibilityLevel = names.enum("HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS")
    trt.LayerType = names.enum("LayerType", "CONVOLUTION", "CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "OTHER")
    trt.MemoryPoolType = names.enum("MemoryPoolType", "WORKSPACE")
    trt.ProfilingVerbosity = names.enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED")
    trt.DeviceType = names.enum("DeviceType", "GPU", "DLA")
    trt.LayerInformationFormat = names.enum("LayerInformationFormat", "ONELINE", "JSON")
    trt.TensorFormat = names.enum("TensorFormat", "LINEAR", "CHW2", "HWC8")
    trt.TensorIOMode = names.enum("TensorIOMode", "INPUT", "OUTPUT")
    severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
    levels = {"Severity": severity, "INTERNAL_ERROR": severity.INTERNAL_ERROR, "ERROR": severity.ERROR}
    trt.ILogger = type("ILogger", (), {**levels, "__init__": lambda self: None})
    trt.IProfiler = type("IProfiler", (), {"__init__": lambda self: None})
    for name in ("IProgressMonitor", "OnnxParserRefitter"):
        if names.has(name):
            setattr(trt, name, type(name, (), {"__init__": lambda self: None}))
    if names.has("ExecutionContextAllocationStrategy"):
        trt.ExecutionContextAllocationStrategy = names.enum("ExecutionContextAllocationStrategy", "USER_MANAGED")
    trt.ICudaEngine = names.cls("ICudaEngine", running.Engine)
    trt.IExecutionContext = names.cls("IExecutionContext", running.Context)
    trt.Runtime = lambda logger: running.Runtime(trt, how, logger)
    building.add_builder(trt, names, recorded or Recorded(), how)
    return trt
