"""Choices of INT8 layers and what came out; what was measured once is not measured again.

`exporter quantize sensitivity` and `auto` share the journal and the calibration in ``quantized/search`` of the
workspace; both belong to one fingerprint of model, data, calibration and code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter import models
from exporter.quantize.cost import read_profiles
from exporter.quantize.layers import quantizable
from exporter.quantize.measuring import CACHE, CalibratedModel, Measurement, calibrate
from exporter.quantize.metric import TaskMetric, open_metric
from exporter.quantize.sensitivity import Estimate, Measured
from exporter.quantize.session import Session
from exporter.versions import stage_versions
from shared.cluster import Workers
from shared.config import part
from shared.errors import InputError
from shared.files import sha256_of_json
from shared.journal import Journal
from shared.progress import track
from shared.provenance import code_digest
from shared.workspace import Workspace

FOLDER = "quantized/search"
#: Packages whose version a measurement depends on.
PACKAGES = ("torch", "nvidia-modelopt", "mmengine", "mmdet", "mmdet3d", "numpy")

_log = logging.getLogger("exporter")


@dataclass
class Bench:
    """A model with every layer calibrated, and what was measured on it.

    Attributes:
        calibrated: the model.
        journal: what was measured.
        workers: measure side by side; None: this process does, one choice after another.
    """

    calibrated: CalibratedModel
    journal: Journal
    workers: Workers[list[str], Measurement] | None

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order in which they run."""
        return [layer.name for layer in self.calibrated.costs]

    @property
    def at_once(self) -> int:
        """How many choices are measured side by side."""
        return 1 if self.workers is None else self.workers.count

    def measure(self, choices: Sequence[Iterable[str]], title: str) -> list[Measured]:
        """Metric and signal to noise ratios with each choice of layers in INT8; none: those of the float model.

        Raises:
            DeployError: a choice can't be measured; on a cluster, after all others are.
        """
        wanted = [sorted(int8) for int8 in choices]
        keys = [sha256_of_json(int8) for int8 in wanted]
        missing = {key: int8 for key, int8 in zip(keys, wanted, strict=True) if key not in self.journal.answers}
        for int8, answer in self._answers(list(missing.values()), title):
            self.journal.add({"key": sha256_of_json(int8), "int8": int8, **answer})
        answers = [self.journal.answers[key] for key in keys]
        return [Measured(answer["metric"], answer["snr_db"]) for answer in answers]

    def _answers(self, choices: list[list[str]], title: str) -> Iterator[tuple[list[str], Measurement]]:
        if self.workers is None:
            return ((int8, self.calibrated.answer(int8)) for int8 in track(choices, title, len(choices)))
        return self.workers.results(choices, title, lambda int8: f"INT8 in {', '.join(int8) or 'no layer'}")

    def estimate(self, gpu: str, profiles: Sequence[Path]) -> Estimate:
        """What latencies are estimated from.

        Raises:
            InputError: a profile is none, or of another model.
        """
        times = {}
        session = self.calibrated.session
        if profiles:
            batch = session.load(session.dataset.sample(self.calibrated.metric.positions[0]))
            components = models.components(session.adapter, session.model, batch, session.training, session.options)
            times = read_profiles(profiles, components, quantizable(session.model))
        return Estimate(self.calibrated.costs, gpu, times)


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
        "versions": stage_versions(PACKAGES, session.config),
    }


def open_metric_of(session: Session, num_samples: int) -> TaskMetric:
    """The metric of a session's task on its data set.

    Raises:
        InputError: no frame has labels.
    """
    classes = models.classes(session.adapter, session.model, session.training)
    return open_metric(session.config.task_type, session.dataset, classes, num_samples)


def open_bench(
    session: Session,
    metric: TaskMetric,
    workspace: Workspace,
    key: dict[str, Any],
    *,
    device: str,
    force: bool,
    workers: Workers[list[str], Measurement] | None = None,
) -> Bench:
    """Calibrate every layer of a model (or take the ranges of an earlier search) and freeze it.

    Args:
        session: with a float model; frozen afterwards.
        metric: to measure with.
        workspace: keeps journal and calibration.
        key: `fingerprint`; a journal of another one is discarded.
        device: cpu or cuda.
        force: discard the journal in any case.
        workers: of `exporter.quantize.measuring`, on a cluster; None: this process measures.

    Raises:
        InputError: no sample to calibrate on, or a broken one; the float model scores nothing.
        EnvironmentLacks: no such device.
    """
    folder = workspace.place(FOLDER)
    code = code_digest("shared", "exporter")
    journal = Journal.open(folder / "journal.jsonl", sha256_of_json({**key, "code": code}), force)
    if journal.answers:
        _log.info("%d choices were measured before", len(journal.answers))
    bench = Bench(calibrate(session, metric, folder / CACHE, device, afresh=not journal.answers), journal, workers)
    if bench.measure([()], "float")[0].metric <= 0:
        raise InputError(
            f"{metric.name} of the float model is 0 on {len(metric.positions)} frames, so nothing can be lost",
            where=session.dataset.name, hint="check model.checkpoint, and that data.classes are the model's",
        )  # fmt: skip
    return bench
