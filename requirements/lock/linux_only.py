"""Drops the hashes of files that nothing here installs: ``linux_only.py PYTHON LOCK.txt``, PYTHON the lock's oldest.

uv writes the hashes of every file of a version. Kept are those of source packages, of wheels for any machine, and of
wheels for Linux with glibc on x86_64 and aarch64 and CPython from PYTHON to 3.13. UV names uv.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tomllib

PYTHONS = [f"cp3{minor}" for minor in range(10, 14)]
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def is_used(wheel: str) -> bool:
    """Whether a wheel, by the name of its file, is one that may be installed."""
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    machine = platform == "any" or re.fullmatch(r"(many)?linux.*_(x86_64|aarch64)", platform) is not None
    interpreter = abi == "abi3" or python.startswith("py") or python in PYTHONS
    return machine and interpreter and abi in ("none", "abi3", *PYTHONS)


def used_hashes(lock: Path, python: str) -> set[str]:
    """Hashes of the files of the lock's versions that may be installed, as the index lists them."""
    command = [os.environ.get("UV", "uv"), "pip", "compile", "--quiet", "--no-deps", "--universal"]
    command += ["--python-version", python, "--format", "pylock.toml", str(lock)]
    listed = tomllib.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    files = [package["sdist"] for package in listed["packages"] if "sdist" in package]
    for package in listed["packages"]:
        files += [wheel for wheel in package.get("wheels", []) if is_used(wheel["url"].rpartition("/")[2])]
    return {file["hashes"]["sha256"] for file in files}


def entries(lock: Path) -> dict[str, list[str]]:
    """The versions of a lock, each with its hashes."""
    found: dict[str, list[str]] = {}
    for line in lock.read_text().splitlines():
        if line.startswith(" "):
            found[list(found)[-1]] += _HASH.findall(line)
        else:
            found[line.rstrip(" \\")] = []
    return found


def shorten(lock: Path, python: str) -> None:
    """Write a lock again with the hashes that are used.

    Raises:
        ValueError: no file of a version may be installed.
    """
    used, lines = used_hashes(lock, python), []
    for version, hashes in entries(lock).items():
        left = [f"    --hash=sha256:{value}" for value in hashes if value in used]
        if not left:
            raise ValueError(f"{lock}: no file of {version} may be installed")
        lines.append(" \\\n".join([version, *left]))
    lock.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    shorten(Path(sys.argv[2]), sys.argv[1])
