"""FRNet: 3D segmentation of lidar points in frustums, on the runtime's side."""
