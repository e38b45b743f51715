"""Converts a deploy config of AWML (``deploy_config.py``) into one of ours, and says what became of its keys.

Same keys, same defaults. Keys that AWML reads and ignores, that its later versions dropped, or that mean something else
here, are noted; keys that AWML does not have are errors. mmdeploy's form, which AWML's main branch has, is the part of
AWML's that says how a model is exported and built, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from shared.config.awml_components import (
    as_written,
    awmls_io,
    convert_components,
    gives_only_sizes,
    model_options,
    spelled_out,
)
from shared.config.awml_models import LOWEST_OPSET, deployed, model_of, model_of_task
from shared.config.awml_notes import Note, Notes
from shared.config.awml_quantization import Quantization, convert_quantization
from shared.config.awml_schema import AwmlConfig, AwmlExport, AwmlTensorRT, Backend
from shared.config.problems import as_error, explain, place
from shared.config.python_literals import LinedDict, assigns, place_of, read_texts, read_with_bases
from shared.config.walk import KeyPath
from shared.errors import ConfigError

NAME_THE_MODEL = "say it with --set model.type=NAME; `exporter models` lists them"


@dataclass(frozen=True)
class Converted:
    """A converted config.

    Attributes:
        value: the config as its YAML would hold it; only what differs from our defaults or is set in the file.
        lines: line of the Python file for each key path of ``value`` that has one.
        notes: what became of the keys whose name or meaning is another here.
    """

    value: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def read_awml(path: Path, model_type: str | None = None) -> Converted:
    """Read and convert a deploy config of AWML, without executing it.

    Args:
        path: the Python file.
        model_type: which model it is for; None: as its place, its words or its task say.

    Raises:
        ConfigError: it is a training config; it is for a model that is not installed; a value that is not plain, an
            unknown key at any depth, a wrong type: every problem, one line each.
    """
    try:
        return _read(path, model_type)
    except ConfigError as error:
        if assigns(path, ("model", "train_dataloader")):
            hint = "name it as model.config of a deploy config, which `exporter config init` writes"
            raise ConfigError("is a training config", where=str(path), hint=hint) from error
        raise


def _read(path: Path, model_type: str | None) -> Converted:
    texts = read_texts(path)
    try:
        everything, bases = read_with_bases(path)
    except ConfigError:
        if model_type is None:
            model_of(path, texts, ())  # that it is for another model says more than what is wrong with it
        raise
    training = next((name for name, base in bases.items() if "type" in _mapping(base.get("model"))), None)
    raw = everything if training is None else _set_in(path, everything)
    model_type = model_type or model_of(path, texts, _component_names(raw))
    notes = Notes(path, raw)
    if training is not None:
        raw = _without_training_keys(raw, bases[training], notes)
    try:
        config = AwmlConfig.model_validate(spelled_out(raw, deployed(model_type)))
    except ValidationError as error:
        problems = [(as_written(keys, raw), text) for keys, text in explain(error, AwmlConfig)]
        raise as_error([(_where(path, raw, keys), text) for keys, text in problems]) from error
    notes.moved(("task_type",), ("task_type",))
    value = _convert(config, model_type, notes)
    if training is not None and config.model_cfg is None:
        notes.dropped((), f"the training config that it builds upon is model.config here: {training}", changed=False)
        value["model"] = {"config": training, **value.get("model", {})}
    return Converted(value, notes.lines(value), tuple(notes.notes))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _set_in(path: Path, values: LinedDict) -> LinedDict:
    """Those of the values that the file itself sets."""
    own = LinedDict()
    for key, value in values.items():
        if values.lines[key][0] == path:
            own.put(key, value, values.lines[key])
    return own


def _without_training_keys(raw: LinedDict, training: Mapping[str, Any], notes: Notes) -> LinedDict:
    """What is left of a config without the keys of the training config that it builds upon."""
    own = LinedDict()
    for key, value in raw.items():
        if key in training and key not in AwmlConfig.model_fields:
            notes.dropped((key,), "dropped: the training config says it", changed=value != training[key])
        else:
            own.put(key, value, raw.lines[key])
    return own


def _component_names(raw: LinedDict) -> set[str]:
    """Names of the components in the file's two forms, as far as they are what they should be."""
    onnx = raw.get("onnx_config")
    names: set[str] = set()
    for section in (raw.get("components"), onnx.get("components") if isinstance(onnx, dict) else None):
        for key, component in section.items() if isinstance(section, dict) else ():
            names |= {str(key), str(component.get("name")) if isinstance(component, dict) else ""}
    return names


