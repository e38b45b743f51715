"""Parameters that models of voxels share: how points are loaded, and the grid that they are sorted into."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.lidar.loading import LoadedPoints
from runtime.parameters import Parameters

Range = tuple[float, float, float, float, float, float]

# Cell numbers are int32, and the table of them has one entry a cell.
_MAX_CELLS = 2**31 - 1


class VoxelGrid(Parameters):
    """The grid and its limits, see `runtime.lidar.voxelize`."""

    point_cloud_range: Range = Field(description="Lower and upper corner of the grid: x, y, z, x, y, z [m]")
    voxel_size: tuple[float, float, float] = Field(description="Edge lengths of a voxel along x, y, z [m]")
    grid_size: tuple[int, int, int] = Field(description="Number of cells along x, y, z")
    max_points_per_voxel: int = Field(gt=0, description="Points that a voxel keeps")
    max_voxels: int = Field(gt=0, description="Voxels that a frame keeps")

    @model_validator(mode="after")
    def _is_a_grid(self) -> VoxelGrid:
        cells = self.grid_size[0] * self.grid_size[1] * self.grid_size[2]
        if min(self.voxel_size) <= 0 or min(self.grid_size) <= 0 or cells > _MAX_CELLS:
            raise ValueError(f"there is no grid of {self.grid_size} voxels of {self.voxel_size} m")
        return self


class VoxelizedPoints(VoxelGrid):
    """The points that a model takes, and their grid."""

    points: LoadedPoints
