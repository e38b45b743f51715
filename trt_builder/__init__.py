"""Builds TensorRT engines from the ONNX files in a workspace, and proves that they are what was asked for."""
