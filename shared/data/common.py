"""What the formats share: digests of settings and files, point and info files, the data folder, malformed entries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.data.paths import data_path
from shared.data.types import DataSource, PointFile
from shared.data.unpickle import load_pickle
from shared.errors import ConfigError, InputError
from shared.files import sha256_of_file
from shared.json_reader import DATA_BYTES, read_json


def settings_part(settings: DataSource, classes: Iterable[str]) -> dict[str, Any]:
    """The settings that change samples, as a JSON value; the location of the data does not."""
    return {
        "format": settings.format,
        "classes": list(classes),
        "label_map": dict(settings.label_map),
        "filter_attributes": sorted(list(pair) for pair in settings.filter_attributes),
        "num_features": settings.num_features,
        "pad_to": settings.pad_to,
        "intensity_scale": settings.intensity_scale,
        "data_prefix": dict(settings.data_prefix),
        "max_sweeps": settings.max_sweeps,
        # Later than the others: data sets without them keep their digest.
        **({"label_ids": {name: list(ids) for name, ids in settings.label_ids.items()}} if settings.label_ids else {}),
    }


def files_part(root: Path, files: Iterable[Path]) -> list[list[str]]:
    """Name of each file, relative to ``root`` where it lies there, and its sha256, as a JSON value."""
    return [
        [(file.relative_to(root) if file.is_relative_to(root) else file).as_posix(), sha256_of_file(file)]
        for file in files
    ]


def point_file(settings: DataSource, root: Path, path: Path, num_features: int) -> PointFile:
    """The points in ``path``, presented as the settings say; ``num_features``: columns of a file if they don't say."""
    return PointFile(path, root, settings.num_features or num_features, settings.pad_to, settings.intensity_scale)


def data_root(settings: DataSource, root: Path | None) -> Path:
    """The data folder: ``root`` if given, else the settings' own.

    Raises:
        ConfigError: neither is given.
        InputError: it is not a folder.
    """
    folder = root if root is not None else settings.root
    if folder is None:
        raise ConfigError(f"data format '{settings.format}' needs a data folder", where="data.root")
    if not folder.is_dir():
        raise InputError("no such data folder", where=str(folder), hint="check data.root, or --data where it was given")
    return folder


def info_file(settings: DataSource, folder: Path) -> Path:
    """Path of the settings' info file.

    Raises:
        ConfigError: they name none.
        InputError: there is none.
    """
    if settings.info_file is None:
        raise ConfigError(f"data format '{settings.format}' needs an info file", where="data.info_file")
    file = folder / settings.info_file
    if not file.is_file():
        hint = "check data.root, or --data where it was given, and data.info_file"
        if settings.info_file.is_absolute():
            hint = "check data.info_file, which starts from the current folder in --set"
        raise InputError("no such info file", where=str(file), hint=hint)
    return file


def load_info(file: Path) -> Any:
    """Content of an info file, ``.json`` or pickle.

    Raises:
        InputError: refused or malformed.
    """
    return read_json(file, most_bytes=DATA_BYTES, allow_nan=True) if file.suffix == ".json" else load_pickle(file)


def label_path(
    settings: DataSource, root: Path, entry: Mapping[str, Any], key: str, kind: str, where: str
) -> Path | None:
    """Where the labels of an entry of an info file are; None where it names none.

    Args:
        settings: with ``data_prefix``.
        root: data folder.
        entry: of the file.
        key: of the entry.
        kind: of the prefix.
        where: the entry's place, for errors.

    Raises:
        InputError: the path leads out of the data folder, and absolute ones are not allowed.
    """
    name = entry.get(key)
    if name is None:
        return None
    prefix = settings.data_prefix.get(kind, "")
    path = f"{prefix}/{name}" if prefix else str(name)
    return data_path(root, path, where=where, allow_absolute=settings.allow_absolute_paths)


@contextlib.contextmanager
def explain_malformed(where: str) -> Iterator[None]:
    """Turn what a malformed entry raises while it is parsed into one line that names the entry.

    Raises:
        InputError: a key is missing, or a value has the wrong type or shape.
    """
    try:
        yield
    except KeyError as error:
        raise InputError(
            f"lacks the key {error}", where=where, hint="the file is of another format or version"
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(
            f"is malformed ({error})", where=where, hint="the file is of another format or version"
        ) from error
