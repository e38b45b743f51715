"""What an export replaces."""

from __future__ import annotations

import logging

from shared.workspace import Workspace

_log = logging.getLogger("exporter")


def warn_of_another_model(workspace: Workspace, model: str) -> None:
    """Say that the workspace holds the export of another type of model than ``model``, which is to replace it."""
    spec = workspace.manifest().spec
    if spec is not None and spec.model != model:
        _log.warning(
            "export: this workspace holds a model of type %s, which one of type %s replaces: what was made from it "
            "(engines, runs) is out of date then; another --work keeps both",
            spec.model,
            model,
        )
