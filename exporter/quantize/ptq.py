"""Post-training quantization: ranges found by running the trained model on samples, no training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.devices import resolved_device, torch_device
from exporter.quantize.calibrate import DEFAULT_PERCENTILE, CalibrationManager, Method
from exporter.quantize.checkpoint import save_ptq_model
from exporter.quantize.frozen import freeze
from exporter.quantize.fusion import fuse_model_bn
from exporter.quantize.layers import quantizable, select
from exporter.quantize.residual import share_scales
from exporter.quantize.session import Session, open_model, open_session, sources
from exporter.quantize.settings import method_of, settings_key
from exporter.versions import stage_versions
from shared.config import load_config, part
from shared.errors import InputError
from shared.files import copy, sha256_of_file
from shared.workspace import Workspace

__all__ = ["Session", "open_session", "ptq", "quantize_ptq"]

STAGE = "quantize:ptq"
FOLDER = "quantized"
CHECKPOINT, CACHE, PROVENANCE = (f"{FOLDER}/{name}" for name in ("ptq.pth", "calibration.json", "provenance.json"))
# What the result depends on beside the config and the files.
PACKAGES = ("torch", "nvidia-modelopt", "mmengine", "mmdet", "mmdet3d", "mmcv", "mmcv-lite", "numpy")
# Of the distribution of a sample's counters (points, voxels, ...), beside least and most.
_PERCENTILES = (5, 50, 95)

_log = logging.getLogger("exporter")


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
    """Quantize a trained model, in place.

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
    there = length_hint(dataloader, num_calibration_batches)
    batches = iter(dataloader)
    first = list(islice(batches, 1))
    if fuse_bn and first:
        fuse_model_bn(model, lambda: run(first[0]))
    manager = CalibrationManager(model, select(model, tuple(skip_names), "skip_names"), run)
    manager.calibrate(
        chain(first, batches), num_calibration_batches, amax_method, percentile=percentile, available=there
    )
    freeze(model)
    share_scales(model, run, first)
    return model


def ptq(
    config_path: Path,
    work: Path,
    overrides: Sequence[str] = (),
    *,
    data_root: Path | None = None,
    num_samples: int | None = None,
    method: Method | None = None,
    sensitive_layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    load_cache: Path | None = None,
    output: Path | None = None,
    device: str = "cpu",
    force: bool = False,
) -> str:
    """Quantize the model of a deploy config: ``quantized/ptq.pth`` in the workspace.

    Args:
        config_path: the deploy config.
        work: the workspace; made when it is not there.
        overrides: ``key=value`` for the config.
        data_root: where the section ``data`` lies, when not where the config says.
        num_samples: how many samples to calibrate on; None: ``quantization.calibration.num_batches``.
        method: how ranges are chosen; None: as the config says.
        sensitive_layers: layers to leave in float; None: ``quantization.sensitive_layers``.
        skip: more of them.
        load_cache: take the ranges of this cache instead of calibrating.
        output: copy the checkpoint there.
        device: where to run the model on the samples: cpu, cuda, or an alias of the config.
        force: although nothing changed.

    Returns:
        What to print.

    Raises:
        ConfigError, InputError, ModelLoadError: config, data, cache or checkpoint are not what they should be.
        ExportError: the outputs change by folding batch norms.
        EnvironmentLacks: no such device.
    """
    config = load_config(config_path, overrides)
    where = torch_device(resolved_device(config, device), device)
    calibration = config.quantization.calibration
    count = calibration.num_batches if num_samples is None else num_samples
    chosen = method or method_of(calibration)
    sensitive = config.quantization.sensitive_layers if sensitive_layers is None else sensitive_layers
    left_out = (*sensitive, *skip)
    workspace = Workspace.create(work)
    stage = workspace.stage(
        STAGE,
        tool="exporter",
        config={
            **part(config, "model"), "device": str(where), **settings_key(config, count, chosen, left_out),
        },
        inputs={
            **sources(config, data_root),
            **({} if load_cache is None else {"cache": _cache_digest(load_cache)}),
        },
        versions=stage_versions(PACKAGES, config),
    )  # fmt: skip
    if force or not stage.up_to_date():
        with stage:
            session = open_model(config, data_root)
            layers = select(session.model, sensitive, also=skip)
            seen = _Seen(session, where)
            session.model.to(where)
            manager = CalibrationManager(session.model, layers, seen.forward)
            if load_cache is None:
                manager.calibrate(
                    seen.batches(count), count, chosen, percentile=calibration.percentile,
                    available=len(session.calibration),
                )  # fmt: skip
            else:
                manager.load_calib_cache(load_cache)
            session.model.to("cpu")
            with stage.artifact(CACHE, kind="calibration") as path:
                manager.save_calib_cache(path)
            freeze(session.model)
            share_scales(session.model, session.forward, session.calibration_batches(count))
            record = {
                **manager.about,
                "checkpoint": session.weights,
                "training_config": session.training.digest,
                "skipped": list(left_out),
            }
            with stage.artifact(CHECKPOINT, kind="checkpoint") as path:
                save_ptq_model(session.model, path, record)
            provenance = {**record, "layers": layers, **seen.record(), "cache": load_cache is not None}
            stage.json_artifact(PROVENANCE, "provenance", provenance)
            total = len(quantizable(session.model))
            stage.result("quantize", "ptq", {**manager.about, "quantized": len(layers), "layers": total})
            _log.info(
                "quantize: %d of %d layers in INT8, %d batch norms folded, ranges by %s on %d samples",
                len(layers), total, len(session.fused), record["method"], record["samples"],
            )  # fmt: skip
    if output is not None:
        copy(workspace.artifact(CHECKPOINT), output)
    return str(output or workspace.path(CHECKPOINT))


def _cache_digest(path: Path) -> str:
    if not path.is_file():
        raise InputError("no such calibration cache", where=str(path))
    return sha256_of_file(path)


class _Seen:
    """Notes what a model is calibrated on: which samples, their content, and how the framework's counters spread."""

    def __init__(self, session: Session, device: torch.device) -> None:
        self._session, self._device = session, device
        self._samples: list[dict[str, str]] = []
        self._counters: dict[str, list[int]] = {}

    def batches(self, count: int) -> Iterable[Any]:
        for index in self._session.calibration_indices(count):
            sample = self._session.calibration.sample(index)
            batch = self._session.load(sample)
            digest = hashlib.sha256()
            _update(digest, batch)
            self._samples.append({"token": sample.token, "sha256": digest.hexdigest()})
            yield batch.to(self._device)

    def forward(self, batch: Any) -> None:
        for name, value in self._session.forward(batch)[2].items():
            self._counters.setdefault(name, []).append(value)

    def record(self) -> dict[str, Any]:
        """``samples_seen`` and, by counter (points, voxels, ...), its ``distribution``."""
        return {
            "samples_seen": self._samples,
            "distribution": {
                name: {
                    "least": min(values),
                    **{f"p{share}": float(np.percentile(values, share)) for share in _PERCENTILES},
                    "most": max(values),
                }
                for name, values in self._counters.items()
            },
        }


def _update(digest: Any, batch: Any) -> None:
    """Add the arrays in a model's input to a hash."""
    if isinstance(batch, torch.Tensor):
        batch = batch.detach().cpu().numpy()
    if isinstance(batch, np.ndarray):
        digest.update(f"{batch.dtype} {batch.shape}".encode())
        digest.update(np.ascontiguousarray(batch).tobytes())
    elif isinstance(batch, Mapping):
        for name in sorted(batch):
            _update(digest, batch[name])
    elif isinstance(batch, (list, tuple)):
        for item in batch:
            _update(digest, item)
