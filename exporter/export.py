"""`exporter export`: a trained model becomes ONNX files, torch.export programs, a model spec and a reference."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import models
from exporter.adopt import adopt
from exporter.artifacts.checks import check_onnx
from exporter.artifacts.given_onnx import check_given, commands_to_bisect, given_digest, take_onnx
from exporter.artifacts.onnx_export import export_onnx
from exporter.artifacts.programs import check_program, export_program
from exporter.artifacts.simplify import simplify
from exporter.artifacts.stamp import stamp
from exporter.checkpoints import checkpoint_digest
from exporter.component import Component
from exporter.devices import resolved_device, torch_device
from exporter.follow_up import arguments_of
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.quantize.before_rounding import BeforeRounding
from exporter.quantize.settings import check_settings
from exporter.quantized_model import check_quantized_onnx, check_quantized_program, load_model, quantized_input
from exporter.reference import BACKEND, FOLDER, record_reference
from exporter.replaced import warn_of_another_model
from exporter.training_config import TrainingConfig, checkpoint_of, training_config_of
from exporter.versions import stage_versions
from shared import trust
from shared.config import load_config, part, resolved
from shared.data import Dataset, open_dataset
from shared.errors import ConfigError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.provenance import package_versions
from shared.runs import RunHeader
from shared.spec import ModelSpec
from shared.stages import StageRun
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

_log = logging.getLogger("exporter")

# What an export depends on beside the config and the files.
_PACKAGES = (
    "torch", "mmengine", "mmdet", "mmdet3d", "mmcv", "mmcv-lite", "numpy", "onnx", "onnxruntime", "onnxscript",
    "onnxsim", "onnxslim", "onnx-graphsurgeon", "polygraphy",
)  # fmt: skip


def export(
    config_path: Path,
    work: Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    force: bool = False,
) -> None:
    """Export a model to a workspace.

    Args:
        config_path: the deploy config.
        work: the workspace; made when it is not there.
        overrides: ``key=value`` for the config.
        device: where the framework reference runs, a device or an alias of the config; tracing and checks are on the
            CPU.
        data_root: where the data set lies, when not where the config says.
        force: export although nothing changed.

    Raises:
        ConfigError, ModelLoadError, InputError, ExportError, EnvironmentLacks: as the steps below say.
    """
    config = load_config(config_path, overrides)
    device_name = resolved_device(config, device)
    workspace = Workspace.create(work)
    given = config.export.onnx_path  # only the modes trt and none have one
    if config.export.mode in ("trt", "none") and (given is None or config.model.checkpoint is None):
        _without_training(config, workspace, given, force=force)
        return
    _check_task(config, _known_task(config, workspace))
    training = training_config_of(config)
    weights = checkpoint_digest(checkpoint_of(config))
    quantized = _quantized(config, workspace, arguments_of(config_path, work, overrides, data_root))
    dataset = open_dataset(config.data, root=data_root, task=config.task_type)
    reference_samples = min(config.verification.num_verify_samples, len(dataset))
    stage = workspace.stage(
        "export",
        tool="exporter",
        config={**_relevant(config), "device": device_name, "reference_samples": reference_samples},
        inputs={
            "checkpoint": weights,
            "training_config": training.digest,
            "dataset": dataset.digest(),
            **({} if given is None else {"onnx": given_digest(given)}),
            **quantized,
        },
        versions=stage_versions(_PACKAGES, config),
    )
    if not force and stage.up_to_date():
        _record_config(workspace, config)
        return
    adapter = models.find(config.model.type)
    warn_of_another_model(workspace, config.model.type)
    with stage:
        _log.debug("export runs because of %s", "; ".join(stage.changes()))
        reference_device = torch_device(device_name, device)
        options = adapter.read_options(config.model.options)
        model = models.build(adapter, training, options)
        layers = BeforeRounding(load_model(model, config, workspace))
        parameters = models.parameters(adapter, model, training, options)
        load = partial(models.load_input, adapter, training, parameters=parameters)
        components = [
            _configured(component, config)
            for component in models.components(
                adapter, model, load(_sample(config.data.sample_idx, dataset)), training, options
            )
        ]
        _check_component_names(config, components)

        spec = ModelSpec(
            model=config.model.type,
            task=adapter.TASK,
            classes=models.classes(adapter, model, training),
            components=[
                component.spec(f"onnx/{_onnx_file(component, config)}", _program_path(component))
                for component in components
            ],
            parameters=parameters,
        )
        origin = _origin(config, training, weights) | {f"{key}_sha256": value for key, value in quantized.items()}
        agreements: dict[str, Any] = {}
        commands, keep = commands_to_bisect(config_path, work, overrides, data_root), config.export.mode == "none"
        for component in components:
            with _announced(stage, spec.component(component.name).onnx, "onnx") as path:
                if given is None:
                    opset_version = _write_onnx(component, path, config, spec, origin)
                else:
                    opset_version = take_onnx(given, _onnx_file(component, config), path)
                check = partial(check_quantized_onnx if quantized else check_onnx, path, component, opset_version)
                against_onnx = check() if given is None else check_given(check, commands, keep=keep)
                layers.add(path, component, model)
            with _announced(stage, _program_path(component), "program") as path:
                against_program = export_program(
                    component, path, check_quantized_program if quantized else check_program
                )
            agreements[component.name] = {
                "onnx": [asdict(agreement) for agreement in against_onnx],
                "program": [asdict(agreement) for agreement in against_program],
            }

        layers.keep(stage, model)
        header = _reference_header(spec, dataset, reference_samples, device_name, stage.fingerprint)
        for name in record_reference(
            adapter, model.to(reference_device), dataset, load, stage.folder(FOLDER), header, resume=not force
        ):
            stage.add_artifact(f"{FOLDER}/{name}", "reference")
        stage.spec(spec)
        stage.config(resolved(config))
        stage.result("export", "agreement", agreements)
    _log.info(
        "export: done, %d components and the framework's answers on %d samples", len(components), len(header.tokens)
    )


def _known_task(config: DeployConfig, workspace: Workspace) -> str:
    """The task of the model's kind. The last export wrote it down, where there is one: adapters import PyTorch."""
    spec = workspace.manifest().spec
    return spec.task if spec is not None and spec.model == config.model.type else models.find(config.model.type).TASK