def _where(path: Path, raw: LinedDict, keys: KeyPath) -> str:
    place_in_file = place_of(raw, keys)
    source, line = place_in_file if place_in_file is not None and place_in_file[1] else (path, None)
    return place(source, line, keys)


_LOADED_FROM_WORKSPACE = "dropped: artifacts come from the workspace"
_WARM_UP = "dropped: `runtime bench` warms up until the latency is stable"
_LOG = "dropped: give --log-file to a tool"
_METRICS = "dropped: the metrics have thresholds and ranges of their own (evaluator evaluate --help)"
# Keys without a counterpart here: the value that means the same as none, and the note.
_DROPPED: Mapping[KeyPath, tuple[Any, str]] = {
    ("deploy_log_path",): ("", _LOG),
    ("output_path",): ("", _LOG),
    ("export", "work_dir"): (None, "dropped: give --work to a tool"),
    ("export", "device"): (None, "dropped: the export runs on the CPU"),
    ("export", "tensorrt_path"): (None, _LOADED_FROM_WORKSPACE),
    ("codebase_config",): (None, "dropped: model.type says what the model is"),
    ("custom_imports",): (None, "dropped: nothing that a config names is imported"),
    ("backend_config", "common_config", "max_batch_size"): (None, "dropped: the profile of an input says its batch"),
    ("backend_config", "common_config", "device_id"): (0, "dropped: devices.cuda says which GPU"),
    ("backend_config", "common_config", "disable_optimizations"): (
        False,
        "dropped: precision_policy says what layers compute in, and the build proves it",
    ),
    ("onnx_config", "export_params"): (True, "dropped: exported files always hold their weights"),
    ("onnx_config", "keep_initializers_as_inputs"): (False, "dropped: weights are never inputs of the graph"),
    ("onnx_config", "visualize_qdq_values"): (None, "dropped: it only changes how a viewer shows the file"),
    ("onnx_config", "input_shape"): (None, "dropped: the traced sample decides"),
    ("onnx_config", "model_wrapper"): (None, "dropped: the model's exporter knows what its graph answers"),
    ("onnx_config", "decode_in_inference"): (
        None,
        "dropped, as AWML's exporter ignores it; model.options.output: decoded exports boxes in pixels",
    ),
    ("onnx_config", "type"): ("onnx", "dropped: the export makes nothing else"),
    ("onnx_config", "verbose"): (None, "dropped: --debug shows more"),
    ("runtime_io", "img_prefix"): ("", "dropped: image paths are relative to data.root"),
    **{
        ("evaluation", "backends", backend, key): (None, _LOADED_FROM_WORKSPACE)
        for backend in ("pytorch", "onnx", "tensorrt")
        for key in ("model_dir", "engine_dir", "checkpoint")
    },
    ("evaluation", "models"): ({}, "its paths are dropped: artifacts come from the workspace"),
    ("evaluation", "num_warmup"): (None, _WARM_UP),
    ("evaluation", "num_warmup_samples"): (None, _WARM_UP),
    ("frame_id",): (None, "dropped: boxes are in the frame of the points"),
    ("perception_evaluator_configs",): (None, _METRICS),
    ("critical_object_filter_config",): (None, _METRICS),
    ("frame_pass_fail_config",): (None, _METRICS),
}


