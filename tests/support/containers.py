"""Containers for tests: `docker compose` with a workspace folder, as a user that is not root."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = "cpu"
TAG = "test"  # images of a user keep theirs
# Nobody's on this machine: files that a container writes must be this user's.
USER = 12345 if os.geteuid() == 0 else os.geteuid()


def image(service: str) -> str:
    """Name of a service's image."""
    return f"awml-deploy/{service}:{TAG}"


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``docker``."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def give_to_user(folder: Path) -> None:
    """Make the containers' user the owner of a folder and of all in it."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)


def let_in(folder: Path) -> None:
    """Let the containers' user into a folder of pytest's, which opens its own for nobody else."""
    for path in (folder, *list(folder.parents)[:3]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(0o755)


class Compose:
    """``docker compose`` on a folder of workspaces and a folder of data."""

    def __init__(self, work: Path, data: Path, tag: str = TAG) -> None:
        self.work = work
        self.variables = {
            **os.environ, "TARGET": TARGET, "TARGET_NAME": tag, "GPU": "none", "WORK": str(work), "DATA": str(data),
            "AWML_UID": str(USER), "AWML_GID": str(USER),
        }  # fmt: skip
        give_to_user(work)

    def command(self, *arguments: str) -> list[str]:
        """A ``docker compose`` command line."""
        return ["docker", "compose", *arguments]

    def run(self, service: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """``docker compose run`` a service to its end."""
        command = self.command("run", "--rm", "-T", *options, service, *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=self.variables)

    def start(self, service: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[str, subprocess.Popen[str]]:
        """``docker compose run`` a service, without waiting; returns the container's name and the process."""
        name = f"awml-deploy-test-{uuid.uuid4().hex[:12]}"
        command = self.command("run", "--rm", "-T", "--name", name, *options, service, *arguments)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.variables
        )
        return name, process
