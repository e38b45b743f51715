"""Locks between processes: a file that the process keeps locked (flock), and that the kernel lets go of when it ends.

That holds for containers which share a volume, and for hosts that share a file system which passes flock on (NFS since
Linux 2.6.12, unless it is mounted with ``local_lock``; CephFS; Lustre with ``-o flock``).

Ours, because filelock opens its file by its path: a link in a workspace would lead it out. The lock itself is the same,
so that versions before this one, which used filelock, and this one wait for each other.
"""

from __future__ import annotations

import fcntl
from types import TracebackType
from typing import BinaryIO

from shared.work_path import WorkPath

#: Folder of a workspace for the locks of its stages and of those who write to it.
LOCKS = ".locks"


class Lock:
    """A lock, not held yet. Held twice, also by threads of one process, by nobody."""

    def __init__(self, path: WorkPath) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False where another has it and this is not to wait.

        Raises:
            ManifestError: the lock's file is a link or no file.
            OSError: it can't be written, or the file system has no locks.
        """
        self.path.parent.make_folder()
        file = self.path.open_file("r+b", make=True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return False
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let go of the lock, where it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_mine(self) -> bool:
        """Whether it was taken by this object, and not let go of."""
        return self._file is not None

    def is_held(self) -> bool:
        """Whether anybody holds it; makes and changes nothing."""
        try:
            with self.path.open_file("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