def _convert(config: AwmlConfig, model_type: str | None, notes: Notes) -> dict[str, Any]:
    export = _export_section(config, notes)
    model_type = model_type or model_of_task(config.task_type)
    model = deployed(model_type)
    if model_type is None:
        notes.changed((), f"the file does not say which model it is for; {NAME_THE_MODEL}")
    for keys, (harmless, text) in _DROPPED.items():
        if notes.value(*keys) is not None:
            notes.dropped(keys, text, changed=notes.value(*keys) != harmless)
    quantization = convert_quantization(config.quantization, notes)
    components = convert_components(config, model, notes)
    options = model_options(components, model, notes)
    opset_version = LOWEST_OPSET if model is None or awmls_io(components, model) is None else model.opset_version
    from_mmdeploy = config.export is None
    sections = {
        "task_type": config.task_type or (model.task if model is not None else None),
        "model": _model(config, export, model_type, options, quantization, notes),
        "devices": _devices(config, export, notes),
        "data": _data(config, export, notes),
        "export": _export(config, export, opset_version, notes),
        "components": components,
        "tensorrt": _tensorrt(config, notes),
        "verification": None if from_mmdeploy else _verification(config, export, notes),
        "evaluation": None if from_mmdeploy else _evaluation(config, notes),
        "quantization": quantization.section,
    }
    return {name: section for name, section in sections.items() if section not in (None, {})}


def _export_section(config: AwmlConfig, notes: Notes) -> AwmlExport:
    """AWML's section ``export``, or what mmdeploy's form says in its place.

    Raises:
        ConfigError: neither is there.
    """
    backend = config.backend_config
    if config.export is not None:
        if backend is not None and backend.type is not None:
            notes.dropped(("backend_config", "type"), "dropped: export.mode says what is made", changed=False)
        return config.export
    if gives_only_sizes(notes.raw):
        return AwmlExport()
    if backend is None or config.codebase_config is None:
        raise as_error(
            [
                (
                    _where(notes.path, notes.raw, ("export",)),
                    "is missing; AWML's form has it (export = dict(mode='both')), mmdeploy's has codebase_config and "
                    "backend_config in its place",
                )
            ]
        )
    mode = "onnx" if backend.type == "onnxruntime" else "both"
    notes.changed(("backend_config", "type"), f"in mmdeploy's form it says what is made: export.mode is {mode} here")
    return AwmlExport.model_validate({"mode": mode})


def _model(
    config: AwmlConfig,
    export: AwmlExport,
    model_type: str | None,
    options: dict[str, Any],
    quantization: Quantization,
    notes: Notes,
) -> dict[str, Any]:
    model: dict[str, Any] = {"type": model_type} if model_type is not None else {}
    training: KeyPath | None = ("model_cfg",) if config.model_cfg is not None else quantization.training_config
    if training is not None:
        model["config"] = _path(training, ("model", "config"), notes)
    if quantization.training_config not in (None, training):
        notes.changed(
            quantization.training_config or (),
            "dropped: model_cfg names the training config; for exporter quantize qat, say --set model.config=PATH",
        )
    checkpoint = _checkpoint(config, export, quantization, notes)
    if checkpoint is not None:
        model["checkpoint"] = _path(checkpoint, ("model", "checkpoint"), notes)
    return {**model, "options": options} if options else model


def _checkpoint(config: AwmlConfig, export: AwmlExport, quantization: Quantization, notes: Notes) -> KeyPath | None:
    """Key path of the weights that ours starts from; None where the file names none."""
    top = ("checkpoint_path",) if config.checkpoint_path else None
    if top is not None and export.checkpoint_path not in (None, config.checkpoint_path):
        notes.changed(("export", "checkpoint_path"), "dropped: checkpoint_path at the top names the weights")
    named = top or (("export", "checkpoint_path") if export.checkpoint_path else None)
    if not quantization.takes_quantized_weights:
        return named
    if named is not None:
        missing = "" if quantization.checkpoint is not None else "; give those with --set model.checkpoint=PATH"
        notes.changed(
            named,
            "dropped: it names weights that AWML's tool has quantized, here `exporter quantize` makes them of those in "
            f"float, in the workspace{missing}",
        )
    return quantization.checkpoint


