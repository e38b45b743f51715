"""CenterPoint on a GPU: the steps of `runtime.models.centerpoint.steps`, each as CUDA kernels on device memory.

points -> voxelize -> decorate -> pts_voxel_encoder -> scatter -> pts_backbone_neck_head -> decode -> circle_nms

A request copies the points to the device, enqueues everything, waits once, and reads the boxes. Behind it, nobody waits
for that, the device clears what it wrote, for the next one. Where the encoder's graph is of the common form, one kernel
decorates, encodes and scatters. Elsewhere the encoder runs with a *bucket* of rows (`device_encoder`, `VoxelPipeline`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import DeviceArray, DeviceOutputs, Gpu
from runtime.cuda.session import DeviceSession, launches
from runtime.cuda.timeline import Timeline
from runtime.lidar.device_voxels import HEADER_WORDS, VoxelMemory
from runtime.lidar.voxel_pipeline import BOX_WORDS, DOWNLOAD, UPLOAD, VoxelPipeline, VoxelRequest, boxes_of
from runtime.models.centerpoint.decode import logit_threshold
from runtime.models.centerpoint.device_encoder import BUCKETS, DeviceEncoder, EngineEncoder, KernelEncoder, kernel_form
from runtime.models.centerpoint.device_kernels import (
    BINS,
    KEPT,
    MAX_BOXES,
    MAX_TASKS,
    STATE_WORDS,
    load_kernels,
)
from runtime.models.centerpoint.parameters import ENCODER, HEAD, CenterPointParameters
from runtime.pipeline import Counters, Inference, Interface
from shared.arrays import Float32
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

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


class Buffers(VoxelMemory):
    """What lies between the kernels, see the .cu files, and its page-locked counterpart."""

    def __init__(self, gpu: Gpu, parameters: CenterPointParameters) -> None:
        tasks = len(parameters.tasks)
        result = HEADER_WORDS + tasks * parameters.nms.post_max_size * BOX_WORDS
        super().__init__(gpu, parameters, parameters.decoration.raw_features, result)
        self.states = gpu.allocate((tasks, STATE_WORDS + BINS), np.uint32)

    def reset(self, stream: Any) -> None:
        """See `VoxelMemory`."""
        super().reset(stream)
        self._gpu.fill(self.states, 0, stream)


class CenterPointOnDevice(VoxelPipeline[CenterPointParameters]):
    """A CenterPoint whose steps are CUDA kernels: buffers, kernels, components bound to them, and recorded graphs.

    Its parameters are such that `unsupported` says nothing.
    """

    most_buckets = BUCKETS

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: CenterPointParameters, session: DeviceSession
    ) -> None:
        gpu = session.gpu
        self._buffers = Buffers(gpu, parameters)
        super().__init__(interface, spec, parameters, session, self._buffers)
        # Beside the reset that the request before left behind.
        self._copies = gpu.stream()
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
        self._tasks = self._bind_tasks()
        self._encoder.warm_up()
        self._record()

    def input_shapes(self, data: Float32, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the counters say how many voxels the points fill)
        """See `DevicePipeline`; the encoder has a row a voxel, or the fewest that it takes."""
        parameters = self._parameters
        rows = max(counters["voxels"], self._session.rows(ENCODER)[0])
        features = (rows, parameters.max_points_per_voxel, parameters.decoration.num_features)
        return {
            ENCODER: {self._spec.component(ENCODER).inputs[0].name: features},
            HEAD: {self._spec.component(HEAD).inputs[0].name: self._canvas.shape},
        }

    def answer(self, request: VoxelRequest, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        counters, _ = self._answered(request, stages=stages)
        words = self._buffers.host_result
        boxes = self._boxes(words)
        counters |= {"heatmap_nan": int(words[_HEATMAP_NAN]), "boxes": len(boxes)}
        latency = self._timeline.milliseconds() if stages else {}
        return Inference(boxes, DeviceOutputs(self._head.outputs), latency, counters)

    def _record(self) -> None:
        """See `VoxelPipeline`."""
        # CUDA loads a kernel when it first runs, which is better done outside of a recording.
        self._enqueue_reset()
        self._enqueue_body(self._buckets[-1], lambda stage: None)
        self._stream.synchronize()
        ready = partial(launches, self._gpu, self._lane, self._timeline)
        self._reset = ready(lambda mark: self._enqueue_reset())[False]
        self._bodies = {rows: ready(partial(self._enqueue_body, rows)) for rows in self._buckets}
        self._is_reset = False

    def _run(self, rows: int, *, stages: bool) -> None:
        """See `VoxelPipeline`; behind the answer the reset for the next request."""
        if not self._is_reset:
            self._reset()
        self._is_reset = False
        self._bodies[rows][stages]()
        self._finished.record(self._stream)
        self._reset()
        self._is_reset = True

    def _boxes(self, words: npt.NDArray[np.int32]) -> Boxes3D:
        """The boxes of all tasks, in the order of the tasks."""
        kept = self._parameters.nms.post_max_size
        tables = words[HEADER_WORDS:].reshape(len(self._tasks), kept, BOX_WORDS)
        return boxes_of(np.concatenate([tables[task, : words[KEPT + task]] for task in range(len(self._tasks))]))

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
