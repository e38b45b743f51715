"""The files that an export writes, ONNX and `torch.export` programs, and the checks that each must pass."""
