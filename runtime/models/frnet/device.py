"""FRNet on a GPU: the steps of `runtime.models.frnet.steps` as CUDA kernels on device memory.

points -> upload -> interpolate -> group -> frnet -> classify -> download

How many gaps a frame has, and how many frustums, the device finds out; nobody waits for that. The network runs with a
*bucket* of rows and frustums for the frame's points and a little more gaps and frustums than the last frames had. A
frame that has more, which the counters that come back with the answer say, is enqueued again with a bucket that fits.
What is above the frame's own is zero: no point of a frustum and no pixel refers to it.

Points without a direction keep their rows, which NumPy's steps leave out, so that each answer stands where its point
does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession, recorded
from runtime.cuda.timeline import Timeline
from runtime.models.frnet.device_memory import (
    BLOCK,
    FIRST,
    FRAME_HEADER,
    FRUSTUMS,
    GAPS,
    POINTS_OVER,
    USABLE,
    Answer,
    Buffers,
    load_kernels,
)
from runtime.models.frnet.parameters import FRNetParameters
from runtime.models.frnet.steps import checked
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.arrays import Float32
from shared.errors import InferenceError
from shared.spec import ComponentSpec, ModelSpec
from shared.tasks.segmentation3d import PointClasses

# Buckets that the network is made ready for when it is loaded: quarters of the largest. In TensorRT 8.6 each has an
# engine of its own, so further ones are made when a request first wants them, and only so many in all.
QUARTERS = 4
MOST_BUCKETS = 20
# Rows and frustums of further buckets: so many sizes an octave, each within 4.5 % of the next.
SIZES_AN_OCTAVE = 16
# Frames whose gaps and frustums tell what the next one has: after one alone, a tenth of the demo's had more.
FRAMES_REMEMBERED = 8

_UNUSED = 0xFFFFFFFF


def unsupported(spec: ModelSpec, parameters: FRNetParameters, session: DeviceSession) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    (component,) = spec.components
    if parameters.form != "padded":
        return f"its inputs are of the form {parameters.form}, whose sizes the host must know"
    if session.dtype(component.name, "points") != np.float32:
        return f"it takes points in {session.dtype(component.name, 'points')}"
    if _row_axis(component, "points") not in component.axes:
        return "its spec does not say how many points there are at most"
    return None


@dataclass(frozen=True)
class _Bucket:
    """Rows and frustums that the network runs with, and what a request launches, by whether stages are timed."""

    rows: int
    frustums: int
    bound: Bound
    answer: Answer
    launch: dict[bool, Callable[[], None]]


@dataclass(frozen=True)
class _Request:
    """A request on its way: points of its frame, and its bucket."""

    points: int
    bucket: _Bucket


class FRNetOnDevice(DevicePipeline[FRNetParameters]):
    """An FRNet whose steps are CUDA kernels. Its model is one of which `unsupported` says nothing."""

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: FRNetParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        (self._component,) = spec.components
        self._output = self._component.outputs[0].name
        fewest, most = session.rows(self._component.name)
        rows, frustums = (
            self._component.axes[_row_axis(self._component, name)] for name in ("points", "frustum_points")
        )
        self._most = min(rows.max, rows.max if most is None else most), frustums.max
        self._fewest = max(rows.min, fewest), frustums.min
        classes = int(self._component.outputs[0].shape[-1])
        dtype = session.dtype(self._component.name, self._output)
        self._buffers = Buffers(session.gpu, parameters, *self._most, classes, dtype)
        self._kernels = load_kernels(session.gpu, parameters, dtype, self._stream)
        self._blocks = session.gpu.multiprocessors * 8
        self._timeline = Timeline(
            session.gpu, ("upload", "interpolate", "group", self._component.name, "classify", "download")
        )
        self._buckets: dict[tuple[int, int], _Bucket] = {}
        for number in range(1, QUARTERS + 1):
            quarter = [-(-most * number // QUARTERS) for most in self._most]
            self._add_bucket(*map(max, quarter, self._fewest))
        # Gaps and frustums of the last frames.
        self._seen: deque[tuple[int, int]] = deque(maxlen=FRAMES_REMEMBERED)

    def input_shapes(self, data: Float32, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the counters say how many rows the points become)
        """See `DevicePipeline`."""
        rows, frustums = (
            max(counters[name], fewest)
            for name, fewest in zip(("num_points", "num_frustums"), self._fewest, strict=True)
        )
        inputs = self._buffers.inputs(rows, frustums)
        return {self._component.name: {name: array.shape for name, array in inputs.items()}}

    def enqueue(self, data: Float32, *, stages: bool) -> _Request:
        """See `DevicePipeline`.

        Args:
            data: (N, 4) float32; x, y, z [m] and intensity.
            stages: take the time of every stage.
        """
        points = np.ascontiguousarray(checked(data), np.float32)
        if len(points) > self._most[0]:
            raise InferenceError(f"a frame of {len(points)} points: the network takes at most {self._most[0]}")
        if stages:
            self._timeline.started.record(self._stream)
        self._upload(points)
        self._timeline.marker(self._stream, timed=stages)("upload")
        gaps, frustums = self._expected()
        bucket = self._bucket_for(len(points) + gaps, frustums)
        bucket.launch[stages]()
        return _Request(len(points), bucket)

    def answer(self, request: _Request, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._stream.synchronize()
        header, bucket = self._buffers.host_header, request.bucket
        gaps, frustums = int(header[GAPS]), int(header[FRUSTUMS])
        rows = request.points + gaps
        if rows > self._most[0] or frustums > self._most[1]:
            raise InferenceError(
                f"a frame of {rows} points, gaps filled, in {frustums} frustums: the network takes at most "
                f"{self._most[0]} in {self._most[1]}"
            )
        if rows > bucket.rows or frustums > bucket.frustums:
            # The expectation was too low: once more, with the frame that is on the device already.
            if stages:
                self._timeline.started.record(self._stream)
                self._timeline.marker(self._stream, timed=True)("upload")
            bucket = self._bucket_for(rows, frustums)
            bucket.launch[stages]()
            self._stream.synchronize()
        self._seen.append((gaps, frustums))
        counters = {
            "num_points": int(header[USABLE]) + gaps,
            "num_frustums": frustums,
            "points_over": int(header[POINTS_OVER]),
        }
        outputs = _AskedRows(bucket.bound.outputs, self._buffers.cell_of_row.first(rows))
        latency = self._timeline.milliseconds() if stages else {}
        return Inference(_classes(bucket.answer, request.points), outputs, latency, counters)

    def _expected(self) -> tuple[int, int]:
        """Gaps and frustums of the next frame, which is much like the last ones; before the first, nothing is known."""
        if not self._seen:
            return self._most
        gaps, frustums = (max(counts) for counts in zip(*self._seen, strict=True))
        return gaps + gaps // 4, frustums + frustums // 32

    def _upload(self, points: Float32) -> None:
        """Copy a frame to the device: its points, and how many they are."""
        buffers = self._buffers
        if len(points):
            self._staging.to_device(points, buffers.frame.part(FRAME_HEADER, ()).address, self._stream)
        buffers.host_count[0] = len(points)
        self._gpu.to_device(buffers.host_count, buffers.frame.address, self._stream)

    def _add_bucket(self, rows: int, frustums: int) -> _Bucket:
        """Make the network ready for so many rows and frustums."""
        inputs, probabilities = self._buffers.inputs(rows, frustums), self._buffers.probabilities.first(rows)
        bound = self._lane.bind(self._component.name, inputs, {self._output: probabilities})
        answer = self._buffers.answer(rows)
        body = partial(self._enqueue_body, rows, frustums, bound, answer)
        launch = recorded(self._gpu, self._lane, self._timeline, body)
        bucket = self._buckets[rows, frustums] = _Bucket(rows, frustums, bound, answer, launch)
        return bucket

    def _bucket_for(self, rows: int, frustums: int) -> _Bucket:
        """One that holds so many: of the next sizes, or the smallest that there is once there are enough."""
        wanted = tuple(map(_next_size, (rows, frustums), self._fewest, self._most))
        bucket = self._buckets.get((wanted[0], wanted[1]))
        if bucket is not None:
            return bucket
        if len(self._buckets) < MOST_BUCKETS:
            return self._add_bucket(*wanted)
        fitting = (each for each in self._buckets.values() if each.rows >= wanted[0] and each.frustums >= wanted[1])
        return min(fitting, key=lambda each: each.rows + each.frustums)

    def _enqueue_body(
        self, rows: int, frustums: int, bound: Bound, answer: Answer, mark: Callable[[str], None]
    ) -> None:
        """Everything from the points on the device to the answer on the host."""
        self._interpolate()
        mark("interpolate")
        self._group(rows, frustums)
        mark("group")
        bound.enqueue()
        mark(self._component.name)
        self._classify(bound.outputs[self._output], answer)
        mark("classify")
        self._gpu.to_host(self._buffers.result, answer.host, self._stream)
        mark("download")

    def _interpolate(self) -> None:
        b = self._buffers
        self._gpu.fill(b.header, 0, self._stream)
        self._gpu.fill(b.header.part(FIRST, (1,)), _UNUSED, self._stream)
        self._gpu.fill(b.shown, _UNUSED, self._stream)
        self._kernels.launch("project_points", self._blocks, BLOCK, b.frame, b.points, b.cell_of_row, b.shown, b.header)
        tiles = b.gaps_of_tile.shape[0]
        self._kernels.launch("count_gaps", tiles, BLOCK, b.shown, b.header, b.gaps_of_tile)
        self._kernels.launch(
            "fill_gaps", tiles, BLOCK,
            b.frame, b.shown, b.gaps_of_tile, self._most[0], b.points,
            b.cell_of_row, b.header,
        )  # fmt: skip

    def _group(self, rows: int, frustums: int) -> None:
        b, tiles = self._buffers, self._buffers.frustums_of_tile.shape[0]
        self._gpu.fill(b.in_cell, 0, self._stream)
        self._gpu.fill(b.slots, _UNUSED, self._stream)
        self._kernels.launch(
            "count_points", self._blocks, BLOCK, b.frame, b.cell_of_row, b.header, self._most[0], b.in_cell
        )
        self._kernels.launch("count_frustums", tiles, BLOCK, b.in_cell, b.frustums_of_tile)
        self._kernels.launch(
            "number_frustums", tiles, BLOCK, b.in_cell, b.frustums_of_tile, frustums, b.frustum_of_cell, b.header
        )
        self._kernels.launch(
            "group_points", self._blocks, BLOCK,
            b.frame, b.cell_of_row, b.frustum_of_cell, b.header, rows, b.points, b.coors, b.inverse_map, b.slots,
        )  # fmt: skip
        self._kernels.launch("pad_frustums", self._blocks, BLOCK, b.header, frustums, b.slots)
        self._kernels.launch(
            "show_frustums", self._blocks, BLOCK, b.frustum_of_cell, b.strides, b.strides.shape[0], b.pixel_frustums
        )

    def _classify(self, probabilities: DeviceArray, answer: Answer) -> None:
        b, ignored = self._buffers, self._parameters.ignored_class
        self._kernels.launch(
            "classify_points", self._blocks, BLOCK,
            b.frame, b.cell_of_row, probabilities, probabilities.shape[1], -1 if ignored is None else ignored,
            answer.scores, answer.margins, answer.labels,
        )  # fmt: skip


def _next_size(count: int, fewest: int, most: int) -> int:
    """The smallest size of a bucket that holds so many rows or frustums, of `SIZES_AN_OCTAVE` down from the most."""
    step = int(SIZES_AN_OCTAVE * math.log2(most / max(1, min(count, most))))
    return max(fewest, math.ceil(most * 2 ** (-step / SIZES_AN_OCTAVE)))


def _classes(answer: Answer, points: int) -> PointClasses:
    """Those of the first points, copied."""
    return PointClasses(
        answer.host_labels[:points].copy(), answer.host_scores[:points].copy(), answer.host_margins[:points].copy()
    )


def _row_axis(component: ComponentSpec, name: str) -> str:
    """Name of the first axis of an input."""
    return next(str(tensor.shape[0]) for tensor in component.inputs if tensor.name == name)


class _AskedRows(Mapping[str, npt.NDArray[Any]]):
    """The network's answers for points that have a direction and for added ones, copied when somebody looks at them.

    Valid until the lane's next request.
    """

    def __init__(self, outputs: Mapping[str, DeviceArray], cell_of_row: DeviceArray) -> None:
        self._outputs, self._cell_of_row = outputs, cell_of_row

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        cells = self._cell_of_row.get()
        rows: npt.NDArray[Any] = self._outputs[name].first(len(cells)).get()
        return rows[cells >= 0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)
