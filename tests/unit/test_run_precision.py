"""What a run computed in, which decides how far it may be from others."""

from __future__ import annotations

import pytest

from shared.precision import precision_of
from tests.support.run_files import run_header
from verifier.tolerances import POLICIES


@pytest.mark.parametrize(
    ("backend", "device", "quantized", "precision"),
    [
        ("onnx", "cpu", False, "fp32"),
        ("onnx", "cuda:0", False, "fp32_tf32"),
        ("tensorrt", "cuda:0", False, "fp16"),
        ("pytorch", "cpu", True, "int8"),
        ("onnx", "cpu", True, "int8"),
        ("tensorrt", "cuda:0", True, "int8"),
    ],
)
def test_a_quantized_model_rounds_to_int8_on_every_backend(
    backend: str, device: str, quantized: bool, precision: str
) -> None:
    header = run_header(0, backend=backend, device=device)
    assert precision_of(header, "fp16", quantized=quantized) == precision
    assert precision in POLICIES
    told = header.model_copy(update={"details": {"precision": "bf16"}})
    assert precision_of(told, "fp16", quantized=quantized) == "bf16"
