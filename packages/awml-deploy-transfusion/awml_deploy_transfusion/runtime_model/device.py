"""TransFusion-L on a GPU: the steps of `pipeline`, as CUDA kernels on device memory.

points -> voxelize -> pack -> transfusion -> decode; circle suppression, which few models have, on the host
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from awml_deploy_transfusion.names import BOXES, COMPONENT, COORS, NUM_POINTS, ROTATIONS, SCORES, VOXELS
from awml_deploy_transfusion.runtime_model.decode import suppressed
from awml_deploy_transfusion.runtime_model.parameters import TransFusionParameters
from runtime.cuda.gpu import C_TYPES, DeviceOutputs
from runtime.cuda.session import DeviceSession, recorded
from runtime.cuda.timeline import Timeline
from runtime.lidar.device_voxels import (
    HEADER_WORDS,
    VOXELIZE_FILE,
    VOXELIZE_SIGNATURES,
    VoxelMemory,
    float_literal,
    row_buckets,
    voxelize_constants,
)
from runtime.lidar.voxel_pipeline import BOX_WORDS, DOWNLOAD, UPLOAD, VoxelPipeline, VoxelRequest, boxes_of
from runtime.pipeline import Counters, Inference, Interface
from shared.arrays import Float32
from shared.spec import ModelSpec

FILES = (VOXELIZE_FILE, Path(__file__).with_name("transfusion.cu"))

# The same names and numbers as in transfusion.cu.
MAX_QUERIES = 1024
_QUERIES_NAN, _KEPT = 5, 16
_SIGNATURES = {**VOXELIZE_SIGNATURES, "pack": "PPPPPPPPi", "decode_queries": "PPPPP"}


def unsupported(spec: ModelSpec) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    queries = int(spec.component(COMPONENT).outputs[0].shape[2])
    if queries > MAX_QUERIES:
        return f"the model has {queries} queries, the kernels decode at most {MAX_QUERIES}"
    return None


class TransFusionOnDevice(VoxelPipeline[TransFusionParameters]):
    """A TransFusion whose steps are CUDA kernels; `unsupported` says nothing of its spec."""

    most_buckets = 8

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: TransFusionParameters, session: DeviceSession
    ) -> None:
        gpu, columns = session.gpu, len(parameters.points.use_dim)
        queries = int(spec.component(COMPONENT).outputs[0].shape[2])
        memory = VoxelMemory(gpu, parameters, columns, HEADER_WORDS + queries * BOX_WORDS)
        super().__init__(interface, spec, parameters, session, memory)
        self._table = self._memory.result.part(HEADER_WORDS, (queries, BOX_WORDS))
        constants = _constants(spec, parameters, session)
        self._kernels = gpu.kernels(FILES, _SIGNATURES, constants, self._stream)
        self._blocks = gpu.multiprocessors * 4
        self._buckets = row_buckets(COMPONENT, session.rows(COMPONENT), parameters.max_voxels, self.most_buckets)
        most = self._buckets[-1]
        self._inputs = {
            VOXELS: gpu.allocate((most, parameters.max_points_per_voxel, columns), session.dtype(COMPONENT, VOXELS)),
            NUM_POINTS: gpu.allocate((most,), np.int32),
            COORS: gpu.allocate((most, 4), np.int32),
        }
        self._bound = {
            rows: self._lane.bind(COMPONENT, {name: array.first(rows) for name, array in self._inputs.items()}, {})
            for rows in self._buckets
        }
        self._timeline = Timeline(gpu, (UPLOAD, "voxelize", "pack", COMPONENT, "decode", DOWNLOAD))
        self._record()

    def input_shapes(self, data: Float32, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the counters say how many voxels the points fill)
        """See `DevicePipeline`; the network has a row a voxel, or the fewest that it takes."""
        rows = max(counters["voxels"], self._session.rows(COMPONENT)[0])
        return {COMPONENT: {name: (rows, *array.shape[1:]) for name, array in self._inputs.items()}}

    def answer(self, request: VoxelRequest, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        counters, rows = self._answered(request, stages=stages)
        words = self._memory.host_result
        table = words[HEADER_WORDS:].reshape(-1, BOX_WORDS)[: words[_KEPT]]
        boxes = suppressed(boxes_of(table), self._parameters)
        counters |= {"queries_nan": int(words[_QUERIES_NAN]), "boxes": len(boxes)}
        latency = self._timeline.milliseconds() if stages else {}
        return Inference(boxes, DeviceOutputs(self._bound[rows].outputs), latency, counters)

    def _record(self) -> None:
        """See `VoxelPipeline`."""
        ready = partial(recorded, self._gpu, self._lane, self._timeline)
        self._bodies = {rows: ready(partial(self._enqueue_body, rows)) for rows in self._buckets}

    def _run(self, rows: int, *, stages: bool) -> None:
        """See `VoxelPipeline`."""
        self._bodies[rows][stages]()
        self._finished.record(self._stream)

    def _enqueue_body(self, rows: int, mark: Callable[[str], None]) -> None:
        """Everything from the points on the device to the result on the host."""
        memory, bound = self._memory, self._bound[rows]
        memory.reset(self._stream)
        memory.voxelize(self._kernels, self._blocks)
        mark("voxelize")
        self._kernels.launch(
            "pack", rows, 128, memory.frame, memory.slots, memory.in_voxel, memory.cell_of_voxel,
            *self._inputs.values(), memory.result, rows,
        )  # fmt: skip
        mark("pack")
        bound.enqueue()
        mark(COMPONENT)
        outputs = (bound.outputs[name] for name in (SCORES, BOXES, ROTATIONS))
        self._kernels.launch("decode_queries", 1, MAX_QUERIES, *outputs, memory.result, self._table)
        mark("decode")
        self._gpu.to_host(memory.result, memory.host_result, self._stream)
        mark(DOWNLOAD)


def _constants(spec: ModelSpec, parameters: TransFusionParameters, session: DeviceSession) -> dict[str, str]:
    """The macros of the kernels for a model."""
    scores, boxes, _ = spec.component(COMPONENT).outputs
    types = {"VOXEL_T": VOXELS, "SCORE_T": SCORES, "BOX_T": BOXES, "ROTATION_T": ROTATIONS}
    threshold = parameters.score_threshold
    constants = {
        **voxelize_constants(parameters, len(parameters.points.use_dim)),
        **{macro: C_TYPES[session.dtype(COMPONENT, tensor).name] for macro, tensor in types.items()},
        "CLASSES": str(scores.shape[1]),
        "NUMBERS": str(boxes.shape[1]),
        "QUERIES": str(scores.shape[2]),
        "FACTOR": float_literal(parameters.out_size_factor),
        # Without a threshold, whatever a score is, NaN too.
        "SCORE_KEPT": "true" if threshold is None else f"(score > {float_literal(threshold)})",
    }
    for axis, name in enumerate("XYZ"):
        constants[f"RANGE_{name}0"] = float_literal(parameters.post_center_range[axis])
        constants[f"RANGE_{name}1"] = float_literal(parameters.post_center_range[axis + 3])
    return constants
