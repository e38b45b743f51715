"""Metrics of classification: what is decided, how well the logits separate, and what the confidence is worth.

The numbers are scikit-learn's, but for three, see `_mean` and `_confidence`. With two classes the first is the one to
be found (miscalibrated): a *false alarm* is a sample of the second class taken for the first. How common the two are in
a data set of samples in both states says nothing about a vehicle, which is calibrated nearly always: recall at a fixed
share of false alarms is what to compare models by, not accuracy.

A decision is the pipeline's own: Autoware's node takes a pair for calibrated when that logit is above the other by more
than a threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.bootstrap import Copies
from evaluator.classification import presentation
from evaluator.classification.presentation import top_name
from shared.arrays import Float64, Int64
from shared.config.check_sections import Evaluation
from shared.data.camera_pairs import CameraPair
from shared.data.crops import ImageCrop
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.runs import Run
from shared.table import Table
from shared.tasks.classification import ClassScores

sklearn_metrics = lazy_import("sklearn.metrics", install="make setup")


#: Shares of false alarms at which the recall of the first class is reported.
FALSE_ALARM_RATES = (0.001, 0.01, 0.05)
#: The one of them in the headline.
HEADLINE_FALSE_ALARMS = 0.01
#: Bins of confidence from 0 to 1 (Guo et al., "On calibration of modern neural networks", 2017, use 15).
CONFIDENCE_BINS = 15
#: Upper bounds of rotation [degrees] by which recall is broken down.
ROTATION_BOUNDS = (1.0, 2.0, 4.0, 6.0, 180.0)
#: Numbers of best classes among which the true one is looked for, where there are more classes than that.
TOP_K = (2, 3, 5)
#: Logits are below this: their differences are numbers as well.
MOST_LOGIT = 1e300
# Corners of a ROC curve nearer to one another than this share of false alarms can't be told apart in a figure.
_CURVE_RESOLUTION = 1e-3


@dataclass(frozen=True)
class Truth:
    """What is true of the samples.

    Attributes:
        tokens: per sample, the name of what it is made of without its state: the states of one image are drawn together
            when intervals are made.
        scenes: per sample, the drive.
        samples: the samples, with ``token``, ``channel`` (the camera, empty where there is none) and ``disturbance``
            (None where there was none, or nothing is known of it), as `CameraPair` and `ImageCrop` have them.
        labels: (F,) index into the model's classes.
    """

    tokens: list[str]
    scenes: list[str]
    samples: Sequence[Any]
    labels: Int64


def ground_truth(
    samples: Iterable[CameraPair | ImageCrop], label_classes: Sequence[str], classes: Sequence[str]
) -> Truth | None:
    """The labels of ``samples`` in the class list of the model; None without samples.

    Raises:
        InputError: the data set has a class that the model does not have.
    """
    strangers = [name for name in label_classes if name not in classes]
    if strangers:
        raise InputError(
            f"the data set has the class '{strangers[0]}', the model has {', '.join(classes)}", where="ground truth"
        )
    listed = list(samples)
    if not listed:
        return None
    to_model = np.array([classes.index(name) for name in label_classes], np.int64)
    return Truth(
        tokens=[sample.token.rsplit("/", maxsplit=1)[0] for sample in listed],
        scenes=[sample.scene for sample in listed],
        samples=listed,
        labels=to_model[[sample.label for sample in listed]],
    )


@dataclass(frozen=True)
class Matched:
    """A run's answers beside the truth.

    Attributes:
        truth: the truth.
        classes: names of the classes.
        logits: (F, C).
        decisions: (F,) the class that was decided for.
    """

    truth: Truth
    classes: Sequence[str]
    logits: Float64
    decisions: Int64

    @property
    def margins(self) -> Float64:
        """(F,) how far the second class's logit is above the first's."""
        return np.asarray(self.logits[:, 1] - self.logits[:, 0])


def match(run: Run, truth: Truth, classes: Sequence[str], _: Evaluation) -> Matched:
    """The answers of a run over the samples of ``truth``.

    Raises:
        InputError: another number of samples or classes, or logits that are not finite.
    """
    if len(run) != len(truth.labels):
        raise InputError(f"holds {len(run)} samples, the ground truth {len(truth.labels)}", where=str(run.folder))
    answers = list(run.predictions_at(range(len(run)), ClassScores))
    for token, answer in zip(run.header.tokens, (each.logits for each in answers), strict=True):
        if answer.shape != (1, len(classes)):
            raise InputError(
                f"sample {token} has logits of shape {answer.shape}, expected (1, {len(classes)})",
                where=str(run.folder),
            )
        if not (np.abs(answer, dtype=np.float64) < MOST_LOGIT).all():
            raise InputError(
                f"sample {token} has a logit that is NaN, infinite or no logit ({np.abs(answer).max():g})",
                where=str(run.folder),
            )
    logits = np.concatenate([answer.logits for answer in answers]).astype(np.float64)
    decisions = np.concatenate([answer.labels for answer in answers])
    for row, counters in enumerate(run.counters):
        # Runs of before 0.1 have no decisions but here: 1 under the name of the class.
        if all(name in counters for name in classes):
            decisions[row] = max(range(len(classes)), key=lambda label: counters[classes[label]])
    return Matched(truth, classes, logits, decisions)


def evaluate(matched: Matched) -> dict[str, Any]:
    """Everything about the answers.

    Returns:
        JSON: ``decisions`` (accuracy, MCC, top-k accuracy of more classes than k, per class, confusion matrix with the
        truth in rows), ``separation`` (two classes:
        ROC and precision-recall, recall and threshold at shares of false alarms), ``confidence``, ``by_camera``,
        ``by_rotation``, ``samples`` (each one, with its disturbance).
    """
    everything = np.ones(len(matched.decisions), np.int64)
    return {
        "frames": len(matched.decisions),
        "classes": list(matched.classes),
        "decisions": _decisions(matched, everything) | {"confusion": _confusion(matched)},
        "separation": _separation(matched, everything) | {"roc": _roc_curve(matched)} if _binary(matched) else None,
        "confidence": _confidence(matched),
        "by_camera": _by_camera(matched),
        "by_rotation": _by_rotation(matched),
        "samples": _samples(matched),
    }


def resample(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """The headline numbers if each frame counted ``copies`` (F,) times; without the confidence's."""
    separation = _separation(matched, copies) if _binary(matched) else None
    numbers = headline({"decisions": _decisions(matched, copies), "separation": separation, "confidence": None})
    return {name: value for name, value in numbers.items() if not name.startswith("confidence")}


