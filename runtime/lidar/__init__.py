"""What models of lidar frames share: points in voxels, suppression of boxes."""
