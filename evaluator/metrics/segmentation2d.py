"""Metrics of 2D segmentation: how well the labels of the pixels agree with the mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evaluator.segmentation.scores import (
    LOWER_IS_BETTER,
    Matched,
    Tally,
    Truth,
    count_run,
    evaluate,
    headline,
    headline_names,
    per_class,
    resample,
    tables,
    truth_of,
)
from shared.config.check_sections import Evaluation
from shared.data.types import ImageSample
from shared.runs import Run
from shared.tasks.segmentation2d import ClassMask

__all__ = [
    "LOWER_IS_BETTER",
    "evaluate",
    "ground_truth",
    "headline",
    "headline_names",
    "match",
    "per_class",
    "resample",
    "tables",
]


def ground_truth(samples: Iterable[ImageSample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:
    """The images that have a mask; None when none has. Pixels of classes that the model lacks are not judged."""
    return truth_of(samples, lambda sample: sample.mask, label_classes, classes)


def match(run: Run, truth: Truth, classes: Sequence[str], _: Evaluation) -> Matched:
    """Count the run's labels against those of ``truth``.

    Raises:
        InputError: another number of samples, a mask of another size, labels outside the list, a file that is no mask.
    """
    return count_run(run, truth, ClassMask, Tally(classes, "pixels"))
