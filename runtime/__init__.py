"""runtime: runs a backend (PyTorch, ONNX Runtime) over a data set, and measures it. Knows no training framework."""
