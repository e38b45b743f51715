"""The components of AWML's deploy configs as ours, in all of its forms: names, files, tensors and sizes.

The newest form has a section ``components``. Before it were ``onnx_config.components``, ``onnx_config.save_file`` with
``model_io`` or ``input_names``, and sizes in ``backend_config.model_inputs``. Where the model is known, its own names
of components and tensors are put in: AWML calls those of a model in one part as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from shared.config.awml_models import Deployed, Tensors
from shared.config.awml_notes import Notes
from shared.config.awml_schema import AwmlComponent, AwmlConfig, AwmlOnnx, AwmlProfile
from shared.config.walk import KeyPath

Component = dict[str, Any]
_MODEL_INPUTS: KeyPath = ("backend_config", "model_inputs")
_SIZES = "tensorrt_config"
# Keys of model_io, and of onnx_config before it, and the keys of a component.
_FORMER_IO = {
    "input_names": ("io", "inputs"),
    "input_name": ("io", "inputs"),
    "input_dtype": ("io", "inputs"),
    "additional_inputs": ("io", "inputs"),
    "output_names": ("io", "outputs"),
    "output_name": ("io", "outputs"),
    "additional_outputs": ("io", "outputs"),
    "head_output_names": ("io", "outputs"),
    "dynamic_axes": ("io", "dynamic_axes"),
    "input_shape": ("tensorrt_profile",),
}


def convert_components(config: AwmlConfig, model: Deployed | None, notes: Notes) -> dict[str, Component]:
    """The section ``components``.

    Args:
        config: AWML's config.
        model: what our model says of itself; None where it is unknown.
        notes: takes what was dropped, and what has another name.
    """
    if config.components is not None:
        components: dict[str, Component] = {}
        only = _only(model) if len(config.components) == 1 else None
        for key, given in config.components.items():
            name = only or given.name or key
            notes.moved(("components", key), ("components", name))
            components[name] = _component(("components", key), given, notes)
    else:
        components = _former_components(config, model, notes)
    for name, profile in _former_profiles(config):
        _give(components, name, profile, model, notes)
    for name, component in components.items():
        _with_our_tensors(name, component, model, notes)
    return components


def spelled_out(raw: Mapping[str, Any], model: Deployed | None) -> Mapping[str, Any]:
    """A config whose ``tensorrt_config`` holds sizes of tensors and nothing else, in the form of AWML's framework.

    So are those of the script that AWML deploys FRNet with. It takes 4 GiB, and names the file after the model.
    """
    if not gives_only_sizes(raw):
        return raw
    rest = {key: value for key, value in raw.items() if key != _SIZES}
    settings = {"common_config": {"max_workspace_size": 4 << 30}, "model_inputs": [{"input_shapes": raw[_SIZES]}]}
    onnx = raw.get("onnx_config", {})
    named = {"save_file": f"{_only(model) or 'model'}.onnx", **onnx} if isinstance(onnx, Mapping) else onnx
    return {**rest, "backend_config": settings, "onnx_config": named}


def as_written(keys: KeyPath, raw: Mapping[str, Any]) -> KeyPath:
    """Where the file has a key of what `spelled_out` made of it."""
    moved = (*_MODEL_INPUTS, 0, "input_shapes")
    return (_SIZES, *keys[len(moved) :]) if gives_only_sizes(raw) and keys[: len(moved)] == moved else keys


def gives_only_sizes(raw: Mapping[str, Any]) -> bool:
    """Whether a config has the form that `spelled_out` describes."""
    sizes = raw.get(_SIZES)
    return (
        isinstance(sizes, Mapping)
        and bool(sizes)
        and all(isinstance(shapes, Mapping) for shapes in sizes.values())
        and "backend_config" not in raw
    )


def model_options(components: Mapping[str, Component], model: Deployed | None, notes: Notes) -> dict[str, Any]:
    """``model.options`` with what the config says of the network: its form, its output's name, the images per call."""
    if model is None:
        return {}
    options = _batch_option(components, model, notes)
    if (io := awmls_io(components, model)) is not None:
        for key, value in model.options.items():
            options[key] = value
            notes.moved_into(("onnx_config",), ("model", "options", key), str(value))
        for tensor in io["outputs"]:
            name = tensor["name"]
            if model.output_option is not None and name in model.output_names and (name,) != _first(model).outputs:
                options[model.output_option] = name
                notes.moved_into(("onnx_config", "output_names"), ("model", "options", model.output_option), name)
    return options


