"""Where a result comes from: host, image, GPU, driver, versions of packages and of our own code."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def host() -> str:
    """Name of this machine and its processor architecture."""
    return f"{socket.gethostname()} ({platform.machine()})"


@functools.cache
def processor() -> str:
    """Model of the processor as the system names it, and how many of them this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} x {models[0] if models else platform.machine()}"


def image() -> str | None:
    """The container image this runs in; images of this project set AWML_DEPLOY_IMAGE."""
    return os.environ.get("AWML_DEPLOY_IMAGE")


@functools.cache
def gpu() -> tuple[str | None, str | None]:
    """Name of the first GPU and the driver's version, or (None, None)."""
    if shutil.which("nvidia-smi") is None:
        return None, None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if answer.returncode != 0 or not answer.stdout.strip():
        return None, None
    name, _, driver = answer.stdout.splitlines()[0].rpartition(",")
    return name.strip(), driver.strip()


def command_line() -> str:
    """The command that is running, as a user would type it."""
    program = Path(sys.argv[0])
    # `python -m exporter` runs exporter/__main__.py.
    return shlex.join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages among ``names``, without importing them."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def code_digest(*packages: str) -> str:
    """Sha256 over the sources of our own packages, so that a change of code makes stages run again."""
    digest = hashlib.sha256()
    for package in packages:
        for name, source in sorted(_sources(resources.files(package), package)):
            digest.update(name.encode())
            digest.update(source)
    return digest.hexdigest()


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    sources = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            sources += _sources(entry, f"{prefix}/{entry.name}")
        elif entry.name.endswith((".py", ".cu")):
            sources.append((f"{prefix}/{entry.name}", entry.read_bytes()))
    return sources
