"""A calibrated model on which any choice of INT8 layers is measured: in this process, or in the workers of a cluster.

All layers are calibrated once, and each measurement switches some on. The ranges lie in the workspace, where workers
find them, so that all measure the same model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.devices import torch_device
from exporter.quantize.calibrate import CalibrationManager
from exporter.quantize.cost import LayerCost, trace_costs
from exporter.quantize.frozen import freeze, set_quantized
from exporter.quantize.layers import quantizable
from exporter.quantize.metric import TaskMetric
from exporter.quantize.residual import share_scales
from exporter.quantize.session import Session
from exporter.quantize.settings import method_of
from shared.metrics.signal_to_noise import snr_db
from shared.runs import RawOutputs
from shared.work_path import WorkPath

#: The ranges of all layers, beside the journal of a search.
CACHE = "calibration.json"
#: Frames whose raw outputs are kept for signal to noise ratios: maps are large (15 MB a frame for the 121 m network).
SNR_FRAMES = 8

#: What a measurement gave: ``metric`` and ``snr_db``, as in the journal.
Measurement = dict[str, Any]


@dataclass
class CalibratedModel:
    """A model with every layer calibrated, and the frames that it is measured on.

    Attributes:
        session: the model, frozen.
        metric: the task's, on its frames.
        costs: of all layers that run, in the order in which they do.
        device: where the model is.
        references: raw outputs of the float model on the first frames; empty until they are needed.
    """

    session: Session
    metric: TaskMetric
    costs: list[LayerCost]
    device: str
    references: list[RawOutputs] = field(default_factory=list)

    def answer(self, int8: Sequence[str]) -> Measurement:
        """Measure metric and signal to noise ratios with these layers in INT8; none: those of the float model."""
        if int8 and not self.references:
            self.references = self._run((), SNR_FRAMES)[0]
        raw, score = self._run(int8, len(self.metric.positions))
        return {"metric": score, "snr_db": snr_db(zip(self.references, raw, strict=False)) if int8 else {}}

    def _run(self, int8: Sequence[str], count: int) -> tuple[list[RawOutputs], float]:
        """Raw outputs on the first frames; the metric, where all frames are asked for (else 0)."""
        set_quantized(self.session.model, int8)
        raw: list[RawOutputs] = []
        predictions = []
        for position in self.metric.positions[:count]:
            batch = self.session.load(self.session.dataset.sample(position)).to(self.device)
            outputs, found, _ = self.session.forward(batch)
            predictions.append(found)
            if len(raw) < SNR_FRAMES:
                raw.append(outputs)
        return raw, self.metric.score(predictions) if len(predictions) == len(self.metric.positions) else 0.0


def calibrate(session: Session, metric: TaskMetric, cache: WorkPath, device: str, *, afresh: bool) -> CalibratedModel:
    """Calibrate every layer of a model and freeze it.

    Args:
        session: with a float model; frozen afterwards.
        metric: to measure with.
        cache: the ranges; read where they are there, unless ``afresh``.
        device: cpu or cuda.
        afresh: find the ranges, and write them.

    Raises:
        InputError: no sample to calibrate on, or a broken one.
        EnvironmentLacks: no such device.
    """
    model, calibration = session.model, session.config.quantization.calibration
    model.to(torch_device(device, device))
    batch = session.load(session.dataset.sample(metric.positions[0])).to(device)
    costs = trace_costs(quantizable(model), lambda: session.forward(batch))
    manager = CalibrationManager(model, [layer.name for layer in costs], session.forward)
    count = calibration.num_batches

    def batches() -> Iterator[Any]:
        return (each.to(device) for each in session.calibration_batches(count))

    if cache.is_file() and not afresh:
        manager.load_calib_cache(cache.checked())
    else:
        manager.calibrate(
            batches(), count, method_of(calibration), percentile=calibration.percentile,
            available=len(session.calibration),
        )  # fmt: skip
        manager.save_calib_cache(cache)
    freeze(model)
    share_scales(model, session.forward, batches())
    return CalibratedModel(session, metric, costs, device)
