"""What is still the same: limits per precision, and the verdict on stored statistics.

Two kinds of check. Some don't depend on any limit: nothing compared, NaN or Inf, a missing output, another shape. The
rest compares statistics with limits that follow from the arithmetic of the backends:

- *Largest absolute difference* of a raw output (AWML's criterion): the config's ``verification.tolerance``; where that
  is silent, 0.1 in FP32.
- *SNR* and *cosine* per output, free of scale, so that one default serves logits and log sizes alike.
- *Decoded results* (boxes, class scores), which is what a user of the model notices.

Where the defaults come from:

``fp32``
    Sums in another order, 24 bit significand: relative rounding 6e-8 a step, which a trained network amplifies. The
    demo CenterPoint's worst-conditioned head keeps 73 dB in PyTorch on a CPU against itself in FP64, and 68 dB between
    PyTorch and ONNX Runtime, its others up to 92 dB. 50 dB is 0.3 % of the signal: below rounding, and above what a
    swapped channel, another padding or another voxel order leaves. Boxes: 1 cm, 1 % of a side and a thousandth in
    score, the bar that the pipelines are built to.
``fp32_tf32`` (also ``auto``, whose layers may use TF32)
    11 bit significand in products, over 20 layers. Emulated on the demo CenterPoint's head, sums in FP32: 37 dB for the
    heatmap, 18 dB for ``rot``, whose values mean nothing but where an object is.
``fp16``, ``strongly_typed``
    The same significand, but TensorRT's FP16 kernels accumulate in FP16 too (tactics ``f16f16_f16f16_f16``). TensorRT
    8.6.0 on an H200, the same head: 23 dB for the heatmap, 8.4 dB and a cosine of 0.925 for ``rot``; an emulation that
    rounds after every 16 products gives 23 and 8.6. Of 3,990 boxes 99.1 % found their partner, 99 % of these within
    5 cm, and mAP lost 0.0002: what is lost is judged by the results, raw outputs only say that nothing is broken.
``bf16``
    8 bits, accumulated in FP32. Emulated: 24 dB for the heatmap, 9.3 dB for ``rot``.
``int8``, ``explicit_int8``
    A tensor has 256 steps: 1/127 of its range, some 35 dB a layer, and 20 layers one after another. Both runs compute
    with the same steps, so they are closer than either is to FP32: the demo's INT8 head with its other layers in FP16,
    emulated, keeps 26 dB to the ONNX file in its worst output. What INT8 costs is for the metric to say.

Rows that the network itself sorts (behind a TopK or a suppression in the graph) are no tensors to compare element by
element with less than FP32: TensorRT 8.6.0 in TF32 swaps queries of the demo TransFusion whose scores differ by a
thousandth, and ``dir_cls_pred0`` keeps 13.7 dB where all but 6 of 4,000 boxes are the same. Their results judge.

Labels of points and pixels are judged class by class, too, and by the flips that both runs are sure of. Two swapped
classes have an IoU of 0, however few points they have. Of the demo's scans shifted by a row, 9 % of the labels turn,
where objects end, and the worst class keeps an IoU of 0.58; of its masks shifted by a column, 0.6 %, and 0.80: INT8's
20 % would let both pass. A shift turns what is sure as well, 0.19 % of those masks. Rounding turns what is decided
narrowly. Engines of the demo's FRNet and masks, TensorRT 8.6.0 on an H200: in TF32 and FP16 up to 0.03 % of the labels
turned, of 1.7 million none where both are sure; in INT8 up to 0.17 %, 3 of 973,000, and the worst class kept 0.94.

A few nodes by themselves (`verifier.bisect`) lose much less than a whole network: `NODE_SNR_DB`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from shared.several_tasks import of_part, parts_of
from shared.tasks import ErrorKind, Task


@dataclass(frozen=True)
class TensorLimits:
    """Limits on raw outputs.

    Attributes:
        max_abs: largest absolute difference of any element; None: not judged.
        snr_db: least signal to noise ratio, decibel.
        cosine: least cosine between the outputs, of every sample.
    """

    max_abs: float | None
    snr_db: float
    cosine: float


@dataclass(frozen=True)
class ResultLimits:
    """Limits on decoded results.

    Attributes:
        errors: limit by name of the error (`shared.tasks.Task.errors`).
        quantile: how many of the pairs must keep them: 1.0 all, 0.9 all but a tenth (one of `QUANTILES`, or 1).
        unmatched: largest share of results without a partner in the other run, label flips included. Results within
            ``score`` of the least score that is judged don't count: there it decides by a hair.
        shifts: limit by name of the shift (`shared.tasks.Task.shifts`) on the mean of the signed differences, less
            `STANDARD_ERRORS` of its standard errors.
        everywhere: judge results of every score; else those of the operating score and above, where there are any.
        class_iou: of tasks that count labels, least IoU of what the two runs say is of a class, ties left out; judged
            of classes with `FEWEST_OF_CLASS` results or more. A class with few points is no share of all that
            ``unmatched`` would notice. None: not judged.
        sure_flips: of the same tasks, largest share of results with another label of which both runs are sure
            (`shared.pairing.SURE_MARGIN`): rounding turns what was decided narrowly.
    """

    errors: Mapping[str, float]
    quantile: float
    unmatched: float
    shifts: Mapping[str, float]
    everywhere: bool
    class_iou: float | None = None
    sure_flips: float | None = None

    def of(self, part: str) -> ResultLimits:
        """Of limits for several tasks those of one."""
        return replace(self, errors=of_part(part, self.errors), shifts=of_part(part, self.shifts))


@dataclass(frozen=True)
class Tolerance:
    """All limits of a comparison.

    Attributes:
        tensors: limits of every output.
        results: limits of decoded results.
        output_max_abs: output name to a largest absolute difference of its own.
        output_limits: output name to ``snr_db`` and ``cosine`` of its own.
        ranked: outputs whose rows the network sorts: rounding swaps two of nearly the same score, and then every
            element differs. Only limits of their own count, and what the rows say is judged by the results.
        metric: least agreement of the test's results with the reference's (`shared.tasks.Task.agreement`); None: not
            judged, since what a difference costs on a data set is for the evaluator's gates to say.
    """

    tensors: TensorLimits
    results: ResultLimits
    output_max_abs: Mapping[str, float] = field(default_factory=dict)
    output_limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ranked: Collection[str] = ()
    metric: float | None = None


@dataclass(frozen=True)
class PolicyLimits:
    """What a precision policy keeps.

    Attributes:
        tensors: limits of every output.
        error: an error's limit with this arithmetic.
        quantile, unmatched, class_iou, sure_flips, everywhere: as in `ResultLimits`.
    """

    tensors: TensorLimits
    error: Callable[[ErrorKind], float]
    quantile: float
    unmatched: float
    class_iou: float
    sure_flips: float
    everywhere: bool = False


_FP32 = PolicyLimits(
    TensorLimits(max_abs=0.1, snr_db=50.0, cosine=0.99999),
    attrgetter("exact"),
    quantile=1.0,
    unmatched=0.0,
    class_iou=0.95,
    sure_flips=0.0,
    everywhere=True,
)
_TF32 = PolicyLimits(
    TensorLimits(max_abs=None, snr_db=14.0, cosine=0.98),
    attrgetter("close"),
    quantile=0.9,
    unmatched=0.01,
    class_iou=0.9,
    sure_flips=0.0005,
)
_HALF = PolicyLimits(
    TensorLimits(max_abs=None, snr_db=6.0, cosine=0.9),
    attrgetter("half"),
    quantile=0.9,
    unmatched=0.02,
    class_iou=0.8,
    sure_flips=0.0005,
)
_INT8 = PolicyLimits(
    TensorLimits(max_abs=None, snr_db=12.0, cosine=0.97),
    attrgetter("eight_bits"),
    quantile=0.9,
    unmatched=0.2,
    class_iou=0.5,
    sure_flips=0.001,
)

#: Classes that both runs give to fewer results are not judged by themselves: a few of them turn by rounding.
FEWEST_OF_CLASS = 30

#: A mean that is this many of its standard errors from zero is no accident of the samples: one in 740 is.
STANDARD_ERRORS = 3.0
#: Of an error's limit, what its mean with signs may be: rounding scatters, and what scatters averages out.
SHIFT_SHARE = 0.1

#: Limits per precision policy, those on results the strictest first.
POLICIES: Mapping[str, PolicyLimits] = {
    "fp32": _FP32,
    "fp32_tf32": _TF32,
    "auto": _TF32,
    "fp16": _HALF,
    "strongly_typed": _HALF,
    "bf16": _HALF,
    "int8": _INT8,
    "explicit_int8": _INT8,
}


def default_tolerance(policy: str, task: Task[Any]) -> Tolerance:
    """The limits of a precision policy for results of a task."""
    limits = POLICIES[policy]
    errors = {name: limits.error(kind) for name, kind in task.errors.items()}
    shifts = {name: SHIFT_SHARE * errors[error] for name, error in task.shifts.items()}
    of_labels = (limits.class_iou, limits.sure_flips) if task.by_label else (None, None)
    results = ResultLimits(errors, limits.quantile, limits.unmatched, shifts, limits.everywhere, *of_labels)
    return Tolerance(limits.tensors, results)


#: Least signal to noise ratio [dB] of a window of nodes, per precision policy.
NODE_SNR_DB: Mapping[str, float] = {
    "fp32": 50.0,
    "fp32_tf32": 35.0,
    "auto": 35.0,
    "fp16": 32.0,
    "strongly_typed": 32.0,
    "bf16": 15.0,
    "int8": 12.0,
    "explicit_int8": 12.0,
}


def coarser(first: str, second: str) -> str:
    """Of two precision policies the one with the wider limits."""
    order = list(POLICIES)
    return order[max(order.index(first), order.index(second))]


@dataclass(frozen=True)
class Check:
    """A check of a comparison.

    Attributes:
        name: what was checked, as in ``heatmap SNR [dB]``.
        failure: what is wrong, in a line; None: it passed.
    """

    name: str
    failure: str | None = None


def judge(comparison: Mapping[str, Any], tolerance: Tolerance) -> list[str]:
    """What is wrong with a comparison (what `verifier.compare.compare_runs` gave), one line each; none: it passed."""
    return [check.failure for check in checks(comparison, tolerance) if check.failure is not None]


def checks(comparison: Mapping[str, Any], tolerance: Tolerance) -> list[Check]:
    """Everything that a comparison is judged by: that it could be made and is of finite numbers, then the limits."""
    outputs: Mapping[str, Any] = comparison["outputs"]
    made = _of("samples", comparison["problems"])
    limits: list[Check] = []
    for name, statistics in outputs.items():
        problems = [f"{name}: {problem}" for problem in statistics["problems"]] + _not_finite(name, statistics)
        if statistics["compared"]:
            limits += _tensor_checks(name, statistics, tolerance)
        else:
            problems.append(f"{name}: nothing was compared")
        made += _of(f"{name} compared and finite", problems)
    for part, results in parts_of(comparison["results"]).items():
        what = f"{part} results" if part else "results"
        problems = [f"{what}: {results['non_finite']} with NaN or Inf"] if results["non_finite"] else []
        if results["known_once"]:
            problems.append(f"{what}: {results['known_once']} with a value that only one run knows")
        made += _of(f"{what} finite", problems)
        if "other_places" in results:
            count = results["other_places"]
            problems = [f"{what}: {count} samples with another number of points or pixels"] if count else []
            made += _of(f"{what} of the same points", problems)
        limits += _result_checks(what, results, tolerance.results.of(part), comparison["score_threshold"])
    if tolerance.metric is not None:
        for name, value in comparison["agreement"].items():
            limits.append(_check(f"results {name}", value, tolerance.metric, value >= tolerance.metric))
    if not any(statistics["compared"] for statistics in outputs.values()):
        made.append(Check("raw outputs", "no raw output was compared"))
    return made + limits


def _of(name: str, problems: Sequence[str]) -> list[Check]:
    """A check that passed, or one for each problem."""
    numbers = range(1, len(problems) + 1)
    names = [name if number == 1 else f"{name}, {number}" for number in numbers]
    return [Check(*pair) for pair in zip(names, problems, strict=True)] or [Check(name)]


def _check(what: str, value: float | None, limit: float, passed: bool) -> Check:
    """Of a statistic against its limit; ``value`` None: infinitely good or bad, as ``passed`` says."""
    shown = "no finite value" if value is None else f"{value:.4g}"
    return Check(what, None if passed else f"{what}: {shown}, the limit is {limit:g}")


def _not_finite(name: str, statistics: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {statistics[f'{side}_{kind}']} {label} in the {side}"
        for side in ("reference", "test")
        for kind, label in (("nan", "NaN"), ("inf", "Inf"))
        if statistics[f"{side}_{kind}"]
    ]


def _tensor_checks(name: str, statistics: Mapping[str, Any], tolerance: Tolerance) -> list[Check]:
    limits, made = tolerance.tensors, []
    ranked = name in tolerance.ranked
    max_abs = tolerance.output_max_abs.get(name, None if ranked else limits.max_abs)
    if max_abs is not None:
        value = statistics["max_abs"]
        made.append(_check(f"{name} max |difference|", value, max_abs, value is not None and value <= max_abs))
    # No noise at all is an infinite ratio; noise without any signal is none.
    own = dict(tolerance.output_limits.get(name, {}))
    if not ranked:
        own = {"snr_db": limits.snr_db, "cosine": limits.cosine} | own
    snr, identical = statistics["snr_db"], statistics["noise_energy"] == 0.0
    if (least := own.get("snr_db")) is not None:
        made.append(_check(f"{name} SNR [dB]", snr, least, identical or (snr is not None and snr >= least)))
    if (least := own.get("cosine")) is not None:
        cosine = statistics["worst_cosine"]
        made.append(_check(f"{name} cosine", cosine, least, cosine >= least))
    return made


def _result_checks(
    what: str, results: Mapping[str, Any], limits: ResultLimits, score_threshold: float | None
) -> list[Check]:
    made = []
    margin = limits.errors.get("score", 0.0)
    operating: Mapping[str, Any] = results["operating"]
    judged, least = results, score_threshold
    if not limits.everywhere and _any_kept(results):
        known = [score for score in (score_threshold, operating["score"]) if score is not None]
        judged, least = operating, max(known, default=None)
    for name, errors in judged["errors"].items():
        limit = limits.errors[name]
        value = errors["max"] if limits.quantile == 1.0 else errors["quantiles"][str(limits.quantile)]
        made.append(_check(f"{what} {name}", value, limit, value is not None and value <= limit))
    for name, shift in operating["shifts"].items():
        value = max(abs(shift["mean"]) - STANDARD_ERRORS * shift["standard_error"], 0.0)
        made.append(_check(f"{what} shifted, {name}", value, limits.shifts[name], value <= limits.shifts[name]))
    if results.get("tied") and not results["matched"]:
        line = f"{what}: all {results['tied']} pairs are ties, which don't show where results are"
        made.append(Check(f"{what} tied", line))
    # Results near the least score come and go with their scores.
    alone = [_above(results, side, -math.inf if least is None else least + margin) for side in ("reference", "test")]
    total = judged["matched"] + judged["label_flips"] + max(alone)
    if judged is results:
        total = max(results["reference_count"], results["test_count"])
    if total:
        share = (max(alone) + judged["label_flips"]) / total
        made.append(_check(f"{what} unmatched, share", share, limits.unmatched, share <= limits.unmatched))
    if limits.class_iou is not None and limits.sure_flips is not None and "by_label" in results:
        made += _label_checks(what, results, limits.class_iou, limits.sure_flips)
    return made


def _label_checks(what: str, results: Mapping[str, Any], least_iou: float, most_flips: float) -> list[Check]:
    """Of a task that counts labels."""
    made = []
    if results["reference_count"]:
        share = results["sure_flips"] / results["reference_count"]
        made.append(_check(f"{what} surely of another class, share", share, most_flips, share <= most_flips))
    for name, (both, reference, test) in results["by_label"].items():
        if max(reference, test) >= FEWEST_OF_CLASS:
            overlap = both / (reference + test - both)
            made.append(_check(f"{what} IoU of {name}", overlap, least_iou, overlap >= least_iou))
    return made


def _any_kept(results: Mapping[str, Any]) -> bool:
    """Whether either run has results of the operating score."""
    operating = results["operating"]
    if operating["score"] is None or operating["matched"] or operating["label_flips"]:
        return True
    return any(_above(results, side, operating["score"]) for side in ("reference", "test"))


def _above(results: Mapping[str, Any], side: str, floor: float) -> int:
    """Unmatched results of a side with a score above ``floor``; those beyond the stored ones count all."""
    kept = results[f"{side}_unmatched"]
    beyond = results[f"num_{side}_unmatched"] - len(kept)
    # The stored ones are the highest: where some of them are below, so are all others.
    above = sum(score > floor for score in kept)
    return int(above + (beyond if above == len(kept) else 0))


def tolerance_from_json(value: Mapping[str, Any], task: Task[Any]) -> Tolerance:
    """The tolerance that ``dataclasses.asdict`` made JSON of, for results of ``task``."""
    rest = {name: value[name] for name in ("output_max_abs", "output_limits", "metric")}
    rest["ranked"] = value.get("ranked", ())
    # Earlier versions stored limits on errors of every task.
    errors = {name: limit for name, limit in value["results"]["errors"].items() if name in task.errors}
    results = ResultLimits(**{**value["results"], "errors": errors})
    return Tolerance(TensorLimits(**value["tensors"]), results, **rest)
