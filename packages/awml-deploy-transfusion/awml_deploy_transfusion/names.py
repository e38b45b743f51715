"""Names of AWML's ONNX file, which autoware_lidar_transfusion binds: the contract between exporter and runtime."""

from __future__ import annotations

COMPONENT = "transfusion"
VOXELS, NUM_POINTS, COORS = "voxels", "num_points", "coors"
SCORES, BOXES, ROTATIONS = "cls_score0", "bbox_pred0", "dir_cls_pred0"
INPUTS = (VOXELS, NUM_POINTS, COORS)
OUTPUTS = (SCORES, BOXES, ROTATIONS)
#: The axis of the pillars.
VOXELS_AXIS = "voxels_num"
