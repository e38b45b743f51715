"""What a deploy config asks of the quantization, and whether a quantized checkpoint was made so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.errors import InputError

if TYPE_CHECKING:
    from exporter.quantize.calibrate import Method
    from shared.config.quantization_section import Calibration
    from shared.config.schema import DeployConfig
    from shared.workspace import Workspace

_KEY = "quantization"
_COUNT, _METHOD = "quantization.calibration.num_batches", "quantization.calibration.method"
_SKIP = "quantization.sensitive_layers"


def method_of(calibration: Calibration) -> Method:
    """The calibration method that a config asks for."""
    return "max" if calibration.method == "max" else calibration.amax_method


def settings_key(config: DeployConfig, count: int, method: Method, skip: Sequence[str]) -> dict[str, Any]:
    """The part of a stage's key that `check_settings` reads: what the config asks for, and what is done.

    Args:
        config: the deploy config.
        count: samples that are calibrated on.
        method: how ranges are chosen.
        skip: layers that stay in float.
    """
    asked = _asked(config)
    return {_KEY: {"asked": asked, "done": {**asked, _COUNT: count, _METHOD: method, _SKIP: list(skip)}}}


def check_settings(config: DeployConfig, workspace: Workspace, arguments: str) -> None:
    """Refuse a quantized checkpoint that was made with other settings than a config has.

    Options of the commands (``--method``, ``--skip-from``) stand above the config, so it may have what was done, or
    what it had then. A checkpoint that was trained elsewhere has no settings of ours.

    Args:
        config: the deploy config.
        workspace: with the checkpoint that it asks for, if it does.
        arguments: of the command that makes it, for the error.

    Raises:
        InputError: it was made with other settings.
    """
    mode = config.quantization.mode
    stage = workspace.manifest().stages.get(f"quantize:{mode}")
    key = None if stage is None else stage.key.get("config", {}).get(_KEY)
    if not config.quantization.enabled or key is None:
        return
    done = key["done"]
    other = [
        name if name == _SKIP else f"{name} ({done[name]}, not {value})"
        for name, value in _asked(config).items()
        if value not in (done[name], key["asked"][name])
    ]
    if other:
        raise InputError(
            f"was made with other settings: {', '.join(other)}",
            where=f"{workspace.root}/quantized/{mode}.pth",
            hint=f"quantize again: exporter quantize {mode} {arguments}",
        )


def _asked(config: DeployConfig) -> dict[str, Any]:
    """What the section ``quantization`` says, by key, but for the samples: their hash is among a stage's inputs, and
    where they lie is said to the quantization alone (Makefile)."""
    section = config.quantization
    return {
        _COUNT: section.calibration.num_batches,
        _METHOD: method_of(section.calibration),
        "quantization.calibration.percentile": section.calibration.percentile,
        "quantization.fusion.fuse_bn": section.fusion.fuse_bn,
        _SKIP: list(section.sensitive_layers),
    }
