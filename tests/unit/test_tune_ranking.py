"""What orders the choices of `trt_builder tune`: the ranking of blocks, and estimates from engines that were built."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from shared.arrays import write_arrays
from shared.qdq_lint import quantized_nodes
from tests.support.choosing import quantized_workspace
from tests.support.kept import kept
from tests.support.trt_workspaces import HEAD, SMALL, make_workspace
from trt_builder.choices.ranking import (
    RANKING,
    Tensor,
    blocks,
    converted,
    from_engines,
    from_rooflines,
    tensors_of,
)
from trt_builder.choices.source import LAYERS, WEIGHTS, Source

HEADER = "rank,kind,name,layers,drop,metric,lowest_snr_db,fp16_ms,int8_ms"


def ranked(source: Source, *rows: str) -> Source:
    with source.workspace.stage("sensitivity", tool="exporter") as stage:
        stage.text_artifact(RANKING, "sensitivity", "\n".join([HEADER, *rows]) + "\n")
    return source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source.open(quantized_workspace(tmp_path).root)


def recorded_source(root: Path) -> tuple[Source, dict[str, Any]]:
    """The demo's head by its shipped list, as exported, and the record of its engine on an H200 (TensorRT 8.6.0)."""
    model = onnx.load_from_string(kept("trt/demo-head-int8.onnx"))
    layers = {
        node.strip("/").removesuffix("/Conv").split("/")[-1] if "blocks" in node else node: {
            "node": node,
            "weight": node,
        }
        for node in quantized_nodes(model)[0]
    }
    workspace = make_workspace(root, {HEAD: head_without_weights(model)})
    with workspace.stage("kept", tool="exporter") as stage:
        stage.json_artifact(LAYERS, "quantized-layers", {HEAD: layers})
        with stage.artifact(WEIGHTS, kind="quantized-layers") as path:
            write_arrays(path, {})
    return Source.open(workspace.root), json.loads(kept("trt/8.6.0-h200-demo-head-int8.json"))


