"""Files that are whole or not there: atomic writes, hashes, and paths that stay where they belong.

A file is written under a temporary name in the folder it goes to (`shared.temporaries`), flushed to disk, and renamed:
a reader sees the old file or the new one, and a killed writer leaves the old one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from shared import provenance
from shared.errors import EnvironmentLacks, InputError
from shared.regular_files import open_regular
from shared.temporaries import temporary
from shared.work_path import WorkPath


class FileIdentity(NamedTuple):
    """What changes when a file's content does: replacing it makes another inode, writing to it sets its times.

    Attributes:
        device: number of the file system.
        inode: of the file.
        size: in bytes.
        modified_ns: time of the last write, which programs can set.
        changed_ns: time of the last change of content or status, which the kernel sets.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @staticmethod
    def of(file: Path | int) -> FileIdentity:
        """Of the file at a path, or of an open one.

        Raises:
            OSError: it is not there.
        """
        status = os.stat(file)  # noqa: PTH116  # of a descriptor too
        return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether a write from now on would show: the clock of the file system has ticked since the last one.

        A server whose clock is behind this machine's may say yes too early.
        """
        tick = _COARSE_TICK_NS if self.changed_ns % 1_000_000_000 == 0 else _TICK_NS
        return time.time_ns() - self.changed_ns > tick


# File systems stamp with the kernel's timer (1 to 10 ms); some keep whole seconds, FAT even ones.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000
_CHUNK_BYTES = 1 << 20
# Hashes of this process: gigabytes that several steps of a command ask for.
_digests: dict[FileIdentity, str] = {}


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file's bytes. A file that did not change since this process hashed it is not read again.

    Raises:
        InputError: the file is not there or can't be read.
    """
    try:
        if known := _digests.get(FileIdentity.of(path)):
            return known
        with open_regular(path) as file:
            identity = FileIdentity.of(file.fileno())
            settled = identity.is_settled()
            digest = _digest(file)
            if settled and FileIdentity.of(file.fileno()) == identity:
                _digests[identity] = digest
            return digest
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from error


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class explain_os_errors(contextlib.AbstractContextManager[None]):  # noqa: N801 (read as a verb)
    """Turn a full disk or a read-only folder into a line that a user can act on.

    Raises:
        EnvironmentLacks: no space, read-only file system, no permission.
    """

    def __init__(self, path: Path | WorkPath) -> None:
        self._path = path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):
            return
        permission = "check the owner of the folder, or choose another --work folder"
        if provenance.image() is not None:
            permission = (
                f"give the container a user who may: AWML_UID={os.getuid()} and AWML_GID={os.getgid()} now; WORK names "
                "the folder that is /workspace here (docs/docker.md)"
            )
        reasons = {
            errno.ENOSPC: (
                "no space left on the device",
                "free some space and run the command again; nothing was lost",
            ),
            errno.EDQUOT: ("disk quota exceeded", "free some space and run the command again; nothing was lost"),
            errno.EFBIG: ("the file would be larger than the limit set here", "raise the limit (ulimit -f)"),
            errno.EROFS: ("the file system is read-only", "mount it writable, or choose another --work folder"),
            errno.EACCES: ("no permission to write", permission),
            errno.EPERM: ("no permission to write", permission),
        }
        if error.errno in reasons:
            message, hint = reasons[error.errno]
            raise EnvironmentLacks(message, where=str(self._path), hint=hint) from error


@contextlib.contextmanager
def atomic_path(path: Path | WorkPath) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` when the block ends well, removed when it does not.

    Raises:
        EnvironmentLacks: the disk is full or the folder read-only.
        ManifestError: it is in a workspace, and a symbolic link leads there.
    """
    final = WorkPath.of(path)
    with explain_os_errors(final):
        final.parent.make_folder()
        with temporary(final) as unfinished:
            yield unfinished.checked()
            unfinished.flush()
            unfinished.take_place_of(final)
            final.parent.flush()


def write_bytes(path: Path | WorkPath, content: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    with atomic_path(path) as unfinished, unfinished.open("xb") as file:
        file.write(content)


def write_text(path: Path | WorkPath, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path | WorkPath, value: Any) -> None:
    """Write a JSON file (indented, keys in the given order) whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def copy(source: Path, target: Path | WorkPath) -> None:
    """Copy a file's content, whole or not at all."""
    with atomic_path(target) as unfinished, source.open("rb") as file, unfinished.open("xb") as copied:
        shutil.copyfileobj(file, copied, _CHUNK_BYTES)


def copy_flushed(source: Path, target: WorkPath) -> None:
    """Copy a file's content to a new file, and flush it to disk."""
    with source.open("rb") as file, target.open_file("xb") as copied:
        shutil.copyfileobj(file, copied, _CHUNK_BYTES)
        copied.flush()
        os.fsync(copied.fileno())


def inside(root: Path, relative: str) -> Path:
    """The path ``relative`` under ``root``, for a library that opens files by their path.

    Raises:
        ManifestError: the path is absolute, leaves ``root`` or leads over a symbolic link.
    """
    return WorkPath(root, relative).checked()
