"""hadolint, the linter of Dockerfiles, has nothing to say."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.containers import ROOT

pytestmark = pytest.mark.packages


def test_hadolint_is_content() -> None:
    own = ROOT / ".venv" / "lock" / "bin" / "hadolint"
    linter = str(own) if own.exists() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not here; make test-docker installs it")
    files = sorted(str(path) for path in (ROOT / "docker").glob("*.Dockerfile"))
    assert files
    answer = subprocess.run([linter, *files], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