def head_without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The weights were left out of the file; zeros stand for them."""
    for tensor in model.graph.initializer:
        if tensor.external_data:
            zeros = np.zeros(tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    return model


def test_blocks_have_the_drops_of_the_ranking(source: Source) -> None:
    ranked(source, "1,block,pts.backbone,2,1.5,90,3.0,1,1", "2,layer,pts.head.shared,1,0.25,90,,1,1")
    found = {block.name: block for block in blocks(source, source.layers)}
    assert found["pts.backbone"].layers == ("pts.backbone.blocks.0.blocks.0.0", "pts.backbone.blocks.1.blocks.1.0")
    assert (found["pts.backbone"].drop, found["pts.backbone"].snr_db) == (1.5, 3.0)
    assert (found["pts.head.shared"].drop, found["pts.head.shared"].snr_db) == (0.25, None)


def test_a_ranking_of_single_layers_makes_blocks_of_one(source: Source) -> None:
    ranked(source, *(f"{rank},layer,{name},1,{rank}.5,90,3.0,1,1" for rank, name in enumerate(source.layers)))
    found = blocks(source, source.layers)
    drops = {block.layers: block.drop for block in found}
    assert drops == {(name,): rank + 0.5 for rank, name in enumerate(source.layers)}


def test_layers_that_must_stay_in_float_are_in_no_block(source: Source) -> None:
    allowed = source.without(["heatmap"], "test")
    assert not any("heatmap" in layer for block in blocks(source, allowed) for layer in block.layers)


def test_rooflines_of_the_ranking_order_where_no_engine_tells(source: Source) -> None:
    ranked(source, "1,layer,pts.head.shared,1,0,90,3.0,0.5,0.25", "2,layer,pts.neck.deblocks.0,1,0,90,3.0,0.4,nan")
    estimate = from_rooflines(source)
    assert estimate.latency_ms([]) == pytest.approx(0.9)
    assert estimate.latency_ms(["pts.head.shared"]) == pytest.approx(0.65)


def test_a_tensor_knows_who_makes_and_reads_it_whatever_stands_between(source: Source) -> None:
    tensors = tensors_of(source)
    made = {tensor.made_by: tensor for tensor in tensors if tensor.made_by is not None}
    first, second = "pts.backbone.blocks.0.blocks.0.0", "pts.backbone.blocks.1.blocks.1.0"
    assert made[first].readers == {second, "pts.neck.deblocks.0"} and not made[first].read_in_float
    assert made[second].read_in_float and not made[second].readers, "a transposed convolution is never in INT8"
    assert made["pts.neck.deblocks.0"].readers == {"pts.head.shared"}, "behind a concatenation"
    others = [tensor for tensor in tensors if tensor.made_by is None]
    assert [tensor.readers for tensor in others] == [{first}, {"pts.head.shared"}], "the input, and what it makes"
    assert others[0].elements == 16 * 16 * SMALL.channels_in


def test_a_tensor_is_converted_for_each_side_that_reads_it_otherwise() -> None:
    tensor = Tensor("maker", frozenset({"one", "other"}), read_in_float=False, elements=8)
    inside = [frozenset[str](), {"one"}, {"maker", "one", "other"}, {"maker"}, {"maker", "one"}]
    assert [tensor.passes(frozenset(each)) for each in inside] == [0, 1, 0, 1, 2]
    read_in_float = dataclasses.replace(tensor, read_in_float=True)
    assert [read_in_float.passes(frozenset(each)) for each in inside] == [0, 1, 2, 1, 2]


def test_times_of_layers_are_those_of_a_real_engine(tmp_path: Path) -> None:
    source, record = recorded_source(tmp_path)
    estimate = from_engines(source, [], [record], source.layers)
    assert estimate.int8_ms["blocks.1.0"] == pytest.approx(0.0124, abs=1e-4)
    # TensorRT made one kernel of the first convolutions of all six heads.
    heads = [name for name in source.layers if "task_heads" in name]
    assert len(heads) == 6
    assert sum(estimate.int8_ms[name] for name in heads) == pytest.approx(0.0314, abs=1e-4)
    times = [record["times_ms"][layer["name"]] for layer in record["layers"] if layer["kind"] == "Reformat"]
    assert len(times) == 15
    assert estimate.element_ms * converted(estimate.tensors, frozenset(source.layers)) == pytest.approx(sum(times))


def test_what_a_quantized_network_takes_longer_elsewhere_counts_as_soon_as_anything_is_in_int8(source: Source) -> None:
    first = "pts.backbone.blocks.0.blocks.0.0"

    def record(relu: float) -> dict[str, Any]:
        layers = [
            {"name": "conv", "kind": "CaskConvolution", "nodes": [source.layers[first].node]},
            {"name": "relu", "kind": "PointWiseV2", "nodes": ["/neck/deblocks.1/Relu"]},
        ]
        return {"component": HEAD, "layers": layers, "times_ms": {"conv": 0.5, "relu": relu}}

    estimate = from_engines(source, [record(0.0)], [record(0.25)], [first])
    assert (estimate.latency_ms([]), estimate.latency_ms([first])) == (0.5, 0.75)


def test_a_ranking_that_is_none_is_refused(source: Source) -> None:
    from shared.errors import InputError

    with source.workspace.stage("sensitivity", tool="exporter") as stage:
        stage.text_artifact(RANKING, "sensitivity", "a,b\n1,2\n")
    with pytest.raises(InputError, match="is no ranking of layers"):
        blocks(source, source.layers)


def test_a_copy_of_the_workspace_has_the_same_blocks(source: Source, tmp_path: Path) -> None:
    ranked(source, "1,block,pts.backbone,2,1.5,90,3.0,1,1")
    copy = shutil.copytree(source.workspace.root, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    again = Source.open(Path(copy))
    assert blocks(again, again.layers) == blocks(source, source.layers)
