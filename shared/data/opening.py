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
    found = tasks.find(task)
    return open_view(config, root, (found.view, *found.other_views), f"task {task}")


def open_view(settings: DataSource, root: Path | None, views: tuple[str, ...], who: str) -> Dataset[Any]:
    """Open the data set that the settings describe in the first of ``views`` that its format has.

    Args:
        settings: see `open_dataset`.
        root: data folder to use instead of the settings' own.
        views: by name, see `shared.data.views`.
        who: needs one of the views, for the error that says that the format has none.

    Raises:
        ConfigError: the format is unknown or has no such view, or lacks a setting it needs.
        EnvironmentLacks: another package adds the format, and it can't be imported.
        InputError: files are missing, refused or malformed; or there are no samples.
    """
    if settings.format == CONCAT:
        return _open_concat(settings, root, views, who)
    module = _format(settings.format)
    view = None if module is None else next((view for view in views if view in module.VIEWS), None)
    if module is None or view is None:
        names = " or ".join(f"{view.replace('_', ' ')}s" for view in views)
        problem = "is not known" if module is None else f"has no {names}, which {who} needs"
        raise ConfigError(
            f"data format '{settings.format}' {problem}",
            where="data.format",
            hint=f"these have: {', '.join([*_formats_with(views), CONCAT])}",
        )
    return module.VIEWS[view](settings, data_root(settings, root))


def _format(name: str) -> FormatModule | None:
    return cast("FormatModule | None", plugins.find(plugins.FORMATS, name))


def _formats_with(views: tuple[str, ...]) -> Iterator[str]:
    """Names of the formats that open one of the views; those that can't be imported are left out."""
    for name in plugins.available(plugins.FORMATS):
        with contextlib.suppress(EnvironmentLacks):
            module = _format(name)
            if module is not None and not module.VIEWS.keys().isdisjoint(views):
                yield name


def _open_concat(settings: DataSource, root: Path | None, views: tuple[str, ...], who: str) -> Dataset[Any]:
    return concatenate(CONCAT, open_sources(settings, root if root is not None else settings.root, views, who))


def open_sources(settings: DataSource, folder: Path | None, views: tuple[str, ...], who: str) -> list[Dataset[Any]]:
    """The sources of the settings in order, see `open_view`; one without a root has ``folder``, a relative one starts
    there.
    """
    parts = []
    for source in settings.sources:
        own = source.root
        parts.append(open_view(source, own if folder is None else folder / (own or ""), views, who))
    return parts
