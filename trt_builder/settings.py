"""From the deploy config and the workspace to what is built: one `Job` per component, every default filled in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import ConfigError
from shared.files import sha256_of_file
from shared.workspace import Workspace
from trt_builder import onnx_graph, policies, profiles, ranges
from trt_builder.policies import Resolved
from trt_builder.profiles import Profile, Sizes

if TYPE_CHECKING:
    import onnx

    from shared.config import DeployConfig

_log = logging.getLogger("settings")


@dataclass(frozen=True)
class Options:
    """Builder options after defaulting; part of the engine's key, so every field is JSON.

    The fields are those of the config's section ``tensorrt``; `plugins` maps the path of a library to its sha256.
    """

    max_workspace_size: int
    optimization_level: int
    avg_timing_iterations: int
    max_aux_streams: int | None
    tactic_sources: list[str] | None
    version_compatible: bool
    hardware_compatibility: str
    strip_weights: bool
    refittable: bool
    dla_core: int | None
    gpu_fallback: bool
    plugins: dict[str, str]

    def as_key(self) -> dict[str, Any]:
        """The options without paths: a library that moved is not a new one."""
        return {**vars(self), "plugins": sorted(self.plugins.values())}


@dataclass(frozen=True)
class Job:
    """One engine to build.

    Attributes:
        component: name of the component.
        onnx: the ONNX file, checked against the manifest.
        onnx_hash: sha256 of its content, external data included.
        engine_file: name of the engine under ``tensorrt/<target>/``.
        policy: the precision policy on this graph.
        keep_fp32: the patterns behind ``policy.keep``.
        profiles: none when every input is fixed.
    """

    component: str
    onnx: Path
    onnx_hash: str
    engine_file: str
    policy: Resolved
    keep_fp32: tuple[str, ...]
    profiles: list[Profile]

    def as_key(self) -> dict[str, Any]:
        """What the engine depends on besides the ONNX file."""
        return {
            "policy": self.policy.policy.name,
            "tf32": self.policy.tf32,
            "keep_fp32": list(self.keep_fp32),
            "kept": self.policy.keep,
            "profiles": profiles.as_json(self.profiles),
            "engine_file": self.engine_file,
        }


def read_config(ws: Workspace, overrides: Sequence[str]) -> DeployConfig:
    """The deploy config in the manifest, with overrides.

    Raises:
        ManifestError: nothing was exported here yet, or by a version whose config differs.
        ConfigError: an override is wrong.
    """
    from shared.config import from_resolved
    from shared.config.load import build
    from shared.config.yaml_tree import Tree

    where = ws.root / "manifest.json"
    recorded = ws.config()
    config = from_resolved(recorded, str(where))
    return build(Tree(recorded, {}), where, overrides) if overrides else config


def options(config: DeployConfig) -> Options:
    """The builder options of a config.

    Raises:
        InputError: a plugin library is not there.
    """
    section = config.tensorrt
    return Options(
        max_workspace_size=section.max_workspace_size,
        optimization_level=section.optimization_level,
        avg_timing_iterations=section.avg_timing_iterations,
        max_aux_streams=section.max_aux_streams,
        tactic_sources=None if section.tactic_sources is None else sorted(section.tactic_sources),
        version_compatible=section.version_compatible,
        hardware_compatibility=section.hardware_compatibility,
        strip_weights=section.strip_weights,
        refittable=section.refittable,
        dla_core=section.dla_core,
        gpu_fallback=section.gpu_fallback,
        plugins={str(path): sha256_of_file(path) for path in section.plugin_libraries},
    )


def jobs(ws: Workspace, config: DeployConfig) -> list[Job]:
    """One job per component of the model spec, in its order; everything about them that can be checked is.

    Raises:
        ManifestError: an ONNX file is missing or not the one in the manifest.
        InputError: an ONNX file can't be read.
        ConfigError: a profile or policy that does not fit the graph; a component that the model does not have.
    """
    from shared.config.model_sections import Component

    spec = ws.spec()
    names = [component.name for component in spec.components]
    for name in config.components:
        if name not in names:
            raise ConfigError(
                f"the model has no component '{name}'", where=f"components.{name}", hint=f"it has {', '.join(names)}"
            )
    models = {component.name: _load(ws, component.onnx) for component in spec.components}
    quantized = [name for name, model in models.items() if onnx_graph.is_quantized(model)]
    found = []
    unknown = []
    for component in spec.components:
        section = config.components.get(component.name, Component(engine_file=f"{component.name}.engine"))
        path, model = ws.artifact(component.onnx), models[component.name]
        where = f"components.{component.name}"
        policy = section.precision_policy or config.tensorrt.precision_policy
        largest = ranges.largest_values(ws, component) if policies.POLICIES[policy].low == "fp16" else None
        if section.precision_policy is None and policies.POLICIES[policy].quantized and quantized:
            # What is not quantized in a graph runs in FP16, and so does a component of which nothing is.
            policy = policy if component.name in quantized else "fp16"
        configured = [
            {name: Sizes(shapes.min_shape, shapes.opt_shape, shapes.max_shape) for name, shapes in profile.items()}
            for profile in (section.tensorrt_profile, *section.extra_tensorrt_profiles)
        ]
        if largest == {}:
            unknown.append(component.name)
        found.append(
            Job(
                component=component.name,
                onnx=path,
                onnx_hash=onnx_graph.content_hash(path),
                engine_file=section.engine_file,
                policy=policies.resolve(
                    policy,
                    model,
                    section.keep_fp32,
                    where=f"{ws.root}/{component.onnx}",
                    largest=largest,
                ),
                keep_fp32=section.keep_fp32,
                profiles=profiles.resolve(
                    onnx_graph.graph_inputs(model), configured, spec, fixed=config.tensorrt.fixed_profile, where=where
                ),
            )
        )
    if unknown:
        _log.info("%s: only weights are checked against FP16's range; `runtime ranges` tells how large tensors get",
                  ", ".join(unknown))  # fmt: skip
    return found


def _load(ws: Workspace, relative: str) -> onnx.ModelProto:
    """An ONNX artifact, its external data checked like itself."""
    path = ws.artifact(relative)
    for external in sorted(onnx_graph.external_files(path)):
        ws.artifact(str(Path(relative).parent / external))
    return onnx_graph.load(path)
