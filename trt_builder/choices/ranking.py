"""What is known of the blocks before anything is built: what each loses alone in INT8, and how fast choices may be.

The losses are those that `exporter quantize sensitivity` measured in the workspace. Latencies are estimates, and only
order what is measured: from the times of layers in engines that were built already, or the ranking's rooflines.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import onnx_graph
from shared.errors import InputError
from shared.int8_passes import elements_of
from shared.layer_blocks import BLOCK_SIZE, blocks_of
from shared.qdq_cut import cut_out
from shared.qdq_lint import QdqGraph
from trt_builder.choices.source import Source

RANKING = "quantized/sensitivity/report.csv"


@dataclass(frozen=True)
class Block:
    """Layers that enter and leave INT8 together.

    Attributes:
        name: of the part of the model.
        layers: names of its layers.
        drop: points of the metric that it loses alone in INT8; None where nobody measured that.
        snr_db: the lowest signal to noise ratio that it leaves an output, alone in INT8; None likewise.
    """

    name: str
    layers: tuple[str, ...]
    drop: float | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class Tensor:
    """A tensor that a layer makes, or reads of others.

    Attributes:
        made_by: the layer; None: an input, or a matrix node that never is in INT8, makes it.
        readers: the layers that read it, whatever stands between.
        read_in_float: whether a matrix node that never is in INT8 reads it, too.
        elements: how many.
    """

    made_by: str | None
    readers: frozenset[str]
    read_in_float: bool
    elements: int

    def passes(self, int8: frozenset[str]) -> int:
        """How often it is converted with these layers in INT8: for those that read INT8, and for those that don't."""
        in_int8, in_float = self.readers & int8, self.read_in_float or not self.readers <= int8
        out_of_int8 = self.made_by in int8 and in_float
        return out_of_int8 + bool(in_int8 and (out_of_int8 or self.made_by not in int8))


@dataclass(frozen=True)
class Estimate:
    """Latencies of choices [ms], to order them by.

    Attributes:
        float_ms, int8_ms: of each layer in FP16 and in INT8, where known.
        tensors: what layers hand on.
        element_ms: what it takes to convert an element of a tensor between the two.
        beside_ms: what everything else takes longer once anything is in INT8.
    """

    float_ms: Mapping[str, float] = field(default_factory=dict)
    int8_ms: Mapping[str, float] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()
    element_ms: float = 0.0
    beside_ms: float = 0.0

    def latency_ms(self, int8: Collection[str]) -> float:
        """With these layers in INT8 and the others in FP16."""
        inside = frozenset(int8)
        layers = self.float_ms.keys() & self.int8_ms.keys()
        times = sum(self.int8_ms[name] if name in inside else self.float_ms[name] for name in sorted(layers))
        return times + self.element_ms * converted(self.tensors, inside) + (self.beside_ms if inside else 0.0)


def converted(tensors: Iterable[Tensor], int8: frozenset[str]) -> int:
    """Elements that are converted with these layers in INT8."""
    return sum(tensor.elements * tensor.passes(int8) for tensor in tensors)


def blocks(source: Source, allowed: Collection[str]) -> list[Block]:
    """The blocks of the layers that may be in INT8, in the order of the model, with what the ranking says of them.

    Raises:
        ManifestError: the ranking was changed.
        InputError: it is none.
    """
    rows = ranking(source)
    # A ranking without blocks was made of single layers (--block-size 1).
    size = max(
        (int(_number(row["layers"]) or 1) for row in rows.values() if row["kind"] == "block"),
        default=1 if rows else BLOCK_SIZE,
    )
    found = []
    for name, inside in blocks_of(list(source.layers), size).items():
        layers = tuple(layer for layer in inside if layer in allowed)
        if layers:
            row = rows.get(name, {})
            found.append(Block(name, layers, _number(row.get("drop")), _number(row.get("lowest_snr_db"))))
    return found


def ranking(source: Source) -> dict[str, dict[str, str]]:
    """The rows of the ranking by layer or block; none where there is no ranking."""
    if RANKING not in source.workspace.manifest().artifacts:
        return {}
    path = source.workspace.artifact(RANKING)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    if rows and not {"kind", "name", "layers", "drop", "fp16_ms", "int8_ms"} <= rows[0].keys():
        raise InputError("is no ranking of layers", where=str(path), hint="exporter quantize sensitivity writes one")
    return {row["name"]: row for row in rows}


