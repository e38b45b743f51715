"""Classes as CSV: ``sample,label,score_<class>…``.

``label`` is the name of the true class. It is in the file of predictions, or in a file of its own
(``sample,label``); where both have it they must agree. Scores are logits, or, where every row is positive and adds up
to 1, probabilities.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.metrics import classification
from evaluator.score import Results, refuse_options_of_boxes
from shared.arrays import Float64
from shared.errors import InputError, UsageError
from shared.regular_files import open_regular
from shared.table import Table

_SCORE = "score_"
#: How far a row of probabilities may be from 1: they are written with three digits at least.
_SUM_TOLERANCE = 2e-3
#: A probability of 0 was rounded to it.
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class _Sample:
    """A row of the file. It has no camera, and nothing is known of a disturbance."""

    token: str
    label: int
    channel: str = ""
    disturbance: None = None


def score(results: Results) -> tuple[dict[str, Any], list[Table]]:
    """See `evaluator.score.Score`."""
    refuse_options_of_boxes(results)
    truth_file, predictions_file, classes = results.truth, results.predictions, results.classes
    rows, columns = _read(predictions_file)
    named = [column.removeprefix(_SCORE) for column in columns if column.startswith(_SCORE)]
    if len(named) < 2:
        raise InputError(
            "has fewer than two columns score_<class>",
            where=str(predictions_file),
            hint=f"it has: {', '.join(columns)}",
        )
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise InputError(f"has the column {_SCORE}{twice[0]} twice", where=str(predictions_file))
    if classes and sorted(classes) != sorted(named):
        raise UsageError(
            f"{', '.join(classes)} are not the classes of {predictions_file}",
            where="--classes",
            hint=f"its columns are of: {', '.join(named)}",
        )
    names = list(classes) or named
    labels = _labels(rows, columns, predictions_file)
    if truth_file is not None:
        labels = _merged(labels, truth_file, rows, predictions_file)
    elif labels is None:
        raise InputError("has no column 'label'", where=str(predictions_file), hint="also give --ground-truth")
    strangers = sorted(set(labels.values()) - set(names))
    if strangers:
        raise InputError(
            f"label '{strangers[0]}' is outside the list of classes ({', '.join(names)})",
            where=str(truth_file or predictions_file),
        )
    scores = _scores(rows, names, predictions_file)
    probabilities = bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    logits = np.log(np.maximum(scores, _SMALLEST_PROBABILITY)) if probabilities else scores
    samples = [_Sample(token, names.index(labels[token])) for token in rows]
    truth = classification.Truth(
        tokens=list(rows),
        scenes=list(rows),
        samples=samples,
        labels=np.array([sample.label for sample in samples], np.int64),
    )
    matched = classification.Matched(truth, names, logits, logits.argmax(axis=1))
    result = classification.evaluate(matched)
    kind = "probabilities" if probabilities else "logits"
    return {"scores": kind, **result}, classification.tables(result)


def _read(path: Path) -> tuple[dict[str, Mapping[str, str]], list[str]]:
    """Rows by sample, in the order of the file, and the columns."""
    where = str(path)
    try:
        with io.TextIOWrapper(open_regular(path), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            lines, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"can't be read as CSV ({error})", where=where) from error
    if "sample" not in columns:
        raise InputError(
            "has no column 'sample'", where=where, hint="the first line is: sample,label,score_<class>,score_<class>"
        )
    if not lines:
        raise InputError("holds no samples", where=where)
    rows: dict[str, Mapping[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise InputError(f"line {number} does not have the {len(columns)} columns of the first", where=where)
        if line["sample"] in rows:
            raise InputError(f"sample {line['sample']} appears twice, the second time in line {number}", where=where)
        rows[line["sample"]] = line
    return rows, columns


def _labels(rows: Mapping[str, Mapping[str, str]], columns: Sequence[str], path: Path) -> dict[str, str] | None:
    if "label" not in columns:
        return None
    labels = {token: row["label"].strip() for token, row in rows.items()}
    missing = [token for token, label in labels.items() if not label]
    if missing:
        raise InputError(f"sample {missing[0]} has no label", where=str(path))
    return labels


def _merged(
    own: Mapping[str, str] | None, truth_file: Path, rows: Mapping[str, Mapping[str, str]], predictions_file: Path
) -> dict[str, str]:
    """The labels of ``truth_file``, which has the samples of ``rows`` and contradicts none of their ``own`` labels."""
    truth_rows, truth_columns = _read(truth_file)
    labels = _labels(truth_rows, truth_columns, truth_file)
    if labels is None:
        raise InputError("has no column 'label'", where=str(truth_file))
    odd = sorted(labels.keys() ^ rows.keys())
    if odd:
        raise InputError(
            f"its samples are not those of {predictions_file}: {len(odd)} differ, for example {odd[0]}",
            where=str(truth_file),
            hint="both files must list the same samples",
        )
    wrong = [token for token, label in (own or {}).items() if labels[token] != label]
    if wrong:
        raise InputError(
            f"sample {wrong[0]} is '{labels[wrong[0]]}' here and '{(own or {})[wrong[0]]}' in {predictions_file}",
            where=str(truth_file),
            hint="'label' is the true class in both files; give a column of decisions another name",
        )
    return labels


def _scores(rows: Mapping[str, Mapping[str, str]], names: Sequence[str], path: Path) -> Float64:
    scores = np.empty((len(rows), len(names)))
    for place, (token, row) in enumerate(rows.items()):
        for column, name in enumerate(names):
            text = row[f"{_SCORE}{name}"]
            try:
                scores[place, column] = float(text)
            except ValueError as error:
                where = f"{path}: sample {token}, {_SCORE}{name}"
                raise InputError(f"'{text}' is not a number", where=where) from error
        if not (np.abs(scores[place]) < classification.MOST_LOGIT).all():
            raise InputError("a score is NaN or infinite", where=f"{path}: sample {token}")
    return scores
