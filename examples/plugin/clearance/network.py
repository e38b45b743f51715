"""The network, and what it is trained on: torch, as in any training framework."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clearance.geometry import REACH, SECTORS

#: Cells between the vehicle and the reach, and the heights [m] between which points can be of a road user.
CELLS = 50
HEIGHTS = (0.3, 3.5)


class SectorNet(nn.Module):
    """From a polar grid to the logit that a road user begins in a cell, if none does before it.

    Input (1, 2, CELLS, SECTORS), see `polar_grid`; output (1, CELLS, SECTORS).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 5, padding=(2, 0))
            for inputs, outputs in ((2, channels), (channels, channels), (channels, channels), (channels, 1))
        )

    def forward(self, grid: Tensor) -> Tensor:
        """Convolutions around the circle: the last sector's neighbor is the first."""
        for layer in self.layers:
            hidden: Tensor = layer(torch.cat([grid[..., -2:], grid, grid[..., :2]], dim=-1))
            grid = torch.relu(hidden)
        return hidden[:, 0]


def polar_grid(points: npt.NDArray[np.float32]) -> Tensor:
    """(1, 2, CELLS, SECTORS): of the points (N, 3 or more) in each cell, the greatest height and how many there are.

    Only heights within `HEIGHTS` count; both channels are scaled to about 1.
    """
    xyz = torch.from_numpy(points[np.isfinite(points[:, :3]).all(axis=1), :3]).double()
    cells = (torch.hypot(xyz[:, 0], xyz[:, 1]) / (REACH / CELLS)).floor().long()
    sectors = (torch.atan2(xyz[:, 1], xyz[:, 0]) / (2 * math.pi / SECTORS)).floor().long() % SECTORS
    kept = (cells < CELLS) & (xyz[:, 2] >= HEIGHTS[0]) & (xyz[:, 2] < HEIGHTS[1])
    places = (cells * SECTORS + sectors)[kept]
    heights = torch.zeros(CELLS * SECTORS).scatter_reduce(0, places, xyz[kept, 2].float(), "amax")
    counts = torch.bincount(places, minlength=CELLS * SECTORS).float()
    return torch.stack([heights / HEIGHTS[1], torch.log1p(counts) / 4]).reshape(1, 2, CELLS, SECTORS)


def median_distances(logits: Tensor) -> Tensor:
    """(B, SECTORS) distance up to which all is free, more likely than not [m], of logits (B, CELLS, SECTORS)."""
    free = torch.sigmoid(-logits).cumprod(dim=1)
    before = torch.cat([torch.ones_like(free[:, :1]), free[:, :-1]], dim=1)
    cells = torch.arange(CELLS)[None, :, None] + (before - 0.5) / (before - free)
    return torch.where((free < 0.5) & (before >= 0.5), cells * (REACH / CELLS), REACH).amin(dim=1)


def loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Negative log-likelihood of true distances (B, SECTORS): all cells before it are free, and it is not."""
    cells = torch.arange(CELLS)[None, :, None]
    first = (distances[:, None] / (REACH / CELLS)).floor()
    free = nn.functional.softplus(logits) * (cells < first)
    return (free + nn.functional.softplus(-logits) * (cells == first)).sum(dim=1).mean()
