"""What inspect shows: table, comparison and picture, from the record alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from shared.errors import InputError
from trt_builder.cli import cli
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
        "tensorrt": {"flavor": "tensorrt", "version": "8.6.0"},
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


def test_how_an_engine_takes_its_inputs() -> None:
    chosen = record() | {
        "formats": {"x": {"type": "HALF", "layout": "HWC8"}, "y": {"type": "FLOAT", "layout": "LINEAR"}}
    }
    lines = list(table(chosen))
    assert "input x: float32 ['n', 4], taken as HALF, HWC8" in lines
    assert "output y: float32 ['n', 2]" in lines


def test_a_comparison_names_what_differs() -> None:
    other = copy.deepcopy(record())
    other["precision_policy"] = "fp32"
    other["layers"][1]["precision"] = "fp32"
    other["layers"][2]["precision"] = "bf16"
    first = record()
    first["layers"].reverse()
    lines = list(comparison(first, other))
    rows = [line.split() for line in lines]
    assert ["policy", "fp16", "fp32"] in rows
    assert ["matrix", "layers", "fp16", "100.0%", "fp16", "100.0%"] in rows
    assert ["ms,", "sum", "of", "layers", "0.600", "0.600"] in rows
    assert rows[-2:] == [["/conv.2", "fp16", "bf16"], ["/conv.1", "fp16", "fp32"]]  # as in the first engine
    assert not any(row[:1] == ["/conv.0"] for row in rows)


@pytest.mark.parametrize(("layers", "bars"), [(3, 3), (500, 61)])
def test_the_picture_is_an_svg_with_a_bar_per_layer_and_one_for_the_rest(layers: int, bars: int) -> None:
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(picture(record(layers)))
    rows = root.findall(f"{svg}g")
    assert len(rows) == bars
    widths = [float(row.findall(f"{svg}rect")[0].attrib["width"]) for row in rows]
    assert max(widths) == 260.0
    texts = [[text.text for text in row.findall(f"{svg}text")] for row in rows]
    if layers > bars:
        assert texts[-1][-1] == f"{layers - 60} more layers"
    else:
        assert texts[0] == ["0.3000 ms", "50.0%", "fp16", "layer <2> & more"]
        assert widths[0] / widths[-1] == pytest.approx(3.0, abs=0.01)


def test_a_long_name_is_cut_in_table_and_picture_and_whole_under_the_mouse() -> None:
    long = " + ".join(f"/task_heads.0/head.{index}/Conv" for index in range(20))
    one = record(1)
    one["layers"][0]["name"], one["times_ms"] = long, {long: 0.5}
    row = ElementTree.fromstring(picture(one)).findall("{http://www.w3.org/2000/svg}g")[0]
    assert row[0].text == long
    assert row[-1].text == f"{long[:117]}..."
    assert list(table(one))[-1].endswith(f"CaskConvolution          {long[:117]}...")


def test_an_engine_without_a_record_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"ftrt")
    with pytest.raises(InputError, match="no record beside it"):
        record_of(tmp_path / "x.engine")


def test_an_engine_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.engine: there is no such file"):
        record_of(tmp_path / "x.engine")


def test_an_engine_that_is_not_the_one_of_its_record_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.engine.json").write_text(json.dumps(record()), encoding="utf-8")
    assert record_of(tmp_path / "x.engine")["component"] == "pts_voxel_encoder"  # the record alone is enough
    (tmp_path / "x.engine").write_bytes(b"ftrt")
    with pytest.raises(InputError, match="has 4 bytes, its record says 1500000"):
        record_of(tmp_path / "x.engine")


def test_json_of_two_engines_is_both_records(tmp_path: Path) -> None:
    engine = str(tmp_path / "x.engine")
    Path(f"{engine}.json").write_text(json.dumps(record()), encoding="utf-8")
    answer = CliRunner().invoke(cli, ["inspect", engine, "--compare", engine, "--json"])
    assert json.loads(answer.stdout) == {"first": record(), "second": record()}


def test_a_record_that_was_written_before_a_key_was_renamed_is_shown() -> None:
    old = record()
    old["tensorrt"] = {"flavour": "rtx", "version": "1.7.1.116"}
    assert "TensorRT for RTX 1.7.1.116 on sm90" in "\n".join(table(old))
