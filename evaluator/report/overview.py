"""Section: the verdict, and the numbers that matter most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluator.comparison import columns_of, side_by_side, titled
from evaluator.report.blocks import Block, Cards, Cell, Grid, Section, Text, grid, verdict
from evaluator.report.material import OWN_STAGE, Material
from evaluator.report.tasks import TaskReport
from shared import formats
from shared.latency import TOTAL, disturbance
from shared.several_tasks import of_part, qualified
from shared.staleness import command_here, outdated_inputs
from shared.table import MISSING, number

# Headline numbers that get a card; the others are in the table.
_CARDS = 3
_VERIFY = "verify"


def section(material: Material, _: TaskReport | None) -> Section:
    """Verdict, cards, what was judged, and the runs side by side."""
    judged = [*_verification_rows(material), *_gate_rows(material), *_baseline_rows(material), *_stage_rows(material)]
    failed = [row for row in judged if row[2].tone == "bad"]
    blocks: list[Block] = [Cards([_verdict_card(judged, failed), *_number_cards(material)])]
    for row in failed:
        blocks.append(Text(f"{row[0].text} {row[1].text}: {row[3].text or 'failed'}", "bad"))
    if judged:
        blocks.append(Grid("What was judged", ["by", "what", "verdict", "detail"], judged))
    else:
        blocks.append(Text("Nothing was judged: there is no verification, and there are no gates.", "muted"))
    if material.evaluations:
        blocks.append(grid(side_by_side(columns_of(material.evaluations))))
    return Section("summary", "Summary", blocks)


def _verdict_card(judged: list[list[Cell]], failed: list[list[Cell]]) -> tuple[str, str, str, str]:
    checks = [row for row in judged if row[2].tone in ("good", "bad")]
    if not checks:
        return "Verdict", "not judged", "", ""
    if failed:
        return "Verdict", "FAILED", f"{len(failed)} of {len(checks)} checks", "bad"
    return "Verdict", "passed", f"all {len(checks)} checks", "good"


def _number_cards(material: Material) -> list[tuple[str, str, str, str]]:
    if not material.evaluations:
        return []
    shown = material.evaluations[material.shown]
    cards = []
    for name, value in _first_numbers(shown["headline"], list(material.parts())):
        interval = shown["intervals"].get(name)
        between = f", {interval['low']:.3f} to {interval['high']:.3f}" if interval else ""
        beside = shown.get("float")
        float_value = "" if beside is None else f"; float {number(beside['headline'].get(name), 3)}"
        cards.append((name, number(value, 3), f"{titled(material.shown, shown)}{between}{float_value}", ""))
    for name, evaluation in material.evaluations.items():
        total = evaluation["latency"][TOTAL]
        title = f"Latency of {titled(name, evaluation)}"
        disturbed = disturbance(total)
        detail = f"median of {total['samples']:.0f}" if disturbed is None else f"median; {disturbed}"
        cards.append((title, f"{total['median']:.1f} ms", detail, ""))
    return cards


def _first_numbers(headline: Mapping[str, Any], tasks: Sequence[str]) -> list[tuple[str, Any]]:
    """About as many as there are to be cards, of each task its first ones."""
    share = math.ceil(_CARDS / len(tasks))
    return [pair for task in tasks for pair in list(qualified(task, of_part(task, headline)).items())[:share]]


def _verification_rows(material: Material) -> list[list[Cell]]:
    summary: dict[str, Any] | None = material.manifest.results.get("verification", {}).get("summary")
    if summary is None:
        return []
    if summary.get("format") != formats.VERIFICATION:
        old = Cell("recorded by another version of the verifier; run it again: verifier verify")
        return [[Cell("verification"), Cell("all"), Cell("unknown", "muted"), old]]
    outdated = _VERIFY in material.manifest.stages and outdated_inputs(material.manifest, _VERIFY)
    if outdated:
        command = command_here(material.manifest.stages[_VERIFY].command, material.workspace.root)
        detail = Cell(f"of another version of {outdated[0]}; {command}")
        return [[Cell("verification"), Cell("all"), Cell("outdated", "bad"), detail]]
    rows = []
    for name, result in summary["comparisons"].items():
        text = "; ".join(result["failures"]) or _what_agreed(result)
        rows.append([Cell("verification"), Cell(name.replace("__", " → ")), verdict(result["passed"]), Cell(text)])
    rows += [[Cell("verification"), Cell("scenario"), Cell("FAILED", "bad"), Cell(line)] for line in summary["unable"]]
    rows += [
        [Cell("verification"), Cell("scenario"), Cell("skipped", "muted"), Cell(line)] for line in summary["skipped"]
    ]
    return rows


def _what_agreed(result: dict[str, Any]) -> str:
    """Which samples a comparison looked at: raw outputs are kept of few, results of all."""
    results = result["results"]
    # Workspaces of version 0.1 did not record how many samples the results are of.
    of_samples = f" of {results['samples']} samples" if "samples" in results else ""
    return f"raw outputs of {result['samples']} samples, {results['matched']} results{of_samples}"


def _gate_rows(material: Material) -> list[list[Cell]]:
    gates = material.manifest.results.get("gates", {}).get("summary", {}).get("gates", [])
    return [
        [
            Cell("gate"),
            Cell(f"{gate['run']} fails if {gate['gate']}"),
            verdict(gate["passed"]),
            Cell(f"value {number(gate['value'], 4)}" if gate["value"] is not None else f"no value ({MISSING})"),
        ]
        for gate in gates
    ]


def _baseline_rows(material: Material) -> list[list[Cell]]:
    summary: dict[str, Any] | None = material.manifest.results.get("regress", {}).get("summary")
    if summary is None:
        return []
    detail = "; ".join(summary["regressions"]) or f"{summary['worse']} worse, {summary['better']} better"
    passed = verdict(summary["passed"]) if "passed" in summary else Cell("not comparable", "muted")
    return [[Cell("baseline"), Cell(summary["baseline"]), passed, Cell(detail)]]


def _stage_rows(material: Material) -> list[list[Cell]]:
    return [
        [Cell("stage"), Cell(name), Cell("FAILED", "bad"), Cell(stage.reason or "")]
        for name, stage in material.manifest.stages.items()
        if stage.status == "failed" and name != OWN_STAGE
    ]
