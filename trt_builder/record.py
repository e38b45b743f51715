"""The record beside an engine, ``<engine>.json``: what it was made from, for what, and what is in it."""

from __future__ import annotations

from typing import Any

from shared import cuda
from trt_builder import profiles
from trt_builder.build_plan import options_key
from trt_builder.inspector import Report
from trt_builder.jobs import Job
from trt_builder.layers import Layer
from trt_builder.session import Session


def engine_record(session: Session, job: Job, plan: bytes, report: Report, summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept beside an engine: enough to say, without TensorRT, what it is and where it loads.

    Args:
        session: what it was built for, and with which options.
        job: what was asked for.
        plan: the engine.
        report: what is in it.
        summary: what was achieved.
    """
    target, options = session.target, session.options
    hardware = target.gpu
    return {
        "format": 1,
        "component": job.component,
        "tensorrt": {"flavor": target.tensorrt.flavor, "version": target.tensorrt.version},
        "architecture": target.architecture,
        "gpu": {"name": hardware.name, "multiprocessors": hardware.multiprocessors} if hardware else None,
        "driver": cuda.driver_version() if hardware else None,
        "version_compatible": options.version_compatible,
        "hardware_compatibility": options.hardware_compatibility,
        "onnx_sha256": job.onnx_hash,
        "precision_policy": job.policy.policy.name,
        "kept_in_fp32": job.policy.keep,
        "profiles": profiles.as_json(job.profiles),
        "options": options_key(options, session.plugins),
        "plugins": dict(session.plugins),
        "bytes": len(plan),
        "engine_memory": report.memory,
        "formats": report.formats,
        "achieved": summary,
        "times_ms": report.times or None,
        "layers": [_layer_as_json(layer) for layer in report.layers],
    }


def _layer_as_json(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "precision": layer.precision,
        "weights": layer.weights,
        "inputs": [[tensor.name, tensor.dtype] for tensor in layer.inputs],
        "outputs": [[tensor.name, tensor.dtype] for tensor in layer.outputs],
        "tactic": layer.tactic,
        "nodes": list(layer.nodes),
    }
