"""Jobs of the Makefile and commands of the tools, called as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make at the root of the repository; REAL_DATA only when given."""
    hidden = ("REAL_DATA", "MAKEFLAGS", "MAKELEVEL")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        ["make", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=variables | environment
    )


def tool(name: str, *arguments: str | Path) -> str:
    """Run a command of a tool as its own process, without a GPU; what it printed."""
    call = f"from {name}.cli import cli; cli()"
    answer = subprocess.run([sys.executable, "-c", call, *map(str, arguments)], capture_output=True, text=True,
                            check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout
