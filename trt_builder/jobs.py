"""The engines that a deploy config asks for: one `Job` per component of the model, every default filled in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shared import onnx_graph
from shared.errors import ConfigError
from shared.fp16_range import largest_values
from shared.workspace import Workspace
from trt_builder import policies, profiles
from trt_builder.policies import Resolved
from trt_builder.profiles import Profile, Sizes

if TYPE_CHECKING:
    import onnx

    from shared.config import DeployConfig

_log = logging.getLogger("build")


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
        free_inputs: names of the inputs of which TensorRT chooses type and layout, see `io_formats`.
    """

    component: str
    onnx: Path
    onnx_hash: str
    engine_file: str
    policy: Resolved
    keep_fp32: tuple[str, ...]
    profiles: list[Profile]
    free_inputs: frozenset[str] = frozenset()

    def as_key(self) -> dict[str, Any]:
        """What the engine depends on besides the ONNX file."""
        # A workspace of before this choice stays up to date where it changes nothing.
        chosen = {"input_formats": "fast"} if self.free_inputs else {}
        return {
            **chosen,
            "policy": self.policy.policy.name,
            "tf32": self.policy.tf32,
            "keep_fp32": list(self.keep_fp32),
            "kept": self.policy.keep,
            "profiles": profiles.as_json(self.profiles),
            "engine_file": self.engine_file,
        }


def make_jobs(ws: Workspace, config: DeployConfig) -> list[Job]:
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
    graphs = {component.name: _load(ws, component.onnx) for component in spec.components}
    quantized = [name for name, graph in graphs.items() if onnx_graph.is_quantized(graph.model)]
    jobs = []
    without_ranges = []
    for component in spec.components:
        section = config.components.get(component.name, Component(engine_file=f"{component.name}.engine"))
        graph = graphs[component.name]
        where = f"components.{component.name}"
        policy = section.precision_policy or config.tensorrt.precision_policy
        largest = largest_values(ws, component) if policies.POLICIES[policy].low == "fp16" else None
        if section.precision_policy is None and policies.POLICIES[policy].quantized and quantized:
            # What is not quantized in a graph runs in FP16, and so does a component of which nothing is.
            policy = policy if component.name in quantized else "fp16"
        configured = [
            {name: Sizes(shapes.min_shape, shapes.opt_shape, shapes.max_shape) for name, shapes in profile.items()}
            for profile in (section.tensorrt_profile, *section.extra_tensorrt_profiles)
        ]
        if largest == {}:
            without_ranges.append(component.name)
        keep_fp32 = (*policies.kept_by_model(policy, graph.model, component), *section.keep_fp32)
        resolved = policies.resolve(
            policy, graph.model, keep_fp32, where=f"{ws.root}/{component.onnx}", largest=largest
        )
        jobs.append(
            Job(
                component=component.name,
                onnx=graph.path,
                onnx_hash=graph.content_hash,
                engine_file=section.engine_file,
                policy=resolved,
                keep_fp32=keep_fp32,
                profiles=profiles.resolve(
                    onnx_graph.graph_inputs(graph.model),
                    configured,
                    profiles.axes_of(component, spec),
                    fixed=config.tensorrt.fixed_profile,
                    where=where,
                ),
                free_inputs=resolved.fp16_inputs(graph.model) if config.tensorrt.frees_inputs else frozenset(),
            )
        )
    if without_ranges:
        _log.info(
            "%s: only weights are checked against FP16's range; `runtime ranges` records how large tensors get",
            ", ".join(without_ranges),
        )
    return jobs


class _Graph(NamedTuple):
    """An ONNX artifact: its path, the sha256 of it and its external data, and the graph."""

    path: Path
    content_hash: str
    model: onnx.ModelProto


def _load(ws: Workspace, relative: str) -> _Graph:
    """An ONNX artifact and its external data, both checked against the manifest."""
    path = ws.onnx(relative)
    return _Graph(path, ws.onnx_hash(relative), onnx_graph.load(path))
