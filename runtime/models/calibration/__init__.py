"""Calibration status of a camera and a lidar."""
