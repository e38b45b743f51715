"""`exporter inspect`: what a training config's model is and how it would be deployed; no data, nothing is written."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from exporter import models
from exporter.autoware import BundleOptions, bundler
from exporter.checkpoints import load_weights
from exporter.component import Component, as_tuple
from exporter.quiet import quiet
from exporter.training_config import TrainingConfig, origin_of_types, read_training_config
from exporter.training_only import short_name
from shared import plugins
from shared.config.load import build as build_config
from shared.config.write import to_yaml
from shared.config.yaml_tree import Tree
from shared.errors import ConfigError, InputError, UsageError
from shared.lazy import lazy_import
from shared.spec import ModelSpec, TensorSpec

torch = lazy_import("torch")


class Inspectable(Protocol):
    """What a model's ``inspect.py`` provides.

    Attributes:
        MODEL_TYPES: values of ``model.type`` in training configs that are this kind of model; ``type/backbone`` where
            others have the same type.
        AUTOWARE_OPTIONS: the model's options that a bundle for Autoware needs.
    """

    MODEL_TYPES: tuple[str, ...]
    AUTOWARE_OPTIONS: Mapping[str, Any]

    def components(self, model: Any, parameters: Mapping[str, Any], options: Any) -> list[Component]:
        """As `exporter.models.ExportableModel.components`, but without data: tensors may hold anything."""


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        path: the training config.
        type: its ``model.type``.
        spec: as an export would write it.
        outputs: sizes of the components' outputs at their deployed sizes, by component and tensor.
        weights: how many numbers the model has learned.
        notes: what an export would leave out or replace, a line each.
        autoware_options: model options that Autoware's node needs.
        refusal: why the node can't run it, in a line; None: it can.
        checkpoint: the one that fits; None: none was given.
    """

    path: Path
    type: str
    spec: ModelSpec
    outputs: Mapping[str, Mapping[str, Sequence[int]]]
    weights: int
    notes: Sequence[str]
    autoware_options: Mapping[str, Any]
    refusal: str | None
    checkpoint: Path | None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "file": str(self.path),
            "type": self.type,
            **self.spec.model_dump(mode="json"),
            "outputs": {name: dict(sizes) for name, sizes in self.outputs.items()},
            "weights": self.weights,
            "notes": list(self.notes),
            "autoware": {
                "taken": self.refusal is None,
                "reason": self.refusal,
                "model_options": dict(self.autoware_options),
            },
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
        }

    def lines(self) -> Iterator[str]:
        """All of it for a terminal."""
        yield f"{self.path}: {self.spec.model} ({self.type}), {self.spec.task}"
        yield f"classes: {', '.join(self.spec.classes)}"
        yield f"weights: {self.weights:,}" + ("" if self.checkpoint is None else f"; {self.checkpoint} fits")
        for component in self.spec.components:
            yield f"component {component.name}"
            yield from (f"  in   {_tensor_text(tensor)}" for tensor in component.inputs)
            for tensor in component.outputs:
                yield f"  out  {_tensor_text(tensor)} = {list(self.outputs[component.name][tensor.name])}"
            for name, axis in component.axes.items():
                yield f"  {name}: " + (str(axis.max) if axis.min == axis.max else f"{axis.min} to {axis.max}")
        yield "parameters"
        yield from (f"  {line}" for line in to_yaml(self.spec.parameters).splitlines())
        if self.notes:
            yield "left out or replaced"
            yield from (f"  {note}" for note in self.notes)
        options = "".join(
            f" --set model.options.{name}={_yaml(value)}" for name, value in self.autoware_options.items()
        )
        yield "Autoware: " + (self.refusal or f"its node takes it{f', exported with{options}' if options else ''}")


def inspect(path: Path, overrides: Sequence[str] = (), checkpoint: Path | None = None) -> Inspection:
    """Say how a training config's model would be deployed.

    Args:
        path: the training config.
        overrides: ``key=value`` of a deploy config, for example for ``model.options`` or ``data.classes``.
        checkpoint: weights that should fit.

    Raises:
        ConfigError: the config can't be read, is of a model or variant that can't be deployed, or a bad override.
        ModelLoadError: the checkpoint does not fit.
        EnvironmentLacks: the exporter's packages are not installed.
    """
    with _noted() as notes, quiet():
        kind, inspectable, given, training, model = _built(path, overrides)
        adapter = models.find(kind)
        if checkpoint is not None:
            load_weights(model, checkpoint)
        weights = sum(parameter.numel() for parameter in model.parameters())
        spec, components = _outlined(kind, adapter, inspectable, model, training, adapter.read_options(given))
        for_autoware = adapter.read_options({**inspectable.AUTOWARE_OPTIONS, **given})
        refusal = _refusal(_outlined(kind, adapter, inspectable, model, training, for_autoware)[0])
        outputs = {component.name: _output_sizes(component, path) for component in components}
    return Inspection(
        path=path,
        type=str(training.model["type"]),
        spec=spec,
        outputs=outputs,
        weights=weights,
        notes=tuple(dict.fromkeys(note.removeprefix(f"{path}: ") for note in notes)),
        autoware_options=inspectable.AUTOWARE_OPTIONS,
        refusal=refusal,
        checkpoint=checkpoint,
    )