#: Of `headline`, the numbers that are errors.
LOWER_IS_BETTER = frozenset({"confidence error"})


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """Accuracy, mean recall and F1, each class's recall, and with two classes AUC and recall at few false alarms."""
    decisions, separation, confidence = result["decisions"], result["separation"], result["confidence"]
    numbers = {
        "accuracy": decisions["accuracy"],
        "balanced accuracy": decisions["balanced_accuracy"],
        "macro F1": decisions["macro"]["f1"],
        "MCC": decisions["mcc"],
        **{top_name(k): value for k, value in decisions["top_k"].items()},
        **{f"recall {name}": values["recall"] for name, values in decisions["classes"].items()},
    }
    if separation is not None:
        at = next(row for row in separation["at_false_alarms"] if row["rate"] == HEADLINE_FALSE_ALARMS)
        first = next(iter(decisions["classes"]))
        numbers |= {
            "ROC AUC": separation["roc_auc"],
            f"AP {first}": separation["average_precision"],
            f"recall {first} at {HEADLINE_FALSE_ALARMS:.0%} false alarms": at["recall"],
        }
    if confidence is not None:
        numbers["confidence error"] = confidence["expected_calibration_error"]
    return numbers


def headline_names(classes: Sequence[str]) -> list[str]:
    """Of `headline`."""
    first = classes[0]
    binary = ["ROC AUC", f"AP {first}", f"recall {first} at {HEADLINE_FALSE_ALARMS:.0%} false alarms"]
    recalls = [f"recall {name}" for name in classes]
    top = [top_name(k) for k in TOP_K if k < len(classes)]
    decisions = ["accuracy", "balanced accuracy", "macro F1", "MCC", *top, *recalls]
    return [*decisions, *(binary if len(classes) == 2 else []), "confidence error"]


