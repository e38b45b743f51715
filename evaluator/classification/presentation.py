"""Metrics of classification as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.table import Table, number


def top_name(k: int | str) -> str:
    """What the share of samples whose class is among the k best is called."""
    return f"top-{k} accuracy"


def tables(result: dict[str, Any]) -> list[Table]:
    """Per class with the confusion matrix, separation, confidence, and recall by rotation."""
    decisions, names = result["decisions"], result["classes"]
    rows = [
        [
            name,
            str(values["support"]),
            *(number(values[key], 4) for key in ("precision", "recall", "f1")),
            *(str(count) for count in decisions["confusion"][index]),
        ]
        for index, (name, values) in enumerate(decisions["classes"].items())
    ]
    macro = [number(decisions["macro"][key], 4) for key in ("precision", "recall", "f1")]
    rows.append(["mean", str(result["frames"]), *macro, *("" for _ in names)])
    shares = [f"accuracy {number(decisions['accuracy'], 4)}", f"MCC {number(decisions.get('mcc'), 4)}"]
    shares += [f"{top_name(k)} {number(value, 4)}" for k, value in decisions.get("top_k", {}).items()]
    blocks = [
        Table(
            f"decisions, {', '.join(shares)} of {result['frames']} samples",
            ["class", "samples", "precision", "recall", "F1", *(f"predicted {name}" for name in names)],
            rows,
        )
    ]
    if result["separation"] is not None:
        blocks.append(_separation_table(result["separation"], names[0]))
    if result["by_rotation"]:
        blocks.append(
            Table(
                "disturbances found, by rotation",
                ["rotation [deg]", "samples", "recall"],
                [
                    [f"{row['low']:g}-{row['high']:g}", str(row["count"]), number(row["recall"], 4)]
                    for row in result["by_rotation"]
                ],
            )
        )
    confidence = result["confidence"]
    title = ", ".join(
        (
            f"confidence: expected calibration error {number(confidence['expected_calibration_error'], 4)}",
            f"multiclass Brier (0 to 2) {number(confidence['brier'], 4)}",
            f"log loss {number(confidence['log_loss'], 4)}",
        )
    )
    bins = [
        [f"{row['low']:.2f}-{row['high']:.2f}", str(row["count"]), *(number(row[key], 3) for key in _BIN_COLUMNS)]
        for row in confidence["bins"]
    ]
    blocks.append(Table(title, ["confidence", "samples", "mean", "accuracy"], bins))
    return blocks


_BIN_COLUMNS = ("confidence", "accuracy")


def _separation_table(separation: Mapping[str, Any], first: str) -> Table:
    rows = [
        [f"{row['rate']:.1%}", number(row["recall"], 4), number(row["threshold"], 3)]
        for row in separation["at_false_alarms"]
    ]
    return Table(
        f"separation, ROC AUC {number(separation['roc_auc'], 4)}, AP {number(separation['average_precision'], 4)}",
        ["false alarms", f"recall {first}", "margin of the logits"],
        rows,
    )
