"""Section: how much each step of the pipeline loses, as measured by `verifier attribute`."""

from __future__ import annotations

from typing import Any

from evaluator.report.blocks import Block, Cell, Grid, Section, Text
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared.json_reader import read_json
from shared.staleness import outdated_inputs
from shared.table import MISSING

_KIND = "attribution"
#: Version of the files in ``attribution/`` that is understood here.
_FORMAT = 1
# Half of the last digit shown: anything less is rounding.
_LEAST = 0.5e-4


def section(material: Material, _: TaskReport | None) -> Section | None:
    """One table per run that was attributed."""
    blocks: list[Block] = []
    for path, record in sorted(material.manifest.artifacts.items()):
        if record.kind != _KIND or material.manifest.stages[record.stage].status != "done":
            continue
        attribution = read_json(material.workspace.artifact(path))
        if attribution.get("format") != _FORMAT:
            blocks.append(Text(f"{path} was written by another version of the verifier", "muted"))
            continue
        blocks += _attribution(attribution)
        if outdated_inputs(material.manifest, record.stage):
            command = material.manifest.stages[record.stage].command
            blocks.append(Text(f"This is about files older than the current ones. To make it again: {command}", "bad"))
    return Section("attribution", "Loss by step", blocks) if blocks else None


def _attribution(attribution: dict[str, Any]) -> list[Block]:
    metrics = list(attribution["total"])
    largest = max((abs(step["loss"][metric]) for step in attribution["steps"] for metric in metrics), default=0.0)
    rows: list[list[str | Cell]] = []
    for step in attribution["steps"]:
        results = step["results"]
        changed = results["num_reference_unmatched"] + results["num_test_unmatched"] + results["label_flips"]
        guilty = step["step"] in attribution["responsible"]
        rows.append(
            [
                Cell(step["step"], "bad" if guilty else ""),
                *(_loss(step["loss"][metric], largest) for metric in metrics),
                _own_output(step, attribution["samples"]),
                str(changed),
            ]
        )
    rows.append([Cell("total"), *(_text(attribution["total"][metric]) for metric in metrics), "", ""])
    against = "the labels" if attribution["truth"] == "labels" else f"the results of {attribution['reference']}"
    title = (
        f"{attribution['test']} in place of {attribution['reference']}, step by step: "
        f"{attribution['samples']} samples, against {against}"
    )
    columns = ["step", *(f"{metric} lost" for metric in metrics), "its own output", "results changed"]
    if attribution["responsible"]:
        sentence = Text(f"Responsible: {', '.join(attribution['responsible'])}.", "bad")
    else:
        sentence = Text("No step loses any of the metric.", "good")
    return [sentence, Grid(title, columns, rows)]


def _loss(value: float, largest: float) -> Cell:
    share = abs(value) / largest if largest >= _LEAST else 0.0
    return Cell(_text(value), share=share, series=1)


def _text(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= _LEAST else "0"


def _own_output(step: dict[str, Any], samples: int) -> str:
    if not step["differs_in"]:
        return "identical"
    if step["reordered"]:
        return "same rows, other order"
    ratios = [values["snr_db"] for values in step["outputs"].values() if values["snr_db"] is not None]
    text = f"SNR {min(ratios):.0f} dB" if ratios else MISSING
    return text if step["differs_in"] == samples else f"{text} in {step['differs_in']} of {samples}"
