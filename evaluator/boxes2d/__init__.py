"""Metrics of 2D boxes: Pascal VOC's, as mmdet computes it for AWML, and COCO's."""
