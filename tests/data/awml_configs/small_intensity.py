"""The small network with intensity: another number of point features, and so another checkpoint."""

_base_ = ["small.py"]

model = dict(pts_voxel_encoder=dict(in_channels=5))
