"""Which model a deploy config of AWML is for: told from its place and its words, before anything in it is evaluated.

A model of ours says in its ``awml.py`` (``DEPLOYED``) which projects of AWML it is, and what its parts are called. A
config of another project is refused in one line, whatever else it holds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from shared import plugins
from shared.config.model_sections import Dtype
from shared.errors import ConfigError, EnvironmentLacks

# Projects of AWML and its forks. Those that an installed model says it is are ours.
_PROJECTS = (
    "BEVFusion", "BEVFusion-L", "BLIP-2", "CalibrationStatusClassification", "CenterPoint", "CO-DETR", "FastVIT",
    "FRNet", "GLIP", "MobileNetv2", "PTv3", "SegmentAnything", "StreamPETR", "SwinTransformer", "TransFusion", "YOLOX",
)  # fmt: skip
LOWEST_OPSET = 16
_PROJECT_IN_TEXT = re.compile(r"\bprojects[./]([\w-]+)")


@dataclass(frozen=True)
class Tensors:
    """A component's tensors.

    Attributes:
        inputs, outputs: their names, in order; ``None``: the training config decides.
        dtypes: of those that are not float32, where a config names tensors and no types.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] | None = None
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployed:
    """What a model of ours is in AWML's deploy configs.

    Attributes:
        projects: the projects of AWML that it is.
        task: its task.
        components: its components, in order.
        batch_option: the key of ``model.options`` that holds the images per call, or ``dynamic``; None: the batch is an
            axis like any other.
        assumed: a config of AWML's framework that names no more than the task is for this model.
        options: ``model.options`` of the network that AWML exports, where it is not what we export without a word.
        output_option: the key of ``model.options`` that names the output; None: it has the one name.
        output_names: the names that it may have, where there is such an option.
        opset_version: the lowest that AWML's network can be exported with.
    """

    projects: tuple[str, ...]
    task: str
    components: Mapping[str, Tensors]
    batch_option: str | None = None
    assumed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    output_option: str | None = None
    output_names: tuple[str, ...] = ()
    opset_version: int = LOWEST_OPSET


def deployed(model_type: str | None) -> Deployed | None:
    """What the model says of itself; None where it says nothing, or can't be imported."""
    if model_type is None:
        return None
    with contextlib.suppress(EnvironmentLacks):
        part = plugins.part(plugins.EXPORTER_MODELS, model_type, "awml")
        return cast(Deployed | None, getattr(part, "DEPLOYED", None))
    return None


def model_of(path: Path, texts: Sequence[str], components: Collection[str]) -> str | None:
    """The type of the model that a deploy config is for; None where nothing in it says.

    Args:
        path: the config; its folder ``projects/<name>/`` counts.
        texts: the strings in it.
        components: names of its components, as far as it could be read.

    Raises:
        ConfigError: it is for a model that is not installed.
    """
    installed = _installed()
    ours = _types_by_project(installed)
    known = {_plain(project): project for project in _PROJECTS}
    for name in (*_projects_in(texts), *_projects_in([path.absolute().as_posix()])):
        if _plain(name) in ours:
            return ours[_plain(name)]
        if _plain(name) in known:
            raise _foreign(path, known[_plain(name)])
    for model_type, model in installed.items():
        if model is not None and len(model.components) > 1 and set(components).issuperset(model.components):
            return model_type
    for word in (word for text in texts for word in re.findall(r"[a-z0-9]+", text.casefold())):
        for plain, project in known.items():
            if word.startswith(plain):
                if plain in ours:
                    return ours[plain]
                raise _foreign(path, project)
    return None


def model_of_task(task: str | None) -> str | None:
    """The model of a config that names no more than its task; None where there is none."""
    installed = _installed().items()
    return next((name for name, model in installed if model is not None and model.assumed and model.task == task), None)


def _installed() -> dict[str, Deployed | None]:
    return {name: deployed(name) for name in plugins.available(plugins.EXPORTER_MODELS)}


def _types_by_project(installed: Mapping[str, Deployed | None]) -> dict[str, str]:
    types = {_plain(name): name for name in installed}
    for name, model in installed.items():
        types |= {_plain(project): name for project in (model.projects if model is not None else ())}
    return types


def _foreign(path: Path, project: str) -> ConfigError:
    names = ", ".join(_installed())
    return ConfigError(
        f"is a deploy config of {project}, which is not among the models here ({names})",
        where=str(path),
        hint="if it is for one of them, say so with --set model.type=NAME; `make plugins` adds those of packages/, and "
        "docs/extending.md yours",
    )


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _projects_in(texts: Iterable[str]) -> Iterator[str]:
    """Names behind ``projects.`` or ``projects/``, the innermost folder of a path first."""
    for text in texts:
        yield from reversed(_PROJECT_IN_TEXT.findall(text))
