"""One door to every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.data.argoverse import open_argoverse
from shared.data.concat import concatenate
from shared.data.folder import open_folder
from shared.data.indexed import IndexedDataset
from shared.data.info import open_info
from shared.data.kitti import open_kitti
from shared.data.mini_val import open_mini_val
from shared.data.real import open_real
from shared.data.t4 import open_t4
from shared.data.types import DataSource
from shared.errors import ConfigError


def _open_concat(settings: DataSource, root: Path | None = None) -> IndexedDataset:
    """Sources in order. One without a root of its own has the concatenation's; a relative one starts there."""
    folder = root if root is not None else settings.root
    parts = []
    for source in settings.sources:
        own = source.root
        parts.append(open_dataset(source, root=own if folder is None else folder / (own or "")))
    return concatenate("concat", parts)


_FORMATS: dict[str, Callable[[DataSource, Path | None], IndexedDataset]] = {
    "info": open_info,
    "t4": open_t4,
    "kitti": open_kitti,
    "argoverse2": open_argoverse,
    "nuscenes_mini_val": open_mini_val,
    "folder": open_folder,
    "concat": _open_concat,
    "real": open_real,
}


def open_dataset(config: DataSource, *, root: Path | None = None) -> IndexedDataset:
    """Open the data set that the settings describe.

    Args:
        config: the deploy config's ``data`` section, or a ``DataSettings``.
        root: data folder to use instead of the settings' own.

    Raises:
        ConfigError: the format is unknown, or lacks a setting it needs.
        InputError: files are missing, refused or malformed, or there are no frames.
    """
    if config.format not in _FORMATS:
        raise ConfigError(
            f"unknown data format '{config.format}'", where="data.format", hint=f"known: {', '.join(_FORMATS)}"
        )
    return _FORMATS[config.format](config, root)
