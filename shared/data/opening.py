"""One door to every format. What the samples look like, the view, is the task's choice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from shared import plugins, tasks
from shared.data.common import data_root
from shared.data.concat import CONCAT, concatenate
from shared.data.types import Dataset, DataSource
from shared.data.views import FormatModule
from shared.errors import ConfigError, EnvironmentLacks


def open_dataset(config: DataSource, *, root: Path | None = None, task: str = tasks.DEFAULT) -> Dataset[Any]:
    """Open the data set that the settings describe.

    Args:
        config: the deploy config's ``data`` section, or a ``DataSettings``.
        root: data folder to use instead of the settings' own.
        task: what the samples are for; it decides the view (`shared.data.views`).

    Raises:
        ConfigError: the format is unknown or has no such view, or lacks a setting it needs.
        EnvironmentLacks: another package adds the format or the task, and it can't be imported.
        InputError: there is no such task; files are missing, refused or malformed; or there are no samples.
    """
    return _open_view(config, root, tasks.find(task).view, task)


def _open_view(settings: DataSource, root: Path | None, view: str, task: str) -> Dataset[Any]:
    if settings.format == CONCAT:
        return _open_concat(settings, root, view, task)
    module = _format(settings.format)
    if module is None or view not in module.VIEWS:
        problem = "is not known" if module is None else f"has no {view.replace('_', ' ')}s, which task {task} needs"
        raise ConfigError(
            f"data format '{settings.format}' {problem}",
            where="data.format",
            hint=f"these have: {', '.join([*_formats_with(view), CONCAT])}",
        )
    return module.VIEWS[view](settings, data_root(settings, root))


def _format(name: str) -> FormatModule | None:
    return cast("FormatModule | None", plugins.find(plugins.FORMATS, name))


def _formats_with(view: str) -> Iterator[str]:
    """Names of the formats that open a view; those that can't be imported are left out."""
    for name in plugins.available(plugins.FORMATS):
        with contextlib.suppress(EnvironmentLacks):
            module = _format(name)
            if module is not None and view in module.VIEWS:
                yield name


def _open_concat(settings: DataSource, root: Path | None, view: str, task: str) -> Dataset[Any]:
    """Sources in order. One without a root of its own has the concatenation's; a relative one starts there."""
    folder = root if root is not None else settings.root
    parts = []
    for source in settings.sources:
        own = source.root
        parts.append(_open_view(source, own if folder is None else folder / (own or ""), view, task))
    return concatenate(CONCAT, parts)
