"""CenterPoint with pillars: points to boxes.

points -> voxelize -> decorate -> pts_voxel_encoder -> scatter -> pts_backbone_neck_head -> decode -> circle_nms

The steps between the components run in NumPy, or, when the session runs components on device memory, as CUDA kernels
(`runtime.models.centerpoint.device`), with the same results.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.buffers import Float32, RowBuffer
from runtime.cuda.session import DeviceSession
from runtime.models.centerpoint.circle_nms import circle_nms
from runtime.models.centerpoint.decode import BoxDecoding, count_nan, decode, undo_y_axis_reference
from runtime.models.centerpoint.decorate import Decoration, decorate
from runtime.models.centerpoint.device import CenterPointCuda, unsupported
from runtime.models.centerpoint.parameters import CenterPointParameters, Task, read_parameters
from runtime.models.centerpoint.scatter import Canvas
from runtime.models.centerpoint.voxelize import VoxelGrid, cell_table, voxelize
from runtime.pipeline import DevicePipeline, Inference, Pipeline, PipelineInput
from runtime.stage_clock import StageClock
from shared.data import load_points_counted
from shared.data.types import Sample
from shared.errors import InferenceError
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

_log = logging.getLogger("runtime")

ENCODER = "pts_voxel_encoder"
HEAD = "pts_backbone_neck_head"

# torch.export takes an axis of length 1 for a constant, so that its programs want at least two pillars. A row more is
# an empty pillar, which does not touch the others.
_MIN_ENCODER_ROWS = 2


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a CenterPoint model, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    if isinstance(session, DeviceSession):
        reason = unsupported(parameters)
        if reason is None:
            return CenterPointOnDevice(spec, parameters, session)
        _log.warning("%s: the steps between the components run in NumPy, and tensors pass through the host", reason)
    return CenterPoint(spec, parameters, session)


class _CenterPoint:
    """What does not depend on where the steps run."""

    def __init__(self, parameters: CenterPointParameters) -> None:
        self._parameters = parameters

    def read(self, sample: Sample) -> PipelineInput:
        """(N, C) float32 points of a sample, with the sweeps and the range filter of the model's training."""
        loaded = load_points_counted(sample, self._parameters.points)
        counters = {"read": loaded.read, "read_nan": loaded.invalid, "read_out_of_range": loaded.outside}
        return PipelineInput(loaded.points, counters)

    def comparable(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The head's outputs with a ``rot_y_axis_reference`` export undone: (1, channels, H, W) each."""
        comparable = dict(outputs)
        if self._parameters.rot_y_axis_reference:
            for task in self._parameters.tasks:
                dim, rot = task.outputs["dim"], task.outputs["rot"]
                undone = undo_y_axis_reference(outputs[dim][0], outputs[rot][0])
                comparable[dim], comparable[rot] = undone[0][None], undone[1][None]
        return comparable

    def alerts(self, counters: Mapping[str, int]) -> list[str]:
        """Losses that change results; points over a full voxel's limit are not among them, training drops them too."""
        lines = []
        if counters["voxels_dropped"]:
            lines.append(
                f"{counters['voxels_dropped']} of {counters['voxels'] + counters['voxels_dropped']} voxels did not fit "
                f"({counters['points_in_dropped_voxels']} of {counters['points']} points lost): the limit is "
                f"{self._parameters.max_voxels} a frame (max_voxels of the training config)"
            )
        if counters["read_nan"]:
            lines.append(f"{counters['read_nan']} of {counters['read']} points are NaN or infinite and were left out")
        if counters["heatmap_nan"]:
            lines.append(
                f"{counters['heatmap_nan']} cells of the heatmap are NaN: detections there are lost; look for an "
                "overflow with the verifier"
            )
        return lines

    def checked(self, data: Float32) -> Float32:
        """The points, C-contiguous.

        Raises:
            InferenceError: another number of features.
        """
        if data.ndim != 2 or data.shape[1] != self._parameters.decoration.raw_features:
            raise InferenceError(
                f"points have the shape {data.shape}, the model takes (N, {self._parameters.decoration.raw_features})"
            )
        return np.ascontiguousarray(data, np.float32)


class CenterPointOnDevice(_CenterPoint, DevicePipeline):
    """A CenterPoint model whose steps are CUDA kernels. One request at a time."""

    def __init__(self, spec: ModelSpec, parameters: CenterPointParameters, session: DeviceSession) -> None:
        super().__init__(parameters)
        self._spec = spec
        self._session = session
        self.lane = CenterPointCuda(spec, parameters, session)

    def infer(self, data: Float32) -> Inference:
        """Boxes in the lidar frame from one frame of points, see `CenterPoint.infer`."""
        self.submit(data, stages=True)
        return self.collect()

    def input_buffer(self, count: int) -> Float32:
        """Page-locked memory for a frame of ``count`` points: see `CenterPointCuda.input_buffer`."""
        return self.lane.input_buffer(count)

    def submit(self, data: Float32, *, stages: bool = False) -> None:
        """See `DevicePipeline`."""
        self.lane.submit(self.checked(data), stages=stages)

    def collect(self) -> Inference:
        """See `DevicePipeline`."""
        return self.lane.collect()

    def another(self) -> DevicePipeline:
        """See `DevicePipeline`."""
        return CenterPointOnDevice(self._spec, self._parameters, self._session)

    def input_shapes(self, counters: Mapping[str, int]) -> dict[str, dict[str, tuple[int, ...]]]:
        """See `DevicePipeline`; the encoder has a row a voxel, or the fewest that it takes."""
        nx, ny, _ = self._parameters.grid_size
        rows = max(counters["voxels"], self._session.rows(ENCODER)[0])
        return {
            ENCODER: {
                self._spec.component(ENCODER).inputs[0].name: (
                    rows,
                    self._parameters.max_points_per_voxel,
                    _decoration(self._parameters).num_features,
                )
            },
            HEAD: {self._spec.component(HEAD).inputs[0].name: (1, self._parameters.encoder_channels, ny, nx)},
        }


class CenterPoint(_CenterPoint):
    """A CenterPoint model on a session, with its steps in NumPy and their buffers. One request at a time."""

    def __init__(self, spec: ModelSpec, parameters: CenterPointParameters, session: Session) -> None:
        super().__init__(parameters)
        self._session = session
        self._encoder_input = spec.component(ENCODER).inputs[0].name
        self._encoder_output = spec.component(ENCODER).outputs[0].name
        self._head_input = spec.component(HEAD).inputs[0].name
        self._grid = _grid(parameters)
        self._decoration = _decoration(parameters)
        self._decoding = _decoding(parameters)
        self._table = cell_table(self._grid)
        self._features = RowBuffer(self._grid.max_voxels * self._grid.max_points, self._decoration.num_features)
        self._canvas = Canvas(parameters.encoder_channels, ny=self._grid.shape[1], nx=self._grid.shape[0])

    def infer(self, data: Float32) -> Inference:
        """Boxes in the lidar frame from one frame of points.

        Args:
            data: (N, C) float32; x, y, z [m] and the model's other raw features.

        Raises:
            InferenceError: another number of features, or the backend failed.
        """
        clock = StageClock()
        points = self.checked(data)
        voxels = voxelize(points, self._grid, self._table)
        clock.lap("voxelize")
        features = decorate(voxels, self._decoration, self._grid, self._features)
        clock.lap("decorate")
        pillars = self._encode(features, len(voxels))
        clock.lap(ENCODER)
        canvas = self._canvas.scatter(pillars, voxels.coordinates)
        clock.lap("scatter")
        outputs = self._session.run(HEAD, {self._head_input: canvas})
        clock.lap(HEAD)
        tasks = [task_outputs(outputs, task) for task in self._parameters.tasks]
        decoded = [decode(task, self._decoding) for task in tasks]
        heatmap_nan = sum(count_nan(task["heatmap"]) for task in tasks)
        clock.lap("decode")
        boxes = self._suppress(decoded)
        clock.lap("circle_nms")
        counters = {**voxels.counters, "heatmap_nan": heatmap_nan, "boxes": len(boxes)}
        return Inference(boxes, outputs, clock.stop(), counters)

    def _encode(self, features: Float32, count: int) -> Float32:
        """(V, 1, C) pillar features of the first ``count`` pillars; no call for a frame without any."""
        if count == 0:
            return np.zeros((0, 1, self._parameters.encoder_channels), np.float32)
        rows = max(count, min(_MIN_ENCODER_ROWS, len(features)))
        pillars = self._session.run(ENCODER, {self._encoder_input: features[:rows]})[self._encoder_output]
        return pillars[:count]

    def _suppress(self, decoded: list[Boxes3D]) -> Boxes3D:
        """Circle NMS task by task; labels become global, in the order of the tasks."""
        nms = self._parameters.nms
        kept = []
        first_label = 0
        for boxes, task, radius in zip(decoded, self._parameters.tasks, nms.radius, strict=True):
            keep = circle_nms(boxes.centers[:, :2], boxes.scores, radius, nms.post_max_size)
            kept.append((boxes.select(keep), first_label))
            first_label += len(task.classes)
        return Boxes3D.build(
            centers=np.concatenate([boxes.centers for boxes, _ in kept]),
            sizes=np.concatenate([boxes.sizes for boxes, _ in kept]),
            yaws=np.concatenate([boxes.yaws for boxes, _ in kept]),
            velocities=np.concatenate([boxes.velocities for boxes, _ in kept]),
            labels=np.concatenate([boxes.labels + first for boxes, first in kept]),
            scores=np.concatenate([boxes.scores for boxes, _ in kept]),
        )


def _grid(parameters: CenterPointParameters) -> VoxelGrid:
    x, y, z = parameters.point_cloud_range[:3]
    return VoxelGrid(
        minimum=(x, y, z),
        voxel_size=parameters.voxel_size,
        shape=parameters.grid_size,
        max_points=parameters.max_points_per_voxel,
        max_voxels=parameters.max_voxels,
    )


def _decoration(parameters: CenterPointParameters) -> Decoration:
    settings = parameters.decoration
    return Decoration(
        raw_features=settings.raw_features,
        cluster_center=settings.cluster_center,
        voxel_center_axes={"xyz": 3, "xy": 2, "none": 0}[settings.voxel_center],
        distance=settings.distance,
        legacy=settings.legacy,
    )


def _decoding(parameters: CenterPointParameters) -> BoxDecoding:
    return BoxDecoding(
        minimum=(parameters.point_cloud_range[0], parameters.point_cloud_range[1]),
        voxel_size=(parameters.voxel_size[0], parameters.voxel_size[1]),
        out_size_factor=parameters.out_size_factor,
        norm_bbox=parameters.norm_bbox,
        max_num=parameters.bbox_coder.max_num,
        score_threshold=parameters.bbox_coder.score_threshold,
        post_center_range=parameters.bbox_coder.post_center_range,
        y_axis_reference=parameters.rot_y_axis_reference,
    )


def task_outputs(outputs: Mapping[str, npt.NDArray[Any]], task: Task) -> dict[str, Float32]:
    """The outputs of one task under the names that `decode` knows, as float32."""
    return {role: outputs[name].astype(np.float32, copy=False) for role, name in task.outputs.items()}
