"""A recording for the Rerun viewer: samples with ground truth and boxes, on the time line of the run."""

from __future__ import annotations

from pathlib import Path

from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared.errors import InputError
from shared.files import atomic_path, explain_os_errors
from shared.lazy import lazy_import
from shared.progress import track

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

#: The points of more frames make a file too large for viewers; the worst ones are taken.
MOST_FRAMES = 60


def write_rerun(path: Path, material: Material, task: TaskReport | None) -> str:
    """Write the recording.

    Returns:
        What was written, in words.

    Raises:
        InputError: there are no samples to show.
        EnvironmentLacks: rerun-sdk is not installed, or the file can't be written.
    """
    if material.samples is None or task is None:
        raise InputError(f"nothing to record: {material.missing or 'the task has no pictures'}", where=str(path))
    scores = [(1.0 if score is None else score, position) for position, score in enumerate(task.frame_scores(material))]
    positions = sorted(position for _, position in sorted(scores)[:MOST_FRAMES])
    stream = rr.RecordingStream(f"awml-deploy {material.spec.model}")
    with explain_os_errors(path), atomic_path(path) as temporary:
        stream.save(temporary)
        for position in track(positions, "recording", len(positions)):
            stream.set_time("frame", sequence=position)
            task.log(stream, material, position)
        stream.disconnect()
    return f"Rerun recording: {path} ({len(positions)} of {len(scores)} frames)"
