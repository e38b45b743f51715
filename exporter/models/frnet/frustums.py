"""Points by frustum: how an FRNet's features go from points to frustums and pixels, and back.

A frustum is what of a frame lies in one pixel of the range image. `ScatteredFrustums` takes what AWML's and Autoware's
files take, and needs an operator that reduces while it scatters: TensorRT has it from version 10 on. `PaddedFrustums`
looks points up in an index that the runtime makes, with operators that every TensorRT has.

A pixel of a coarser map is that of several frustums. AWML writes one over the other, in an order that PyTorch and ONNX
leave open; here it is the last, as on a CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Size = tuple[int, int]  # height and width


class Frustums(ABC):
    """N points in M frustums of one frame.

    Args:
        size: of the range image.
        rows, columns: (N,) pixel of each point.
        frustum_of_point: (N,) in 0 … M - 1.
    """

    def __init__(self, size: Size, rows: Tensor, columns: Tensor, frustum_of_point: Tensor) -> None:
        self.size = size
        self._rows, self._columns = rows, columns
        self._frustum_of_point = frustum_of_point

    def map_size(self, stride: int) -> Size:
        """Height and width of a map at a stride."""
        return self.size[0] // stride, self.size[1] // stride

    def to_points(self, features: Tensor) -> Tensor:
        """(M, C) features of frustums to (N, C), each point that of its frustum."""
        return features.index_select(0, self._frustum_of_point)

    def pixels_of_points(self, pixels: Tensor, stride: int) -> Tensor:
        """(1, C, H, W) map at a stride to (N, C), each point the features of its pixel."""
        width = self.map_size(stride)[1]
        place = (self._rows // stride) * width + self._columns // stride
        return pixels[0].flatten(1).t().index_select(0, place)

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """(N, F) values of points to (M, F), their means."""

    @abstractmethod
    def largest(self, features: Tensor) -> Tensor:
        """(N, C) features of points to (M, C), the largest of each."""

    @abstractmethod
    def shown(self, stride: int) -> Tensor:
        """(P,) which frustum each pixel of a map shows: 1 + its number, or 0 where there is none."""

    def to_pixels(self, features: Tensor, stride: int) -> Tensor:
        """(M, C) features of frustums to (1, C, H, W) at a stride; 0 where no frustum is."""
        nothing = features.new_zeros((1, features.shape[1]))
        of_pixels = torch.cat([nothing, features]).index_select(0, self.shown(stride))
        return of_pixels.t().reshape(1, -1, *self.map_size(stride))


class ScatteredFrustums(Frustums):
    """AWML's inputs.

    Args:
        size: of the range image.
        coors: (N, 3) int64: 0, row and column of each point.
        voxel_coors: (M, 3) int64: of each frustum, sorted.
        inverse_map: (N,) int64.
    """

    def __init__(self, size: Size, coors: Tensor, voxel_coors: Tensor, inverse_map: Tensor) -> None:
        super().__init__(size, coors[:, 1], coors[:, 2], inverse_map)
        self._voxel_coors = voxel_coors

    def _index(self, values: Tensor) -> Tensor:
        return self._frustum_of_point[:, None].expand_as(values)

    def _filled(self, values: Tensor, value: float) -> Tensor:
        return values.new_full((self._voxel_coors.shape[0], values.shape[1]), value)

    def mean(self, values: Tensor) -> Tensor:
        """See `Frustums`."""
        total, count = self._filled(values, 0.0), self._filled(values, 0.0)
        index = self._index(values)
        return total.scatter_add(0, index, values) / count.scatter_add(0, index, torch.ones_like(values))

    def largest(self, features: Tensor) -> Tensor:
        """See `Frustums`."""
        lowest = self._filled(features, torch.finfo(features.dtype).min)
        return _largest(lowest, self._index(features), features)

    def shown(self, stride: int) -> Tensor:
        """See `Frustums`."""
        height, width = self.map_size(stride)
        place = (self._voxel_coors[:, 1] // stride) * width + self._voxel_coors[:, 2] // stride
        numbers = torch.arange(1, place.shape[0] + 1, device=place.device)
        return _largest(place.new_zeros(height * width), place, numbers)


def _largest(start: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Along the first axis, the largest of what ``start`` has and of the values whose index is there."""
    function: Any = _ScatterLargest  # PyTorch has no types for what derives from Function
    result: Tensor = function.apply(start, index, values)
    return result


class _ScatterLargest(torch.autograd.Function):
    """PyTorch's own, written to ONNX without branches for tensors of rank 0, which TensorRT would build too."""

    @staticmethod
    def forward(_ctx: Any, start: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """See `_largest`."""
        return start.scatter_reduce(0, index, values, "amax")

    @staticmethod
    def symbolic(g: Any, start: Any, index: Any, values: Any) -> Any:
        """One node."""
        result = g.op("ScatterElements", start, index, values, axis_i=0, reduction_s="max")
        result.setType(start.type())
        return result


class PaddedFrustums(Frustums):
    """The inputs of the padded form; see `runtime.models.frnet.group`.

    Args:
        size: of the range image.
        strides: of the maps in ``pixel_frustums``.
        coors: (N, 2) int32, row and column of each point.
        inverse_map: (N,) int32.
        frustum_points: (M, K) int32, the points of each frustum; free slots repeat the first.
        pixel_frustums: (P,) int32, for each pixel of each map 1 + the frustum that it shows, or 0.
    """

    def __init__(
        self,
        size: Size,
        strides: tuple[int, ...],
        coors: Tensor,
        inverse_map: Tensor,
        frustum_points: Tensor,
        pixel_frustums: Tensor,
    ) -> None:
        super().__init__(size, coors[:, 0], coors[:, 1], inverse_map)
        self._points = frustum_points
        self._pixels: Mapping[int, Tensor] = dict(
            zip(strides, torch.split(pixel_frustums, [pixels_at(size, stride) for stride in strides]), strict=True)
        )

    def _of_frustums(self, values: Tensor) -> Tensor:
        """(N, F) values of points to (M, K, F), slot by slot."""
        slots = self._points.shape[1]
        return values.index_select(0, self._points.reshape(-1)).reshape(-1, slots, values.shape[1])

    def mean(self, values: Tensor) -> Tensor:
        """See `Frustums`; of the points that have a slot."""
        first, others = self._points[:, :1], self._points[:, 1:]
        taken = torch.cat([torch.ones_like(first, dtype=values.dtype), (others != first).to(values.dtype)], dim=1)
        total = (self._of_frustums(values) * taken[:, :, None]).sum(dim=1)
        return total / taken.sum(dim=1, keepdim=True)

    def largest(self, features: Tensor) -> Tensor:
        """See `Frustums`; of the points that have a slot."""
        return self._of_frustums(features).amax(dim=1)

    def shown(self, stride: int) -> Tensor:
        """See `Frustums`."""
        return self._pixels[stride]


def pixels_at(size: Size, stride: int) -> int:
    """How many pixels a map has."""
    return (size[0] // stride) * (size[1] // stride)