# -- what the export depends on ---------------------------------------------------------------------------------------


def _quantized(config: DeployConfig, workspace: Workspace, arguments: str) -> dict[str, str]:
    """`quantized_input`, made as the config says: what is recorded of an export is what it is of.

    Raises:
        InputError: it is not there, or was made with other settings.
    """
    inputs = quantized_input(config, workspace, arguments)
    check_settings(config, workspace, arguments)
    return inputs


def _relevant(config: DeployConfig) -> dict[str, Any]:
    """The part of the config that the files depend on; engine settings, for example, don't count."""
    chosen = part(config, "model", "export")
    components = part(config, "components")["components"]
    return {
        **chosen,
        "components": {name: {"onnx_file": c["onnx_file"], "io": c["io"]} for name, c in components.items()},
        "sample_idx": config.data.sample_idx,
    }


def _origin(config: DeployConfig, training: TrainingConfig, weights: str) -> dict[str, str]:
    versions = package_versions(("torch", "mmdet3d"))
    return {
        "checkpoint_sha256": weights,
        "config_name": training.path.name,
        "training_config_sha256": training.digest,
        "framework": f"torch {versions.get('torch')}, mmdet3d {versions.get('mmdet3d')}",
        "onnx_exporter": config.export.exporter,
        "simplifier": config.export.simplify,
    }


def _record_config(workspace: Workspace, config: DeployConfig) -> None:
    """Keep the manifest's config the one in use: later stages read tolerances and the like from there."""
    value = resolved(config)
    if workspace.manifest().config == value and trust.config_is_sealed(workspace.manifest()):
        return

    def change(manifest: Manifest) -> None:
        manifest.config = value
        trust.seal(manifest, config=True)

    update_manifest(workspace.root / MANIFEST_NAME, change)