def per_class(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Precision and recall."""
    classes = result["decisions"]["classes"]
    return {name: {key: classes[name][key] for key in ("precision", "recall")} for name in result["classes"]}


def tables(result: dict[str, Any]) -> list[Table]:
    """See `evaluator.classification.presentation`."""
    return presentation.tables(result)


# -- what is decided --------------------------------------------------------------------------------------------------


def _decisions(matched: Matched, copies: Copies) -> dict[str, Any]:
    labels, decisions, classes = matched.truth.labels, matched.decisions, range(len(matched.classes))
    columns = sklearn_metrics.precision_recall_fscore_support(
        labels, decisions, labels=classes, sample_weight=copies, zero_division=np.nan
    )
    rows = {
        name: {"precision": _known(p), "recall": _known(r), "f1": _known(f), "support": int(support)}
        for name, p, r, f, support in zip(matched.classes, *columns, strict=True)
    }
    return {
        "accuracy": float(sklearn_metrics.accuracy_score(labels, decisions, sample_weight=copies)),
        "balanced_accuracy": _mean([row["recall"] for row in rows.values()]),
        "macro": {key: _mean([row[key] for row in rows.values()]) for key in ("precision", "recall", "f1")},
        "mcc": _mcc(sklearn_metrics.confusion_matrix(labels, decisions, labels=classes, sample_weight=copies)),
        "top_k": {
            str(k): float(
                sklearn_metrics.top_k_accuracy_score(labels, matched.logits, k=k, labels=classes, sample_weight=copies)
            )
            for k in TOP_K
            if k < len(classes)
        },
        "classes": rows,
    }


def _mcc(confusion: npt.NDArray[np.int64]) -> float | None:
    """Matthews' correlation coefficient of counts (C, C); None where one class is all that is, or all that is decided.

    scikit-learn's ``matthews_corrcoef`` gives 0 there, with a warning.
    """
    truth, decided, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    spread = float(total**2 - truth @ truth) * float(total**2 - decided @ decided)
    return float(np.trace(confusion) * total - truth @ decided) / float(np.sqrt(spread)) if spread > 0 else None


def _confusion(matched: Matched) -> list[list[int]]:
    """(C, C) counts, the truth in rows."""
    classes = range(len(matched.classes))
    matrix = sklearn_metrics.confusion_matrix(matched.truth.labels, matched.decisions, labels=classes)
    return [[int(count) for count in row] for row in matrix]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of the values could not be computed: scikit-learn's would leave that class out."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


# -- how well the logits separate -------------------------------------------------------------------------------------


def _binary(matched: Matched) -> bool:
    return len(matched.classes) == 2


def _separation(matched: Matched, copies: Copies) -> dict[str, Any]:
    """ROC AUC, average precision of the first class, and recall at shares of false alarms; None where undefined."""
    used = copies > 0
    wanted, score, weight = (matched.truth.labels == 0)[used], -matched.margins[used], copies[used]
    if wanted.all() or not wanted.any():
        nothing = [{"rate": rate, "recall": None, "threshold": None} for rate in FALSE_ALARM_RATES]
        return {"roc_auc": None, "average_precision": None, "at_false_alarms": nothing}
    alarms, recalls, thresholds = sklearn_metrics.roc_curve(
        wanted, score, sample_weight=weight, drop_intermediate=False
    )
    rows = []
    for rate in FALSE_ALARM_RATES:
        # The greatest recall that the rate allows, with the fewest alarms that give it.
        at = int(np.argmax(recalls[alarms <= rate]))
        # The first point of the curve takes nothing for the first class: no margin is that low.
        threshold = float(-thresholds[at]) if np.isfinite(thresholds[at]) else None
        rows.append({"rate": rate, "recall": float(recalls[at]), "threshold": threshold})
    return {
        "roc_auc": float(sklearn_metrics.auc(alarms, recalls)),
        "average_precision": float(sklearn_metrics.average_precision_score(wanted, score, sample_weight=weight)),
        "at_false_alarms": rows,
    }


def _roc_curve(matched: Matched) -> list[list[float]]:
    """Share of false alarms and recall of the first class at the corners of the curve, for a figure.

    Of corners in one step of the resolution the first and the last are kept: a curve has at most 2,002 points.
    """
    wanted = matched.truth.labels == 0
    if wanted.all() or not wanted.any():
        return []
    alarms, recalls, _ = sklearn_metrics.roc_curve(wanted, -matched.margins)
    steps = np.floor(alarms / _CURVE_RESOLUTION)
    changes = np.flatnonzero(np.diff(steps))
    chosen = np.unique(np.concatenate([[0], changes, changes + 1, [len(alarms) - 1]]))
    return [[float(alarms[at]), float(recalls[at])] for at in chosen]


# -- what the confidence is worth -------------------------------------------------------------------------------------


def _confidence(matched: Matched) -> dict[str, Any]:
    """Softmax confidence against how often it is right.

    The log loss is not scikit-learn's, which takes probabilities and so ends at 36: a logit that is wrong by 50 costs
    50. Nor are the bins: its ``calibration_curve`` says neither how many samples a bin has nor which bins are empty.

    Returns:
        expected_calibration_error: mean over the samples of |confidence - accuracy| of their bin; brier: mean squared
        distance of all classes' probabilities from the truth, 0 to 2 (Brier's own, of several classes: twice the usual
        one of two); log_loss: mean -log of the truth's probability; bins: bounds,
        count, mean confidence and accuracy of the bins that are not empty.
    """
    labels = matched.truth.labels
    shifted = matched.logits - matched.logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    probabilities = np.exp(log_probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    place = np.clip(np.ceil(confidence * CONFIDENCE_BINS).astype(int) - 1, 0, CONFIDENCE_BINS - 1)
    bins = [
        {
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "count": int((place == index).sum()),
            "confidence": float(confidence[place == index].mean()),
            "accuracy": float(right[place == index].mean()),
        }
        for index in np.unique(place)
    ]
    error = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / len(labels)
    return {
        "expected_calibration_error": float(error),
        "brier": float(
            sklearn_metrics.brier_score_loss(
                labels, probabilities, labels=range(len(matched.classes)), scale_by_half=False
            )
        ),
        "log_loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "bins": bins,
    }


# -- where it goes wrong ----------------------------------------------------------------------------------------------


def _by_camera(matched: Matched) -> list[dict[str, Any]]:
    channels = np.array([sample.channel for sample in matched.truth.samples])
    right = matched.decisions == matched.truth.labels
    return [
        {
            "camera": str(channel),
            "count": int((channels == channel).sum()),
            "accuracy": float(right[channels == channel].mean()),
        }
        for channel in np.unique(channels)
        if channel
    ]


def _by_rotation(matched: Matched) -> list[dict[str, Any]]:
    """How many of the disturbances of a rotation were noticed."""
    angles = np.array(
        [np.nan if sample.disturbance is None else sample.disturbance.rotation_deg for sample in matched.truth.samples]
    )
    right = matched.decisions == matched.truth.labels
    rows = []
    low = 0.0
    for high in ROTATION_BOUNDS:
        inside = (angles >= low) & (angles < high)
        if inside.any():
            rows.append({"low": low, "high": high, "count": int(inside.sum()), "recall": float(right[inside].mean())})
        low = high
    return rows


def _samples(matched: Matched) -> list[dict[str, Any]]:
    return [
        {
            "token": sample.token,
            "label": int(label),
            "decision": int(decision),
            "logits": logits.tolist(),
            "disturbance": None if sample.disturbance is None else sample.disturbance.as_json(),
        }
        for sample, label, decision, logits in zip(
            matched.truth.samples, matched.truth.labels, matched.decisions, matched.logits, strict=True
        )
    ]
