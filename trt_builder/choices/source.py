"""The model that choices are made of: an exported workspace, and what its export kept of the quantized layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shared import onnx_graph
from shared.arrays import read_arrays
from shared.config.yaml_tree import read_yaml
from shared.errors import ConfigError, InputError
from shared.json_reader import DATA_BYTES, read_json
from shared.qdq_cut import cut_out
from shared.qdq_lint import float_sums
from shared.workspace import Workspace

# What the export of a quantized model wrote (exporter/quantize/before_rounding.py).
LAYERS, WEIGHTS, IN_FLOAT = "quantized/layers.json", "quantized/weights.npz", "quantized/float_layers.json"
_PLAIN_NAME = re.compile(r"[\w.]+")


class Layer(NamedTuple):
    """A layer that may be in INT8.

    Attributes:
        component: the part of the model that it is in.
        node: the ONNX node that computes it.
        weight: the initializer with its weight.
    """

    component: str
    node: str
    weight: str


@dataclass(frozen=True)
class Source:
    """A workspace to choose precisions for.

    Attributes:
        workspace: where it lies.
        components: names of the components, in order.
        layers: those that the export quantized, by name, in the order of the graph; none of a float model.
        in_float: names of those that it left in floating point; none where an older export did not say.
    """

    workspace: Workspace
    components: tuple[str, ...]
    layers: Mapping[str, Layer]
    in_float: tuple[str, ...] = ()

    @staticmethod
    def open(work: Path) -> Source:
        """The model in a workspace.

        Raises:
            ManifestError: nothing was exported there, or a file was changed.
            InputError: the record of the layers is none.
        """
        workspace = Workspace.open(work)
        layers: dict[str, Layer] = {}
        in_float: tuple[str, ...] = ()
        artifacts = workspace.manifest().artifacts
        if LAYERS in artifacts:
            path = workspace.artifact(LAYERS)
            try:
                for component, named in read_json(path, most_bytes=DATA_BYTES).items():
                    for name, place in named.items():
                        layers[name] = Layer(component, str(place["node"]), str(place["weight"]))
                if IN_FLOAT in artifacts:
                    path = workspace.artifact(IN_FLOAT)
                    in_float = tuple(map(str, read_json(path, most_bytes=DATA_BYTES)))
            except (AttributeError, KeyError, TypeError) as error:
                raise InputError(f"is no record of layers ({error})", where=str(path), hint="export again") from error
        components = tuple(component.name for component in workspace.spec().components)
        return Source(workspace, components, layers, in_float)

    def inputs(self) -> dict[str, str]:
        """Sha256 of the files that choices are made from, by path."""
        paths = [component.onnx for component in self.workspace.spec().components]
        paths += [path for relative in list(paths) for path in self.workspace.external_data(relative).values()]
        paths += [LAYERS, WEIGHTS] if self.layers else []
        paths += [path for path in self.workspace.manifest().artifacts if path.startswith("ranges/")]
        return {path: self.workspace.input_hash(path) for path in paths}

    def weights(self) -> dict[str, object]:
        """Weights of the layers before rounding, by the initializer that holds them rounded, per component."""
        exact = read_arrays(self.workspace.artifact(WEIGHTS))
        return {f"{layer.component}/{layer.weight}": exact[name] for name, layer in self.layers.items()}

    def refused(self, int8: Collection[str]) -> frozenset[str]:
        """Which of these layers TensorRT has no kernel for where these, and no others, are in INT8."""
        found = set[str]()
        for component in self.components:
            inside = {name: layer.node for name, layer in self.layers.items() if layer.component == component}
            if not inside.keys() & set(int8):
                continue
            model = onnx_graph.load(self.workspace.onnx(self.workspace.spec().component(component).onnx))
            nodes = float_sums(cut_out(model, [node for name, node in inside.items() if name not in int8], {}))
            found.update(name for name, node in inside.items() if node in nodes)
        return frozenset(found)

    def without(self, patterns: Sequence[str], where: str) -> frozenset[str]:
        """The quantized layers but for those that names of layers or blocks, or regular expressions, stand for.

        As ``quantization.sensitive_layers``; a pattern of layers that the export did not quantize changes nothing.

        Raises:
            ConfigError: no regular expression, or nothing is left.
        """
        left = set(self.layers)
        for pattern in patterns:
            left -= matching(left, pattern, where)
        if not left:
            raise ConfigError("leaves no layer in INT8", where=where, hint="skip less")
        return frozenset(left)


def matching(names: Collection[str], pattern: str, where: str) -> set[str]:
    """Which layers a name of a layer or block, or a regular expression, stands for.

    Raises:
        ConfigError: it is no regular expression.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"'{pattern}' is no regular expression ({error})", where=where) from error
    plain = _PLAIN_NAME.fullmatch(pattern) is not None
    block = {name for name in names if plain and (name == pattern or name.startswith(f"{pattern}."))}
    return block or {name for name in names if expression.search(name)}


def skip_list(path: Path) -> list[str]:
    """Layers that a file leaves in floating point: of `exporter quantize sensitivity` or `auto`, or a deploy config.

    Raises:
        ConfigError: no such file, or neither a list ``sensitive_layers`` nor a section ``quantization`` in it.
    """
    content = read_yaml(path).value
    section = content.get("quantization")
    layers = section.get("sensitive_layers", []) if isinstance(section, dict) else content.get("sensitive_layers")
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise ConfigError("has no list sensitive_layers", where=str(path))
    return layers
