"""Commands that an answer or an error names, to be copied: with the config, overrides and data of the one that ran."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def arguments_of(config: Path, work: Path, overrides: Sequence[str] = (), data_root: Path | None = None) -> str:
    """What follows the name of a command of the exporter, quoted for a shell.

    Args:
        config: the deploy config.
        work: the workspace.
        overrides: ``key=value`` for the config.
        data_root: as given by ``--data``.
    """
    data = [] if data_root is None else ["--data", str(data_root)]
    sets = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["--config", str(config), "--work", str(work), *data, *sets])
