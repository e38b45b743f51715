"""TransFusion-L on a GPU: the steps of `pipeline`, as CUDA kernels on device memory.

points -> voxelize -> pack -> transfusion -> decode; circle suppression, which few models have, on the host

How many voxels a frame has is known on the device alone, and the network's input shape has to be set on the host: it
runs with a *bucket* of rows a little above what the frame before had, and once more when a frame has more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from runtime.lidar.frames import checked
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.arrays import Float32
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

_log = logging.getLogger("runtime")

FILES = (VOXELIZE_FILE, Path(__file__).with_name("transfusion.cu"))

# The same names and numbers as in transfusion.cu.
MAX_QUERIES = 1024
BOX_WORDS = 12
_QUERIES_NAN, _KEPT = 5, 16
_SIGNATURES = {**VOXELIZE_SIGNATURES, "pack": "PPPPPPPPi", "decode_queries": "PPPPP"}

BUCKETS = 8
UPLOAD, DOWNLOAD = "upload", "download"


def unsupported(spec: ModelSpec) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    queries = int(spec.component(COMPONENT).outputs[0].shape[2])
    if queries > MAX_QUERIES:
        return f"the model has {queries} queries, the kernels decode at most {MAX_QUERIES}"
    return None


@dataclass(frozen=True)
class _Request:
    """A request on its way: points of its frame, and rows that the network runs with."""

    points: int
    rows: int


class TransFusionOnDevice(DevicePipeline[TransFusionParameters]):
    """A TransFusion whose steps are CUDA kernels; `unsupported` says nothing of its spec."""

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: TransFusionParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        gpu, network = session.gpu, spec.component(COMPONENT)
        self._columns = len(parameters.points.use_dim)
        queries = int(network.outputs[0].shape[2])
        self._memory = VoxelMemory(gpu, parameters, self._columns, HEADER_WORDS + queries * BOX_WORDS)
        self._table = self._memory.result.part(HEADER_WORDS, (queries, BOX_WORDS))
        constants = _constants(spec, parameters, session)
        self._kernels = gpu.kernels(FILES, _SIGNATURES, constants, self._stream)
        self._blocks = gpu.multiprocessors * 4
        self._buckets = row_buckets(COMPONENT, session.rows(COMPONENT), parameters.max_voxels, BUCKETS)
        most = self._buckets[-1]
        self._inputs = {
            VOXELS: gpu.allocate(
                (most, parameters.max_points_per_voxel, self._columns), session.dtype(COMPONENT, VOXELS)
            ),
            NUM_POINTS: gpu.allocate((most,), np.int32),
            COORS: gpu.allocate((most, 4), np.int32),
        }
        self._bound = {
            rows: self._lane.bind(COMPONENT, {name: array.first(rows) for name, array in self._inputs.items()}, {})
            for rows in self._buckets
        }
        self._timeline = Timeline(gpu, (UPLOAD, "voxelize", "pack", COMPONENT, "decode", DOWNLOAD))
        self._finished = gpu.event()
        self._expected = most
        self._launches = self._recorded()

    def input_shapes(self, data: Float32, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the counters say how many voxels the points fill)
        """See `DevicePipeline`; the network has a row a voxel, or the fewest that it takes."""
        rows = max(counters["voxels"], self._session.rows(COMPONENT)[0])
        return {COMPONENT: {name: (rows, *array.shape[1:]) for name, array in self._inputs.items()}}

    def input_buffer(self, count: int) -> Float32:
        """(count, C) float32 in page-locked memory, see `runtime.input_buffers`; the lane's only one."""
        self._make_room(count)
        return self._memory.host_points(count)

    def enqueue(self, data: Float32, *, stages: bool) -> _Request:
        """See `DevicePipeline`.

        Args:
            data: (N, C) float32; x, y, z [m] and the model's other columns.
            stages: take the time of every stage.
        """
        points = checked(data, self._columns)
        self._make_room(len(points))
        if stages:
            self._timeline.started.record(self._stream)
        self._memory.upload(points, self._staging, self._stream)
        rows = self._bucket(min(self._expected, len(points)))
        self._run(rows, stages=stages)
        return _Request(len(points), rows)

    def answer(self, request: _Request, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._finished.synchronize()
        counters, rows = self._memory.counters(request.points), request.rows
        if counters["voxels"] > rows:
            # The expectation was too low: once more, with the frame that is on the device already.
            rows = self._bucket(counters["voxels"])
            if stages:
                self._timeline.started.record(self._stream)
            self._run(rows, stages=stages)
            self._finished.synchronize()
            counters = self._memory.counters(request.points)
        # A quarter of a step above this frame: the next one is much like it.
        self._expected = counters["voxels"] + self._buckets[-1] // (BUCKETS * 4)
        boxes = suppressed(self._boxes(), self._parameters)
        counters |= {"queries_nan": int(self._memory.host_result[_QUERIES_NAN]), "boxes": len(boxes)}
        latency = self._timeline.milliseconds() if stages else {}
        return Inference(boxes, DeviceOutputs(self._bound[rows].outputs), latency, counters)

    def _bucket(self, voxels: int) -> int:
        """The smallest bucket that holds so many voxels; the largest where none does."""
        return next((size for size in self._buckets if size >= voxels), self._buckets[-1])

    def _run(self, rows: int, *, stages: bool) -> None:
        if stages:
            self._timeline.ends[UPLOAD].record(self._stream)
        self._launches[rows][stages]()
        self._finished.record(self._stream)

    def _make_room(self, points: int) -> None:
        if points <= self._memory.capacity:
            return
        capacity = 1 << (points - 1).bit_length()
        _log.warning("a frame of %d points: buffers grow from %d to %d", points, self._memory.capacity, capacity)
        self._memory.grow(capacity)
        self._launches = self._recorded()

    def _recorded(self) -> dict[int, dict[bool, Callable[[], None]]]:
        """What a request launches, by its bucket and whether stages are timed."""
        return {
            rows: recorded(self._gpu, self._lane, self._timeline, partial(self._enqueue_body, rows))
            for rows in self._buckets
        }

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

    def _boxes(self) -> Boxes3D:
        """The boxes that the kernel kept, of the result on the host."""
        words = self._memory.host_result
        table = words[HEADER_WORDS:].reshape(-1, BOX_WORDS)[: words[_KEPT]]
        values = table.view(np.float32)
        return Boxes3D.build(
            centers=values[:, 0:3].copy(),
            sizes=values[:, 3:6].copy(),
            yaws=values[:, 6].copy(),
            velocities=values[:, 7:9].copy(),
            labels=table[:, 10].astype(np.int64),
            scores=values[:, 9].copy(),
        )


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
