"""Models that exist as ONNX files only: taken into the workspace with what the deploy config says of them.

There is no training framework to ask, so there is no framework reference and no PyTorch program; what the ONNX file
says of itself (tensors, opset) is checked, and the rest is the config's word.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from exporter.artifacts.given_onnx import given_digest, take_onnx
from exporter.models import ExportableModel
from exporter.replaced import warn_of_another_model
from exporter.versions import stage_versions
from shared import onnx_graph, plugins
from shared.config import part, resolved
from shared.errors import ConfigError, InputError
from shared.lazy import lazy_import
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

onnx = lazy_import("onnx")

_PLUGINS = "TRT"  # a domain of operators that ONNX does not define

_log = logging.getLogger("exporter")


@dataclass(frozen=True)
class Adopted:
    """What a kind of model (`exporter.models`) makes of an ONNX file.

    Attributes:
        component: the one part of the model.
        classes: class names, in label order.
        parameters: what the runtime needs to know.
    """

    component: ComponentSpec
    classes: list[str]
    parameters: Mapping[str, Any]


class Adopter(Protocol):
    """What a model's ``adopt.py`` provides; ONNX files alone don't say enough of every kind of model."""

    def adopt(self, path: Path, options: Any) -> Adopted:
        """The model that an ONNX file is.

        Args:
            path: the file.
            options: what the adapter's ``read_options`` returned.

        Raises:
            ConfigError: the options lack what the file does not say, or contradict it.
            InputError: not such a model.
        """


def adopt(config: DeployConfig, workspace: Workspace, given: Path, adapter: ExportableModel, *, force: bool) -> None:
    """Make a workspace of an ONNX file.

    Args:
        config: the deploy config, with ``export.onnx_path`` and without ``model.checkpoint``.
        workspace: where to.
        given: the file, or a folder with the one file.
        adapter: the kind of model.
        force: although nothing changed.

    Raises:
        ConfigError: this kind of model needs its training config and checkpoint.
        InputError: not one valid ONNX file, or not such a model.
    """
    adopter = cast("Adopter | None", plugins.part(plugins.EXPORTER_MODELS, config.model.type, "adopt"))
    if adopter is None:
        raise ConfigError(
            "is missing", where="model.checkpoint", hint=f"{config.model.type} can't be made of ONNX files alone"
        )
    stage = workspace.stage(
        "export",
        tool="exporter",
        config=part(config, "model", "export"),
        inputs={"onnx": given_digest(given)},
        versions=stage_versions(("onnx",), config),
    )
    if not force and stage.up_to_date():
        return
    warn_of_another_model(workspace, config.model.type)
    with stage:
        source = _one_file(given)
        adopted = adopter.adopt(source, adapter.read_options(config.model.options))
        with stage.artifact(adopted.component.onnx, kind="onnx") as path:
            take_onnx(source, source.name, path)
            check(path, where=str(source))
        stage.spec(
            ModelSpec(
                model=config.model.type,
                task=adapter.TASK,
                classes=adopted.classes,
                components=[adopted.component],
                parameters=dict(adopted.parameters),
            )
        )
        stage.config(resolved(config))
    _log.info("export: took %s as it is; there is no framework reference to compare with", source.name)


def check(path: Path, *, where: str) -> None:
    """Check that a file is valid ONNX, TensorRT's plugins aside.

    Raises:
        InputError: it is not.
    """
    model = onnx.load(str(path))
    # AWML's exporter, among others, writes plugins as if they were ONNX's own operators.
    plugins = [node for node in model.graph.node if node.op_type.endswith("_TRT") and not node.domain]
    for node in plugins:
        node.domain = _PLUGINS
    if plugins:
        model.opset_import.append(onnx.helper.make_opsetid(_PLUGINS, 1))
    # By path where it can be: a large model can't be checked in memory.
    checked = model if plugins else str(path)
    try:
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"not a valid ONNX file ({str(error).splitlines()[0]})", where=where) from error


def tensors_of(path: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of an ONNX file. An axis without a size is dynamic, and gets a name where it has none."""
    model = onnx.load(str(path), load_external_data=False)

    def specs(values: Sequence[Any]) -> list[TensorSpec]:
        return [
            TensorSpec(
                name=value.name,
                dtype=onnx_graph.dtype(value),
                shape=[_size(value.name, index, axis) for index, axis in enumerate(value.type.tensor_type.shape.dim)],
            )
            for value in values
        ]

    return specs(onnx_graph.inputs(model)), specs(model.graph.output)


def _size(tensor: str, index: int, axis: Any) -> int | str:
    """The size of an axis, or its name. Some exporters write -1 for any size."""
    if axis.dim_param or axis.dim_value > 0:
        return cast("int | str", axis.dim_param or axis.dim_value)
    return "batch_size" if index == 0 else f"{tensor}_axis_{index}"


def _one_file(given: Path) -> Path:
    files = [given] if given.is_file() else sorted(given.glob("*.onnx"))
    if len(files) != 1:
        raise InputError(f"{len(files)} ONNX files here, one is wanted", where=str(given), hint="name the file itself")
    return files[0]
