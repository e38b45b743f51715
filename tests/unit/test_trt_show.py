"""What inspect shows: table, comparison and picture, from the record alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from shared.errors import InputError
from trt_builder.show import comparison, picture, record_of, table


def record(layers: int = 3) -> dict[str, Any]:
    entries = [
        {"name": f"layer <{index}> & more", "kind": "CaskConvolution", "precision": "fp16" if index else "fp32",
         "nodes": [f"/conv.{index}"]}
        for index in range(layers)
    ]  # fmt: skip
    return {
        "component": "pts_voxel_encoder",
        "precision_policy": "fp16",
        "tensorrt": {"flavour": "tensorrt", "version": "8.6.0"},
        "architecture": "sm90",
        "bytes": 1_500_000,
        "build_seconds": 12.5,
        "engine_memory": 2 << 20,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 4]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 2]}],
        "profiles": [{"x": {"min": [1, 4], "opt": [5, 4], "max": [9, 4]}}],
        "achieved": {
            "layers": layers,
            "share_of_layers": {"fp16": 0.6667, "fp32": 0.3333},
            "share_of_matrix_layers": {"fp16": 1.0},
            "share_of_time": {"fp16": 0.9, "fp32": 0.1},
            "reformat_layers": 2,
            "qdq_not_fused": ["q"],
        },
        "times_ms": {entry["name"]: 0.1 * (index + 1) for index, entry in enumerate(entries)},
        "layers": entries,
    }


def test_the_table_holds_what_matters() -> None:
    text = "\n".join(table(record()))
    for part in (
        "pts_voxel_encoder: fp16, TensorRT 8.6.0 on sm90, 1.5 MB",
        "built in 12.5 s",
        "memory for activations: 2.0 MiB",
        "input x: float32 ['n', 4]",
        "profile 0, x: min [1, 4], opt [5, 4], max [9, 4]",
        "share of time: fp16 90.0%, fp32 10.0%",
        "reformat layers: 2, Q/DQ not fused: 1",
        "  0.3000  fp16      CaskConvolution          layer <2> & more",
    ):
        assert part in text


def test_a_comparison_names_what_differs() -> None:
    other = copy.deepcopy(record())
    other["precision_policy"] = "fp32"
    other["layers"][1]["precision"] = "fp32"
    lines = list(comparison(record(), other))
    assert any(line.startswith("policy") and "fp16" in line and line.endswith("fp32") for line in lines)
    assert "/conv.1: fp16 | fp32" in lines
    assert not any(line.startswith("/conv.2") for line in lines)
    assert any("0.600" in line for line in lines)


@pytest.mark.parametrize(("layers", "bars"), [(3, 3), (500, 61)])
def test_the_picture_is_an_svg_with_a_bar_per_layer_and_one_for_the_rest(layers: int, bars: int) -> None:
    root = ElementTree.fromstring(picture(record(layers)))
    found = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(found) == bars + 1  # and the background
    texts = [text.text or "" for text in root.findall("{http://www.w3.org/2000/svg}text")]
    if layers > bars:
        assert texts[-1].endswith(f"{layers - 60} more layers")
    else:
        assert "0.3000 ms" in texts[1]
        assert "layer <2> & more" in texts[1]


def test_an_engine_without_a_record_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"ftrt")
    with pytest.raises(InputError, match="no record beside it"):
        record_of(tmp_path / "x.engine")
