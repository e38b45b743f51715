"""First file that an image runs: checks that TensorRT is the pinned one, and runs the image's tool.

The image's environment says which tool (AWML_DEPLOY_TOOL) and which TensorRT (AWML_DEPLOY_TENSORRT, for example
``tensorrt==10.8``; empty where the image has none). On a Jetson the libraries come from the device, and elsewhere a
mount or a base image of another tag can bring the wrong ones: engines built with those would not load in the vehicle.
"""

from __future__ import annotations

import importlib
import os
import sys

from shared.errors import EnvironmentLacks
from shared.interrupts import prompt_interrupts

MODULES = {"manifest": "shared.manifest_cli"}


def check_tensorrt(pinned: str) -> None:
    """Raises EnvironmentLacks unless the TensorRT here is ``pinned`` (``tensorrt==10.8``, any patch release)."""
    if not pinned:
        return
    package, _, wanted = pinned.partition("==")
    hint = "use the image of another target (docs/targets.md), or build this one again: make images TARGET=…"
    try:
        found = str(importlib.import_module(package).__version__)
    except (ImportError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EnvironmentLacks(
            f"this image is pinned to {pinned}, and {package} can't be imported ({reason})", hint=hint
        ) from error
    if not f"{found}.".startswith(f"{wanted}."):
        raise EnvironmentLacks(f"this image is pinned to {pinned}, and finds {package} {found}", hint=hint)


def main() -> None:
    """Run the tool with the arguments of the container."""
    tool = os.environ["AWML_DEPLOY_TOOL"]
    # As process 1 of a container, Python would ignore the signal by which `docker stop` asks it to end.
    with prompt_interrupts():
        try:
            check_tensorrt(os.environ.get("AWML_DEPLOY_TENSORRT", ""))
        except EnvironmentLacks as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        sys.argv[0] = tool
        importlib.import_module(MODULES.get(tool, f"{tool}.cli")).cli(prog_name=tool)


if __name__ == "__main__":
    main()
