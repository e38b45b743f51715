"""Synthetic data that other packages add (entry points ``awml_deploy.demo_data``), for a deploy config of theirs.

A member is named as the config, and is a module with ``write(folder, split, frames, seed)``: it writes a data set into
an empty folder, equal arguments the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from demo.data_set import write_once
from shared import plugins
from shared.added import added_versions
from shared.errors import UsageError


def of_config(name: str) -> str | None:
    """The name of the data that a package adds for its config ``name``; None where it takes the driving scenes.

    Raises:
        UsageError: no package brings a config or data of this name.
    """
    configs, data = plugins.available(plugins.CONFIGS), plugins.available(plugins.DEMO_DATA)
    if name not in configs and name not in data:
        known = ", ".join(sorted({*configs, *data})) or "none is installed (make plugins)"
        raise UsageError(f"no package brings a config '{name}'", hint=f"configs of packages: {known}")
    return name if name in data else None


def write_added(name: str, out: Path, split: str, frames: int, seed: int) -> bool:
    """Write the data set, unless ``out`` holds it already, as this version of the package writes it.

    Returns:
        Whether anything was written.

    Raises:
        UsageError: ``out`` exists and is not a data set.
        EnvironmentLacks: the package can't be imported; disk full, or no permission.
    """
    module = plugins.find(plugins.DEMO_DATA, name)
    assert module is not None, "it is among those that are available"
    versions = added_versions([(plugins.DEMO_DATA, name)])
    arguments = {"data": name, "package": versions, "split": split, "frames": frames, "seed": seed}
    return write_once(out, arguments, lambda folder: module.write(folder, split, frames, seed))
