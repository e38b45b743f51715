"""Where PyTorch runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.errors import EnvironmentLacks, UsageError
from shared.lazy import lazy_import

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

torch = lazy_import("torch")


def resolved_device(config: DeployConfig, asked: str) -> str:
    """The device that a device or an alias of the config stands for.

    Raises:
        UsageError: neither.
    """
    try:
        return config.device(asked)
    except KeyError as error:
        aliases = ", ".join(config.devices)
        raise UsageError(
            f"no such device '{asked}'", where="--device", hint=f"use cpu, cuda, cuda:N or an alias ({aliases})"
        ) from error


def torch_device(device: str, asked: str) -> Any:
    """PyTorch's device of that name.

    Raises:
        EnvironmentLacks: it is not there.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentLacks("PyTorch finds no CUDA device", where=f"--device {asked}", hint="use --device cpu")
    return torch.device(device)
