"""The key of this user, by which `shared.trust` seals: a file of 32 random bytes outside of every workspace."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from shared.errors import EnvironmentLacks

#: Names the file that holds the key, in place of the user's own.
KEY_VARIABLE = "AWML_DEPLOY_KEY"

_KEY_BYTES = 32


def key_path() -> Path:
    """Where the key of this user is, or is to be.

    Raises:
        EnvironmentLacks: the user has no home folder, and the environment names no file.
    """
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return Path(named)
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        folder = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise EnvironmentLacks("this user has no home folder", hint=f"name a file in {KEY_VARIABLE}") from error
    return folder / "awml-deploy" / "key"


def user_key() -> bytes:
    """The key of this user, made when there is none.

    Raises:
        EnvironmentLacks: it can't be made or read, or others can read it.
    """
    path = key_path()
    if not path.exists():
        try:
            _make_key(path)
        except OSError as error:
            raise EnvironmentLacks(
                f"no key can be made ({error.strerror})", where=str(path), hint=f"name another place in {KEY_VARIABLE}"
            ) from error
    return read_key(path)


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # Another process may have made one meanwhile: that one counts.
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink()


def read_key(path: Path) -> bytes:
    """The key in a file.

    Raises:
        EnvironmentLacks: it can't be read, is no key, or others can read or replace it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            key = file.read(_KEY_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise EnvironmentLacks(f"the key can't be read ({error.strerror})", where=str(path)) from error
    if len(key) != _KEY_BYTES:
        raise EnvironmentLacks(
            "is no key", where=str(path), hint="remove it; a new one is made, and workspaces need --trust once"
        )
    if status.st_mode & 0o077 or status.st_uid not in (os.getuid(), 0):
        raise EnvironmentLacks("others can read or replace this key", where=str(path), hint=f"chmod 600 {path}")
    return key
