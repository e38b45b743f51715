"""YOLOX."""