def awmls_io(components: Mapping[str, Component], model: Deployed | None) -> Mapping[str, Any] | None:
    """The tensors that a config names, if they are those of a network that is ours with `Deployed.options` only."""
    if model is None or not model.options:
        return None
    io = components.get(next(iter(model.components)), {}).get("io", {})
    named = tuple(tensor["name"] for tensor in io.get("inputs", ()))
    return io if named == _first(model).inputs else None


def _first(model: Deployed) -> Tensors:
    return next(iter(model.components.values()))


def _batch_option(components: Mapping[str, Component], model: Deployed, notes: Notes) -> dict[str, Any]:
    if model.batch_option is None:
        return {}
    component = components.get(next(iter(model.components)), {})
    image = _first(model).inputs[0]
    sizes = component.get("tensorrt_profile", {}).get(image)
    if 0 in component.get("io", {}).get("dynamic_axes", {}).get(image, {}):
        batch: int | str = "dynamic"
    elif sizes is not None:
        batch = sizes["max_shape"][0]
    else:
        return {}
    source: KeyPath = ("model_io", "batch_size") if notes.value("model_io") is not None else ("components",)
    if notes.value("onnx_config", "dynamic_axes") is not None:
        source = ("onnx_config", "dynamic_axes")
    notes.moved_into(source, ("model", "options", model.batch_option), str(batch))
    return {model.batch_option: batch}


# -- the newest form --------------------------------------------------------------------------------------------------


def _component(keys: KeyPath, component: AwmlComponent, notes: Notes) -> Component:
    result: Component = {
        "onnx_file": component.onnx_file,
        "engine_file": component.engine_file,
        "io": {
            "inputs": [{"name": tensor.name, "dtype": tensor.dtype} for tensor in component.io.inputs],
            "outputs": [{"name": tensor.name, "dtype": tensor.dtype} for tensor in component.io.outputs],
            "dynamic_axes": {tensor: dict(axes) for tensor, axes in (component.io.dynamic_axes or {}).items()},
        },
    }
    for kind, tensors in (("inputs", component.io.inputs), ("outputs", component.io.outputs)):
        if any(tensor.shape is not None for tensor in tensors):
            notes.changed((*keys, "io", kind), "shape dropped, as AWML ignores it: the traced sample decides")
    for tensor, shapes in (component.tensorrt_profile or {}).items():
        profile = _profile(shapes)
        if profile is None:
            notes.changed(
                (*keys, "tensorrt_profile", tensor),
                "dropped: min_shape, opt_shape and max_shape are not all given; the model spec's sizes are used",
            )
        else:
            result.setdefault("tensorrt_profile", {})[tensor] = profile
    return result


def _profile(shapes: AwmlProfile) -> dict[str, list[int]] | None:
    named = {"min_shape": shapes.min_shape, "opt_shape": shapes.opt_shape, "max_shape": shapes.max_shape}
    profile = {key: list(shape) for key, shape in named.items() if shape is not None}
    return profile if len(profile) == len(named) else None


# -- the older forms --------------------------------------------------------------------------------------------------


def _former_components(config: AwmlConfig, model: Deployed | None, notes: Notes) -> dict[str, Component]:
    onnx = config.onnx_config
    if onnx.components or (model is not None and len(model.components) > 1):
        return _in_parts(onnx, model, notes)
    if onnx.save_file is None and config.model_io is None:
        return {}
    file = PurePosixPath(onnx.save_file or "model.onnx")
    name = _only(model) or file.stem
    component: Component = {"onnx_file": str(file), "engine_file": str(file.with_suffix(".engine"))}
    notes.moved(("onnx_config", "save_file"), ("components", name, "onnx_file"))
    if (io := _former_io(config)) is not None:
        component["io"] = io
        source = "onnx_config" if config.model_io is None else "model_io"
        for key, target in _FORMER_IO.items():
            notes.moved((source, key), ("components", name, *target))
    return {name: component}