def _number(text: str | None) -> float | None:
    try:
        value = None if text is None else float(text)
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def from_rooflines(source: Source) -> Estimate:
    """Estimates from the ranking's rooflines, conversions for nothing."""
    rows = ranking(source)
    fast, slow = (
        {name: _number(row[key]) or 0.0 for name, row in rows.items() if name in source.layers}
        for key in ("int8_ms", "fp16_ms")
    )
    return Estimate(slow, fast)


def from_engines(
    source: Source,
    in_float: Iterable[Mapping[str, Any]],
    in_int8: Iterable[Mapping[str, Any]],
    int8: Collection[str],
) -> Estimate:
    """Estimates from the times of layers in the records of two sets of engines.

    A network with Q/DQ nodes may have kernels more than one in FP16 far from any of them: TensorRT 8.6.0 takes no ReLU
    into a transposed convolution there.

    Args:
        source: the model.
        in_float: records of the engines without INT8.
        in_int8: of those with INT8 wherever it can be.
        int8: the layers that are in INT8 there.
    """
    tensors = tensors_of(source)
    slow, before, others = _times(source, in_float)
    fast, after, others_then = _times(source, in_int8)
    elements = converted(tensors, frozenset(int8))
    element_ms = max(0.0, after - before) / elements if elements else 0.0
    return Estimate(slow, fast, tensors, element_ms, max(0.0, others_then - others))


def _times(source: Source, records: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], float, float]:
    """Milliseconds by layer, of all together that only convert, and of what is left."""
    of_node = {(layer.component, layer.node): name for name, layer in source.layers.items()}
    times: dict[str, float] = defaultdict(float)
    converting = others = 0.0
    for record in records:
        measured = record["times_ms"] or {}
        for layer in record["layers"]:
            time = float(measured.get(layer["name"], 0.0))
            # Named for the layers beside it, whose time it is not.
            if "reformat" in str(layer["kind"]).lower():
                converting += time
                continue
            inside = [of_node[key] for node in layer["nodes"] if (key := (record["component"], node)) in of_node]
            for name in inside:
                times[name] += time / len(inside)
            others += 0.0 if inside else time
    return dict(times), converting, others


def tensors_of(source: Source) -> tuple[Tensor, ...]:
    """The tensors that layers make or read, in the order of the graphs."""
    found: list[Tensor] = []
    for component in source.components:
        names = {layer.node: name for name, layer in source.layers.items() if layer.component == component}
        if not names:
            continue
        spec = source.workspace.spec().component(component)
        model = cut_out(onnx_graph.load(source.workspace.onnx(spec.onnx)), names, {})
        elements = elements_of(model, {name: axis.opt for name, axis in spec.axes.items()})
        made: dict[str, str | None] = dict.fromkeys(QdqGraph(model.graph).inputs)
        origins = {name: frozenset([name]) for name in made}
        readers: dict[str, set[str | None]] = defaultdict(set)
        for node in model.graph.node:
            before = frozenset[str]().union(*(origins.get(name, frozenset()) for name in node.input))
            if node.op_type not in onnx_graph.MATRIX_OPERATORS:
                origins.update(dict.fromkeys(node.output, before))
                continue
            here = names.get(onnx_graph.node_name(node))
            for name in before:
                readers[name].add(here)
            made[node.output[0]] = here
            origins[node.output[0]] = frozenset([node.output[0]])
        for name, maker in made.items():
            layers = frozenset(reader for reader in readers[name] if reader is not None)
            if layers or maker is not None:
                found.append(Tensor(maker, layers, None in readers[name], elements.get(name, 0)))
    return tuple(found)


def leaving_order(found: Sequence[Block], estimate: Estimate) -> list[Block]:
    """Blocks in the order in which they leave INT8: what they lose alone per millisecond that they save, worst first.

    Of those that lose the same, the one with the lower signal to noise ratio. Without a ranking, from the outputs back:
    the last layers of a network stand in nobody's way, and what they round nothing averages out.
    """
    if all(block.drop is None and block.snr_db is None for block in found):
        return list(reversed(found))
    everything = [layer for block in found for layer in block.layers]
    whole = estimate.latency_ms(everything)

    def loss(block: Block) -> tuple[float, float]:
        without = estimate.latency_ms([layer for layer in everything if layer not in block.layers])
        lost = max(0.0, round(block.drop or 0.0, 2))
        return -lost / max(without - whole, _LEAST_SAVING), block.snr_db if block.snr_db is not None else float("inf")

    return sorted(found, key=loss)


# Keeps the order by loss where a block saves next to nothing [ms].
_LEAST_SAVING = 1e-9
