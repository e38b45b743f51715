"""What is found by name: a module (or folder) of a package of ours, or one that another package adds by an entry point.

Every kind of thing that can be added stands in `GROUPS`. Ours are found by their file names, so that there is no list
to edit. Another package names its module under the group's entry point in its ``pyproject.toml``::

    [project.entry-points."awml_deploy.tasks"]
    lane_count = "my_package.lane_count_task"

A model is a folder: its entry point names a package, and what the tools look for are modules in it (`part`).
docs/extending.md builds a package from an empty folder.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from shared.errors import EnvironmentLacks


@dataclass(frozen=True)
class Group:
    """A kind of thing that can be added.

    Attributes:
        entry_points: the entry point group.
        package: our package whose modules are the ones that come with the tools; None where only others have any.
        adds: what a member is, in a few words.
        parts: of a folder: the modules that tools look for, the required one first; empty where a member is a module.
        names: of a module: what it must define.
        suffix: of a member that is a file: that of its name. Its entry point names the folder.
    """

    entry_points: str
    package: str | None
    adds: str
    parts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def short_name(self) -> str:
        """What the group is called in lists: ``tasks``."""
        return self.entry_points.removeprefix("awml_deploy.")


TASKS = Group(
    "awml_deploy.tasks", "shared.tasks", "a task: what models answer with, how it is compared", names=("TASK",)
)
FORMATS = Group("awml_deploy.formats", "shared.data.formats", "a data format", names=("VIEWS",))
EXPORTER_MODELS = Group(
    "awml_deploy.exporter_models",
    "exporter.models",
    "a model, as the exporter sees it",
    ("adapter", "training", "trace", "autoware", "adopt", "awml", "inspect"),
)
PIPELINES = Group(
    "awml_deploy.pipelines", "runtime.models", "a model, as the runtime sees it", ("pipeline", "neighbors")
)
BACKENDS = Group("awml_deploy.backends", "runtime.backends", "a backend", names=("PACKAGES", "artifacts", "load"))
METRICS = Group(
    "awml_deploy.metrics",
    "evaluator.metrics",
    "the metrics of a task",
    names=(
        *("ground_truth", "match", "evaluate", "headline", "headline_names"),
        *("resample", "per_class", "tables", "LOWER_IS_BETTER"),
    ),
)
REPORTS = Group(
    "awml_deploy.report",
    "evaluator.report.tasks",
    "the report page of a task",
    names=("metric_blocks", "source", "frame_scores", "picture", "log"),
)
SCORES = Group("awml_deploy.score", "evaluator.score", "files of a task to score", names=("score",))
CONFIGS = Group("awml_deploy.configs", None, "a deploy config that is called by its name", suffix=".yaml")
DEMO_DATA = Group("awml_deploy.demo_data", None, "synthetic data for the demo of a config", names=("write",))

GROUPS = (TASKS, FORMATS, EXPORTER_MODELS, PIPELINES, BACKENDS, METRICS, REPORTS, SCORES, CONFIGS, DEMO_DATA)


def available(group: Group) -> list[str]:
    """Names of all members of a group that can be found."""
    return sorted({*ours(group), *_added(group)})


def ours(group: Group) -> list[str]:
    """Names of the members that come with the tools; none where the tool that has them is not installed here."""
    if group.package is None or importlib.util.find_spec(group.package.partition(".")[0]) is None:
        return []
    modules = pkgutil.iter_modules(importlib.import_module(group.package).__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def find(group: Group, name: str) -> ModuleType | None:
    """The module or folder called ``name``; None where there is nothing of that name.

    Raises:
        EnvironmentLacks: what another package adds can't be imported.
    """
    if name in ours(group):
        return importlib.import_module(f"{group.package}.{name}")
    point = _added(group).get(name)
    return None if point is None else _import_added(group, name, point.value)


def part(group: Group, name: str, wanted: str) -> ModuleType | None:
    """The module ``wanted`` in the folder of a member; None where the member or the module is not there.

    Raises:
        EnvironmentLacks: what another package adds can't be imported.
    """
    folder = find(group, name)
    if folder is None or not has_part(folder, wanted):
        return None
    module = f"{folder.__name__}.{wanted}"
    return importlib.import_module(module) if name in ours(group) else _import_added(group, name, module)


def known(group: Group) -> str:
    """The hint where there is no member of a name: which there are, and where a removed package is named."""
    names = ", ".join(available(group))
    return f"there are: {names}; if a package had it, manifest plugins --work WORK names it"


def file_of(group: Group, name: str) -> Path | None:
    """The file that a member is; None where there is no member of that name, or no file.

    Raises:
        EnvironmentLacks: the folder can't be imported as the package that it is.
    """
    folder = find(group, name)
    if folder is None:
        return None
    candidates = (Path(path) / f"{name}{group.suffix}" for path in vars(folder).get("__path__", ()))
    return next((path for path in candidates if path.is_file()), None)


def with_part(group: Group, wanted: str) -> list[str]:
    """Names of the members whose folder has the module ``wanted``; packages that can't be imported are left out."""
    names = []
    for name in available(group):
        with contextlib.suppress(EnvironmentLacks):
            folder = find(group, name)
            if folder is not None and has_part(folder, wanted):
                names.append(name)
    return names


def has_part(folder: ModuleType, wanted: str) -> bool:
    """Whether the folder of a member has the module ``wanted``, which is not imported."""
    return "__path__" in vars(folder) and importlib.util.find_spec(f"{folder.__name__}.{wanted}") is not None


def _added(group: Group) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=group.entry_points)}


def _import_added(group: Group, name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise EnvironmentLacks(
            f"'{name}' of {module} can't be imported ({type(error).__name__}: {error})",
            where=group.entry_points,
            hint="install what it needs, or uninstall it; manifest plugins lists all",
        ) from error
