"""The framework reference: what the training framework itself answers on the verification samples.

Recorded as a run (`shared.runs`) with its own data preprocessor, model and post-processing, so that a mistake which all
our pipelines share can't hide.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from exporter.models import ExportableModel
from shared.data import Dataset
from shared.logs import about
from shared.progress import track
from shared.runs import RunHeader, RunWriter
from shared.work_path import WorkPath

FOLDER = "reference"
BACKEND = "framework"


def record_reference(
    adapter: ExportableModel,
    model: Any,
    dataset: Dataset[Any],
    load: Callable[[Any], Any],
    folder: WorkPath,
    header: RunHeader,
    *,
    resume: bool,
) -> list[str]:
    """Run the framework on the samples of ``header`` and record its answers.

    Args:
        adapter: the kind of model.
        model: with its weights.
        dataset: the samples; the header's tokens are its first.
        load: makes of a sample what ``adapter.answer`` takes.
        folder: where the run is kept.
        header: what is run; a run with the same header continues where it stopped.
        resume: False begins afresh in any case.

    Returns:
        The files of the run, relative to ``folder``.

    Raises:
        ConfigError: ``load`` can't read a sample as the training config says.
        InputError: a sample's files are missing or broken.
        EnvironmentLacks: the framework needs a compiled operator that is not there; the disk is full.
    """
    writer = RunWriter.open(folder, header, resume=resume)
    left = writer.missing()
    for index in track(left, "framework reference", total=len(left)):
        sample = dataset.sample(index)
        with about(sample=sample.token):
            model_input = load(sample).to(header.device)
            started = time.perf_counter()
            raw, predictions, counters = adapter.answer(model, model_input)
            elapsed = (time.perf_counter() - started) * 1e3
        writer.commit(index, predictions, {"total": elapsed}, counters, raw)
    return writer.finish()
