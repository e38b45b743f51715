"""Section: what became of the numbers of a baseline, as `evaluator regress` found."""

from __future__ import annotations

from evaluator.regress import RECORD, STAGE, shown, shown_change, shown_interval
from evaluator.regress_lines import BETTER, NOT_COMPARABLE, WORSE, Line
from evaluator.report.blocks import Block, Cell, Details, Grid, Section, Text
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared.json_reader import read_json

_TONES = {WORSE: "bad", BETTER: "good"}


def section(material: Material, _: TaskReport | None) -> Section | None:
    """What changed, and folded away what did not; None where nothing was compared."""
    stage = material.manifest.stages.get(STAGE)
    if stage is None or stage.status != "done":
        return None
    record = read_json(material.workspace.artifact(RECORD))
    lines = [Line(**line) for line in record["lines"]]
    changed = [line for line in lines if line.verdict in (WORSE, BETTER)]
    failed = sum(line.regression for line in lines)
    words = f"{failed} of them regressions by the config's gates" if failed else "none of them a regression"
    blocks: list[Block] = [
        Text(
            f"Against {record['baseline'] or 'the baseline'} of {record['created'][:10]}: {len(changed)} of "
            f"{len(lines)} numbers changed, {words}.",
            "bad" if failed else "",
        )
    ]
    if changed:
        blocks.append(_grid("What changed", changed))
    others = [line for line in lines if line.verdict == NOT_COMPARABLE]
    if others:
        blocks.append(Details(f"{len(others)} that can't be compared", [_grid("Not comparable", others)]))
    same = [line for line in lines if line not in changed and line not in others]
    if same:
        blocks.append(Details(f"{len(same)} without a difference", [_grid("No difference", same)]))
    return Section("regressions", "Against the baseline", blocks)


def _grid(title: str, lines: list[Line]) -> Grid:
    rows: list[list[str | Cell]] = [
        [
            line.kind,
            line.subject,
            line.name,
            shown(line.before, line.unit),
            shown(line.now, line.unit),
            shown_change(line),
            shown_interval(line),
            Cell("REGRESSION" if line.regression else line.verdict, _TONES.get(line.verdict, "")),
            line.why,
        ]
        for line in lines
    ]
    return Grid(title, ["", "of", "", "baseline", "now", "change", "interval", "verdict", ""], rows)
