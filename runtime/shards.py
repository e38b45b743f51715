"""`runtime run --shard I/N`: some samples of a run, for `manifest merge` to put together with the others."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from typing import Any

from runtime.answers import answering
from runtime.devices import Device
from runtime.doctor_input import suspicions
from runtime.model import Model
from runtime.recording import record
from shared.answer import Answer
from shared.errors import InputError
from shared.files import explain_os_errors
from shared.pieces import Origin, Piece, PieceHeader, PieceWriter, is_finished
from shared.shards import RUNS, Shard
from shared.stages import StageRun, stage_lock
from shared.work_path import WorkPath

_log = logging.getLogger("runtime")


def run_shard(
    model: Model, shard: Shard, settings: dict[str, Any], *, force: bool, readers: int | None = None
) -> Answer:
    """Run a shard, and leave it as a piece of the run. Returns what to print.

    The run is that on the first device of its kind, whichever the shard is run on: a machine's GPUs share its shards.

    Args:
        model: what is run, on the device that the shard is to use.
        shard: which.
        settings: of the run, for the key of its stage: ``num_samples`` and ``raw_samples``, how many.
        force: run it afresh, whatever is there.
        readers: see `runtime.answers.answering`.
    """
    meant = replace(model, device=Device(model.device.kind))
    stage, folder = meant.stage("run", settings), f"{RUNS}/{meant.name}"
    samples, title = shard.samples(settings["num_samples"]), f"{stage.name}: shard {shard}"
    data = {"run": meant.name, "shard": str(shard), "samples": [samples[0], samples[-1]] if samples else None}
    if not samples:
        return Answer(f"{title} has no sample, the run has {settings['num_samples']}: nothing to do", data)
    if not force and stage.up_to_date():
        return Answer(f"{title}: up to date, the run is whole", data)
    place = stage.pieces_folder(folder) / shard.folder
    lock = stage_lock(model.workspace.root, f"{stage.name}-{shard.folder}")
    with explain_os_errors(place), lock:
        damaged = is_finished(place) and not _is_whole(place, title)
        if is_finished(place) and not damaged and not force:
            return Answer(f"{title}: up to date, samples {samples[0]} to {samples[-1]}", data)
        resume = not force and not damaged
        alerts = _record(model, meant, stage, shard, settings, place, resume=resume, readers=readers)
    for alert in alerts:
        _log.warning("%s: %s", stage.name, alert)
    merge = f"manifest merge --work {model.workspace.root}"
    text = f"{title}: done, samples {samples[0]} to {samples[-1]}. When all are: {merge} [COPY ...]"
    return Answer(text, {**data, "alerts": alerts})


def _is_whole(place: WorkPath, title: str) -> bool:
    try:
        Piece.open(place)
    except InputError as error:
        _log.warning("%s: begins anew: %s", title, error)
        return False
    return True


def _record(
    model: Model,
    meant: Model,
    stage: StageRun,
    shard: Shard,
    settings: dict[str, Any],
    place: WorkPath,
    *,
    resume: bool,
    readers: int | None,
) -> list[str]:
    """Run the shard's samples into the piece at ``place``; returns the alerts."""
    count, raw_samples = settings["num_samples"], range(settings["raw_samples"])
    samples = shard.samples(count)
    # As many requests in flight as a single process would have, which does all of them.
    with answering(model, count, readers=readers) as loaded:
        run = meant.header(samples, stage.fingerprint, loaded.details, raw_samples)
        writer = PieceWriter.open(place, PieceHeader(run=run, first=samples.start, count=count), resume=resume)
        record(model, loaded, writer, samples, raw_samples)
        answered = writer.read()
        found = loaded.pipeline.alerts(answered.counters())
        if samples.start == 0:
            found += suspicions(model, loaded.session, len(samples), answered.predictions)
    alerts = [f"shard {shard}: {alert}" for alert in found]
    recorded = stage.record()
    whole = recorded.model_copy(update={"command": _whole_command(recorded.command, str(meant.device))})
    writer.finish(Origin(stage=whole, shards=shard.of, alerts=alerts))
    return alerts


def _whole_command(command: str, device: str) -> str:
    """The command for the whole run, from that of a shard."""
    words: list[str] = []
    rest = iter(shlex.split(command))
    for word in rest:
        name, _, value = word.partition("=")
        if name in ("--shard", "--device"):
            value = value or next(rest, "")
        if name == "--device":
            words += [name, device]
        elif name != "--shard":
            words.append(word)
    return shlex.join(words)
