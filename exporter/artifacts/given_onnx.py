"""ONNX files made elsewhere, taken into the workspace (``export.onnx_path``)."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.artifacts.checks import Agreement, Disagrees
from exporter.follow_up import arguments_of
from shared import onnx_graph
from shared.errors import ExportError, InputError
from shared.files import copy, sha256_of_file, sha256_of_json
from shared.lazy import lazy_import
from shared.onnx_external import external_files
from shared.text import one_line

onnx = lazy_import("onnx")

_MOST_TURNS = 10_000

_log = logging.getLogger("exporter")


class Rejected(ExportError):
    """A given ONNX file computes something else than the model.

    Attributes:
        commands: that find the nodes which do it, in order.
    """

    def __init__(self, cause: Disagrees, commands: Sequence[str]) -> None:
        self.commands = tuple(commands)
        super().__init__(
            cause.message, where=cause.where, hint=f"To find the nodes that do it: {'; '.join(self.commands)}"
        )

    def lines(self) -> list[str]:
        """See `shared.errors.DeployError`: the difference, and a line for every command."""
        told = f"{self.where}: {self.message}. To find the nodes that do it:"
        return [one_line(told), *(one_line(f"  {command}") for command in self.commands)]


def check_given(check: Callable[[], list[Agreement]], commands: Sequence[str], *, keep: bool) -> list[Agreement]:
    """The agreement of a given file with the model.

    Args:
        check: measures it.
        commands: that find the nodes of a file which computes something else; the first is the one that keeps it.
        keep: such a file is kept, with a warning, since nothing is built from it.

    Returns:
        At each size; nothing for a file that is kept all the same.

    Raises:
        Rejected: it computes something else.
    """
    try:
        return check()
    except Disagrees as error:
        if not keep:
            raise Rejected(error, commands) from error
        _log.warning("%s: %s. It is kept; to find the nodes that do it:", error.where, error.message)
        for command in commands[1:]:
            _log.warning("  %s", command)
        return []


def commands_to_bisect(config_path: Path, work: Path, overrides: Sequence[str], data_root: Path | None) -> list[str]:
    """The commands that find the nodes in which a given ONNX file differs from our own export of the model.

    Args:
        config_path: the deploy config.
        work: the workspace that is to hold the given file.
        overrides: ``key=value`` for the config, of the export that found the difference.
        data_root: as given to that export.
    """
    own = work.with_name(f"{work.name}-own")
    data = [] if data_root is None else ["--data", str(data_root)]

    def export(target: Path, *changes: str) -> str:
        changed = {change.partition("=")[0] for change in changes}
        kept = [override for override in overrides if override.partition("=")[0] not in changed]
        return f"exporter export {arguments_of(config_path, target, (*kept, *changes), data_root)}"

    return [
        export(work, "export.mode=none"),
        export(own, "export.mode=onnx", "export.onnx_path=null"),
        shlex.join(["runtime", "trace", "--work", str(own), "--backend", "onnx", *data]),
        shlex.join(["verifier", "bisect", "--work", str(work), "--reference-work", str(own)]),
    ]


def given_digest(source: Path) -> str:
    """Hex sha256 over the ONNX files that ``export.onnx_path`` names: a file, or all those in a folder.

    Raises:
        InputError: there are none.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.onnx"))
    if not files:
        raise InputError(
            "no ONNX files here", where=str(source), hint="export.onnx_path is a folder of them, or the file"
        )
    return sha256_of_json({file.name: sha256_of_file(file) for file in files})


def take_onnx(source: Path, file_name: str, target: Path) -> int:
    """Copy the file of one component.

    Args:
        source: ``export.onnx_path``: the folder, or the file itself.
        file_name: the component's file in the folder.
        target: where to write it.

    Returns:
        Its opset.

    Raises:
        InputError: it is not there, not ONNX, or keeps its weights in a file beside it.
    """
    path = source if source.is_file() else source / file_name
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(
            "no such ONNX file", where=str(path), hint="name the file with components.<name>.onnx_file"
        ) from error
    except Exception as error:  # protobuf's own class differs between its implementations
        raise InputError("not a whole ONNX file", where=str(path), hint="copy or export it again") from error
    if external_files(path):
        raise InputError("keeps its weights in a file beside it", where=str(path), hint="save it as one file")
    _refuse_endless_loops(model, path)
    copy(path, target)
    return onnx_graph.opset(model)


def _refuse_endless_loops(model: Any, path: Path) -> None:
    """Refuse loops that may go on for ever when the file is checked, which runs it.

    Raises:
        InputError: a Loop whose number of turns is not a constant of at most `_MOST_TURNS`, or that is in another Loop.
    """
    for graph in (model.graph, *model.functions):
        _check_loops(graph.node, _constants(graph), path, inside=False)


def _check_loops(nodes: Iterable[Any], constants: Mapping[str, Any], path: Path, *, inside: bool) -> None:
    for node in nodes:
        loops = node.op_type == "Loop"
        turns = _number(constants.get(node.input[0])) if loops and node.input else None
        if loops and (inside or turns is None or not 0 <= turns <= _MOST_TURNS):
            raise InputError(
                f"its Loop '{node.name}' may go on for ever: the number of turns should be a constant of at most "
                f"{_MOST_TURNS}, outside other loops",
                where=str(path),
                hint="unroll the loop, or simplify the file",
            )
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _check_loops(graph.node, {**constants, **_constants(graph)}, path, inside=inside or loops)


def _constants(graph: Any) -> dict[str, Any]:
    """The constant tensors of a graph or function, by name."""
    found = {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            found.update(zip(node.output, values, strict=False))
    return found


def _number(tensor: Any) -> int | None:
    """The whole number that a tensor holds, as ONNX has counts: in 64 bits."""
    if tensor is None or tensor.data_type != onnx.TensorProto.INT64 or list(tensor.dims) not in ([], [1]):
        return None
    try:
        return int(onnx.numpy_helper.to_array(tensor).reshape(()))
    except ValueError:  # fewer bytes than a number has
        return None
