"""What other packages add to the tools: which package, in which version, with which code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared import plugins
from shared.errors import EnvironmentLacks
from shared.several_tasks import names_of

if TYPE_CHECKING:
    from shared.data.types import DataSource
    from shared.manifest import Manifest

#: A group and a name in it.
Member = tuple[plugins.Group, str]
_WITH_CODE = re.compile(r"(.*), code (?:[0-9a-f]{16}|missing)")


@dataclass(frozen=True)
class Added:
    """Something that another package adds.

    Attributes:
        group: the kind of thing.
        name: what it is called.
        module: the module, or a model's folder.
        package: name of the distribution that it is from.
        version: of the distribution.
    """

    group: plugins.Group
    name: str
    module: str
    package: str
    version: str

    def problem(self) -> str | None:
        """Why it can't be used here; None where it can."""
        if self.name in plugins.ours(self.group):
            return f"'{self.name}' of {self.module} is not used: one of that name comes with the tools"
        others = {other.package for other in added([self.group]) if other.name == self.name}
        if len(others) > 1:
            return f"'{self.name}' is added by several packages: {', '.join(sorted(others))}"
        try:
            module = plugins.find(self.group, self.name)
        except EnvironmentLacks as error:
            return error.message
        assert module is not None, "an entry point of this name was found"
        if self.group.parts and not plugins.has_part(module, self.group.parts[0]):
            return f"'{self.name}' of {self.module} has no module {self.group.parts[0]}"
        if self.group.suffix and plugins.file_of(self.group, self.name) is None:
            return f"'{self.name}' of {self.module} has no file {self.name}{self.group.suffix}"
        missing = [name for name in self.group.names if name not in vars(module)]
        return f"'{self.name}' of {self.module} does not define {', '.join(missing)}" if missing else None


def added(groups: Iterable[plugins.Group] = plugins.GROUPS) -> list[Added]:
    """Everything that other packages add, by group and name."""
    return [
        Added(group, point.name, point.value, *_distribution(point))
        for group in groups
        for point in sorted(importlib.metadata.entry_points(group=group.entry_points), key=lambda point: point.name)
    ]


def added_versions(members: Iterable[Member]) -> dict[str, str]:
    """Version and digest of the code of the packages that add ``members``, for the key of a stage.

    Of members that come with the tools there is nothing: their code is part of every key already.
    """
    versions = {}
    for group, name in members:
        for found in added([group]):
            if found.name in names_of(name) and found.name not in plugins.ours(group):
                versions[found.package] = f"{found.version}, code {code_digest(found.module)[:16]}"
    return versions


def packages_of(manifest: Manifest) -> dict[str, str]:
    """Name and version of the packages that stages of a workspace were made with, beside the tools."""
    found = {}
    for stage in manifest.stages.values():
        versions = stage.key.get("versions", {})
        for name, version in versions.items() if isinstance(versions, dict) else ():
            if (match := _WITH_CODE.fullmatch(str(version))) is not None:
                found[str(name)] = match[1]
    return found


def data_members(settings: DataSource) -> Iterator[Member]:
    """The formats of a data set, and of those that it is concatenated from."""
    yield plugins.FORMATS, settings.format
    for source in settings.sources:
        yield from data_members(source)


def code_digest(module: str) -> str:
    """Hex sha256 over the files of the top-level package that ``module`` lies in, bytecode left out.

    The package is not imported. ``missing`` where it is not there.
    """
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return "missing"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(file.relative_to(folder), file) for folder in folders for file in folder.rglob("*") if file.is_file()]
    if not folders and spec.origin is not None:
        files = [(Path(Path(spec.origin).name), Path(spec.origin))]
    digest = hashlib.sha256()
    for relative, file in sorted(files):
        if "__pycache__" not in relative.parts:
            digest.update(relative.as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _distribution(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return ("unknown", "unknown") if point.dist is None else (point.dist.name, point.dist.version)
