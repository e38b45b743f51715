"""The one way into a workspace: paths in it that no symbolic link leads out of.

A workspace may come from somebody else, and a link in it would turn a write or a removal here into one anywhere. So
every open, link, unlink, mkdir and rename in a workspace goes through a `WorkPath`, which opens folder after folder
from the workspace's root without following links (``openat`` with ``O_NOFOLLOW``) and names the link that it meets. A
test forbids the other ways in the code of the tools (``tests/unit/test_file_system_access.py``).

The root itself, and whatever leads to it, may be links: the user's command names them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn, cast

from shared.errors import ManifestError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A pipe without a writer would be waited for.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "xb": os.O_WRONLY | os.O_EXCL | os.O_CREAT,
    "x+b": os.O_RDWR | os.O_EXCL | os.O_CREAT,
}
Mode = Literal["rb", "r+b", "ab", "xb", "x+b"]


class WorkPath:
    """A path in a workspace, of a file or a folder, there or not.

    All methods raise ManifestError where the way to it leads over a symbolic link, and OSError as the system says.

    Attributes:
        root: the workspace.
        parts: names from there; none for the root itself.
    """

    __slots__ = ("parts", "root")

    def __init__(self, root: Path, relative: str = "") -> None:
        self.root = root
        self.parts: tuple[str, ...] = _parts(root, relative) if relative else ()

    @staticmethod
    def of(path: Path | WorkPath) -> WorkPath:
        """``path``, where it is a `WorkPath`. Any other is one that the user's command names: links lead to its folder,
        and are replaced, not followed, where it is one itself."""
        return path if isinstance(path, WorkPath) else WorkPath(path.parent, path.name)

    def __truediv__(self, relative: str) -> WorkPath:
        below = WorkPath(self.root, relative)
        below.parts = (*self.parts, *below.parts)
        return below

    @property
    def parent(self) -> WorkPath:
        """The folder that it is in; the root's is the root."""
        above = WorkPath(self.root)
        above.parts = self.parts[:-1]
        return above

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1] if self.parts else self.root.name

    @property
    def relative(self) -> str:
        """As a manifest has it, relative to the root."""
        return "/".join(self.parts)

    @property
    def unchecked(self) -> Path:
        """As a plain path, whatever it leads over: for messages and comparisons."""
        return self.root.joinpath(*self.parts)

    def __str__(self) -> str:
        return str(self.unchecked)

    def __repr__(self) -> str:
        return f"WorkPath({str(self.root)!r}, {self.relative!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkPath) and (self.root, self.parts) == (other.root, other.parts)

    def __hash__(self) -> int:
        return hash((self.root, self.parts))

    # -- looking --------------------------------------------------------------------------------------------------

    def checked(self) -> Path:
        """As a plain path, for a library that opens files by their path. Looks up to the first part that is missing."""
        path = str(self.root)
        for position, part in enumerate(self.parts):
            path = f"{path}/{part}"  # called for every artifact: ten times faster than with Path
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    self._refuse(position)
            except (FileNotFoundError, NotADirectoryError):
                break
            except (OSError, ValueError) as error:  # too long, NUL, half a surrogate pair
                raise ManifestError(f"'{self.relative}' is not a path ({error})", where=str(self.root)) from error
        return self.unchecked

    def status(self) -> os.stat_result | None:
        """Of the file, folder or link itself; None where there is none."""
        try:
            with self._in_folder() as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=not self.parts)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_file(self) -> bool:
        """Whether it is a regular file."""
        status = self.status()
        return status is not None and stat.S_ISREG(status.st_mode)

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        status = self.status()
        return status is not None and stat.S_ISDIR(status.st_mode)

    def names(self) -> list[str]:
        """What is in the folder; nothing where there is none."""
        try:
            descriptor = self._open_folder(self.parts)
        except FileNotFoundError:
            return []
        try:
            return sorted(os.listdir(descriptor))  # noqa: PTH208  # of a descriptor
        finally:
            os.close(descriptor)

    def walk(self, into: Callable[[str], bool] = lambda name: True) -> Iterator[WorkPath]:
        """Every file, link and folder below the folder. Folders whose name ``into`` refuses are not looked into."""
        descriptor = self._open_folder(self.parts)
        try:
            with os.scandir(descriptor) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        finally:
            os.close(descriptor)
        for name, is_folder in found:
            below = self / name
            yield below
            if is_folder and into(name):
                yield from below.walk(into)

    # -- files ----------------------------------------------------------------------------------------------------

    def open_file(self, mode: Mode = "rb", *, make: bool = False, buffering: int = -1) -> BinaryIO:
        """The regular file, open; with ``make``, a missing one is made.

        Raises:
            ManifestError: it is a link, a folder, a pipe or a device.
        """
        with self._in_folder() as (folder, name):
            try:
                descriptor = os.open(name, _FLAGS[mode] | _FILE | (os.O_CREAT if make else 0), 0o666, dir_fd=folder)
            except OSError as error:
                self._explain(len(self.parts) - 1, folder, error)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ManifestError("is not a file", where=str(self))
        return cast("BinaryIO", os.fdopen(descriptor, mode.replace("x", "w"), buffering))

    def read_bytes(self) -> bytes:
        """The content of the file."""
        with self.open_file() as file:
            return file.read()

    def flush(self) -> None:
        """Bring the file, or the list of files of the folder, to the disk (fsync)."""
        with self._in_folder() as (folder, name):
            descriptor = os.open(name, os.O_RDONLY | (_FILE if self.parts else 0), dir_fd=folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # -- changing -------------------------------------------------------------------------------------------------

    def make_folder(self) -> None:
        """Make the folder and those that it is in, where they are missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        os.close(self._open_folder(self.parts, make=True))

    def take_place_of(self, target: WorkPath) -> None:
        """Rename to ``target``; a file there is replaced."""
        with self._in_folder() as (here, name), target._in_folder() as (there, new):
            os.replace(name, new, src_dir_fd=here, dst_dir_fd=there)

    def link_to(self, target: WorkPath) -> None:
        """Give the file the further name ``target`` (a hard link)."""
        with self._in_folder() as (here, name), target._in_folder() as (there, new):
            os.link(name, new, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)

    def remove_file(self) -> None:
        """Remove the file or link, if there is one."""
        with contextlib.suppress(FileNotFoundError), self._in_folder() as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove(self) -> None:
        """Remove what is there, a folder with all that is in it. Links in it are removed, not followed."""
        with contextlib.suppress(FileNotFoundError), self._in_folder() as (folder, name):
            _remove(name, folder)

    # -- the way there --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_folder(self) -> Iterator[tuple[int, str]]:
        """The open folder that it is in, and its name there."""
        descriptor = self._open_folder(self.parts[:-1])
        try:
            yield descriptor, self.parts[-1] if self.parts else "."
        finally:
            os.close(descriptor)

    def _open_folder(self, parts: Sequence[str], *, make: bool = False) -> int:
        descriptor = os.open(self.root, _FOLDER)
        for position, part in enumerate(parts):
            above = descriptor
            try:
                descriptor = _open_below(part, above, make=make)
            except OSError as error:
                self._explain(position, above, error)
            finally:
                os.close(above)
        return descriptor

    def _explain(self, position: int, folder: int, error: OSError) -> NoReturn:
        """Raise ``error`` with the whole path, or ManifestError where the part is a link."""
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.stat(self.parts[position], dir_fd=folder, follow_symlinks=False).st_mode):
                self._refuse(position)
        error.filename = str(self.root.joinpath(*self.parts[: position + 1]))
        raise error

    def _refuse(self, position: int) -> NoReturn:
        raise ManifestError(
            "is a symbolic link; nothing in a workspace may be one",
            where=str(self.root.joinpath(*self.parts[: position + 1])),
            hint="put what it points to in its place, or remove it",
        )


def _parts(root: Path, relative: str) -> tuple[str, ...]:
    parts = tuple(part for part in relative.split("/") if part not in ("", "."))
    if relative.startswith("/") or ".." in parts:
        raise ManifestError(
            f"path '{relative}' leaves the workspace", where=str(root), hint="paths in a workspace are relative to it"
        )
    if "\0" in relative:
        raise ManifestError(f"{relative!r} is not a path", where=str(root))
    return parts


def _open_below(name: str, folder: int, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        os.fsync(folder)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise
    else:
        return
    below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        for each in os.listdir(below):  # noqa: PTH208  # of a descriptor
            with contextlib.suppress(FileNotFoundError):
                _remove(each, below)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)
