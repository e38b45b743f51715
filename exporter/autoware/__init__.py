"""Bundles for Autoware: the folders that its CenterPoint, YOLOX and calibration status nodes load a model from.

A model's ``autoware.py`` makes the bundle of the models whose spec says ``model: <model>``; there is no
list to add it to. It has one function::

    bundle(spec: ModelSpec, config: dict, options: BundleOptions) -> Bundle

that refuses a model which the node would load and get wrong boxes from, and says what to export instead. What the nodes
expect was read from autoware_universe in 2026-08: names of files and parameters, their types, what is built into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from shared import plugins
from shared.errors import InputError, UsageError
from shared.spec import ComponentSpec, ModelSpec, TensorSpec

# Labels of autoware_perception_msgs/ObjectClassification, by number.
LABELS = ("UNKNOWN", "CAR", "TRUCK", "BUS", "TRAILER", "MOTORCYCLE", "BICYCLE", "PEDESTRIAN")

EXPORT_AGAIN = "export the model again, with"

# One of a node's own list of literals, so that a bundle can't be given a precision that its node lacks.
Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True)
class BundleOptions:
    """What the user chooses for a bundle.

    Attributes:
        precision: what the node builds its engines in: ``fp32``, ``fp16``; None takes it from the deploy config.
        version: version of a CenterPoint bundle; the node reads major version 4 from 4.1 on.
        score_thresholds: per class (upper case; ``""`` for all others), one value or one per distance bin.
        ego_box: box of the vehicle in the lidar frame that the calibration node masks [m], zeros for none.
    """

    precision: str | None = None
    version: str = "v4.1"
    score_thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ego_box: tuple[float, float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Bundle:
    """A bundle, not written yet.

    Attributes:
        onnx: components, by the name that their ONNX file gets.
        parameters: ROS parameter files, by name: what stands below ``/**: ros__parameters:``.
        texts: other files, by name.
        notes: what the user must set elsewhere in Autoware, a line each.
    """

    onnx: dict[str, ComponentSpec]
    parameters: dict[str, dict[str, Any]]
    texts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Bundler = Callable[[ModelSpec, Mapping[str, Any], BundleOptions], Bundle]


def bundler(model: str) -> Bundler:
    """The function that makes the bundle of this kind of model.

    Raises:
        UsageError: Autoware has no node for it that we know.
    """
    module = plugins.part(plugins.EXPORTER_MODELS, model, "autoware")
    if module is None:
        known = ", ".join(plugins.with_part(plugins.EXPORTER_MODELS, "autoware"))
        raise UsageError(f"no Autoware node is known for '{model}'", hint=f"there is one for {known}")
    return cast(Bundler, module.bundle)


# -- what the bundlers share ------------------------------------------------------------------------------------------


def refuse_unless(condition: bool, what: str, *, hint: str) -> None:
    """Raises InputError when the node would misread the model."""
    if not condition:
        raise InputError(f"Autoware's node can't run this model: {what}", where="model spec", hint=hint)


def class_names(classes: list[str]) -> list[str]:
    """Class names as Autoware writes them, in label order.

    Raises:
        InputError: one has no label there; the node would publish it as UNKNOWN.
    """
    named = [name.upper() for name in classes]
    unknown = [name for name in named if name not in LABELS]
    refuse_unless(
        not unknown,
        f"it has no label for class {', '.join(unknown)}",
        hint=f"train or export it with classes of {', '.join(LABELS)}",
    )
    return named


def precision(config: Mapping[str, Any], requested: str | None, allowed: tuple[Choice, ...]) -> Choice:
    """What the node builds in: as requested, else what the deploy config's policy means to a node.

    Raises:
        UsageError: the node has no such precision, or none that means the same.
    """
    policy = str(config.get("tensorrt", {}).get("precision_policy", "auto"))
    # Quantized graphs carry their scales; the nodes build them on their fp16 path.
    meaning = {"fp16": "fp16", "explicit_int8": "fp16", "int8": "fp16", "fp32": "fp32", "fp32_tf32": "fp32"}
    wanted = requested or meaning.get(policy)
    supported = next((choice for choice in allowed if choice == wanted), None)
    if supported is None:
        raise UsageError(
            f"the node builds engines in {' or '.join(allowed)}, and tensorrt.precision_policy is {policy}",
            where="--precision",
            hint=f"choose one: --precision {allowed[-1]}",
        )
    return supported


def threshold_row(name: str, options: BundleOptions, default: float, bins: int) -> list[float]:
    """Score thresholds of a class, one per distance bin.

    Raises:
        UsageError: not one value, nor one per bin.
    """
    values = options.score_thresholds.get(name, options.score_thresholds.get("", (default,)))
    if len(values) not in (1, bins):
        raise UsageError(
            f"{len(values)} values for {name or 'all classes'}", where="--score-threshold",
            hint=f"give one, or {bins}, one per distance bin",
        )  # fmt: skip
    return list(values) if len(values) == bins else [*values] * bins


def same_shape(tensor: TensorSpec, wanted: list[int | None]) -> bool:
    """Whether a tensor can have the wanted shape: dynamic axes can have any size; None is any size too."""
    return len(tensor.shape) == len(wanted) and all(
        want is None or isinstance(size, str) or size == want for size, want in zip(tensor.shape, wanted, strict=True)
    )
