"""The TensorRT backend and CUDA pipelines on any machine: engines of `tensorrt_double`, kernels of `cuda_on_cpu`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from runtime import engine_times
from runtime.backends import _engine_files
from runtime.backends import tensorrt as backend
from runtime.models.centerpoint import device_encoder as centerpoint
from shared import cuda
from shared.workspace import Workspace
from tests.support import cuda_on_cpu, tensorrt_double
from tests.support.libcuda_on_cpu import HostLibrary
from tests.support.tensorrt_double import plans
from tests.support.tensorrt_double.plans import Plan


def add_engines(
    ws: Workspace,
    *,
    target: str = "trt8.6.0-sm90-fp16",
    version: str = "8.6.0",
    architecture: str = "sm90",
    version_compatible: bool = False,
    recorded_as_compatible: bool | None = None,
    canvas: tuple[str, str] | None = None,
    policy: str | None = None,
    built_from: str | None = None,
    **header: Any,
) -> None:
    """Engines of a workspace's ONNX files, recorded as trt_builder does.

    Args:
        ws: the workspace.
        target: of the engines.
        version, architecture, version_compatible, recorded_as_compatible: what the engines and their records say.
        canvas: type and layout of the head's input; None: FP32 in rows.
        policy: the precision policy that is recorded; None: records of an earlier version, which don't say.
        built_from: hash of the graph that is recorded; None: the workspace's.
        header: see `plans.write`.
    """
    recorded = version_compatible if recorded_as_compatible is None else recorded_as_compatible
    parameters = ws.spec().parameters
    points, voxels = parameters["max_points_per_voxel"], parameters["max_voxels"]
    nx, ny, _ = parameters["grid_size"]
    channels = parameters["encoder_channels"]
    image = (1, channels, ny, nx)
    profiles: list[plans.Profile] = [
        {"input_features": ((20, points, 10), (50, points, 10), (voxels, points, 10))},
        {"spatial_features": (image, image, image)},
    ]
    with ws.stage(f"build:{target}", tool="trt_builder") as stage:
        for component, profile in zip(ws.spec().components, profiles, strict=True):
            name = f"tensorrt/{target}/{component.name}.engine"
            with stage.artifact(name, kind="engine") as path:
                taken = {} if canvas is None or "spatial_features" not in profile else {"spatial_features": canvas}
                graph = ws.path(component.onnx).read_bytes()
                plan = Plan(graph, profile, version_compatible=version_compatible, inputs=taken)
                path.write_bytes(plans.write(plan, version, **header))
            with stage.artifact(f"{name}.json", kind="engine-record") as path:
                path.write_text("{}")
            record = {
                "engine": name,
                "tensorrt": {"version": version},
                "architecture": architecture,
                "version_compatible": recorded,
            }
            if policy is not None:
                record |= {
                    "precision_policy": policy,
                    "kept_in_fp32": {},
                    "onnx_sha256": built_from or ws.onnx_hash(component.onnx),
                }
            stage.result("engines", f"{target}/{component.name}", record)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, *, version: str = "8.6.0") -> None:
    """Make the TensorRT backend run on the double, and the steps on the CPU."""
    gpu = cuda_on_cpu.use(monkeypatch, folder)
    gpu.architecture = "sm_90"
    module = tensorrt_double.make(version)
    monkeypatch.setattr(backend, "trt", module)
    monkeypatch.setattr(engine_times, "trt", module)
    monkeypatch.setattr(backend, "_LOGGERS", [])
    monkeypatch.setattr(backend, "_MESSAGES", [])
    monkeypatch.setattr(_engine_files, "package_versions", lambda names: {"tensorrt": version})
    monkeypatch.setattr(backend, "open_gpu", lambda device: gpu)
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    # Every bucket is an engine, which takes its time here.
    monkeypatch.setattr(centerpoint, "BUCKETS", 5)
    clock = itertools.count(1)
    monkeypatch.setattr(cuda_on_cpu.HostEvent, "milliseconds_until", lambda self, later: 0.001 * (next(clock) % 7 + 1))
