"""Names of AWML's ONNX file: the contract between exporter and runtime."""

from __future__ import annotations

COMPONENT = "classifier"
INPUT, OUTPUT = "input", "output"
