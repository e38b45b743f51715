"""FRNet: 3D segmentation of lidar points in frustums."""
