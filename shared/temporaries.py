"""Temporary files that belong to a living process, or to none: the next tool removes what a killed one left behind.

A file is written under a temporary name in the folder it goes to. The name holds the number of an owner, and the owner
is a lock: a file ``.locks/owner-<number>.lock`` of the workspace, which the process that writes keeps locked (flock) as
long as it has temporaries. The kernel lets go of the lock however the process ends, so a temporary is an orphan when
its owner's lock can be taken, or is gone. That holds for containers which share a volume, whatever their host names and
process ids, and for hosts that share a file system which passes flock on (NFS since Linux 2.6.12, unless it is mounted
with ``local_lock``; CephFS; Lustre with ``-o flock``), as the lock of the manifest does, too.

Where there is no flock, and for paths outside a workspace, the owner is ``unlocked``: such temporaries, and those that
versions before this one named by host and process id, go when nobody has written to them for a week.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Folder of a workspace for the locks of its stages and of those who write to it.
LOCKS = ".locks"
_MARK = ".partial-"
_UNLOCKED = "unlocked"
_OWNED = re.compile(r"(?P<owner>[0-9a-f]{32})-[0-9a-f]{8}")
# No stage takes so long from its first file to its end.
_ABANDONED_AFTER_SECONDS = 7 * 24 * 3600


@dataclass
class _Owner:
    """This process as the owner of temporaries in a workspace."""

    name: str
    descriptor: int
    temporaries: int = 0


# Of this process, by folder of locks.
_owners: dict[Path, _Owner] = {}
_guard = threading.Lock()


def _forget_owners() -> None:
    global _guard  # noqa: PLW0603  # another thread may have held it when the process was forked
    _guard = threading.Lock()
    _owners.clear()


# The child has copies of the locked descriptors: it keeps the parent's temporaries alive, and makes its own owner.
os.register_at_fork(after_in_child=_forget_owners)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder; what still has it when the block ends is removed.

    The folder that ``path`` is in exists.
    """
    with _ownership(path) as owner:
        name = path.with_name(f".{path.name}{_MARK}{owner}-{uuid.uuid4().hex[:8]}")
        try:
            yield name
        finally:
            _remove(name)


@contextlib.contextmanager
def _ownership(path: Path) -> Iterator[str]:
    """The owner of temporaries beside ``path``, alive in the block."""
    locks = _locks_of(path)
    if locks is None:
        yield _UNLOCKED
        return
    with _guard:
        owner = _owners.get(locks) or _new_owner(locks)
        if owner is not None:
            _owners[locks] = owner
            owner.temporaries += 1
    if owner is None:
        yield _UNLOCKED
        return
    try:
        yield owner.name
    finally:
        with _guard:
            owner.temporaries -= 1
            if not owner.temporaries and _owners.get(locks) is owner:
                del _owners[locks]
                _lock_file(locks, owner.name).unlink(missing_ok=True)
                os.close(owner.descriptor)


def _locks_of(path: Path) -> Path | None:
    """The folder of locks of the workspace that ``path`` is in."""
    for folder in path.absolute().parents:
        if (folder / LOCKS).is_dir():
            return folder / LOCKS
    return None


def _lock_file(locks: Path, owner: str) -> Path:
    return locks / f"owner-{owner}.lock"


def _new_owner(locks: Path) -> _Owner | None:
    """An owner whose lock is held; None where the file system has no locks, or the folder can't be written."""
    while True:
        owner = uuid.uuid4().hex
        path = _lock_file(locks, owner)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever clears locks of the dead may have taken this one between the two calls.
            if os.fstat(descriptor).st_nlink:
                return _Owner(owner, descriptor)
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        os.close(descriptor)


def remove_orphans(folder: Path) -> list[Path]:
    """Remove the temporaries in ``folder`` whose owners are dead; returns what was removed."""
    dead: dict[Path, bool] = {}
    removed = []
    for path in _temporaries(folder):
        match = _OWNED.fullmatch(path.name.rsplit(_MARK, 1)[1])
        locks = _locks_of(path)
        if match and locks is not None:
            lock_file = _lock_file(locks, match["owner"])
            if lock_file not in dead:
                dead[lock_file] = _is_free(lock_file, path)
            orphan = dead[lock_file]
        else:
            orphan = _is_abandoned(path)
        if orphan:
            _remove(path)
            removed.append(path)
    for lock_file in (folder / LOCKS).glob("owner-*.lock"):
        _clear(lock_file)
    return removed


def _temporaries(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.startswith(".") and _MARK in name:
                yield Path(parent) / name
        folders[:] = [name for name in folders if _MARK not in name]


def _is_free(lock_file: Path, temporary_file: Path) -> bool:
    """Whether nobody holds the lock, by age where that can't be found out."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return _is_abandoned(temporary_file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return _is_abandoned(temporary_file)
    finally:
        os.close(descriptor)
    return True


def _clear(lock_file: Path) -> None:
    """Remove the lock of a dead owner."""
    with contextlib.suppress(OSError):
        descriptor = os.open(lock_file, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock_file.unlink()
        finally:
            os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
