"""What the metrics of points and of pixels share."""
