"""INT8 quantisation: calibration, fine-tuning, sensitivity, search (docs/quantization.md)."""
