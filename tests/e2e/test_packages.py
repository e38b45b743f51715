"""The packages beside the tools: each is built as a wheel, installed into a folder of the test's own, and tested."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.jobs import ROOT

PACKAGES = sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))
PYTHON = ROOT / ".venv/exporter/bin/python"
pytestmark = pytest.mark.e2e


@pytest.fixture(params=PACKAGES, ids=lambda path: path.name)
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A package, and the folder that its wheel was installed into."""
    package: Path = request.param
    # Setuptools builds in the folder of the sources.
    made = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    sources = shutil.copytree(package, tmp_path / "sources", ignore=made)
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    options = ("--quiet", "--no-index", "--no-deps")
    pip = [PYTHON, "-m", "pip"]
    subprocess.run([*pip, "wheel", *options, "--no-build-isolation", "-w", wheels, sources], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", site, wheel], check=True)
    return package, site


def test_a_package_works_as_a_wheel(installed: tuple[Path, Path]) -> None:
    package, site = installed
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    listed = subprocess.run([ROOT / ".venv/tools/bin/manifest", "plugins"], capture_output=True, text=True,
                            check=True, env=environment).stdout  # fmt: skip
    assert [line for line in listed.splitlines() if package.name in line.split()]
    answer = subprocess.run([PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", package / "tests"],
                            capture_output=True, text=True, check=False, env=environment, cwd=ROOT)  # fmt: skip
    assert answer.returncode == 0, answer.stdout
