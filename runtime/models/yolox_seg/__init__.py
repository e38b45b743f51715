"""YOLOX with a head for a mask."""
