"""What is still the same: limits per precision, and the verdict on stored statistics.

Two kinds of check. Some don't depend on any limit: nothing compared, NaN or Inf, a missing output, another shape. The
rest compares statistics with limits that follow from the arithmetic of the backends:

- *Largest absolute difference* of a raw output: the config's ``verification.tolerance`` (AWML's criterion).
- *SNR* and *cosine* per output, free of scale, so that one default serves logits and log sizes alike.
- *Decoded boxes*, which is what a user of the model notices.

Where the defaults come from:

``fp32``
    Sums in another order, 24 bit significand: relative rounding 6e-8 a step, which a trained network amplifies. The
    demo CenterPoint's worst-conditioned head keeps 73 dB in PyTorch on a CPU against itself in FP64, and 68 dB between
    PyTorch and ONNX Runtime, its others up to 92 dB. 50 dB is 0.3 % of the signal: below rounding, and above what a
    swapped channel, another padding or another voxel order leaves. Boxes: 1 cm, 1 % of a side and a thousandth in
    score, the bar that the pipelines are built to.
``fp32_tf32`` (also ``auto``, whose layers may use TF32)
    11 bit significand in products: 5e-4 a product, averaged in the sums; 35 dB is 2 % of the signal.
``fp16``, ``strongly_typed``
    Activations are stored with an 11 bit significand after every layer, so the errors of the layers add up.
``bf16``
    The same with 8 bits: 18 dB less.
``int8``, ``explicit_int8``
    A tensor has 256 steps: 1/127 of its range, some 35 dB a layer, and 20 layers one after another. What INT8 costs is
    for the metric to say; this catches what is broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import UsageError


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
class BoxLimits:
    """Limits on decoded boxes.

    Attributes:
        center: metres. size: relative to the side. yaw: rad. velocity: m/s. score: difference of scores.
        quantile: how many of the pairs must keep them: 1.0 all, 0.99 all but a hundredth (one of `QUANTILES`, or 1).
        unmatched: largest share of boxes without a partner in the other run, label flips included. Boxes within
            ``score`` of the model's score threshold don't count: there it decides by a hair.
    """

    center: float
    size: float
    yaw: float
    velocity: float
    score: float
    quantile: float
    unmatched: float


@dataclass(frozen=True)
class Tolerance:
    """All limits of a comparison.

    Attributes:
        tensors: limits of every output.
        boxes: limits of decoded boxes.
        output_max_abs: output name to a largest absolute difference of its own.
    """

    tensors: TensorLimits
    boxes: BoxLimits
    output_max_abs: Mapping[str, float] = field(default_factory=dict)


_EXACT_BOXES = BoxLimits(center=0.01, size=0.01, yaw=0.01, velocity=0.01, score=0.001, quantile=1.0, unmatched=0.0)
_CLOSE_BOXES = BoxLimits(center=0.05, size=0.05, yaw=0.05, velocity=0.1, score=0.01, quantile=0.99, unmatched=0.01)
_HALF_BOXES = BoxLimits(center=0.1, size=0.1, yaw=0.1, velocity=0.2, score=0.02, quantile=0.99, unmatched=0.02)
_INT8_BOXES = BoxLimits(center=0.3, size=0.3, yaw=0.5, velocity=1.0, score=0.1, quantile=0.9, unmatched=0.2)

_FP32 = Tolerance(TensorLimits(max_abs=None, snr_db=50.0, cosine=0.99999), _EXACT_BOXES)
_TF32 = Tolerance(TensorLimits(max_abs=None, snr_db=35.0, cosine=0.9998), _CLOSE_BOXES)
_FP16 = Tolerance(TensorLimits(max_abs=None, snr_db=32.0, cosine=0.9995), _HALF_BOXES)
_BF16 = Tolerance(TensorLimits(max_abs=None, snr_db=15.0, cosine=0.98), _HALF_BOXES)
_INT8 = Tolerance(TensorLimits(max_abs=None, snr_db=12.0, cosine=0.97), _INT8_BOXES)

#: Limits per precision policy, the strictest first.
DEFAULTS: Mapping[str, Tolerance] = {
    "fp32": _FP32,
    "fp32_tf32": _TF32,
    "auto": _TF32,
    "fp16": _FP16,
    "strongly_typed": _FP16,
    "bf16": _BF16,
    "int8": _INT8,
    "explicit_int8": _INT8,
}


def coarser(first: str, second: str) -> str:
    """Of two precision policies the one with the wider limits."""
    order = list(DEFAULTS)
    return order[max(order.index(first), order.index(second))]


def apply_overrides(tolerance: Tolerance, overrides: Sequence[str]) -> Tolerance:
    """The tolerance with what the command line says.

    Args:
        tolerance: where to start from.
        overrides: ``0.05`` (largest absolute difference of every output), ``heatmap=0.05`` (of one output),
            ``snr_db=40``, ``cosine=0.999``, ``boxes.center=0.05``.

    Raises:
        UsageError: not a number, or no such limit.
    """
    for text in overrides:
        name, separator, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(
                f"'{text}' has no number", where="--tolerance", hint="write 0.05, heatmap=0.05 or boxes.center=0.05"
            ) from error
        if not separator:
            # Outputs with a tolerance of their own in the config follow the command line too.
            tensors = replace(tolerance.tensors, max_abs=value)
            tolerance = replace(tolerance, tensors=tensors, output_max_abs={})
        elif name in ("snr_db", "cosine"):
            tolerance = replace(tolerance, tensors=replace(tolerance.tensors, **{name: value}))
        elif name.startswith("boxes."):
            tolerance = replace(tolerance, boxes=_with_box_limit(tolerance.boxes, name.removeprefix("boxes."), value))
        else:
            tolerance = replace(tolerance, output_max_abs={**tolerance.output_max_abs, name: value})
    return tolerance


def _with_box_limit(limits: BoxLimits, name: str, value: float) -> BoxLimits:
    known = ("center", "size", "yaw", "velocity", "score", "unmatched")
    if name not in known:
        raise UsageError(f"boxes have no limit '{name}'", where="--tolerance", hint=f"there are: {', '.join(known)}")
    return replace(limits, **{name: value})


@dataclass(frozen=True)
class Check:
    """One limit and what it was compared with.

    Attributes:
        what: what is judged, for example ``heatmap snr_db``.
        value: the statistic; None: infinitely good or bad, as ``passed`` says.
        limit: the limit.
        passed: the verdict.
    """

    what: str
    value: float | None
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """The verdict on one comparison.

    Attributes:
        failures: what is wrong, one line each; empty: passed.
        checks: every limit that was looked at.
    """

    failures: list[str]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures


def judge(comparison: Mapping[str, Any], tolerance: Tolerance) -> Verdict:
    """Judge a stored comparison.

    Args:
        comparison: what `verifier.compare.compare_runs` gave.
        tolerance: the limits.
    """
    failures = list(comparison["problems"])
    checks: list[Check] = []
    outputs: Mapping[str, Any] = comparison["outputs"]
    for name, statistics in outputs.items():
        failures += [f"{name}: {problem}" for problem in statistics["problems"]]
        failures += _not_finite(name, statistics)
        if not statistics["compared"]:
            failures.append(f"{name}: nothing was compared")
            continue
        checks += _tensor_checks(name, statistics, tolerance)
    boxes = comparison["boxes"]
    if boxes is not None:
        if boxes["non_finite"]:
            failures.append(f"boxes: {boxes['non_finite']} with NaN or Inf")
        checks += _box_checks(boxes, tolerance.boxes, comparison["score_threshold"])
    if not any(statistics["compared"] for statistics in outputs.values()):
        failures.append("no raw output was compared")
    failures += [_sentence(check) for check in checks if not check.passed]
    return Verdict(failures, checks)


def _sentence(check: Check) -> str:
    value = "no finite value" if check.value is None else f"{check.value:.4g}"
    return f"{check.what}: {value}, the limit is {check.limit:g}"


def _not_finite(name: str, statistics: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {statistics[f'{side}_{kind}']} {label} in the {side}"
        for side in ("reference", "test")
        for kind, label in (("nan", "NaN"), ("inf", "Inf"))
        if statistics[f"{side}_{kind}"]
    ]


def _tensor_checks(name: str, statistics: Mapping[str, Any], tolerance: Tolerance) -> list[Check]:
    limits = tolerance.tensors
    checks = []
    max_abs = tolerance.output_max_abs.get(name, limits.max_abs)
    if max_abs is not None:
        value = statistics["max_abs"]
        checks.append(Check(f"{name} max |difference|", value, max_abs, value is not None and value <= max_abs))
    # No noise at all is an infinite ratio; noise without any signal is none.
    snr, identical = statistics["snr_db"], statistics["noise_energy"] == 0.0
    passed = identical or (snr is not None and snr >= limits.snr_db)
    checks.append(Check(f"{name} SNR [dB]", snr, limits.snr_db, passed))
    cosine = statistics["worst_cosine"]
    checks.append(Check(f"{name} cosine", cosine, limits.cosine, cosine >= limits.cosine))
    return checks


def _box_checks(boxes: Mapping[str, Any], limits: BoxLimits, score_threshold: float | None) -> list[Check]:
    checks = []
    for name in ("center", "size", "yaw", "velocity", "score"):
        errors = boxes["errors"].get(name)
        if errors is None:
            continue
        limit = getattr(limits, name)
        value = errors["max"] if limits.quantile == 1.0 else errors["quantiles"][str(limits.quantile)]
        checks.append(Check(f"boxes {name}", value, limit, value is not None and value <= limit))
    if boxes["velocity_known_once"]:
        count = boxes["velocity_known_once"]
        checks.append(Check("boxes whose velocity only one run knows", float(count), 0.0, False))
    total = max(boxes["reference_boxes"], boxes["test_boxes"])
    if total:
        floor = 0.0 if score_threshold is None else score_threshold + limits.score
        lost = max(_above(boxes, "reference", floor), _above(boxes, "test", floor)) + boxes["label_flips"]
        share = lost / total
        checks.append(Check("boxes unmatched, share", share, limits.unmatched, share <= limits.unmatched))
    return checks


def _above(boxes: Mapping[str, Any], side: str, floor: float) -> int:
    """Unmatched boxes of a side with a score above ``floor``; those beyond the stored ones count all."""
    kept = boxes[f"{side}_unmatched"]
    beyond = boxes[f"num_{side}_unmatched"] - len(kept)
    return int(beyond + sum(score > floor for score in kept))


def tolerance_from_json(value: Mapping[str, Any]) -> Tolerance:
    """The tolerance that ``dataclasses.asdict`` made JSON of."""
    return Tolerance(TensorLimits(**value["tensors"]), BoxLimits(**value["boxes"]), dict(value["output_max_abs"]))
