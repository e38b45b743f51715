"""Bundles for Autoware: the folders that its CenterPoint, YOLOX and calibration status nodes load a model from.

A model's ``autoware.py`` makes the bundle of the models whose spec says ``model: <model>``; there is no
list to add it to. It has one function::

    bundle(spec: ModelSpec, config: dict, options: BundleOptions) -> Bundle

that refuses a model which the node would load and get wrong boxes from, and says what to export instead. What the nodes
expect was read from autoware_universe and autoware_launch: names of files and parameters, their types, what is built
into them (docs/autoware.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from shared import plugins
from shared.errors import UsageError
from shared.spec import ComponentSpec, ModelSpec, TensorSpec

# What a node builds its engines in, as its parameter files say it. With "strongly-typed", the types in the ONNX file
# are binding: autoware_tensorrt_common has it since 0.53, and TensorRT 11 nothing else.
Precision = Literal["fp32", "fp16", "strongly-typed"]

# Releases of autoware_universe whose files are known, newest first, and the precisions of their nodes.
RELEASES: Mapping[str, tuple[Precision, ...]] = {
    "0.53": ("fp32", "strongly-typed", "fp16"),
    "0.52": ("fp32", "fp16"),
}


@dataclass(frozen=True)
class BundleOptions:
    """What the user chooses for a bundle.

    Attributes:
        autoware: the release that the bundle is for, one of `RELEASES`.
        precision: what the node builds its engines in; None takes it from the deploy config.
        model_name: ``model_name`` of Autoware's launch files, which some file names contain; None: the usual one.
        version: version of the bundle; None: the one that the node asks for, or v1.0.
        score_thresholds: per label (``""`` for all others), one value or one per distance bin.
        ego_box: box of the vehicle in the lidar frame that the calibration node masks [m], zeros for none.
    """

    autoware: str = next(iter(RELEASES))
    precision: Precision | None = None
    model_name: str | None = None
    version: str | None = None
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
        typed_onnx: components, by the name of a second ONNX file that computes in FP16 by the types in its graph.
        node: ROS package of the node.
        version: version of the bundle.
    """

    onnx: dict[str, ComponentSpec]
    parameters: dict[str, dict[str, Any]]
    texts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    typed_onnx: dict[str, ComponentSpec] = field(default_factory=dict)
    node: str = ""
    version: str = "v1.0"


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


def release(version: str) -> str:
    """The release of `RELEASES` that a version such as ``0.53.1`` belongs to.

    Raises:
        UsageError: none.
    """
    name = ".".join(version.removeprefix("v").split(".")[:2])
    if name not in RELEASES:
        raise UsageError(
            f"what the nodes of autoware_universe {version} read is not known",
            where="--autoware",
            hint=f"known are {', '.join(RELEASES)}",
        )
    return name


# -- what the bundlers share ------------------------------------------------------------------------------------------


def precision(config: Mapping[str, Any], options: BundleOptions) -> Precision:
    """What the node builds in: as requested, else what the deploy config's policy means to a node.

    Raises:
        UsageError: the node has no such precision, or none that means the same.
    """
    allowed = RELEASES[options.autoware]
    policy = str(config.get("tensorrt", {}).get("precision_policy", "auto"))
    # Quantized graphs carry their scales; the nodes build them on their fp16 path.
    meaning = {"fp16": "fp16", "explicit_int8": "fp16", "int8": "fp16", "fp32": "fp32", "fp32_tf32": "fp32"}
    wanted = options.precision or meaning.get(policy)
    supported = next((choice for choice in allowed if choice == wanted), None)
    if supported is None:
        asked = f"{options.precision} was asked for" if options.precision else f"tensorrt.precision_policy is {policy}"
        raise UsageError(
            f"the node of autoware_universe {options.autoware} builds engines in {' or '.join(allowed)}, and {asked}",
            where="--precision",
            hint=f"choose one: --precision {allowed[-1]}",
        )
    return supported


def refuse_unread(options: BundleOptions, node: str, read: Collection[str]) -> None:
    """Refuse the options that the node of a bundle has no value for.

    Args:
        options: what the user chose.
        node: ROS package of the node.
        read: those of ``model_name``, ``score_thresholds`` and ``ego_box`` that it has a value for.

    Raises:
        UsageError: another of them was given.
    """
    given = {
        "model_name": ("--model-name", options.model_name is not None),
        "score_thresholds": ("--score-threshold", bool(options.score_thresholds)),
        "ego_box": ("--ego-box", any(options.ego_box)),
    }
    unread = [option for name, (option, is_given) in given.items() if is_given and name not in read]
    if unread:
        raise UsageError(f"{node} has no value for it", where=unread[0], hint="leave it out")


def typed_name(onnx_name: str) -> str:
    """Name of the explicitly typed FP16 file beside an FP32 one."""
    return f"{onnx_name.removesuffix('.onnx')}.fp16.onnx"


def threshold_row(label: str, options: BundleOptions, default: float, bins: int) -> list[float]:
    """Score thresholds of a label, one per distance bin.

    Raises:
        UsageError: not one value, nor one per bin.
    """
    values = options.score_thresholds.get(label, options.score_thresholds.get("", (default,)))
    if len(values) not in (1, bins):
        raise UsageError(
            f"{len(values)} values for {label or 'all classes'}", where="--score-threshold",
            hint=f"give one, or {bins}, one per distance bin",
        )  # fmt: skip
    return list(values) if len(values) == bins else [*values] * bins


def same_shape(tensor: TensorSpec, wanted: list[int | None]) -> bool:
    """Whether a tensor can have the wanted shape: dynamic axes can have any size; None is any size too."""
    return len(tensor.shape) == len(wanted) and all(
        want is None or isinstance(size, str) or size == want for size, want in zip(tensor.shape, wanted, strict=True)
    )
