"""Runs a backend (PyTorch, ONNX Runtime, TensorRT) over a data set, and measures it."""
