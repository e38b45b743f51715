"""Jobs of the Makefile, called as a user types them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make at the root of the repository; REAL_DATA only when given."""
    hidden = ("REAL_DATA", "MAKEFLAGS", "MAKELEVEL")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        ["make", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=variables | environment
    )