def _without_training(config: DeployConfig, workspace: Workspace, given: Path | None, *, force: bool) -> None:
    """A workspace without a checkpoint: of ONNX files that are in it already, or of one made elsewhere."""
    if given is None:
        _log.info("export: nothing to do, export.mode is %s", config.export.mode)
    else:
        adapter = models.find(config.model.type)
        _check_task(config, adapter.TASK)
        if config.quantization.enabled:
            raise ConfigError(
                "is true, and there is no model.checkpoint to quantize",
                where="quantization.enabled",
                hint="set it to false: Q/DQ nodes that the given file has are kept",
            )
        adopt(config, workspace, given, adapter, force=force)
    _record_config(workspace, config)


# -- steps ------------------------------------------------------------------------------------------------------------


def _write_onnx(
    component: Component, path: Path, config: DeployConfig, spec: ModelSpec, origin: Mapping[str, str]
) -> int:
    """Export a component, simplify the file if the config says so, and stamp it; returns its opset."""
    export_onnx(
        component,
        path,
        exporter=config.export.exporter,
        opset_version=config.export.opset_version,
        do_constant_folding=config.export.do_constant_folding,
    )
    simplify(path, config.export.simplify, component.name)
    stamp(path, spec, component.name, origin)
    return config.export.opset_version


def _check_task(config: DeployConfig, task: str) -> None:
    """Raises ConfigError where the config asks for what this model does not do."""
    if config.task_type != task:
        raise ConfigError(
            f"is {config.task_type}, but model.type {config.model.type} does {task}",
            where="task_type",
            hint=f"write task_type: {task}",
        )


def _configured(component: Component, config: DeployConfig) -> Component:
    """The component with the dynamic axes that the config asks for, after checking the tensors that it names.

    Raises:
        ConfigError: the config names tensors or axes that the model does not have.
    """
    settings = config.components.get(component.name)
    if settings is None:
        return component
    for kind, named, own in (
        ("inputs", settings.io.inputs, component.inputs),
        ("outputs", settings.io.outputs, component.outputs),
    ):
        wanted = [(tensor.name, tensor.dtype) for tensor in named]
        actual = [(tensor.name, tensor.dtype) for tensor in own]
        if wanted and wanted != actual:
            raise ConfigError(
                f"names {wanted}, the model has {actual}", where=f"components.{component.name}.io.{kind}",
                hint="leave it out: the export knows its tensors",
            )  # fmt: skip
    if settings.io.dynamic_axes is None:
        return component
    return component.with_dynamic_axes(settings.io.dynamic_axes)


def _check_component_names(config: DeployConfig, components: Sequence[Component]) -> None:
    names = [component.name for component in components]
    for name in config.components:
        if name not in names:
            raise ConfigError(
                f"the model has no component '{name}'", where=f"components.{name}", hint=f"it has {', '.join(names)}"
            )


def _onnx_file(component: Component, config: DeployConfig) -> str:
    settings = config.components.get(component.name)
    return settings.onnx_file if settings is not None else f"{component.name}.onnx"


def _program_path(component: Component) -> str:
    return f"pytorch/{component.name}.pt2"


@contextlib.contextmanager
def _announced(stage: StageRun, relative: str, kind: str) -> Iterator[Path]:
    _log.info("export: %s", relative)
    with stage.artifact(relative, kind=kind) as path:
        yield path


def _reference_header(spec: ModelSpec, dataset: Dataset[Any], count: int, device: str, fingerprint: str) -> RunHeader:
    return RunHeader(
        backend=BACKEND,
        device=device,
        model=spec.model,
        task=spec.task,
        classes=spec.classes,
        dataset=dataset.digest(),
        tokens=[dataset.sample(index).token for index in range(count)],
        raw_samples=list(range(count)),
        fingerprint=fingerprint,
        details={"voxelization": provide_mmcv_ops(), **package_versions(_PACKAGES)},
    )


def _sample(index: int, dataset: Dataset[Any]) -> Any:
    if index >= len(dataset):
        raise ConfigError(
            f"is {index}, the data set has {len(dataset)} samples", where="data.sample_idx", hint="0 is the first"
        )
    return dataset.sample(index)
