"""What two runs answered on one sample, laid side by side.

Within a label, the two results that are nearest are paired first, then the nearest of what is left, as far as the task
lets results be the same thing. That is symmetric in the two runs and does not look at scores, which are among what is
compared. What stays alone is paired once more regardless of the label: those are label flips.

Ties are the exception. Where results have the same score, which of them a limit or a suppression keeps is decided by
their order alone, so two correct runs answer with different ones. Of what is still alone, results of one label and one
score are paired as members of such a set, wherever they are. Suppression goes from the highest score down, and what it
did not keep makes room for others: which results below a tie are kept hangs on the tie, so they are not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64, Int64

if TYPE_CHECKING:
    from typing_extensions import Self

Scores = npt.NDArray[np.floating[Any]]

#: Scores of one half that differ by no more are tied: sums in another order, in FP32, move them by this much. Others
#: move by less, as the sigmoid is less steep there (`_tie_width`).
TIE = 1e-5
_ROUNDING = 1e-7  # of a score itself in FP32
#: By so much two probabilities differ where a decision is clear: INT8 moves nine of ten scores by a tenth at most.
SURE_MARGIN = 0.2


@dataclass(frozen=True)
class Pairing:
    """Results of two runs on one sample, paired.

    Attributes:
        reference_count, test_count: results of each run.
        non_finite: results of both runs with NaN or infinity in them, which take no part in the rest.
        matched: K, pairs of one label.
        errors: (K,) per name, of these pairs; the first name decides which sample is the worst. NaN:
            nothing to compare; infinite: known in one run only.
        label_flips: pairs of two labels.
        reference_alone, test_alone: (U,) and (V,) scores of the results without a partner.
        tied: pairs of results that are other members of one set of equal scores.
        below_ties: results of both runs without a partner of their label, whose score is that of a tie or lower.
        scores: (K,) of each pair the higher score; None where results have none: then all are worth the same.
        flip_scores: (label_flips,) of each flip the higher score; None as above.
        shifts: (K,) per name, signed differences of the pairs, in which what is systematic adds up. NaN: nothing to
            compare.
        by_label: (L, 3) per label, how many results both runs say are of it, how many the reference, how many the test,
            without ties; None where a task does not count them.
        sure_flips: label flips where both runs decided clearly; 0 where a task does not count labels.
        same_places: False: the answers are not of the same points or pixels.
    """

    reference_count: int
    test_count: int
    non_finite: int
    matched: int
    errors: Mapping[str, Float64]
    label_flips: int
    reference_alone: Scores
    test_alone: Scores
    tied: int = 0
    below_ties: int = 0
    scores: Scores | None = None
    flip_scores: Scores | None = None
    shifts: Mapping[str, Float64] = field(default_factory=dict)
    by_label: Int64 | None = None
    sure_flips: int = 0
    same_places: bool = True


class Boxes(Protocol):
    """Rows with labels (N,) and scores (N,)."""

    @property
    def labels(self) -> Int64:
        """(N,)."""

    @property
    def scores(self) -> Scores:
        """(N,)."""

    def __len__(self) -> int: ...

    def select(self, index: Bool | Int64) -> Self:
        """The rows at ``index``."""


BoxesT = TypeVar("BoxesT", bound=Boxes)
ValueT = TypeVar("ValueT", bound=np.generic)


def pair_nearest(
    reference: BoxesT,
    test: BoxesT,
    *,
    finite: Callable[[BoxesT], Bool],
    distances: Callable[[BoxesT, BoxesT], Float64],
    reach: float,
    errors: Callable[[BoxesT, BoxesT], Mapping[str, Float64]],
    shifts: Callable[[BoxesT, BoxesT], Mapping[str, Float64]],
) -> Pairing:
    """Pair results between which there is a distance.

    Args:
        reference, test: the results of the two runs.
        finite: (N,) whether each result is free of NaN and infinities.
        distances: (N, M) between N and M results.
        reach: results further apart are not the same thing.
        errors: (K,) per name, of K results and their partners.
        shifts: signed differences (K,) per name, of the same.
    """
    whole, other_whole = finite(reference), finite(test)
    left = reference if whole.all() else reference.select(whole)
    right = test if other_whole.all() else test.select(other_whole)
    apart = distances(left, right)
    within = apart <= reach
    rows, columns = match_nearest(apart, within & (left.labels[:, None] == right.labels[None]))
    rows_alone, columns_alone = _others(np.arange(len(left)), rows), _others(np.arange(len(right)), columns)
    flipped_rows = flipped_columns = tied_rows = tied_columns = np.zeros(0, np.int64)
    if len(rows_alone) and len(columns_alone):  # of most samples, one run has no more
        alone = np.ix_(rows_alone, columns_alone)
        flipped = match_nearest(apart[alone], within[alone])
        flipped_rows, flipped_columns = rows_alone[flipped[0]], columns_alone[flipped[1]]
        rows_alone, columns_alone = _others(rows_alone, flipped[0]), _others(columns_alone, flipped[1])
        tied_rows, tied_columns = _match_tied(left, rows_alone, right, columns_alone)
    tied = left.scores[rows_alone[tied_rows]].astype(np.float64)
    tie = (tied + _tie_width(tied)).max(initial=-np.inf)
    lone = _others(left.scores[rows_alone], tied_rows), _others(right.scores[columns_alone], tied_columns)
    judged = [scores[scores > tie] for scores in lone]
    flip_scores = np.maximum(left.scores[flipped_rows], right.scores[flipped_columns])
    flips = flip_scores > tie
    paired = left.select(rows), right.select(columns)
    return Pairing(
        reference_count=len(reference),
        test_count=len(test),
        non_finite=int((~whole).sum() + (~other_whole).sum()),
        matched=len(rows),
        errors=errors(*paired),
        label_flips=int(flips.sum()),
        reference_alone=judged[0],
        test_alone=judged[1],
        tied=len(tied_rows),
        below_ties=sum(map(len, lone)) - sum(map(len, judged)) + 2 * int((~flips).sum()),
        scores=np.maximum(paired[0].scores, paired[1].scores),
        flip_scores=flip_scores[flips],
        shifts=shifts(*paired),
    )


def _others(values: npt.NDArray[ValueT], positions: Int64) -> npt.NDArray[ValueT]:
    """The values at all other positions, in order."""
    others = np.ones(len(values), np.bool_)
    others[positions] = False
    return values[others]


def _match_tied(left: Boxes, rows: Int64, right: Boxes, columns: Int64) -> tuple[Int64, Int64]:
    """Pair results that are alone (``rows``, ``columns``) with those of the same label and score in the other run.

    An equal score alone does not make a tie: a box in the wrong place has it too. Either run must show that there are
    several results of this label and score; or the two are the last of their label, and the only ones without a
    partner: those a limit may have cut off from their equals.

    Returns:
        Positions in ``rows`` and in ``columns`` of the K pairs, (K,) each.
    """
    differences = np.abs(left.scores[rows, None].astype(np.float64) - right.scores[None, columns])
    same_label = left.labels[rows, None] == right.labels[None, columns]
    several = (_equals(left, rows) > 1)[:, None] | (_equals(right, columns) > 1)[None]
    cut_off = _lone_last(left, rows)[:, None] & _lone_last(right, columns)[None]
    near = differences <= _tie_width(left.scores[rows])[:, None]
    return match_nearest(differences, same_label & near & (several | cut_off))


def _tie_width(scores: Scores) -> Float64:
    """(K,) by how much scores, after a sigmoid, may differ from those that they are tied with."""
    values = scores.astype(np.float64)
    return np.asarray(4 * TIE * np.clip(values * (1 - values), 0, None) + _ROUNDING)


def _equals(boxes: Boxes, rows: Int64) -> Int64:
    """(K,) how many results have the label and score of each of ``rows``, itself included."""
    same_label = boxes.labels[rows, None] == boxes.labels[None]
    apart = np.abs(boxes.scores[rows, None].astype(np.float64) - boxes.scores[None])
    return np.asarray((same_label & (apart <= _tie_width(boxes.scores[rows])[:, None])).sum(axis=1))


def _lone_last(boxes: Boxes, rows: Int64) -> Bool:
    """(K,) whether each of ``rows`` is the last of several of its label, and no other of ``rows`` has that label."""
    same_label = boxes.labels[rows, None] == boxes.labels[None]
    lower = boxes.scores[None] < (boxes.scores[rows] - _tie_width(boxes.scores[rows]))[:, None]
    others = same_label[:, rows].sum(axis=1) - 1
    return np.asarray((others == 0) & (same_label.sum(axis=1) > 1) & ~(same_label & lower).any(axis=1))


def match_nearest(distances: Float64, allowed: Bool) -> tuple[Int64, Int64]:
    """Match results one to one, nearest pair first.

    Args:
        distances: (N, M) between results of the two runs.
        allowed: (N, M) pairs that may match.

    Returns:
        Rows and columns of the K pairs, (K,) each.
    """
    rows, columns = np.nonzero(allowed)
    order = np.argsort(distances[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    free_rows, free_columns = set(rows.tolist()), set(columns.tolist())
    if len(free_rows) == len(free_columns) == len(order):  # as nearly always: nobody has a choice
        return rows, columns
    pairs = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            pairs.append((row, column))
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def pair_by_position(
    labels: tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]],
    margins: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    values: Mapping[str, tuple[Float64, Float64]],
    *,
    hair: float,
    sure: float,
    shifts: Mapping[str, str],
) -> Pairing:
    """Pair results of which each has its place in both answers: points of a cloud (N,), pixels of an image (H, W).

    Args:
        labels: of each run. Answers of different shapes are not of the same points: nothing of them is paired.
        margins: how clearly each run decided for each label.
        values: by name of the error, what each run says.
        hair: of no greater margins, in both runs, either label is right: results of two labels are tied.
        sure: from such margins on, in both runs, no rounding turns one label into the other.
        shifts: by name, the error whose signed difference it is.
    """
    reference, test = labels
    nothing = np.zeros(0)
    if reference.shape != test.shape:
        return Pairing(
            reference_count=reference.size,
            test_count=test.size,
            non_finite=0,
            matched=0,
            errors=dict.fromkeys(values, nothing),
            label_flips=0,
            reference_alone=np.ones(reference.size),
            test_alone=np.ones(test.size),
            shifts=dict.fromkeys(shifts, nothing),
            same_places=False,
        )
    whole = np.ones(reference.shape, np.bool_)
    for pair in values.values():
        whole &= np.isfinite(pair[0]) & np.isfinite(pair[1])
    same = whole & (reference == test)
    flips = whole & ~same
    tied = flips & (margins[0] <= hair) & (margins[1] <= hair)
    clear = (margins[0] >= sure) & (margins[1] >= sure)
    differences = {name: after[same] - before[same] for name, (before, after) in values.items()}
    return Pairing(
        reference_count=reference.size,
        test_count=test.size,
        non_finite=2 * int((~whole).sum()),
        matched=int(same.sum()),
        errors={name: np.abs(difference) for name, difference in differences.items()},
        label_flips=int((flips & ~tied).sum()),
        reference_alone=nothing,
        test_alone=nothing,
        tied=int(tied.sum()),
        shifts={name: differences[error] for name, error in shifts.items()},
        by_label=_by_label(reference, test, same, flips & ~tied),
        sure_flips=int((flips & clear).sum()),
    )


def _by_label(
    reference: npt.NDArray[np.integer[Any]], test: npt.NDArray[np.integer[Any]], same: Bool, flipped: Bool
) -> Int64:
    """(256, 3) see `Pairing.by_label`; labels have 8 bits."""
    both, *only = (
        np.bincount(labels, minlength=256) for labels in (reference[same], reference[flipped], test[flipped])
    )
    return np.stack([both, *(both + other for other in only)], axis=1)
