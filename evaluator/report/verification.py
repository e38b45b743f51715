"""Section: how much the backends differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluator.report.blocks import Block, Cell, Chart, Charts, Details, Grid, Heading, Section, Text, verdict
from evaluator.report.material import Material
from evaluator.report.svg import Axis, bar_chart, linear_axis, mark
from evaluator.report.tasks import TaskReport
from shared import formats
from shared.json_reader import read_json
from shared.metrics.confusion import of_labels
from shared.several_tasks import of_part, parts_of
from shared.table import MISSING, number

_STAGE = "verify"
_ZERO = "0 error"
_LOG2_OF_10 = math.log2(10)
# Share of the values whose errors are too small to matter.
_TAIL = 5e-4


def section(material: Material, _: TaskReport | None) -> Section | None:
    """Per comparison: verdict, statistics of outputs and results, histograms of the errors."""
    stage = material.manifest.stages.get(_STAGE)
    if stage is None:
        return None
    if stage.status != "done":
        reason = f": {stage.reason}" if stage.reason else ""
        return Section("verification", "Verification", [Text(f"The verification is '{stage.status}'{reason}", "muted")])
    verdicts = material.manifest.results.get("verification", {}).get("summary", {}).get("comparisons", {})
    blocks: list[Block] = [
        Text(
            "The model's raw outputs and the decoded results, backend against backend, and each against the "
            "training framework's own results (reference)."
        )
    ]
    for position, relative in enumerate(stage.outputs):
        comparison = read_json(material.workspace.artifact(relative))
        name = Path(relative).stem
        if comparison.get("format") != formats.VERIFICATION:
            blocks.append(Text(f"{name} was recorded by another version of the verifier", "muted"))
            continue
        blocks += _comparison(name, comparison, verdicts.get(name), is_first=position == 0)
    return Section("verification", "Verification", blocks)


def _comparison(name: str, comparison: dict[str, Any], result: dict[str, Any] | None, *, is_first: bool) -> list[Block]:
    title = name.replace("__", " → ")
    blocks: list[Block] = [Heading(title)]
    if result is not None:
        cell = verdict(result["passed"])
        blocks.append(Text(f"{cell.text}, {len(comparison['samples'])} samples compared in full", cell.tone))
        blocks += [Text(failure, "bad") for failure in result["failures"]]
    if comparison["outputs"]:
        blocks.append(_output_table(title, comparison))
    for part, results in parts_of(comparison["results"]).items():
        of_task = f"{title}, {part}" if part else title
        if results["errors"]:
            blocks.append(_result_table(of_task, results))
        if results["operating"]["shifts"]:
            limits = of_part(part, comparison["tolerance"]["results"]["shifts"])
            blocks.append(_shift_table(of_task, results["operating"], limits))
    histograms = [
        _histogram(output, values, comparison["tolerance"]) for output, values in comparison["outputs"].items()
    ]
    charts = [chart for chart in histograms if chart is not None]
    if charts:
        blocks.append(Details(f"Error histograms, {title}", [Charts(charts)], open=is_first))
    return blocks


def _output_table(title: str, comparison: dict[str, Any]) -> Grid:
    rows = []
    for name, values in comparison["outputs"].items():
        strange = sum(values[f"{side}_{what}"] for side in ("reference", "test") for what in ("nan", "inf"))
        rows.append(
            [
                name,
                _thousands(values["compared"]),
                *(_small(values[key]) for key in ("max_abs", "mean_abs")),
                _small(values["quantiles_abs"].get("0.99")),
                _small(values["max_relative"]),
                "exact" if not values["noise_energy"] else number(values["snr_db"], 1),
                number(values["cosine"], 7),
                Cell(str(strange), "bad" if strange else ""),
                _place(values["worst"]) if values["noise_energy"] else MISSING,
            ]
        )
    columns = [
        *("output", "values", "max abs", "mean abs", "99 % below", "max relative"),
        *("SNR [dB]", "cosine", "NaN, Inf", "worst at"),
    ]
    return Grid(f"Raw outputs, {title}", columns, rows)


def _result_table(title: str, results: Mapping[str, Any]) -> Grid:
    kept = results["operating"]["errors"]
    rows = [
        [
            name,
            str(values["pairs"]),
            _small(values["mean"]),
            *(_small(values["quantiles"].get(q)) for q in ("0.5", "0.99")),
            _small(values["max"]),
            _small(kept.get(name, {}).get("quantiles", {}).get("0.9")),
        ]
        for name, values in results["errors"].items()
    ]
    lost = results["num_reference_unmatched"] + results["num_test_unmatched"]
    caption = f"Results, {title}: {results['matched']} matched, {lost} unmatched, {results['label_flips']} label flips"
    if "by_label" in results:
        caption += of_labels(results)
    elif tied := results.get("tied"):
        caption += f", {tied} tied and {results['below_ties']} below them"
    return Grid(caption, ["error", "pairs", "mean", "median", "99 % below", "max", "kept: 90 % below"], rows)


def _shift_table(title: str, operating: Mapping[str, Any], limits: Mapping[str, float]) -> Grid:
    """Means of the signed differences, in which rounding averages out, beside their limits."""
    rows = [
        [name, f"{values['mean']:+.1e}", _small(values["standard_error"]), _small(limits.get(name))]
        for name, values in operating["shifts"].items()
    ]
    score = "" if operating["score"] is None else f" of a score of {operating['score']:g} or more"
    caption = f"Shifts, {title}: {operating['matched']} matched{score}"
    return Grid(caption, ["difference", "mean", "standard error", "limit"], rows)


def _histogram(name: str, values: dict[str, Any], tolerance: dict[str, Any]) -> Chart | None:
    """Share of the values by size of the error, one bar per octave, with the limit."""
    counts = {int(octave): count for octave, count in values["histogram_octaves"].items() if octave != _ZERO}
    total, exact = values["compared"], values["histogram_octaves"].get(_ZERO, 0)
    if not total:
        return None
    if not counts:
        return Chart(name, "", f"all {_thousands(total)} values are equal, bit for bit")
    counts = _without_tail(counts)
    limit = tolerance["output_max_abs"].get(name, tolerance["tensors"]["max_abs"])
    low, high = min(counts), max(counts) + 1
    if limit:
        high = max(high, math.ceil(math.log2(limit)) + 1)
    x = _decades("absolute error", low, high)
    share = {octave: 100 * count / total for octave, count in counts.items()}
    y = linear_axis("share of the values [%]", 0, max(share.values()))
    label = f"Histogram of the absolute error of {name}; the largest is {values['max_abs']:.2g}"
    svg = bar_chart(label, [(octave, octave + 1, value) for octave, value in sorted(share.items())], x, y)
    if limit:
        svg = mark(svg, x, math.log2(limit), f"limit {limit:g}")
    return Chart(name, svg, f"{exact / total:.1%} without any error; largest {values['max_abs']:.2g}")


def _without_tail(counts: dict[int, int]) -> dict[int, int]:
    """The few smallest errors are all put in the first bar: an axis that reached them would squeeze the others."""
    least = _TAIL * sum(counts.values())
    first, below = min(counts), 0
    for octave in sorted(counts):
        below += counts[octave]
        first = octave
        if below > least:
            break
    return {first: below, **{octave: count for octave, count in counts.items() if octave > first}}


def _decades(title: str, low: int, high: int) -> Axis:
    """An axis in octaves, with ticks at powers of ten."""
    first, last = math.ceil(low / _LOG2_OF_10), math.floor(high / _LOG2_OF_10)
    step = max(1, math.ceil((last - first + 1) / 6))
    ticks = [(power * _LOG2_OF_10, f"1e{power}") for power in range(first, last + 1, step)]
    return Axis(title, low, high, ticks)


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _small(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2e}" if value else "0"


def _place(worst: dict[str, Any] | None) -> str:
    if worst is None:
        return MISSING
    return f"sample {worst['sample']}, {worst['index']}: {worst['reference']:.9g} became {worst['test']:.9g}"
