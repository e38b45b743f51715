"""Post-training quantisation: ranges found by running the trained model on samples, no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from torch import nn

from exporter.quantize.calibrate import DEFAULT_PERCENTILE, CalibrationManager, Method
from exporter.quantize.frozen import freeze
from exporter.quantize.fusion import fuse_model_bn
from exporter.quantize.layers import select
from exporter.quantize.session import Session, open_session

if TYPE_CHECKING:
    from shared.config.quantization_section import Calibration

__all__ = ["Session", "method_of", "open_session", "quantize_ptq"]


def method_of(calibration: Calibration) -> Method:
    """The calibration method that a config asks for."""
    return "max" if calibration.method == "max" else calibration.amax_method


def quantize_ptq(
    model: nn.Module,
    dataloader: Iterable[Any],
    num_calibration_batches: int = 100,
    amax_method: Method = "mse",
    fuse_bn: bool = True,
    *,
    skip_names: Iterable[str] = (),
    forward: Callable[[Any], Any] | None = None,
    percentile: float = DEFAULT_PERCENTILE,
) -> nn.Module:
    """Quantise a trained model, in place.

    Args:
        model: in evaluation mode.
        dataloader: batches; more than ``num_calibration_batches`` are not looked at.
        num_calibration_batches: how many.
        amax_method: max, entropy, mse or percentile.
        fuse_bn: fold batch norms first; the first batch shows that this changes no output.
        skip_names: layers that stay in float: names of layers or blocks, or regular expressions.
        forward: runs the model on a batch; None: ``model(batch)``.
        percentile: for the method ``percentile``.

    Returns:
        The model, with fixed scales.

    Raises:
        ConfigError: a name to skip matches nothing.
        InputError: there is no batch, or the model computes NaN.
        ExportError: folding changes the outputs.
    """
    run = forward or model
    batches = iter(dataloader)
    first = list(islice(batches, 1))
    if fuse_bn and first:
        fuse_model_bn(model, lambda: run(first[0]))
    manager = CalibrationManager(model, select(model, tuple(skip_names), "skip_names"), run)
    manager.calibrate(chain(first, batches), num_calibration_batches, amax_method, percentile=percentile)
    freeze(model)
    return model
