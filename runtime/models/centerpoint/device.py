"""CenterPoint on a GPU: the steps of `runtime.models.centerpoint.steps`, each as CUDA kernels on device memory.

points -> voxelize -> decorate -> pts_voxel_encoder -> scatter -> pts_backbone_neck_head -> decode -> circle_nms

A request copies the points to the device, enqueues everything, waits once, and reads the boxes. Behind it, nobody waits
for that, the device clears what it wrote, for the next one. Where the encoder's graph is of the common form, one kernel
decorates, encodes and scatters. Elsewhere the encoder runs with a *bucket* of rows a little above what the frame before
had (`device_encoder`). When a frame has more pillars than its bucket, which the counters that come back with the boxes
say, the request is enqueued again with one that fits.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import DeviceArray, DeviceOutputs
from runtime.cuda.session import DeviceSession
from runtime.cuda.timeline import Timeline
from runtime.lidar.device_voxels import HEADER_WORDS
from runtime.lidar.frames import checked
from runtime.models.centerpoint.decode import logit_threshold
from runtime.models.centerpoint.device_encoder import BUCKETS, DeviceEncoder, EngineEncoder, KernelEncoder, kernel_form
from runtime.models.centerpoint.device_kernels import (
    BINS,
    BOX_WORDS,
    KEPT,
    MAX_BOXES,
    MAX_TASKS,
    STATE_WORDS,
    load_kernels,
)
from runtime.models.centerpoint.device_memory import Buffers
from runtime.models.centerpoint.parameters import ENCODER, HEAD, CenterPointParameters
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.arrays import Float32
from shared.errors import InferenceError
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

_log = logging.getLogger("runtime")

# Requests that decide whether graphs are faster.
TRIALS = 9

UPLOAD, DOWNLOAD = "upload", "download"

# A word of the result.
_HEATMAP_NAN = 5


def unsupported(parameters: CenterPointParameters) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    if parameters.bbox_coder.max_num > MAX_BOXES:
        return f"bbox_coder.max_num is {parameters.bbox_coder.max_num}, the kernels sort at most {MAX_BOXES} boxes"
    if len(parameters.tasks) > MAX_TASKS:
        return f"the model has {len(parameters.tasks)} tasks, the kernels know at most {MAX_TASKS}"
    return None


@dataclass(frozen=True)
class _Task:
    """One head on the device: outputs by role (vel may be missing), voxels per cell, and where its boxes go."""

    outputs: dict[str, DeviceArray]
    factor: int
    first_label: int
    threshold: float
    radius: float
    keys: DeviceArray
    state: DeviceArray
    boxes: DeviceArray
    kept: DeviceArray


@dataclass(frozen=True)
class _Launches:
    """What a request launches: the body of its bucket, with or without the stages' events, and behind it the reset."""

    reset: Callable[[], None]
    bodies: dict[tuple[int, bool], Callable[[], None]]


@dataclass(frozen=True)
class _Request:
    """A request on its way: points of its frame, and rows that the encoder runs with."""

    points: int
    rows: int