def _path(source: KeyPath, target: KeyPath, notes: Notes) -> str:
    """The path that the file has at ``source``."""
    path = str(notes.value(*source))
    notes.moved(source, target)
    if not PurePosixPath(path).is_absolute():
        notes.changed(
            source,
            "a relative path starts from this file's folder here; in AWML, and in --set, from the current directory",
        )
    return path


def _devices(config: AwmlConfig, export: AwmlExport, notes: Notes) -> dict[str, str] | None:
    source = ("devices",) if config.devices is not None else ("verification", "devices")
    aliases = config.devices if config.devices is not None else config.verification.devices
    for keys, ignored in (
        (("verification", "devices"), config.verification.devices),
        (("evaluation", "devices"), config.evaluation.devices),
    ):
        if ignored and keys != source:
            changed = dict(ignored) != dict(aliases)
            notes.dropped(keys, "dropped, as AWML ignores it: aliases belong in devices", changed=changed)
    notes.moved(source, ("devices",))
    devices = {name: device for name, device in aliases.items() if device is not None}
    if not devices and export.cuda_device is not None:
        notes.moved(("export", "cuda_device"), ("devices", "cuda"))
        return {"cpu": "cpu", "cuda": export.cuda_device}
    if devices.get("cuda", "cuda:0") not in ("cuda", "cuda:0"):
        notes.changed((*source, "cuda"), "scenarios use it here; in AWML, their 'cuda' is always cuda:0")
    return devices or None


def _data(config: AwmlConfig, export: AwmlExport, notes: Notes) -> dict[str, Any]:
    data: dict[str, Any] = {"format": "info"}
    if config.data_root is not None:
        data["root"] = _path(("data_root",), ("data", "root"), notes)
    for key in ("info_file", "info_pkl", "ann_file"):
        if notes.value("runtime_io", key):
            data["info_file"] = notes.value("runtime_io", key)
            notes.moved(("runtime_io", key), ("data", "info_file"))
            notes.changed(
                ("runtime_io", key), "is relative to data.root, which AWML takes from the training config; give --data"
            )
            break
    if config.class_names is not None:
        data["classes"] = list(config.class_names)
        notes.moved(("class_names",), ("data", "classes"))
    source = ("export", "sample_idx") if export.sample_idx is not None else ("runtime_io", "sample_idx")
    if export.sample_idx is not None and notes.value("runtime_io", "sample_idx") is not None:
        changed = notes.value("runtime_io", "sample_idx") != export.sample_idx
        notes.dropped(("runtime_io", "sample_idx"), "dropped: export.sample_idx is the traced sample", changed=changed)
    if notes.value(*source) is not None:
        data["sample_idx"] = notes.value(*source)
        notes.moved(source, ("data", "sample_idx"))
    return data


def _export(config: AwmlConfig, export: AwmlExport, lowest_opset: int, notes: Notes) -> dict[str, Any]:
    onnx = config.onnx_config
    notes.moved(("export",), ("export",))
    for key in ("opset_version", "do_constant_folding", "simplify"):
        notes.moved(("onnx_config", key), ("export", key))
    if onnx.opset_version < lowest_opset:
        notes.changed(("onnx_config", "opset_version"), f"raised from {onnx.opset_version} to {lowest_opset}")
    result: dict[str, Any] = {
        "mode": export.mode,
        "opset_version": max(onnx.opset_version, lowest_opset),
        "do_constant_folding": onnx.do_constant_folding,
        "simplify": "onnxsim" if onnx.simplify else "none",
    }
    source = ("export", "onnx_path") if export.onnx_path else ("runtime_io", "onnx_file")
    onnx_path = export.onnx_path or config.runtime_io.onnx_file
    if onnx_path:
        if export.mode in ("trt", "none"):
            result["onnx_path"] = onnx_path
            notes.moved(source, ("export", "onnx_path"))
        else:
            notes.changed(source, f"dropped: AWML does not read it in mode {export.mode}")
    elif export.mode == "trt":
        notes.changed(("export", "mode"), "without export.onnx_path, the ONNX files that the workspace holds are built")
    return result


