"""Classification: a logit for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shared.tasks import Rows, RowsTask

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClassScores(Rows):
    """What a classifier says of one sample: a row for each thing that was classified, one as a rule.

    Attributes:
        logits: (N, C) float32, one column a class, before the softmax.
    """

    logits: Float32

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"logits": None}

    @staticmethod
    def empty() -> ClassScores:
        """Nothing classified."""
        return ClassScores(np.zeros((0, 0), np.float32))

    @staticmethod
    def build(logits: npt.ArrayLike) -> ClassScores:
        """Scores from anything array-like, (C,) or (N, C)."""
        return ClassScores(np.atleast_2d(np.asarray(logits, np.float32)))


class Classification(RowsTask[ClassScores]):
    """Classification."""

    container = ClassScores
    view = "camera_pair"

    def empty(self) -> ClassScores:
        """Nothing classified."""
        return ClassScores.empty()


TASK = Classification()


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(N, C) probabilities of logits (N, C), in double precision."""
    values = np.asarray(logits, np.float64)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
