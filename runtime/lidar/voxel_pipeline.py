"""Pipelines on a GPU that begin with voxels: what CenterPoint and TransFusion have in common.

How many voxels a frame has is known on the device alone, and the input shape of an engine has to be set on the host. So
it runs with a *bucket* of rows a little above what the frame before had. When a frame has more voxels than its bucket,
which the counters that come back with the answer say, the request is enqueued again with one that fits.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from runtime.cuda.session import DeviceSession
from runtime.cuda.timeline import Timeline
from runtime.lidar.device_voxels import VoxelMemory
from runtime.lidar.frames import checked
from runtime.parameters import ParametersT
from runtime.pipeline import DevicePipeline, Interface
from shared.arrays import Float32
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

_log = logging.getLogger("runtime")

UPLOAD, DOWNLOAD = "upload", "download"
#: 32-bit words of a box as the kernels leave it, see `boxes_of`.
BOX_WORDS = 12


@dataclass(frozen=True)
class VoxelRequest:
    """A request on its way: points of its frame, and rows that its voxels have."""

    points: int
    rows: int


class VoxelPipeline(DevicePipeline[ParametersT]):
    """A lane whose requests are points that become voxels. A subclass launches what follows, and reads the answer.

    Args:
        interface, spec, parameters, session: see `DevicePipeline`.
        memory: of the voxels; the lane's own.

    Attributes:
        most_buckets: how many numbers of rows there are to choose from, at most.
    """

    most_buckets: ClassVar[int]

    _timeline: Timeline
    _buckets: list[int]

    def __init__(
        self,
        interface: Interface,
        spec: ModelSpec,
        parameters: ParametersT,
        session: DeviceSession,
        memory: VoxelMemory,
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        self._memory = memory
        # Where points are copied: a stream of its own, where something else runs meanwhile.
        self._copies = self._stream
        self._finished = session.gpu.event()
        # Nothing is known before the first frame.
        self._expected = memory.max_voxels
        # Whether what was recorded has addresses of buffers that are gone.
        self._is_stale = False

    def input_buffer(self, count: int) -> Float32:
        """(count, C) float32 in page-locked memory, from which the device copies by itself.

        It is the lane's only one: the next frame may be written when the answer to the last is collected, and after a
        call with a larger count earlier views are worth nothing.
        """
        self._make_room(count)
        return self._memory.host_points(count)

    def enqueue(self, data: Float32, *, stages: bool) -> VoxelRequest:
        """See `DevicePipeline`.

        Args:
            data: (N, C) float32; x, y, z [m] and the model's other raw features.
            stages: take the time of every stage.
        """
        points = checked(data, self._memory.columns)
        self._make_room(len(points))
        if stages:
            self._timeline.started.record(self._copies)
        self._memory.upload(points, self._staging, self._copies)
        uploaded = self._timeline.ends[UPLOAD]
        uploaded.record(self._copies)
        uploaded.hold(self._stream)
        rows = self._bucket(min(self._expected, len(points)))
        self._run(rows, stages=stages)
        return VoxelRequest(len(points), rows)

    def _answered(self, request: VoxelRequest, *, stages: bool) -> tuple[dict[str, int], int]:
        """Wait for a request's answer; counters of its voxels, and the rows that they had in the end."""
        self._finished.synchronize()
        counters, rows = self._memory.counters(request.points), request.rows
        if counters["voxels"] > rows:
            # The expectation was too low: once more, with the frame that is on the device already.
            rows = self._bucket(counters["voxels"])
            if stages:
                self._timeline.started.record(self._stream)
                self._timeline.ends[UPLOAD].record(self._stream)
            self._run(rows, stages=stages)
            self._finished.synchronize()
            counters = self._memory.counters(request.points)
        # A quarter of a step above this frame: the next one is much like it.
        self._expected = counters["voxels"] + self._buckets[-1] // (self.most_buckets * 4)
        return counters, rows

    def launch_again(self) -> None:
        """Enqueue what follows the upload once more, on the frame that was answered last, without waiting.

        Nobody reads the answer: this is for measuring what the device alone takes.
        """
        self._run(self._bucket(self._expected), stages=False)

    def _bucket(self, voxels: int) -> int:
        """The smallest bucket that holds so many voxels; the largest where none does."""
        return next((size for size in self._buckets if size >= voxels), self._buckets[-1])

    def _make_room(self, points: int) -> None:
        if points > self._memory.capacity:
            capacity = 1 << (points - 1).bit_length()
            _log.warning("a frame of %d points: buffers grow from %d to %d", points, self._memory.capacity, capacity)
            self._memory.grow(capacity)
            self._is_stale = True
        if self._is_stale:
            self._record()
            self._is_stale = False

    @abstractmethod
    def _record(self) -> None:
        """Make ready what requests launch, with the addresses that buffers have now."""

    @abstractmethod
    def _run(self, rows: int, *, stages: bool) -> None:
        """Enqueue everything behind the upload, with so many rows; `_finished` behind the answer."""


def boxes_of(table: npt.NDArray[Any]) -> Boxes3D:
    """Boxes as the kernels leave them.

    Args:
        table: (N, BOX_WORDS) int32, the bits of x, y, z, l, w, h, yaw, vx, vy and score in float32, label, unused.
    """
    values = table.view(np.float32)
    return Boxes3D.build(
        centers=values[:, 0:3].copy(),
        sizes=values[:, 3:6].copy(),
        yaws=values[:, 6].copy(),
        velocities=values[:, 7:9].copy(),
        labels=table[:, 10].astype(np.int64),
        scores=values[:, 9].copy(),
    )