def _tensorrt(config: AwmlConfig, notes: Notes) -> dict[str, Any]:
    source: KeyPath = ("tensorrt_config",)
    settings = config.tensorrt_config
    if config.backend_config is not None:
        if settings is None:
            source = ("backend_config", "common_config")
            settings = config.backend_config.common_config
        else:
            notes.changed(("backend_config",), "dropped: tensorrt_config says how engines are built")
    if settings is None:
        return {}
    result: dict[str, Any] = {
        "precision_policy": _precision_policy(settings, source, notes),
        "max_workspace_size": settings.max_workspace_size,
    }
    notes.moved((*source, "max_workspace_size"), ("tensorrt", "max_workspace_size"))
    if settings.plugin_libraries:
        result["plugin_libraries"] = list(settings.plugin_libraries)
        notes.moved((*source, "plugin_libraries"), ("tensorrt", "plugin_libraries"))
    return result


def _precision_policy(settings: AwmlTensorRT, source: KeyPath, notes: Notes) -> str:
    target = ("tensorrt", "precision_policy")
    notes.moved((*source, "precision_policy"), target)
    if settings.precision_policy is not None:
        if settings.precision_policy == "int8":
            notes.changed((*source, "precision_policy"), "int8 needs Q/DQ nodes in the graph here")
        return settings.precision_policy
    for key, policy in (("strongly_typed", "strongly_typed"), ("fp16_mode", "fp16")):
        if notes.value(*source, key):
            notes.moved_into((*source, key), target, policy)
            return policy
    return "auto"


def _verification(config: AwmlConfig, export: AwmlExport, notes: Notes) -> dict[str, Any]:
    source = config.verification
    notes.moved(("verification",), ("verification",))
    enabled = source.enabled
    if export.verify is not None:
        enabled = enabled and export.verify
        notes.moved(("export", "verify"), ("verification", "enabled"))
    result: dict[str, Any] = {
        "enabled": enabled,
        "num_verify_samples": source.num_verify_samples,
        "tolerance": source.tolerance,
    }
    if not source.scenarios:
        if enabled and export.verify is None:
            notes.changed(("verification",), "AWML compares nothing without scenarios; here the default ones are used")
        return result
    result["scenarios"] = {
        mode: [scenario.model_dump(mode="json") for scenario in source.scenarios.get(mode, ())]
        for mode in ("both", "onnx", "trt", "none")
    }
    if enabled and export.mode != "none" and not source.scenarios.get(export.mode):
        result["enabled"] = False
        notes.changed(
            ("verification", "scenarios"),
            f"none for mode {export.mode}: AWML compares nothing and passes; verification is off here",
        )
    return result


def _evaluation(config: AwmlConfig, notes: Notes) -> dict[str, Any]:
    source = config.evaluation
    notes.moved(("evaluation",), ("evaluation",))
    former_devices: dict[Backend, str | None] = {
        "pytorch": source.pytorch_device,
        "onnx": source.onnx_device,
        "tensorrt": source.tensorrt_device,
    }
    backends: dict[str, Any] = {}
    for name, former_device in former_devices.items():
        former = name in source.models_to_evaluate or bool(source.models.get(name))
        settings = source.backends.get(name)
        backends[name] = {"enabled": former if settings is None else settings.enabled}
        if settings is not None and settings.device is not None:
            backends[name]["device"] = settings.device
        elif former_device is not None:
            backends[name]["device"] = former_device
            notes.moved(("evaluation", f"{name}_device"), ("evaluation", "backends", name, "device"))
    notes.moved(("evaluation", "models_to_evaluate"), ("evaluation", "backends"))
    return {
        "enabled": source.enabled,
        "num_samples": source.num_samples,
        "verbose": source.verbose,
        "backends": backends,
    }
