"""Scores of 3D boxes as JSON for the files, and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evaluator.boxes3d.t4 import HEADLINE_RULE, PASS_RULE, PASS_THRESHOLD, PassFail, RuleScore
from shared.metrics.nuscenes import NuscenesScore
from shared.table import Table, number

# Of a range, beside its rules.
PASS_FAIL = "pass_fail"
_USUAL = {"compat": "none", "label_policy": "default"}
_BEST_F1 = ("max_f1", "optimal_confidence", "optimal_precision", "optimal_recall")


def known(value: float) -> float | None:
    """The value, None for NaN: JSON has none."""
    return None if math.isnan(value) else value


def nuscenes_json(score: NuscenesScore) -> dict[str, Any]:
    """mAP, NDS (with and without AAE), mean errors, and per class AP, errors and counts.

    AP is null for a class without ground truth, which has nothing to find; in the mean it counts 0, as in
    nuscenes-devkit; ``mAP_of_labeled`` leaves it out.
    """
    return {
        "mAP": score.mean_average_precision,
        "mAP_of_labeled": known(score.mean_ap_of_labeled),
        "NDS": score.nds,
        "NDS_without_AAE": score.nds_without_aae,
        "attributes_labeled": score.attributes_labeled,
        "errors": {name: known(value) for name, value in score.errors.items()},
        "num_truths": sum(value.num_truths for value in score.classes.values()),
        "num_predictions": sum(value.num_predictions for value in score.classes.values()),
        "classes": {
            name: {
                "AP": value.mean_average_precision if value.num_truths else None,
                "AP_at": {str(d): ap if value.num_truths else None for d, ap in value.average_precision.items()},
                "errors": {error: known(mean) for error, mean in value.errors.items()},
                "vertical_error": known(value.vertical_error),
                "num_truths": value.num_truths,
                "num_predictions": value.num_predictions,
            }
            for name, value in score.classes.items()
        },
    }


def curves_json(score: NuscenesScore) -> dict[str, Any]:
    """Per class and distance, precision at recalls 0, 0.01 ... 1."""
    return {
        name: {str(d): curve.tolist() for d, curve in zip(value.average_precision, value.precision, strict=True)}
        for name, value in score.classes.items()
    }


def t4_json(score: Mapping[str, RuleScore]) -> dict[str, Any]:
    """Per matching rule mAP, mAPH, and per class and threshold AP, APH, best F1 and the score that gives it."""
    return {
        rule: {
            "mAP": known(value.mean_ap),
            "mAPH": known(value.mean_aph),
            "classes": {
                name: {
                    "AP": known(scores.ap),
                    "APH": known(scores.aph),
                    "num_truths": scores.num_truths,
                    "num_predictions": scores.num_predictions,
                    "thresholds": {
                        str(threshold): {
                            "AP": known(at.ap),
                            "APH": known(at.aph),
                            **{key: known(getattr(at, key)) for key in _BEST_F1},
                        }
                        for threshold, at in scores.thresholds.items()
                    },
                }
                for name, scores in value.classes.items()
            },
        }
        for rule, value in score.items()
    }


def pass_fail_json(counts: PassFail) -> dict[str, Any]:
    """``success`` and ``fail`` as perception_eval counts them, and what they are made of."""
    return {
        "rule": PASS_RULE,
        "threshold": PASS_THRESHOLD,
        "success": counts.found,
        "fail": counts.missed + counts.false,
        **asdict(counts),
    }


def nuscenes_tables(result: Mapping[str, Any], headline_range: str) -> list[Table]:
    """AP per range and class; NDS and mean errors; the headline range in detail."""
    ranges: Mapping[str, Any] = result["ranges"]
    headline: Mapping[str, Any] = ranges[headline_range]
    classes: Mapping[str, Any] = headline["classes"]
    rows = [
        [
            name if classes[name]["num_truths"] else f"{name}: no ground truth, 0 in mAP",
            *(number(values["classes"][name]["AP"], 4) for values in ranges.values()),
        ]
        for name in classes
    ]
    rows.append(["mAP", *(number(values["mAP"], 4) for values in ranges.values())])
    if any(not each["num_truths"] for values in ranges.values() for each in values["classes"].values()):
        means = (number(values.get("mAP_of_labeled"), 4) for values in ranges.values())
        rows.append(["mAP of classes with ground truth", *means])
    rows.append(["ground truth", *(str(values["num_truths"]) for values in ranges.values())])
    detail = [
        [
            name,
            str(values["num_truths"]),
            str(values["num_predictions"]),
            *(number(ap, 4) for ap in values["AP_at"].values()),
            *(number(error, 3) for error in values["errors"].values()),
            number(values["vertical_error"], 3),
        ]
        for name, values in classes.items()
    ]
    first = next(iter(classes.values()))
    columns = ["class", "truth", "found", *(f"AP@{d}" for d in first["AP_at"]), *first["errors"], "z"]
    return [
        Table("nuScenes AP per range [m]", ["class", *ranges], rows),
        _detection_score_table(ranges),
        Table(f"nuScenes, {headline_range} m: AP per center distance [m], errors of the hits at 2 m", columns, detail),
    ]


def _detection_score_table(ranges: Mapping[str, Any]) -> Table:
    """NDS and mean errors per range."""
    errors = list(next(iter(ranges.values()))["errors"])
    rows = [
        [
            name,
            *(number(values.get(key), 4) for key in ("mAP", "NDS", "NDS_without_AAE")),
            *(number(values["errors"][error], 3) for error in errors),
        ]
        for name, values in ranges.items()
    ]
    labeled = any(values.get("attributes_labeled", True) for values in ranges.values())
    note = "" if labeled else "; no attribute is labeled, so AAE is 1 and takes its tenth of NDS"
    return Table(
        f"nuScenes NDS and mean errors per range [m]{note}", ["range", "mAP", "NDS", "without AAE", *errors], rows
    )


def t4_tables(result: Mapping[str, Any], headline_range: str) -> list[Table]:
    """mAP and mAPH per range and matching rule; the headline rule and range per class."""
    ranges: Mapping[str, Any] = result["ranges"]
    named = as_named(result.get("settings", {}))
    rules = [rule for rule in next(iter(ranges.values())) if rule != PASS_FAIL]
    rows = [
        [f"{rule} {name}", *(number(values[rule][name], 4) for values in ranges.values())]
        for rule in rules
        for name in ("mAP", "mAPH")
    ]
    detail = []
    for name, values in ranges[headline_range][HEADLINE_RULE]["classes"].items():
        best = list(values["thresholds"].values())[-1]
        best_f1 = (number(best[key], 3) for key in _BEST_F1)
        detail.append([name, number(values["AP"], 4), number(values["APH"], 4), *best_f1])
    threshold = list(next(iter(ranges[headline_range][HEADLINE_RULE]["classes"].values()))["thresholds"])[-1]
    tables = [
        Table(f"T4 (perception_eval{named}) per range [m]", ["rule", *ranges], rows),
        Table(
            f"T4{named}, {headline_range} m, {HEADLINE_RULE}: AP, and the best F1 at {threshold} m",
            ["class", "AP", "APH", "max F1", "at score", "precision", "recall"],
            detail,
        ),
    ]
    if all(PASS_FAIL in values for values in ranges.values()):
        counts = [
            [name, *(str(values[PASS_FAIL][key]) for key in ("success", "fail", "found", "missed", "false"))]
            for name, values in ranges.items()
        ]
        title = f"T4{named}: pass and fail by {PASS_RULE} below {PASS_THRESHOLD:g} m"
        tables.append(Table(title, ["range", "success", "fail", "found", "missed", "false"], counts))
    return tables


def as_named(settings: Mapping[str, Any]) -> str:
    """``, compat awml`` and the like, of the settings of the T4 metric that are not the usual ones."""
    parts = [f"{key} {settings[key]}" for key, usual in _USUAL.items() if settings.get(key, usual) != usual]
    fewest = settings.get("min_points", {})
    if fewest:
        parts.append("min_points " + " ".join(f"{name}={count}" for name, count in fewest.items()))
    return "".join(f", {part}" for part in parts)
