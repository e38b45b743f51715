"""A calibrated model on which any choice of INT8 layers is measured; what was measured once is not measured again.

All layers are calibrated once, and each measurement switches some on. `exporter quantize sensitivity` and `auto` share
the journal and the calibration in ``quantized/search`` of the workspace; both belong to one fingerprint of model, data,
calibration and code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.devices import torch_device
from exporter.quantize.calibrate import CalibrationManager
from exporter.quantize.cost import LayerCost, read_profiles, trace_costs
from exporter.quantize.frozen import freeze, set_quantized
from exporter.quantize.layers import quantizable
from exporter.quantize.metric import TaskMetric, open_metric, snr_db
from exporter.quantize.ptq import method_of
from exporter.quantize.residual import share_scales
from exporter.quantize.sensitivity import Estimate, Measured
from exporter.quantize.session import Session
from exporter.versions import stage_versions
from shared.config import part
from shared.errors import InputError
from shared.files import sha256_of_json
from shared.journal import Journal
from shared.provenance import code_digest
from shared.runs import RawOutputs
from shared.workspace import Workspace

FOLDER = "quantized/search"
#: Frames whose raw outputs are kept for signal to noise ratios: maps are large (15 MB a frame for the 121 m network).
SNR_FRAMES = 8

_PACKAGES = ("torch", "nvidia-modelopt", "mmengine", "mmdet", "mmdet3d", "numpy")
_CACHE = "calibration.json"

_log = logging.getLogger("exporter")


@dataclass
class Bench:
    """A model with every layer calibrated, and the frames that it is measured on.

    Attributes:
        session: the model, frozen.
        metric: the task's, on its frames.
        costs: of all layers that run, in the order in which they do.
        journal: what was measured.
        device: where the model is.
        references: raw outputs of the float model on the first frames; empty until they are needed.
    """

    session: Session
    metric: TaskMetric
    costs: list[LayerCost]
    journal: Journal
    device: str
    references: list[RawOutputs]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order in which they run."""
        return [layer.name for layer in self.costs]

    def measure(self, int8: Iterable[str]) -> Measured:
        """Metric and signal to noise ratios with these layers in INT8; none: those of the float model."""
        wanted = sorted(int8)
        key = sha256_of_json(wanted)
        if key not in self.journal.answers:
            if wanted and not self.references:
                self.references = self._answers((), SNR_FRAMES)[0]
            raw, score = self._answers(wanted, len(self.metric.positions))
            ratios = snr_db(self.references, raw[: len(self.references)]) if wanted else {}
            self.journal.add({"key": key, "int8": wanted, "metric": score, "snr_db": ratios})
        answer = self.journal.answers[key]
        return Measured(answer["metric"], answer["snr_db"])

    def _answers(self, int8: Sequence[str], count: int) -> tuple[list[RawOutputs], float]:
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

    def estimate(self, gpu: str, profiles: Sequence[Path]) -> Estimate:
        """What latencies are estimated from.

        Raises:
            InputError: a profile is none, or of another model.
        """
        times = {}
        if profiles:
            batch = self.session.load(self.session.dataset.sample(self.metric.positions[0]))
            components = self.session.adapter.components(self.session.model, batch, self.session.options)
            times = read_profiles(profiles, components, quantizable(self.session.model))
        return Estimate(self.costs, gpu, times)


def fingerprint(session: Session, metric: TaskMetric, num_calibration: int, device: str) -> dict[str, Any]:
    """What measurements depend on: configuration (``config``) and files (``inputs``)."""
    quantization = part(session.config, "quantization")["quantization"]
    return {
        "config": {
            "options": part(session.config, "model")["model"]["options"],
            "calibration": {**quantization["calibration"], "data": None, "samples": num_calibration},
            "fusion": quantization["fusion"],
            "frames": list(metric.positions),
            "device": device,
        },
        "inputs": {
            "checkpoint": session.weights,
            "training_config": session.training.digest,
            "dataset": session.dataset.digest(),
            "calibration": session.calibration.digest(),
        },
        "versions": stage_versions(_PACKAGES, session.config),
    }


def open_metric_of(session: Session, num_samples: int) -> TaskMetric:
    """The metric of a session's task on its data set.

    Raises:
        InputError: no frame has labels.
    """
    classes = session.adapter.classes(session.model)
    return open_metric(session.config.task_type, session.dataset, classes, num_samples)


def open_bench(
    session: Session, metric: TaskMetric, workspace: Workspace, key: dict[str, Any], *, device: str, force: bool
) -> Bench:
    """Calibrate every layer of a model (or take the ranges of an earlier search) and freeze it.

    Args:
        session: with a float model; frozen afterwards.
        metric: to measure with.
        workspace: keeps journal and calibration.
        key: `fingerprint`; a journal of another one is discarded.
        device: cpu or cuda.
        force: discard the journal in any case.

    Raises:
        InputError: no sample to calibrate on, or a broken one; the float model scores nothing.
        EnvironmentLacks: no such device.
    """
    model, calibration = session.model, session.config.quantization.calibration
    model.to(torch_device(device, device))
    folder = workspace.place(FOLDER)
    code = code_digest("shared", "exporter")
    journal = Journal.open(folder / "journal.jsonl", sha256_of_json({**key, "code": code}), force)
    batch = session.load(session.dataset.sample(metric.positions[0])).to(device)
    costs = trace_costs(quantizable(model), lambda: session.forward(batch))
    manager = CalibrationManager(model, [layer.name for layer in costs], session.forward)
    count = calibration.num_batches

    def batches() -> Iterator[Any]:
        return (each.to(device) for each in session.calibration_batches(count))

    if journal.answers and (folder / _CACHE).is_file():
        _log.info("%d choices were measured before", len(journal.answers))
        manager.load_calib_cache((folder / _CACHE).checked())
    else:
        manager.calibrate(batches(), count, method_of(calibration), percentile=calibration.percentile)
        manager.save_calib_cache(folder / _CACHE)
    freeze(model)
    share_scales(model, session.forward, batches())
    bench = Bench(session, metric, costs, journal, device, [])
    if bench.measure(()).metric <= 0:
        raise InputError(
            f"{metric.name} of the float model is 0 on {len(metric.positions)} frames, so nothing can be lost",
            where=session.dataset.name, hint="check model.checkpoint, and that data.classes are the model's",
        )  # fmt: skip
    return bench
