"""Temporary files that belong to a living process, or to none: the next tool removes what a killed one left behind.

A file is written under a temporary name in the folder it goes to. The name holds the number of an owner, and the owner
is a lock (`shared.locks`): a file ``.locks/owner-<number>.lock`` of the workspace, which the process that writes keeps
locked as long as it has temporaries. The kernel lets go of the lock however the process ends, so a temporary is an
orphan when its owner's lock can be taken, or is gone. That holds for containers which share a volume, whatever their
host names and process ids.

Where there is no flock, and for paths outside a workspace, the owner is ``unlocked``: such temporaries, and those that
versions before this one named by host and process id, go when nobody has written to them for a week.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.locks import LOCKS, Lock
from shared.work_path import WorkPath

_MARK = ".partial-"
_UNLOCKED = "unlocked"
# Of the first owner, where a library writes a temporary of its own beside one.
_OWNED = re.compile(r"(?P<owner>[0-9a-f]{32})-[0-9a-f]{8}\b")
# No stage takes so long from its first file to its end.
_ABANDONED_AFTER_SECONDS = 7 * 24 * 3600


@dataclass
class _Owner:
    """This process as the owner of temporaries in a workspace."""

    name: str
    lock: BinaryIO
    temporaries: int = 0


# Of this process, by workspace.
_owners: dict[Path, _Owner] = {}
_guard = threading.Lock()
# Temporaries that are gone, and whose owners do not know it yet. The garbage collector may end a block that was given
# up in the very thread that holds the guard, so who is done does not wait for it.
_done: queue.SimpleQueue[tuple[Path, _Owner]] = queue.SimpleQueue()


def _forget_owners() -> None:
    global _guard, _done  # another thread may have held them when the process was forked
    _guard, _done = threading.Lock(), queue.SimpleQueue()
    _owners.clear()


# The child closes its copies of the locks, which stay the parent's, and makes its own owner.
os.register_at_fork(after_in_child=_forget_owners)


@contextlib.contextmanager
def temporary(path: WorkPath) -> Iterator[WorkPath]:
    """A name beside ``path`` for a file or folder; what still has it when the block ends is removed.

    The folder that ``path`` is in exists.
    """
    with _ownership(path.root) as owner:
        name = path.parent / f".{path.name}{_MARK}{owner}-{uuid.uuid4().hex[:8]}"
        try:
            yield name
        finally:
            name.remove()


@contextlib.contextmanager
def _ownership(root: Path) -> Iterator[str]:
    """The owner of temporaries in the workspace at ``root``, alive in the block."""
    with _guard:
        owner = _owners.get(root.absolute()) or _new_owner(root)
        if owner is not None:
            _owners[root.absolute()] = owner
            owner.temporaries += 1
    _settle()
    if owner is None:
        yield _UNLOCKED
        return
    try:
        yield owner.name
    finally:
        _done.put((root, owner))
        _settle()


def _settle() -> None:
    """Tell owners of temporaries that are gone; where somebody holds the guard, that one does it afterwards."""
    while not _done.empty() and _guard.acquire(blocking=False):
        try:
            with contextlib.suppress(queue.Empty):
                _release(*_done.get_nowait())
        finally:
            _guard.release()


def _release(root: Path, owner: _Owner) -> None:
    owner.temporaries -= 1
    if not owner.temporaries and _owners.get(root.absolute()) is owner:
        del _owners[root.absolute()]
        _lock_file(root, owner.name).remove_file()
        owner.lock.close()


def _lock_file(root: Path, owner: str) -> WorkPath:
    return WorkPath(root, f"{LOCKS}/owner-{owner}.lock")


def _new_owner(root: Path) -> _Owner | None:
    """An owner whose lock is held; None outside a workspace, where the file system has no locks, or is read-only."""
    while True:
        owner = uuid.uuid4().hex
        path = _lock_file(root, owner)
        try:
            file = path.open_file("x+b")
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever clears locks of the dead may have taken this one between the two calls.
            if os.fstat(file.fileno()).st_nlink:
                return _Owner(owner, file)
        except BlockingIOError:
            pass
        except OSError:
            file.close()
            path.remove_file()
            return None
        file.close()


def remove_orphans(root: Path) -> list[Path]:
    """Remove the temporaries in the workspace at ``root`` whose owners are dead; returns what was removed.

    Temporaries that are waiting to be switched in (`shared.manifest`) look like orphans: switch them in before.
    """
    removed = remove_orphans_in(WorkPath(root))
    for name in WorkPath(root, LOCKS).names():
        if name.startswith("owner-") and name.endswith(".lock"):
            _clear(WorkPath(root, f"{LOCKS}/{name}"))
    return removed


def remove_orphans_in(folder: WorkPath) -> list[Path]:
    """As `remove_orphans`, of the temporaries in a folder of a workspace; the locks of their owners stay."""
    dead: dict[str, bool] = {}
    removed = []
    for path in list(folder.walk(into=lambda name: _MARK not in name)):
        if not (path.name.startswith(".") and _MARK in path.name):
            continue
        match = _OWNED.match(path.name.split(_MARK, 1)[1])
        if match is None:
            orphan = _is_abandoned(path)
        else:
            owner = match["owner"]
            if owner not in dead:
                dead[owner] = _is_dead(folder.root, owner, path)
            orphan = dead[owner]
        if orphan:
            path.remove()
            removed.append(path.unchecked)
    return removed


def _is_dead(root: Path, owner: str, owned: WorkPath) -> bool:
    """Whether nobody holds an owner's lock, by age where that can't be found out."""
    try:
        return not Lock(_lock_file(root, owner)).is_held()
    except OSError:
        return _is_abandoned(owned)


def _clear(lock_file: WorkPath) -> None:
    """Remove the lock of a dead owner."""
    with contextlib.suppress(OSError), lock_file.open_file("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock_file.remove_file()


def _is_abandoned(path: WorkPath) -> bool:
    status = path.status()
    return status is not None and time.time() - status.st_mtime > _ABANDONED_AFTER_SECONDS
