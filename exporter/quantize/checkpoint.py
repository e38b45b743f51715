"""Quantized checkpoints: weights with batch norms folded in, scales, and how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter.checkpoints import load_weights, read_checkpoint, read_state_dict
from exporter.quantize.frozen import freeze_from, quantized_layers, set_quantized
from exporter.quantize.fusion import fold, fused_pairs
from exporter.quantize.residual import place_skips
from shared.errors import ConfigError, ExportError, ModelLoadError
from shared.files import atomic_path

FORMAT = "awml-deploy quantized 1"
RECORD = "quantization"


def save_ptq_model(model: nn.Module, path: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a frozen model.

    Args:
        model: after `exporter.quantize.frozen.freeze`.
        path: the file; nothing but tensors and plain values is in it.
        provenance: kept in the record: plain values (JSON) only.

    Raises:
        ExportError: the model is not quantized.
    """
    record = record_of(model)
    if not record["layers"]:
        raise ExportError("no layer of the model is frozen", hint="calibrate, then freeze(model)")
    with atomic_path(Path(path)) as temporary:
        torch.save({"state_dict": model.state_dict(), RECORD: {**record, **(provenance or {})}}, temporary)


def record_of(model: nn.Module) -> dict[str, Any]:
    """What form a model has: ``format``, the ``layers`` that quantize, the (layer, batch norm) pairs ``fused``."""
    return {
        "format": FORMAT,
        "layers": quantized_layers(model),
        "fused": [list(pair) for pair in fused_pairs(model)],
    }


def load_ptq_model(model: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load a quantized checkpoint into a model that was just built, strictly: folds the same batch norms, quantizes the
    same layers, and every weight and scale must be there and fit.

    Args:
        model: in float, with any weights; changed in place.
        path: what `save_ptq_model` wrote.

    Returns:
        The record: ``format``, ``layers``, ``fused``, and the provenance.

    Raises:
        ModelLoadError: no quantized checkpoint, or one of another model.
    """
    path = Path(path)
    state, record = read_state_dict(path), read_record(path)
    take_form(model, record, state, str(path))
    load_weights(model, path)
    return record


def take_form(model: nn.Module, record: Mapping[str, Any], state: Mapping[str, Any], where: str) -> None:
    """Give a model that was just built the form of a quantized checkpoint, so that its weights fit; in place.

    Args:
        model: in float.
        record: of the checkpoint.
        state: its state dict.
        where: its name, for errors.

    Raises:
        ModelLoadError: it is one of another model.
    """
    try:
        fold(model, record["fused"])
        freeze_from(model, state)
        place_skips(model, state)
        set_quantized(model, record["layers"])
    except (ConfigError, ExportError) as error:
        raise ModelLoadError(f"does not fit the model of the training config; {error}", where=where) from error


def read_record(path: Path) -> dict[str, Any]:
    """How a quantized checkpoint came about.

    Raises:
        ModelLoadError: it is none.
    """
    content = read_checkpoint(path)
    record = content.get(RECORD) if isinstance(content, Mapping) else None
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        raise ModelLoadError("is no quantized checkpoint", where=str(path), hint="make one with: exporter quantize ptq")
    return dict(record)
