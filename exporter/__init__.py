"""PyTorch to ONNX: the only room that knows the training frameworks (mmengine, mmdet, mmdet3d)."""
