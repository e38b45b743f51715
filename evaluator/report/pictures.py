"""Section: the worst, median and best frames, with ground truth and the runs."""

from __future__ import annotations

from collections.abc import Sequence

from evaluator.report.blocks import Block, Section, Text
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared.errors import InputError


def section(material: Material, task: TaskReport | None) -> Section | None:
    """The pictures, or why there are none."""
    if not material.evaluations or task is None:
        return None
    if material.samples is None:
        return Section("frames", "Frames", [_left_out(material.missing)])
    scores = task.frame_scores(material)
    blocks: list[Block] = []
    for number, (name, position) in enumerate(chosen(scores)):
        token = material.samples.truth.tokens[position]
        try:
            blocks.append(task.picture(material, position, f"frame-{number}", f"{name}: {token}"))
        except InputError as error:
            blocks = [_left_out(f"{error.where}: {error.message}" if error.where else error.message)]
            break
    return Section("frames", "Frames", blocks)


def _left_out(reason: str) -> Text:
    return Text(f"No pictures: {reason}. Give --data FOLDER on a machine that has the data.", "muted")


def chosen(scores: Sequence[float | None]) -> list[tuple[str, int]]:
    """The two worst frames, the median and the best one, each once, by name; frames without a score are left out."""
    known = sorted((score, position) for position, score in enumerate(scores) if score is not None)
    if not known:
        return []
    names = {"Worst": 0, "Second worst": 1, "Median": len(known) // 2, "Best": len(known) - 1}
    name_of_rank: dict[int, str] = {}
    # The last name of a frame counts least: a single frame is the worst one.
    for name, rank in names.items():
        if rank < len(known):
            name_of_rank.setdefault(rank, name)
    return [(f"{name} frame", known[rank][1]) for rank, name in name_of_rank.items()]
