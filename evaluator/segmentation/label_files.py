"""Label files of other programs: frames by the name of their file, classes by the ids in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.score import Results, needed_truth, refuse_options_of_boxes
from evaluator.segmentation.scores import Tally, evaluate, tables
from shared.data.label_file import LabelFile
from shared.errors import InputError, UsageError
from shared.metrics.confusion import MOST_CLASSES
from shared.progress import track
from shared.table import Table

#: In a list of classes, stands for ids that are not judged.
NOT_JUDGED = "-"


@dataclass(frozen=True)
class ClassIds:
    """Which id in a file is of which class.

    Attributes:
        names: of the classes.
        labels: by id, position in ``names``; -1: not judged.
    """

    names: list[str]
    labels: dict[int, int]


def parse_classes(items: Sequence[str]) -> ClassIds:
    """Classes and their ids, of ``name`` or ``name=id`` each.

    A name without an id has that of its place in the list. A name with several ids stands there several times, and
    `NOT_JUDGED` for what is not judged.

    Raises:
        UsageError: none, an empty name, an id that is no number or belongs to two, or more than labels tell apart.
    """
    where = "--classes"
    if not items:
        raise UsageError(
            "labels need classes", where="score", hint="give --classes road,car, or road=40,car=10,car=252,-=0"
        )
    names: list[str] = []
    labels: dict[int, int] = {}
    for place, item in enumerate(items):
        name, separator, text = item.partition("=")
        if not name or (separator and not (text.isascii() and text.isdigit() and int(text) < 1 << 16)):
            raise UsageError(f"'{item}' is no class", where=where, hint="write car, or car=10; ids are below 65536")
        number = int(text) if separator else place
        if number in labels:
            raise UsageError(f"id {number} is given twice", where=where)
        if name != NOT_JUDGED and name not in names:
            names.append(name)
        labels[number] = -1 if name == NOT_JUDGED else names.index(name)
    if not 0 < len(names) <= MOST_CLASSES:
        raise UsageError(f"{len(names)} classes are to be judged, of 1 to {MOST_CLASSES}", where=where)
    return ClassIds(names, labels)


def score_labels(results: Results, suffixes: Sequence[str], unit: str) -> tuple[dict[str, Any], list[Table]]:
    """Score label files, or folders of them; see `evaluator.score.Score`.

    Args:
        results: what `evaluator score` was given.
        suffixes: of the files.
        unit: ``points`` or ``pixels``.
    """
    refuse_options_of_boxes(results)
    truth_place = needed_truth(results)
    for place in (truth_place, results.predictions):
        if not place.exists():
            raise InputError("no such file or folder", where=str(place))
    ids = parse_classes(results.classes)
    truths, predictions = (_files(place, suffixes) for place in (truth_place, results.predictions))
    if truth_place.is_dir() != results.predictions.is_dir():
        places = sorted((truth_place, results.predictions), key=Path.is_dir)
        raise UsageError(f"{places[0]} is a file, {places[1]} a folder", where="score", hint="give two of a kind")
    lacking = sorted(predictions.keys() - truths.keys())
    if lacking:
        raise InputError(f"has no labels of {_example(lacking)}", where=str(truth_place))
    lacking = sorted(truths.keys() - predictions.keys())
    if lacking:
        raise InputError(f"has no labels of {_example(lacking)}", where=str(results.predictions))
    to_model = np.array([*range(len(ids.names)), -1], np.int64)
    tally = Tally(ids.names, unit)
    for name in track(sorted(truths), "counting", len(truths)):
        truth, given = (LabelFile(files[name], ids.labels).read(to_model) for files in (truths, predictions))
        tally.add(truth, given, str(predictions[name]))
    result = evaluate(tally.matched(len(truths)))
    return result, tables(result)


def _example(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _files(place: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Label files by their path in the folder ``place``, without suffix; or the one file that ``place`` is.

    Raises:
        InputError: there are none, or two of one name; a file that ends otherwise.
    """
    endings = " or ".join(suffixes)
    if not place.is_dir():
        if place.suffix not in suffixes:
            raise InputError(f"is no file of labels, which ends in {endings}", where=str(place))
        return {"the file": place}
    found: dict[str, Path] = {}
    for path in sorted(place.rglob("*")):
        if path.suffix in suffixes:
            name = path.relative_to(place).with_suffix("").as_posix()
            if name in found:
                raise InputError(f"has two files of {name}: {found[name].name} and {path.name}", where=str(place))
            found[name] = path
    if not found:
        raise InputError(f"holds no labels: no file ends in {endings}", where=str(place))
    return found
