"""The cells of a map: where they are, which are better than their neighbors, and which are best."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def centers_of_cells(rows: int, columns: int) -> Tensor:
    """(1, rows * columns, 2) float32: x and y of the centers of a map's cells, row by row, in cells."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1).view(1, -1, 2)


def local_maxima(heatmap: Tensor, kernel_size: int) -> Tensor:
    """A heatmap (B, classes, H, W) of scores that is zero wherever a neighbor is better, and at its border."""
    border = kernel_size // 2
    largest = functional.max_pool2d(heatmap, kernel_size, stride=1)
    return heatmap * (heatmap == functional.pad(largest, [border] * 4))


def best_first(scores: Tensor, count: int) -> Tensor:
    """(count,) int64: places of the best scores (N,), best first, of equal ones the first.

    Many cells are equal: suppressed ones are zero, and those of an empty area have one score. ONNX's TopK orders them
    so, PyTorch's doesn't; PyTorch's stable sort does, which ONNX has not.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.topk(scores, count).indices
    return scores.sort(descending=True, stable=True).indices[:count]
