"""A recording for the Rerun viewer: samples with ground truth and boxes, on the time line of the run."""

from __future__ import annotations

from pathlib import Path

from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport, find_task
from shared.errors import InputError
from shared.files import atomic_path, explain_os_errors
from shared.lazy import lazy_import
from shared.progress import track

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

#: The points of more frames make a file too large for viewers; the worst ones are taken.
MOST_FRAMES = 60


def write_rerun(path: Path, material: Material) -> str:
    """Write the recording.

    Returns:
        What was written, in words.

    Raises:
        InputError: there are no samples to show.
        EnvironmentLacks: rerun-sdk is not installed, or the file can't be written.
    """
    parts = [(part, task) for part in material.parts().values() if (task := find_task(part.spec.task)) is not None]
    if material.samples is None or not parts:
        raise InputError(f"nothing to record: {material.missing or 'the task has no pictures'}", where=str(path))
    frames: list[list[tuple[Material, TaskReport, int]]] = [[] for _ in material.samples.truth.tokens]
    scores = [1.0] * len(frames)
    places = {token: place for place, token in enumerate(material.samples.truth.tokens)}
    for part, task in parts:
        if part.samples is not None:
            for position, score in enumerate(task.frame_scores(part)):
                place = places[part.samples.truth.tokens[position]]
                frames[place].append((part, task, position))
                scores[place] = min(scores[place], 1.0 if score is None else score)
    chosen = sorted(place for _, place in sorted(zip(scores, range(len(scores)), strict=True))[:MOST_FRAMES])
    stream = rr.RecordingStream(f"awml-deploy {material.spec.model}")
    with explain_os_errors(path), atomic_path(path) as temporary:
        stream.save(temporary)
        for place in track(chosen, "recording", len(chosen)):
            stream.set_time("frame", sequence=place)
            for part, task, position in frames[place]:
                task.log(stream, part, position)
        stream.disconnect()
    return f"Rerun recording: {path} ({len(chosen)} of {len(frames)} frames)"