class CenterPointOnDevice(DevicePipeline[CenterPointParameters]):
    """A CenterPoint whose steps are CUDA kernels: buffers, kernels, components bound to them, and recorded graphs.

    Its parameters are such that `unsupported` says nothing.
    """

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: CenterPointParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        gpu = session.gpu
        # Copies of points run beside the reset that the request before left behind.
        self._copies = gpu.stream()
        self._buffers = Buffers(gpu, parameters)
        form = kernel_form(parameters, session)
        self._kernels = load_kernels(spec, parameters, session, self._stream, form)
        self._grid_blocks = gpu.multiprocessors * 4
        canvas = spec.component(HEAD).inputs[0].name
        nx, ny, _ = parameters.grid_size
        # Its items lie as the head's input does, see `DeviceSession.channels_last`.
        self._canvas = gpu.allocate((1, parameters.encoder_channels, ny, nx), session.dtype(HEAD, canvas))
        self._encoder: DeviceEncoder
        if form is None:
            self._encoder = EngineEncoder(
                spec, parameters, session, self._lane, self._kernels, self._buffers, self._canvas
            )
        else:
            self._encoder = KernelEncoder(form, parameters, session, self._kernels, self._buffers, self._canvas)
        self._buckets = self._encoder.buckets
        self._head = self._lane.bind(HEAD, {canvas: self._canvas}, {})
        # On the device, behind the upload.
        self.stages = ("voxelize", *self._encoder.stages, HEAD, "decode", "circle_nms", DOWNLOAD)
        self._timeline = Timeline(gpu, (UPLOAD, *self.stages))
        self._finished = gpu.event()
        self._expected = self._buckets[-1]
        self._is_reset = False
        self._run_once()
        self._tasks = self._bind_tasks()
        self._launches = self._choose()

    def input_shapes(self, data: Float32, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the counters say how many voxels the points fill)
        """See `DevicePipeline`; the encoder has a row a voxel, or the fewest that it takes."""
        parameters = self._parameters
        rows = max(counters["voxels"], self._session.rows(ENCODER)[0])
        features = (rows, parameters.max_points_per_voxel, parameters.decoration.num_features)
        return {
            ENCODER: {self._spec.component(ENCODER).inputs[0].name: features},
            HEAD: {self._spec.component(HEAD).inputs[0].name: self._canvas.shape},
        }

    def input_buffer(self, count: int) -> Float32:
        """(count, C) float32 in page-locked memory, from which the device copies by itself.

        It is the lane's only one: the next frame may be written when the answer to the last is collected, and after a
        call with a larger count earlier views are worth nothing.
        """
        if count > self._buffers.capacity:
            self._grow(count)
        return self._buffers.host_points(count)

    def enqueue(self, data: Float32, *, stages: bool) -> _Request:
        """See `DevicePipeline`.

        Args:
            data: (N, C) float32; x, y, z [m] and the model's other raw features.
            stages: take the time of every stage.
        """
        points = checked(data, self._parameters.decoration.raw_features)
        if len(points) > self._buffers.capacity:
            self._grow(len(points))
        if not self._is_reset:
            self._launches.reset()
        if stages:
            self._timeline.started.record(self._copies)
        self._buffers.upload(points, self._staging, self._copies)
        uploaded = self._timeline.ends[UPLOAD]
        uploaded.record(self._copies)
        uploaded.hold(self._stream)
        rows = self._bucket(min(self._expected, len(points)))
        self._run(rows, stages=stages)
        return _Request(len(points), rows)

    def answer(self, request: _Request, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._finished.synchronize()
        words = self._buffers.host_result
        voxels = min(int(words[2]), self._parameters.max_voxels)
        if voxels > request.rows:
            # The expectation was too low: once more, with the frame that is on the device already.
            if stages:
                self._timeline.started.record(self._stream)
                self._timeline.ends[UPLOAD].record(self._stream)
            self._run(self._bucket(voxels), stages=stages)
            self._finished.synchronize()
        # A quarter of a step above this frame: the next one is much like it.
        self._expected = voxels + self._buckets[-1] // (BUCKETS * 4)
        boxes = self._boxes(words)
        counters = {
            **self._buffers.counters(request.points),
            "heatmap_nan": int(words[_HEATMAP_NAN]),
            "boxes": len(boxes),
        }
        latency = self._timeline.milliseconds() if stages else {}
        return Inference(boxes, DeviceOutputs(self._head.outputs), latency, counters)

    def _run(self, rows: int, *, stages: bool) -> None:
        """Enqueue the body of a bucket, and the reset for the next one."""
        self._is_reset = False
        self._launches.bodies[rows, stages]()
        self._finished.record(self._stream)
        self._launches.reset()
        self._is_reset = True

    def _boxes(self, words: npt.NDArray[np.int32]) -> Boxes3D:
        """The boxes of all tasks, in the order of the tasks."""
        kept = self._parameters.nms.post_max_size
        tables = words[HEADER_WORDS:].reshape(len(self._tasks), kept, BOX_WORDS)
        table = np.concatenate([tables[task, : words[KEPT + task]] for task in range(len(self._tasks))])
        values = table.view(np.float32)
        return Boxes3D(
            centers=values[:, 0:3].copy(),
            sizes=values[:, 3:6].copy(),
            yaws=values[:, 6].copy(),
            velocities=values[:, 7:9].copy(),
            labels=table[:, 10].astype(np.int64),
            scores=values[:, 9].copy(),
            num_points=np.zeros(len(table), np.int64),
        )

    def _bucket(self, voxels: int) -> int:
        """The smallest bucket that holds so many voxels; the largest where none does."""
        return next((size for size in self._buckets if size >= voxels), self._buckets[-1])

    def _enqueue_reset(self) -> None:
        """What has to be empty when a request starts. The canvas first: it is cleared by what this one found."""
        buffers, stream = self._buffers, self._stream
        blocks = -(-self._parameters.max_voxels // 32)
        self._kernels.launch("clear_canvas", blocks, 256, buffers.cell_of_voxel, self._canvas, buffers.result)
        buffers.reset(stream)

    def _enqueue_body(self, rows: int, mark: Callable[[str], None]) -> None:
        """Everything from the points on the device to the result on the host."""
        self._buffers.voxelize(self._kernels, self._grid_blocks)
        mark("voxelize")
        self._encoder.enqueue(rows, mark)
        self._head.enqueue()
        mark(HEAD)
        for task in self._tasks:
            self._decode(task)
        mark("decode")
        for number, task in enumerate(self._tasks):
            self._suppress(number, task)
        mark("circle_nms")
        self._gpu.to_host(self._buffers.result, self._buffers.host_result, self._stream)
        mark(DOWNLOAD)

    def _decode(self, task: _Task) -> None:
        heatmap = task.outputs["heatmap"]
        cells = int(np.prod(heatmap.shape))
        vel = task.outputs.get("vel")
        threshold = np.float32(task.threshold)
        header = self._buffers.result
        self._kernels.launch("decode_histogram", self._grid_blocks, 512, heatmap, cells, threshold, task.state, header)
        self._kernels.launch("decode_collect", self._grid_blocks, 512, heatmap, cells, threshold, task.state, task.keys)
        self._kernels.launch(
            "decode_boxes", 1, 1024,
            *(task.outputs[role] for role in ("heatmap", "reg", "height", "dim", "rot")), 0 if vel is None else vel,
            heatmap.shape[2], heatmap.shape[3], task.factor, task.first_label, task.keys, task.state, task.boxes,
        )  # fmt: skip

    def _suppress(self, number: int, task: _Task) -> None:
        self._kernels.launch(
            "circle_nms", 1, -(-self._parameters.bbox_coder.max_num // 32) * 32,
            task.boxes, task.state, task.radius, number, task.kept, self._buffers.result,
        )  # fmt: skip

    def _run_once(self) -> None:
        """Run every component once: backends finish their set-up in the first run, which can't be recorded."""
        self._encoder.warm_up()
        self._head.enqueue()
        self._stream.synchronize()

    def _bind_tasks(self) -> list[_Task]:
        parameters, gpu = self._parameters, self._session.gpu
        max_num, kept = parameters.bbox_coder.max_num, parameters.nms.post_max_size
        tasks = []
        first_label = 0
        for number, (task, radius) in enumerate(zip(parameters.tasks, parameters.nms.radius, strict=True)):
            outputs = {role: self._head.outputs[name] for role, name in task.outputs.items()}
            result = self._buffers.result
            tasks.append(
                _Task(
                    outputs=outputs,
                    factor=parameters.factor(task),
                    first_label=first_label,
                    threshold=float(logit_threshold(parameters.bbox_coder.score_threshold)),
                    radius=radius,
                    keys=gpu.allocate((int(np.prod(outputs["heatmap"].shape)),), np.uint64),
                    state=self._buffers.states.part(number * (STATE_WORDS + BINS), (STATE_WORDS + BINS,)),
                    boxes=gpu.allocate((max_num, BOX_WORDS), np.int32),
                    kept=result.part(HEADER_WORDS + number * kept * BOX_WORDS, (kept, BOX_WORDS)),
                )
            )
            first_label += len(task.classes)
        return tasks

    def _choose(self) -> _Launches:
        """CUDA graphs, where the backend can be recorded and they are faster than call by call."""
        plain = self._call_by_call()
        if not self._lane.recordable:
            return plain
        # First: CUDA loads a kernel when it first runs, which is better done outside of a recording.
        without = self._milliseconds(plain)
        recorded = self._recorded()
        if recorded is None:
            return plain
        with_graphs = self._milliseconds(recorded)
        _log.debug("a request takes %.3f ms as CUDA graphs, %.3f ms call by call", with_graphs, without)
        return recorded if with_graphs <= without else plain

    def _call_by_call(self) -> _Launches:
        return _Launches(
            self._enqueue_reset,
            {
                (rows, stages): functools.partial(
                    self._enqueue_body, rows, self._timeline.marker(self._stream, timed=stages)
                )
                for rows, stages in itertools.product(self._buckets, (False, True))
            },
        )

    def _recorded(self) -> _Launches | None:
        """A graph for every bucket, with and without the events of the stages; None where that fails."""
        try:
            reset = self._gpu.graph(self._stream, self._enqueue_reset)
            bodies = {
                (rows, stages): self._gpu.graph(
                    self._stream,
                    functools.partial(
                        self._enqueue_body, rows, self._timeline.marker(self._stream, timed=stages, in_graph=True)
                    ),
                ).launch
                for rows, stages in itertools.product(self._buckets, (False, True))
            }
        except InferenceError as error:
            _log.warning("CUDA graphs can't be recorded (%s): requests are launched call by call", error)
            return None
        return _Launches(reset.launch, bodies)

    def _milliseconds(self, launches: _Launches) -> float:
        """Wall time of a request without points, the median of a few."""
        times = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            launches.reset()
            launches.bodies[self._buckets[-1], False]()
            self._stream.synchronize()
            times.append((time.perf_counter() - start) * 1e3)
        return float(np.median(times))

    def _grow(self, points: int) -> None:
        capacity = 1 << (points - 1).bit_length()
        _log.warning("a frame of %d points: buffers grow from %d to %d", points, self._buffers.capacity, capacity)
        self._buffers.grow(capacity)
        self._launches = self._choose()
        self._is_reset = False
