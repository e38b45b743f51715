"""What the command line and the config say in place of the default limits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.errors import ConfigError, UsageError
from verifier.tolerances import ResultLimits, Tolerance

_RATIOS = ("snr_db", "cosine")
_SHARES = ("unmatched", "class_iou", "sure_flips")  # all but the first of tasks that count labels


def apply_overrides(tolerance: Tolerance, overrides: Sequence[str], outputs: Collection[str]) -> Tolerance:
    """The tolerance with what the command line says.

    Args:
        tolerance: where to start from.
        overrides: ``0.05`` (largest absolute difference of every output), ``heatmap=0.05`` (of one output),
            ``snr_db=40``, ``cosine=0.999`` (of every output), ``heatmap.snr_db=40`` (of one), ``results.center=0.05``,
            ``results.unmatched=0.01``, ``results.class_iou=0.9``, ``metric=0.99``.
        outputs: names of the raw outputs.

    Raises:
        UsageError: not a finite number, or no such limit.
    """
    ratios = [f"{output}.{ratio}" for output in outputs for ratio in _RATIOS]
    limits = tolerance.results
    shares = _SHARES if limits.class_iou is not None else _SHARES[:1]
    errors = [f"results.{name}" for name in (*limits.errors, *limits.shifts, *shares)]
    known = [*outputs, *_RATIOS, *ratios, *errors, "metric"]
    for text in overrides:
        name, separator, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(
                f"'{text}' has no number", where="--tolerance", hint="write 0.05, heatmap=0.05 or results.center=0.05"
            ) from error
        if not math.isfinite(value):
            raise UsageError(f"'{text}' is no limit", where="--tolerance", hint="write a finite number, however large")
        if separator and name not in known:
            raise UsageError(f"there is no limit '{name}'", where="--tolerance", hint=_nearest(name, known))
        if not separator:
            # Outputs with a tolerance of their own in the config follow the command line too.
            tensors = replace(tolerance.tensors, max_abs=value)
            tolerance = replace(tolerance, tensors=tensors, output_max_abs={})
        elif name in _RATIOS:
            tensors = replace(tolerance.tensors, **{name: value})
            tolerance = replace(tolerance, tensors=tensors, output_limits=_without(tolerance.output_limits, name))
        elif name == "metric":
            tolerance = replace(tolerance, metric=value)
        elif name.startswith("results."):
            limits = _with_result_limit(tolerance.results, name.removeprefix("results."), value)
            tolerance = replace(tolerance, results=limits)
        elif name in ratios:
            output, _, ratio = name.rpartition(".")
            own = {**tolerance.output_limits.get(output, {}), ratio: value}
            tolerance = replace(tolerance, output_limits={**tolerance.output_limits, output: own})
        else:
            tolerance = replace(tolerance, output_max_abs={**tolerance.output_max_abs, name: value})
    return tolerance


def check_output_tolerances(configured: Collection[str], outputs: Collection[str]) -> None:
    """Refuse limits of the config on outputs that there are none of.

    Raises:
        ConfigError: one has no such output.
    """
    for name in configured:
        if name not in outputs:
            raise ConfigError(
                f"there is no output '{name}'",
                where="verification.output_tolerances",
                hint=_nearest(name, [*outputs]),
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"


def _without(limits: Mapping[str, Mapping[str, float]], ratio: str) -> dict[str, dict[str, float]]:
    """The outputs' own limits but for one kind: a command that names every output means these too."""
    return {output: {name: value for name, value in own.items() if name != ratio} for output, own in limits.items()}


def _with_result_limit(limits: ResultLimits, name: str, value: float) -> ResultLimits:
    change: dict[str, Any] = {name: value}
    if name in _SHARES:
        return replace(limits, **change)
    if name in limits.shifts:
        return replace(limits, shifts={**limits.shifts, **change})
    return replace(limits, errors={**limits.errors, **change})
