"""Section: choices of precisions, latency against metric."""

from __future__ import annotations

from evaluator.pareto import JSON, STAGE, table
from evaluator.report.blocks import Block, Charts, Section, Text, grid
from evaluator.report.material import Material
from evaluator.report.pareto_chart import pareto_chart
from evaluator.report.tasks import TaskReport
from shared.json_reader import read_json
from shared.staleness import outdated_inputs


def section(material: Material, _: TaskReport | None) -> Section | None:
    """A chart and a table per run; None where no choices were measured."""
    stage = material.manifest.stages.get(STAGE)
    if stage is None or stage.status != "done":
        return None
    runs = read_json(material.workspace.artifact(JSON))["runs"]
    blocks: list[Block] = [Charts([pareto_chart(run, choices) for run, choices in runs.items()])]
    if outdated_inputs(material.manifest, STAGE):
        blocks.append(Text(f"The model was exported again since. To bring this up to date: {stage.command}", "bad"))
    blocks += [grid(table(run, choices)) for run, choices in runs.items()]
    return Section("precisions", "Precisions", blocks)
