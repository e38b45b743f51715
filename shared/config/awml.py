"""Converts a deploy config of AWML (``deploy_config.py``) into one of ours, and says what changed on the way.

Same keys, same defaults. Keys that AWML reads and ignores, that its later versions dropped, or that mean something else
here, become warnings; keys that AWML does not have are errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from shared import tasks
from shared.config.awml_schema import AwmlComponent, AwmlConfig, AwmlModelIo, AwmlProfile
from shared.config.problems import as_error, explain, place
from shared.config.python_literals import LinedDict, place_of, read_python_literals
from shared.config.walk import KeyPath

# CenterPoint's tensors (facts of its export): which component an input of the older, flat profile list belongs to.
_CENTERPOINT_INPUTS = {"input_features": "pts_voxel_encoder", "spatial_features": "pts_backbone_neck_head"}
# AWML's deploy configs name a task and leave the model to the command line.
_MODEL_OF_TASK = {"detection2d": "yolox", "classification": "calibration"}


@dataclass(frozen=True)
class Converted:
    """A converted config.

    Attributes:
        value: the config as its YAML would hold it; only what differs from our defaults or is set in the file.
        lines: line of the Python file for each key path of ``value`` that has one.
        warnings: one line each.
    """

    value: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_awml(path: Path) -> Converted:
    """Read and convert a deploy config of AWML, without executing it.

    Raises:
        ConfigError: a value that is not plain, an unknown key at any depth, a wrong type; every problem, one line each.
    """
    raw = read_python_literals(path)
    try:
        config = AwmlConfig.model_validate(raw)
    except ValidationError as error:
        raise as_error([(_where(path, raw, keys), text) for keys, text in explain(error, AwmlConfig)]) from error
    notes = _Notes(path, raw)
    value = _convert(config, notes)
    return Converted(value, _lines(value, raw), tuple(notes.lines))


class _Notes:
    """Warnings, each with its line in the file."""

    def __init__(self, path: Path, raw: LinedDict) -> None:
        self.path = path
        self.raw = raw
        self.lines: list[str] = []

    def add(self, keys: KeyPath, text: str) -> None:
        self.lines.append(f"{_where(self.path, self.raw, keys)}: {text}")

    def value(self, *keys: str | int) -> Any:
        """The value that the file itself sets at a key path; None if it sets none."""
        value: Any = self.raw
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def _where(path: Path, raw: LinedDict, keys: KeyPath) -> str:
    place_in_file = place_of(raw, keys)
    source, line = place_in_file if place_in_file is not None and place_in_file[1] else (path, None)
    return place(source, line, keys)


# The AWML key that each of ours came from, for the line numbers of errors found only after the conversion.
_ORIGINS: dict[KeyPath, KeyPath] = {
    ("model", "checkpoint"): ("checkpoint_path",),
    ("task_type",): ("task_type",),
    ("devices",): ("devices",),
    ("export",): ("export",),
    ("export", "opset_version"): ("onnx_config", "opset_version"),
    ("data", "info_file"): ("runtime_io", "info_file"),
    ("data", "sample_idx"): ("runtime_io", "sample_idx"),
    ("components",): ("components",),
    ("tensorrt",): ("tensorrt_config",),
    ("verification",): ("verification",),
    ("evaluation",): ("evaluation",),
    ("quantization",): ("quantization",),
}


def _lines(value: dict[str, Any], raw: LinedDict) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}

    def walk(item: Any, keys: KeyPath) -> None:
        for length in range(len(keys), 0, -1):
            if keys[:length] in _ORIGINS:
                place_in_file = place_of(raw, (*_ORIGINS[keys[:length]], *keys[length:]))
                if place_in_file is not None and place_in_file[1]:
                    lines[keys] = place_in_file[1]
                break
        children = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        for key, child in children:
            walk(child, (*keys, key))

    walk(value, ())
    return lines


_LOADED_FROM_WORKSPACE = "dropped: artifacts come from the workspace"
_WARM_UP = "dropped: `runtime bench` warms up until the latency is stable"
# Keys without a counterpart here: a value that can be dropped silently, and the warning for any other value.
_DROPPED: Mapping[KeyPath, tuple[Any, str]] = {
    ("deploy_log_path",): ("", "dropped: give --log-file to a tool"),
    ("export", "work_dir"): (None, "dropped: give --work to a tool"),
    ("export", "device"): (None, "dropped: the export runs on the CPU"),
    ("codebase_config",): (None, "dropped: model.type says what the model is"),
    ("onnx_config", "export_params"): (True, "dropped: exported files always hold their weights"),
    ("onnx_config", "keep_initializers_as_inputs"): (False, "dropped: weights are never inputs of the graph"),
    ("onnx_config", "visualize_qdq_values"): (None, "dropped: it only changes how a viewer shows the file"),
    ("onnx_config", "input_shape"): (None, "dropped: the traced sample decides"),
    ("runtime_io", "img_prefix"): ("", "dropped: image paths are relative to data.root"),
    **{
        ("evaluation", "backends", backend, key): (None, _LOADED_FROM_WORKSPACE)
        for backend in ("pytorch", "onnx", "tensorrt")
        for key in ("model_dir", "engine_dir", "checkpoint")
    },
    ("evaluation", "models"): ({}, "its paths are dropped: artifacts come from the workspace"),
    ("evaluation", "num_warmup"): (None, _WARM_UP),
    ("evaluation", "num_warmup_samples"): (None, _WARM_UP),
}


def _convert(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    task_type = config.task_type
    components = _components(config, notes)
    model_type = "centerpoint" if "pts_voxel_encoder" in components else _MODEL_OF_TASK.get(task_type or "")
    if task_type is None and model_type == "centerpoint":
        task_type = tasks.DEFAULT
    if model_type is None:
        notes.add((), "the file does not say which model this is; give it with --set model.type=...")
    for keys, (harmless, text) in _DROPPED.items():
        if notes.value(*keys) not in (None, harmless):
            notes.add(keys, text)
    sections = {
        "task_type": task_type,
        "model": _model(config, model_type, notes),
        "devices": _devices(config, notes),
        "data": _data(config, notes),
        "export": _export(config, notes),
        "components": components,
        "tensorrt": _tensorrt(config, notes),
        "verification": _verification(config, notes),
        "evaluation": _evaluation(config),
        "quantization": config.quantization.model_dump(mode="json") if config.quantization is not None else None,
    }
    return {name: section for name, section in sections.items() if section not in (None, {})}


def _model(config: AwmlConfig, model_type: str | None, notes: _Notes) -> dict[str, Any]:
    model: dict[str, Any] = {"type": model_type} if model_type is not None else {}
    former = config.export.checkpoint_path
    if config.checkpoint_path is not None and former not in (None, config.checkpoint_path):
        notes.add(("export", "checkpoint_path"), "dropped: checkpoint_path at the top names the weights")
    checkpoint = config.checkpoint_path or former
    if checkpoint:
        model["checkpoint"] = checkpoint
        if not PurePosixPath(checkpoint).is_absolute():
            notes.add(
                ("checkpoint_path",) if config.checkpoint_path else ("export", "checkpoint_path"),
                "relative paths start from this file's folder here, but from the current directory in AWML",
            )
    if config.onnx_config.decode_in_inference is not None:
        model["options"] = {"decode_in_inference": config.onnx_config.decode_in_inference}
    return model


def _devices(config: AwmlConfig, notes: _Notes) -> dict[str, str] | None:
    source = ("devices",) if config.devices is not None else ("verification", "devices")
    aliases = config.devices if config.devices is not None else config.verification.devices
    for keys, ignored in (
        (("verification", "devices"), config.verification.devices),
        (("evaluation", "devices"), config.evaluation.devices),
    ):
        if ignored and keys != source and dict(ignored) != dict(aliases):
            notes.add(keys, "dropped, as AWML ignores it: aliases belong in devices")
    devices = {name: device for name, device in aliases.items() if device is not None}
    if devices.get("cuda", "cuda:0") not in ("cuda", "cuda:0"):
        notes.add((*source, "cuda"), "scenarios use it here; in AWML, their 'cuda' is always cuda:0")
    return devices or None


def _data(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    io = config.runtime_io
    info_file = io.info_file or io.info_pkl or io.ann_file
    data: dict[str, Any] = {"format": "info"}
    if info_file:
        data["info_file"] = info_file
        key = "info_file" if io.info_file else "info_pkl" if io.info_pkl else "ann_file"
        notes.add(
            ("runtime_io", key), "is relative to data.root, which AWML takes from the training config; give --data"
        )
    if notes.value("runtime_io", "sample_idx") is not None:
        data["sample_idx"] = io.sample_idx
    return data


def _export(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    export, onnx = config.export, config.onnx_config
    result: dict[str, Any] = {
        "mode": export.mode,
        "opset_version": onnx.opset_version,
        "do_constant_folding": onnx.do_constant_folding,
        "simplify": "onnxsim" if onnx.simplify else "none",
    }
    former = config.runtime_io.onnx_file
    onnx_path = export.onnx_path or former
    keys = ("export", "onnx_path") if export.onnx_path else ("runtime_io", "onnx_file")
    if onnx_path:
        if export.mode in ("trt", "none"):
            result["onnx_path"] = onnx_path
        else:
            notes.add(keys, f"dropped: AWML does not read it in mode {export.mode}")
    elif export.mode == "trt":
        notes.add(("export", "mode"), "without export.onnx_path, the ONNX files that the workspace holds are built")
    return result


def _tensorrt(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    settings = config.tensorrt_config
    if config.backend_config is not None:
        if settings is None:
            settings = config.backend_config.common_config
        else:
            notes.add(("backend_config",), "dropped: tensorrt_config says how engines are built")
    if settings is None:
        return {}
    if settings.precision_policy == "int8":
        notes.add(("tensorrt_config",), "precision_policy int8 needs Q/DQ nodes in the graph here")
    result: dict[str, Any] = {
        "precision_policy": settings.precision_policy,
        "max_workspace_size": settings.max_workspace_size,
    }
    if settings.plugin_libraries:
        result["plugin_libraries"] = list(settings.plugin_libraries)
    return result


def _verification(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    source = config.verification
    enabled = source.enabled
    if config.export.verify is not None:
        enabled = enabled and config.export.verify
    result: dict[str, Any] = {
        "enabled": enabled,
        "num_verify_samples": source.num_verify_samples,
        "tolerance": source.tolerance,
    }
    if not source.scenarios:
        if enabled:
            notes.add(("verification",), "AWML compares nothing without scenarios; here the default ones are used")
        return result
    result["scenarios"] = {
        mode: [scenario.model_dump(mode="json") for scenario in source.scenarios.get(mode, ())]
        for mode in ("both", "onnx", "trt", "none")
    }
    if enabled and config.export.mode != "none" and not source.scenarios.get(config.export.mode):
        result["enabled"] = False
        notes.add(
            ("verification", "scenarios"),
            f"none for mode {config.export.mode}: AWML compares nothing and passes; verification is off here",
        )
    return result


def _evaluation(config: AwmlConfig) -> dict[str, Any]:
    source = config.evaluation
    backends: dict[str, Any] = {}
    for name in ("pytorch", "onnx", "tensorrt"):
        former = name in source.models_to_evaluate or bool(source.models.get(name))
        settings = source.backends.get(name)
        backends[name] = {"enabled": former if settings is None else settings.enabled}
        if settings is not None and settings.device is not None:
            backends[name]["device"] = settings.device
    return {
        "enabled": source.enabled,
        "num_samples": source.num_samples,
        "verbose": source.verbose,
        "backends": backends,
    }


def _components(config: AwmlConfig, notes: _Notes) -> dict[str, Any]:
    if config.components is not None:
        return {name: _component(name, component, notes) for name, component in config.components.items()}
    components = _former_components(config)
    for name, profile in _former_profiles(config):
        owner = next(iter(components)) if len(components) == 1 else _CENTERPOINT_INPUTS.get(name, "")
        if owner in components and profile is not None:
            components[owner].setdefault("tensorrt_profile", {})[name] = profile
        else:
            notes.add(("backend_config", "model_inputs"), f"shapes of '{name}' dropped: no component has such an input")
    return components


def _component(name: str, component: AwmlComponent, notes: _Notes) -> dict[str, Any]:
    result: dict[str, Any] = {
        "onnx_file": component.onnx_file,
        "engine_file": component.engine_file,
        "io": {
            "inputs": [tensor.model_dump(mode="json") for tensor in component.io.inputs],
            "outputs": [tensor.model_dump(mode="json") for tensor in component.io.outputs],
            "dynamic_axes": {tensor: dict(axes) for tensor, axes in (component.io.dynamic_axes or {}).items()},
        },
    }
    profiles = {}
    for tensor, shapes in (component.tensorrt_profile or {}).items():
        profile = _profile(shapes)
        if profile is None:
            notes.add(
                ("components", name, "tensorrt_profile", tensor),
                "dropped: min_shape, opt_shape and max_shape are not all given; the model spec's sizes are used",
            )
        else:
            profiles[tensor] = profile
    if profiles:
        result["tensorrt_profile"] = profiles
    return result


def _profile(shapes: AwmlProfile) -> dict[str, list[int]] | None:
    named = {"min_shape": shapes.min_shape, "opt_shape": shapes.opt_shape, "max_shape": shapes.max_shape}
    profile = {key: list(shape) for key, shape in named.items() if shape is not None}
    return profile if len(profile) == len(named) else None


def _former_components(config: AwmlConfig) -> dict[str, dict[str, Any]]:
    """Components from the older ``onnx_config.components``, or from ``model_io`` and ``onnx_config.save_file``."""
    onnx = config.onnx_config
    if onnx.components:
        return {
            component.name: {"onnx_file": component.onnx_file, "engine_file": component.engine_file}
            for component in onnx.components.values()
        }
    if onnx.multi_file:
        return {name: {} for name in _CENTERPOINT_INPUTS.values()}
    if onnx.save_file is None and config.model_io is None:
        return {}
    file = PurePosixPath(onnx.save_file or "model.onnx")
    component: dict[str, Any] = {"onnx_file": str(file), "engine_file": str(file.with_suffix(".engine"))}
    if (io := _former_io(config)) is not None:
        component["io"] = io
    return {file.stem: component}


def _former_io(config: AwmlConfig) -> dict[str, Any] | None:
    onnx, model_io = config.onnx_config, config.model_io
    if model_io is None:
        if not onnx.input_names and not onnx.output_names:
            return None
        return {
            "inputs": [{"name": name} for name in onnx.input_names],
            "outputs": [{"name": name} for name in onnx.output_names],
            "dynamic_axes": {name: dict(axes) for name, axes in (onnx.dynamic_axes or {}).items()},
        }
    # A number for batch_size fixes every axis; None leaves them to dynamic_axes.
    axes = (model_io.dynamic_axes or {}) if model_io.batch_size is None else {}
    return {
        "inputs": [
            {"name": model_io.input_name, "dtype": model_io.input_dtype},
            *({"name": extra.name, "dtype": extra.dtype} for extra in model_io.additional_inputs),
        ],
        "outputs": [
            {"name": name}
            for name in (model_io.head_output_names or (model_io.output_name, *model_io.additional_outputs))
        ],
        "dynamic_axes": {name: dict(names) for name, names in axes.items()},
    }


def _former_profiles(config: AwmlConfig) -> Iterator[tuple[str, dict[str, list[int]] | None]]:
    """Input name and profile, from ``backend_config.model_inputs`` or the fixed shape of ``model_io``."""
    has_profiles = False
    for entry in config.backend_config.model_inputs if config.backend_config is not None else ():
        for name, shapes in entry.input_shapes.items():
            has_profiles = True
            yield name, _profile(shapes)
        if entry.name is not None and entry.shape is not None:
            has_profiles = True
            yield entry.name, _fixed(entry.shape)
    model_io: AwmlModelIo | None = config.model_io
    if not has_profiles and model_io is not None and model_io.input_shape and model_io.batch_size is not None:
        yield model_io.input_name, _fixed((model_io.batch_size, *model_io.input_shape))


def _fixed(shape: tuple[int, ...]) -> dict[str, list[int]]:
    return {key: list(shape) for key in ("min_shape", "opt_shape", "max_shape")}
