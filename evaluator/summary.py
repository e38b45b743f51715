"""What happened in a workspace, on one screen: stages, verdicts, metrics, latency, and where the files are."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator import regress
from evaluator.comparison import columns_of, side_by_side
from evaluator.gates import gate_table
from evaluator.regress_lines import BETTER, WORSE, Line
from evaluator.stored import stored_evaluations
from shared import formats
from shared.answer import Answer
from shared.json_reader import read_json
from shared.manifest import Manifest, Stage
from shared.staleness import outdated_inputs
from shared.table import MISSING, Table, as_markdown
from shared.workspace import Workspace


def summary(work: Path, markdown: bool = False) -> Answer:
    """The summary of a workspace, for a terminal or as Markdown.

    Raises:
        ManifestError: there is no workspace, or one of its files was changed.
    """
    workspace = Workspace.open(work)
    manifest = workspace.manifest()
    blocks = [_stages(manifest)]
    verification = manifest.results.get("verification", {}).get("summary")
    if verification is not None:
        blocks.append(_verification(verification))
    evaluations = stored_evaluations(workspace)
    if evaluations:
        blocks.append(_Block(side_by_side(columns_of(evaluations))))
    gates = manifest.results.get("gates", {}).get("summary", {}).get("gates")
    if gates:
        blocks.append(_Block(gate_table(gates)))
    if manifest.results.get(regress.STAGE):
        blocks.append(_changes(workspace))
    blocks.append(_Block(None, [_where(work, manifest)]))
    text = "\n\n".join(block.markdown() if markdown else block.text() for block in blocks)
    return Answer(text, _data(manifest, evaluations))


def _data(manifest: Manifest, evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the summary is made from; of the evaluations, what stands side by side."""
    keys = ("run", "headline", "intervals", "latency", "baseline", "differences", "float")
    return {
        "model": None if manifest.spec is None else manifest.spec.model,
        "stages": {
            name: {
                "status": stage.status,
                "outdated": bool(stage.status == "done" and outdated_inputs(manifest, name)),
                "reason": stage.reason,
                "started": stage.started,
                "ended": stage.ended,
            }
            for name, stage in manifest.stages.items()
        },
        "verification": manifest.results.get("verification", {}).get("summary"),
        "evaluations": {
            name: {key: evaluation[key] for key in keys if key in evaluation}
            for name, evaluation in evaluations.items()
        },
        "gates": manifest.results.get("gates", {}).get("summary", {}).get("gates", []),
    }


@dataclass(frozen=True)
class _Block:
    """A part of the summary: a table, and lines below it."""

    table: Table | None
    lines: Sequence[str] = ()

    def text(self) -> str:
        return "\n".join([*([] if self.table is None else [self.table.text()]), *self.lines])

    def markdown(self) -> str:
        table = [] if self.table is None else [self.table.markdown()]
        return "\n\n".join([*table, *map(as_markdown, self.lines)])


def _stages(manifest: Manifest) -> _Block:
    stages = sorted(manifest.stages.items(), key=lambda item: item[1].started)
    rows = [[name, _status(manifest, name), _duration(stage)] for name, stage in stages]
    title = "Stages" if manifest.spec is None else f"Stages of {manifest.spec.model}"
    reasons = [f"{name} is {stage.status}: {stage.reason}" for name, stage in stages if stage.reason]
    return _Block(Table(title, ["stage", "status", "seconds"], rows), reasons)


def _status(manifest: Manifest, name: str) -> str:
    status = manifest.stages[name].status
    return f"{status}, outdated" if status == "done" and outdated_inputs(manifest, name) else status


def _duration(stage: Stage) -> str:
    if stage.ended is None or stage.status == "skipped":
        return "-"
    seconds = datetime.datetime.fromisoformat(stage.ended) - datetime.datetime.fromisoformat(stage.started)
    return f"{seconds.total_seconds():.0f}"


def _verification(verification: dict[str, Any]) -> _Block:
    if verification.get("format") != formats.VERIFICATION:
        line = "Verification was recorded by another version of the verifier; run it again: verifier verify"
        return _Block(None, [line])
    rows = []
    for name, result in verification["comparisons"].items():
        results = result["results"]
        largest = [values["max_abs"] for values in result["outputs"].values() if values["max_abs"] is not None]
        worst = [f"{error} {value:.0e}" for error, value in results["max_errors"].items()]
        rows.append(
            [
                name.replace("__", " -> "),
                "passed" if result["passed"] else "FAILED",
                f"{max(largest):.1e}" if largest else MISSING,
                str(results["matched"]),
                str(results["reference_unmatched"] + results["test_unmatched"] + results["label_flips"]),
                ", ".join(worst),
            ]
        )
    columns = ["comparison", "verdict", "max abs", "matched", "unmatched", "largest errors of results"]
    lines = [f"skipped (optional): {line}" for line in verification["skipped"]]
    lines += [f"FAILED {line}" for line in verification["unable"]]
    return _Block(Table("Verification", columns, rows), lines)


def _changes(workspace: Workspace) -> _Block:
    """What changed against the baseline, of the last `evaluator regress`."""
    record = read_json(workspace.artifact(regress.RECORD))
    lines = [Line(**line) for line in record["lines"]]
    changed = [line for line in lines if line.verdict in (WORSE, BETTER)]
    title = regress.title(record["baseline"], record["created"])
    table = regress.table(title, changed) if changed else None
    return _Block(table, [f"{title}: {regress.sentence(lines)}"])


def _where(work: Path, manifest: Manifest) -> str:
    folders = sorted({path.split("/")[0] for path in manifest.artifacts})
    return f"Results: {work.resolve()} ({', '.join(['manifest.json', *folders])})"
