"""Make an edge bundle: one file with a tool, the contract library and their packages, for the device's own Python.

On the device nothing is installed: ``python3 trt_builder-3.10-aarch64.pyz build --work centerpoint``. Packages are
those of the hash-locked requirements, as wheels for the device's Python and processor; TensorRT is the device's own.

    python docker/bundle.py --tool trt_builder --platform 3.10-aarch64 --out dist
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements" / "lock"
# The tools that run on a device, and what they are locked with. The runtime takes the backend that the device has.
REQUIREMENTS = {"trt_builder": "trt_builder", "runtime": "runtime-tensorrt", "verifier": "verifier"}
MACHINES = ("aarch64", "x86_64")
# JetPack 6 is Ubuntu 22.04 (glibc 2.35); wheels for glibc 2.28 run there and on everything newer.
WHEELS_FOR = "manylinux_2_28"
# Not needed to run, and half of the size.
LEFT_OUT = ("numpy/*/tests", "numpy/tests", "onnx/backend/test", "onnx/test", "bin", "**/__pycache__", "**/*.pyi")
# Zip files carry a time per entry; a fixed one makes the same content the same file.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def install(requirements: Path, platform: str, target: Path, uv: str) -> None:
    """Unpack the wheels of ``requirements`` for ``platform`` (``3.10-aarch64``) into ``target``; hashes must match.

    Raises:
        SystemExit: they can't be installed; uv has said why.
    """
    version, machine = platform.split("-")
    answer = subprocess.run(
        [
            uv, "pip", "install", "--quiet", "--target", str(target), "--python", sys.executable,
            "--python-version", version, "--python-platform", f"{machine}-{WHEELS_FOR}",
            "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(requirements),
        ],
        check=False,
    )  # fmt: skip
    if answer.returncode != 0:
        raise SystemExit(
            f"error: the packages of {requirements.name} for Python {platform} can't be installed, see above"
        )
    for pattern in LEFT_OUT:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def files_of(folder: Path) -> Iterator[Path]:
    """Every file below ``folder`` but compiled Python, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def digest_of(folder: Path) -> str:
    """Sha256 over names and contents of everything below ``folder``."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def share_common(site: Path, platforms: Sequence[str]) -> None:
    """Move packages that are the same for every platform to ``site/common``."""
    (site / "common").mkdir()
    first, *others = [site / platform for platform in platforms]
    if not others:
        return
    for entry in sorted(first.iterdir()):
        copies = [other / entry.name for other in others]
        if entry.is_dir() and all(copy.is_dir() and digest_of(copy) == digest_of(entry) for copy in copies):
            entry.rename(site / "common" / entry.name)
            for copy in copies:
                shutil.rmtree(copy)


def pack(content: Path, bundle: Path) -> None:
    """Zip ``content`` into an executable ``bundle``."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    temporary = bundle.with_suffix(".partial")
    with temporary.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for path in files_of(content):
                entry = zipfile.ZipInfo(str(path.relative_to(content)), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    temporary.chmod(0o755)
    temporary.replace(bundle)


def make_bundle(tool: str, platforms: Sequence[str], out: Path, requirements: Path, uv: str) -> Path:
    """Make the bundle of ``tool`` for ``platforms`` in the folder ``out``; returns its path."""
    with tempfile.TemporaryDirectory() as scratch:
        content = Path(scratch)
        for platform in platforms:
            install(requirements, platform, content / "site" / platform, uv)
        share_common(content / "site", platforms)
        for room in ("shared", tool):
            shutil.copytree(ROOT / room, content / "app" / room, ignore=shutil.ignore_patterns("__pycache__"))
        about = {"tool": tool, "platforms": list(platforms), "digest": digest_of(content)}
        (content / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
        shutil.copyfile(Path(__file__).with_name("bundle_main.py"), content / "__main__.py")
        bundle = out / f"{tool}-{'-'.join(platforms)}.pyz"
        pack(content, bundle)
    return bundle


def _platform(text: str) -> str:
    version, _, machine = text.partition("-")
    if machine not in MACHINES or not version.startswith("3."):
        raise argparse.ArgumentTypeError(f"'{text}' is not like 3.10-{MACHINES[0]} or 3.12-{MACHINES[1]}")
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="One file with a tool, for a device's own Python.")
    parser.add_argument("--tool", choices=sorted(REQUIREMENTS), required=True)
    parser.add_argument(
        "--platform", type=_platform, action="append", dest="platforms", required=True,
        help="Python and processor of the device, for example 3.10-aarch64. Repeatable.",
    )  # fmt: skip
    parser.add_argument("--requirements", help="Lock file to take packages from. [default: the tool's]")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="Folder. [default: dist]")
    arguments = parser.parse_args()
    lock = LOCKS / f"{arguments.requirements or REQUIREMENTS[arguments.tool]}.txt"
    if not lock.is_file():
        parser.error(f"{lock} is not there; make lock writes it")
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        parser.error("uv is not on the PATH; `make bundle` installs it")
    bundle = make_bundle(arguments.tool, arguments.platforms, arguments.out, lock, uv)
    sys.stdout.write(f"{bundle}: {bundle.stat().st_size / 2**20:.1f} MiB\n")


if __name__ == "__main__":
    main()