def _in_parts(onnx: AwmlOnnx, model: Deployed | None, notes: Notes) -> dict[str, Component]:
    """The parts that ``onnx_config.components`` names, or else the model's own, with the files that it names."""
    components: dict[str, Component] = {}
    for key, part in onnx.components.items():
        components[part.name] = {"onnx_file": part.onnx_file, "engine_file": part.engine_file}
        notes.moved(("onnx_config", "components", key), ("components", part.name))
    if not components and model is not None:
        components = {name: {} for name in model.components}
    for keys in (("model_io",), *(("onnx_config", key) for key in ("save_file", "multi_file", *_FORMER_IO))):
        if notes.value(*keys) is not None:
            text = f"dropped: the model is exported in parts, {' and '.join(components)}"
            notes.dropped(keys, text, changed=keys[-1] != "multi_file")
    return components


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
    """Input name and sizes, from the fixed shape of ``model_io``, then from ``backend_config.model_inputs``."""
    model_io = config.model_io
    if model_io is not None and model_io.input_shape and model_io.batch_size is not None:
        yield model_io.input_name, _fixed((model_io.batch_size, *model_io.input_shape))
    entries = config.backend_config.model_inputs if config.backend_config is not None else None
    for entry in entries or ():
        for name, shapes in entry.input_shapes.items():
            yield name, _profile(shapes)
        if entry.name is not None and entry.shape is not None:
            yield entry.name, _fixed(entry.shape) if min(entry.shape) > 0 else None


def _fixed(shape: Sequence[int]) -> dict[str, list[int]]:
    return {key: list(shape) for key in ("min_shape", "opt_shape", "max_shape")}


def _give(
    components: dict[str, Component],
    tensor: str,
    profile: dict[str, list[int]] | None,
    model: Deployed | None,
    notes: Notes,
) -> None:
    """Give sizes to the component whose input they are."""
    inputs = {name: _inputs(name, component, model) for name, component in components.items()}
    owners = [name for name, tensors in inputs.items() if tensor in tensors or (not tensors and len(components) == 1)]
    source = (_SIZES, tensor) if gives_only_sizes(notes.raw) else _MODEL_INPUTS
    if not owners:
        there = ", ".join(name for tensors in inputs.values() for name in tensors)
        notes.changed(
            source,
            f"sizes of '{tensor}' dropped: no component has such an input{f'; there are {there}' if there else ''}",
        )
    elif profile is None:
        notes.changed(source, f"sizes of '{tensor}' dropped: they are not all given; the model spec's are used")
    else:
        components[owners[0]].setdefault("tensorrt_profile", {})[tensor] = profile
        notes.moved_into(source, ("components", owners[0], "tensorrt_profile"), tensor)


def _inputs(name: str, component: Component, model: Deployed | None) -> list[str]:
    """Names of a component's inputs, the config's and the model's own; empty where nobody says them."""
    named = [tensor["name"] for tensor in component.get("io", {}).get("inputs", ())]
    own = model.components[name].inputs if model is not None and name in model.components else ()
    return list(dict.fromkeys((*named, *own)))


# -- our names --------------------------------------------------------------------------------------------------------


def _only(model: Deployed | None) -> str | None:
    """Name of the component of a model in one part."""
    return next(iter(model.components)) if model is not None and len(model.components) == 1 else None


def _with_our_tensors(name: str, component: Component, model: Deployed | None, notes: Notes) -> None:
    """Put the model's own names of tensors in, where the config has as many under other names."""
    own = model.components.get(name) if model is not None else None
    if own is None or "io" not in component:
        return
    renamed: dict[str, str] = {}
    keeps = model is not None and any(tensor["name"] in model.output_names for tensor in component["io"]["outputs"])
    for kind, names in (("inputs", own.inputs), ("outputs", None if keeps else own.outputs)):
        tensors = component["io"][kind]
        if names is not None and len(names) == len(tensors):
            renamed |= {tensor["name"]: own_name for tensor, own_name in zip(tensors, names, strict=True)}
    for old, new in renamed.items():
        if old != new:
            notes.changed((), f"tensor '{old}' is '{new}' here: the model's exporter names it")
    for kind in ("inputs", "outputs"):
        named = [{**tensor, "name": renamed.get(tensor["name"], tensor["name"])} for tensor in component["io"][kind]]
        component["io"][kind] = [
            {"name": tensor["name"], "dtype": own.dtypes[tensor["name"]], **tensor}
            if tensor["name"] in own.dtypes
            else tensor
            for tensor in named
        ]
    for holder, key in ((component["io"], "dynamic_axes"), (component, "tensorrt_profile")):
        if key in holder:
            holder[key] = {renamed.get(tensor, tensor): value for tensor, value in holder[key].items()}