def build_untrained(path: Path, overrides: Sequence[str] = ()) -> Any:
    """The model of a training config, whatever kind it is of, as an export builds it before it loads the weights.

    Args:
        path: the training config.
        overrides: as for `inspect`.

    Raises:
        ConfigError, EnvironmentLacks: as for `inspect`.
    """
    return _built(path, overrides)[-1]


def _built(path: Path, overrides: Sequence[str]) -> tuple[str, Inspectable, Mapping[str, Any], TrainingConfig, Any]:
    """The kind of model that a training config is of, the given model options, the config, and the model."""
    training = read_training_config(path)
    kind, inspectable = _kind_of(training)
    adapter = models.find(kind)
    config = build_config(Tree({"task_type": adapter.TASK, "model": {"type": kind}}, {}), path, overrides)
    training = training.with_data_classes(config.data.classes)
    model = models.build(adapter, training, adapter.read_options(config.model.options))
    return kind, inspectable, config.model.options, training, model


def _outlined(
    kind: str,
    adapter: models.ExportableModel,
    inspectable: Inspectable,
    model: Any,
    training: TrainingConfig,
    options: Any,
) -> tuple[ModelSpec, list[Component]]:
    """The model spec that an export with these options would write, and the components."""
    parameters = models.parameters(adapter, model, training, options)
    with models.explained(inspectable, training):
        components = inspectable.components(model, parameters, options)
    spec = ModelSpec(
        model=kind,
        task=adapter.TASK,
        classes=models.classes(adapter, model, training),
        components=[component.spec(f"onnx/{component.name}.onnx", None) for component in components],
        parameters=parameters,
    )
    return spec, components


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """The lines that an export would log, in place of logging them."""
    lines: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("exporter"), Notes(logging.INFO)
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logger.setLevel(before[1])


def _kind_of(training: TrainingConfig) -> tuple[str, Inspectable]:
    """The kind of model that a training config is of.

    Raises:
        ConfigError: none that is installed here.
    """
    wanted = short_name(training.model["type"])
    backbone = short_name((training.model.get("backbone") or {}).get("type", ""))
    kinds = {
        name: cast(Inspectable, plugins.part(plugins.EXPORTER_MODELS, name, "inspect"))
        for name in plugins.with_part(plugins.EXPORTER_MODELS, "inspect")
    }
    for given in (f"{wanted}/{backbone}", wanted):
        for name, inspectable in kinds.items():
            if given in inspectable.MODEL_TYPES:
                return name, inspectable
    known = [f"{name} ({', '.join(inspectable.MODEL_TYPES)})" for name, inspectable in kinds.items()]
    raise ConfigError(
        f"model is a {wanted} ({origin_of_types(training, wanted)}), which can't be exported here",
        where=str(training.path),
        hint=f"there are {', '.join(known)}; docs/extending.md adds one, whose inspect.py names its types",
    )


def _output_sizes(component: Component, path: Path) -> dict[str, list[int]]:
    """Sizes of a component's outputs at its deployed sizes; nothing is computed (PyTorch's meta device).

    Raises:
        ConfigError: the parts don't fit together, or don't give what the component declares.
    """
    sizes = component.deployed_sizes
    inputs = [
        torch.empty(_sizes(tensor, sizes), dtype=getattr(torch, tensor.dtype), device="meta")
        for tensor in component.inputs
    ]
    try:
        with torch.no_grad():
            results = as_tuple(component.module.to("meta")(*inputs))
    except (RuntimeError, IndexError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"the parts of {component.name} don't fit together: {reason}", where=str(path)) from error
    actual = [list(result.shape) for result in results]
    declared = [_sizes(tensor, sizes) for tensor in component.outputs]
    if actual != declared:
        raise ConfigError(f"{component.name} gives {actual}, it should be {declared}", where=str(path))
    return dict(zip(component.output_names(), actual, strict=True))


def _sizes(tensor: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [sizes[size] if isinstance(size, str) else size for size in tensor.shape]


def _refusal(spec: ModelSpec) -> str | None:
    """Why Autoware's node can't run a model, in a line; None where it can."""
    try:
        bundler(spec.model)(spec, {}, BundleOptions(precision="fp16"))
    except (InputError, UsageError) as error:
        return error.message if error.hint is None else f"{error.message}. {error.hint}"
    return None


def _tensor_text(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(str(size) for size in tensor.shape)}]"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
