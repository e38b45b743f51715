"""What the exporter's stages depend on besides config and inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shared import plugins
from shared.added import added_versions, data_members
from shared.provenance import package_versions

if TYPE_CHECKING:
    from shared.config import DeployConfig


def stage_versions(packages: Iterable[str], config: DeployConfig) -> dict[str, str]:
    """Versions of packages, and version and code of the packages that add the model, its task or its data's formats."""
    members = [
        (plugins.EXPORTER_MODELS, config.model.type),
        (plugins.TASKS, config.task_type),
        *data_members(config.data),
    ]
    if config.quantization.calibration.data is not None:
        members += data_members(config.quantization.calibration.data)
    return {**package_versions(packages), **added_versions(members)}
