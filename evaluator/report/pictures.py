"""Section: the frames of the data set, with ground truth and the runs, to look through."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluator.report.blocks import Block, Explorer, Picture, Section, Text
from evaluator.report.material import Material
from evaluator.report.scene import DETAILS, Detail, Scene
from evaluator.report.tasks import TaskReport
from shared.errors import InputError

#: Frames that the page lists.
MOST_FRAMES = 400
#: Frames with points or photos: reading those of many more takes minutes.
MOST_WITH_MEDIA = 80
# What the frames may weigh [bytes], so that the whole page stays below its limit.
_BUDGET = 7_500_000
# From so many frames it is guessed what all of them weigh.
_TRIAL = 3
_KEY = "frames"


def section(material: Material, task: TaskReport | None) -> Section | None:
    """The frames, or why there are none."""
    if not material.evaluations or task is None:
        return None
    if material.samples is None:
        return Section(_KEY, "Frames", [_left_out("frames", material.missing)])
    scores = task.frame_scores(material)
    ranked = by_score(scores)
    blocks: list[Block] = []
    frames, head = [], {"kind": "drawing"}
    budget = _BUDGET // material.sharers
    suffix = f"-{material.part}" if material.part else ""
    for position in chosen(ranked):
        token = material.samples.truth.tokens[position]
        try:
            picture = task.picture(material, position, f"frame{suffix}-{position}", token)
        except InputError as error:
            return Section(_KEY, "Frames", [_left_out("frames", _reason(error))])
        if isinstance(picture, Scene):
            head = dict(picture.head)
        entry = {"token": token, "score": scores[position], **_entry(picture)}
        budget -= _weight(entry)
        if budget < 0:
            break
        frames.append((picture, entry))
    broken = _add_media([(picture, entry) for picture, entry in frames if isinstance(picture, Scene)], budget)
    if broken:
        plural = "frame" if len(broken) == 1 else "frames"
        blocks.append(_left_out(f"points and photos of {len(broken)} {plural}", broken[0]))
    if len(frames) < len(scores):
        blocks.append(Text(f"{len(frames)} of {len(scores)} frames, the worst among them.", "muted"))
    blocks.append(Explorer(f"{_KEY}{suffix}", {**head, "frames": [entry for _, entry in frames]}))
    return Section(_KEY, "Frames", blocks)


def _entry(picture: Picture | Scene) -> dict[str, Any]:
    if isinstance(picture, Scene):
        return {"key": picture.key, "title": picture.title, "note": picture.note, **picture.data}
    return {
        "key": picture.key,
        "title": picture.title,
        "note": picture.note,
        "svg": picture.svg,
        "layers": list(picture.layers),
        "views": list(picture.views),
    }


def _add_media(frames: Sequence[tuple[Scene, dict[str, Any]]], budget: int) -> list[str]:
    """Give the frames their points and photos, as fine as all of them fit, the first ones as far as the budget goes.

    Returns:
        Per frame with a file that is missing or broken, which one.
    """
    frames = frames[:MOST_WITH_MEDIA]
    detail = _finest([scene for scene, _ in frames], budget)
    broken = []
    for scene, entry in frames:
        try:
            media = scene.media(detail)
        except InputError as error:
            broken.append(_reason(error))
            continue
        budget -= _weight(media)
        if budget < 0:
            break
        entry["media"] = media
    return broken


def _finest(scenes: Sequence[Scene], budget: int) -> Detail:
    """The finest level of detail at which all frames fit, judged by some; the coarsest if there is none."""
    some = [scenes[len(scenes) * index // _TRIAL] for index in range(min(_TRIAL, len(scenes)))]
    for detail in DETAILS[:-1]:
        weights = []
        for scene in some:
            with contextlib.suppress(InputError):  # said when its turn comes
                weights.append(_weight(scene.media(detail)))
        if sum(weights) * len(scenes) <= budget * len(weights):
            return detail
    return DETAILS[-1]


def _weight(values: Mapping[str, Any]) -> int:
    return len(json.dumps(values, separators=(",", ":")))


def _left_out(what: str, reason: str) -> Text:
    return Text(f"No {what}: {reason}. Give --data FOLDER on a machine that has the data.", "muted")


def _reason(error: InputError) -> str:
    return f"{error.where}: {error.message}" if error.where else error.message


def by_score(scores: Sequence[float | None]) -> list[int]:
    """Positions of the frames, the worst first; those without a score, where nothing is to be found, at the end."""
    return sorted(
        range(len(scores)), key=lambda position: (scores[position] is None, scores[position] or 0.0, position)
    )


def chosen(ranked: Sequence[int]) -> list[int]:
    """The frames that the page lists, in the order in which they get points and photos.

    Of more than it lists, half are the worst ones, and half are spread evenly over the others.
    """
    if len(ranked) <= MOST_FRAMES:
        return _interleaved(ranked, min(len(ranked), MOST_WITH_MEDIA))
    worst, others = ranked[: MOST_FRAMES // 2], ranked[MOST_FRAMES // 2 :]
    spread = [others[len(others) * index // (MOST_FRAMES // 2)] for index in range(MOST_FRAMES // 2)]
    return _interleaved([*worst, *spread], MOST_WITH_MEDIA)


def _interleaved(ranked: Sequence[int], first: int) -> list[int]:
    """The same frames; the ``first`` ones are half the worst, half spread evenly over the others up to the best."""
    worst, others = ranked[: first // 2], ranked[first // 2 :]
    count = first - len(worst)
    places = sorted({round((len(others) - 1) * index / max(1, count - 1)) for index in range(count)}) if others else []
    spread = [others[place] for place in places]
    rest = [position for place, position in enumerate(others) if place not in set(places)]
    return [*worst, *spread, *rest]
