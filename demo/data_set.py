"""A data set is written whole or not at all, and once for the same arguments.

Everything is written to a hidden folder beside it, which is renamed at the end. The next run removes what a killed one
left there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import UsageError
from shared.files import explain_os_errors, sha256_of_file
from shared.locks import Lock
from shared.work_path import WorkPath

#: What made the data set, and the sha256 of every other file.
CONTENTS = "dataset.json"


def is_up_to_date(folder: Path, arguments: dict[str, Any]) -> bool:
    """Tell whether `folder` holds the data set of these arguments, every file intact."""
    try:
        stated = json.loads((folder / CONTENTS).read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(stated, dict) or stated.get("arguments") != arguments:
        return False
    files: dict[str, str] = stated.get("files", {})
    return bool(files) and all(
        (folder / name).is_file() and sha256_of_file(folder / name) == digest for name, digest in files.items()
    )


def write_once(folder: Path, arguments: dict[str, Any], write: Callable[[Path], None]) -> bool:
    """Write a data set, unless `folder` holds it already.

    Args:
        folder: where it goes; a data set of other arguments there is replaced.
        arguments: what the data set depends on, as JSON; equal arguments give equal bytes.
        write: writes the files into the empty folder that it is given.

    Returns:
        Whether anything was written.

    Raises:
        UsageError: `folder` exists and is not a data set.
        EnvironmentLacks: disk full, or no permission.
    """
    with explain_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Lock(WorkPath(folder.parent, f".{folder.name}.lock")):
            if is_up_to_date(folder, arguments):
                return False
            if folder.exists() and any(folder.iterdir()) and not (folder / CONTENTS).is_file():
                raise UsageError(
                    "the folder holds something that this generator did not write",
                    where=str(folder),
                    hint="choose an empty or a new folder with --out",
                )
            partial = folder.with_name(f".{folder.name}.partial")
            replaced = folder.with_name(f".{folder.name}.replaced")
            for leftover in (partial, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                partial.mkdir()
                write(partial)
                _write_contents(partial, arguments)
                if folder.exists():
                    folder.rename(replaced)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(replaced, ignore_errors=True)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value the way every file of a data set is: the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_contents(folder: Path, arguments: dict[str, Any]) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: sha256_of_file(folder / name) for name in names}
    write_json(folder / CONTENTS, {"arguments": arguments, "files": digests})
