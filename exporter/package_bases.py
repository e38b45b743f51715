"""Bases of a training config that are another package's files: ``_base_ = ["mmdet::_base_/default_runtime.py"]``.

mmengine resolves them through ``pkg_resources``, which newer setuptools don't have, and only for packages that can be
imported. Here the file is looked up where Python would find the package; nothing of the package is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from exporter.awml import in_repository
from shared.errors import ConfigError
from shared.lazy import lazy_import

mmengine = lazy_import("mmengine")

_EMPTY = Path(__file__).with_name("absent_base.py")
# Folders that a package has its configs in, relative to its modules: installed, and in a checkout.
_CONFIG_FOLDERS = (".mim/configs", "configs", "../configs")
# What such a base gives is for training, or is checked piece by piece when the model is built; a base with a data set
# has the test pipeline, and can't be done without.
_DISPENSABLE = ("_base_/default_runtime.py", "_base_/schedules/", "_base_/models/")


@contextlib.contextmanager
def package_bases() -> Iterator[list[str]]:
    """While the block runs, mmengine reads bases of packages from the packages' files.

    Yields:
        The bases, as configs name them, that count as empty because their package is not installed.
    """
    absent: list[str] = []
    own = mmengine.Config._get_cfg_path

    def resolve(name: str, including: str) -> tuple[str, str | None]:
        if "::" not in name:
            path, scope = own(name, including)
            found = in_repository(Path(path), Path(including)) or Path(os.path.normpath(path))
            if not found.is_file():
                raise ConfigError(
                    f"its base {found} is not there",
                    hint="training wrote a copy into its work_dirs that needs none; or check out an older commit",
                )
            return str(found), scope
        base = _find_base(name)
        if base is None:
            absent.append(name)
        return str(base or _EMPTY), name.partition("::")[0]

    mmengine.Config._get_cfg_path = staticmethod(resolve)
    try:
        yield absent
    finally:
        mmengine.Config._get_cfg_path = staticmethod(own)


def install_hint(absent: tuple[str, ...]) -> str:
    """What to do about bases that `package_bases` found no package for."""
    packages = " ".join(dict.fromkeys(name.partition("::")[0] for name in absent))
    return f"its base {absent[-1]} was not read: pip install --no-deps {packages} brings the file"


def _find_base(name: str) -> Path | None:
    """The file of a base; None where its package is not installed and the base can be done without.

    Raises:
        ConfigError: it can't; or the package is there and has no such config.
    """
    package, _, relative = name.partition("::")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    locations = (spec.submodule_search_locations or []) if spec is not None else []
    for location in locations:
        for folder in _CONFIG_FOLDERS:
            path = Path(location, folder, relative)
            if path.is_file():
                return path
    if locations:
        raise ConfigError(f"_base_ '{name}': {package} is installed without this config", hint="check its version")
    if not relative.startswith(_DISPENSABLE):
        raise ConfigError(f"_base_ '{name}': {package} is not installed", hint=f"pip install --no-deps {package}")
    return None
