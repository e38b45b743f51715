"""Other Pythons of this machine, and uv, for tests that install something anew."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def find_uv() -> str:
    """Path of uv: that of UV, of ``make lock``'s environment, or of the PATH; skips the test where there is none."""
    own = ROOT / ".venv" / "lock" / "bin" / "uv"
    found = os.environ.get("UV") or (str(own) if own.exists() else shutil.which("uv"))
    if found is None:
        pytest.skip("uv is not here; make test-docker installs it")
    return found


def find_python(version: str) -> str:
    """Path of a Python of this version (``3.10``); skips the test where there is none."""
    named = [shutil.which(f"python{version}")]
    managed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python3"), reverse=True)
    for candidate in [*named, *map(str, managed)]:
        if candidate is None:
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip() == version:
            return candidate
    pytest.skip(f"no Python {version} here")


def index_is_there(uv: str) -> bool:
    """Whether a package index answers."""
    answer = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--no-header", "-"],
        input="click",
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.returncode == 0
