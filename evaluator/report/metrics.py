"""Section: the metrics of the runs."""

from __future__ import annotations

from evaluator.comparison import difference_table, float_class_table, titled
from evaluator.metrics import find_metric
from evaluator.report.blocks import Block, Details, Heading, Section, Text, grid
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport


def section(material: Material, task: TaskReport | None) -> Section | None:
    """Curves and confusion of the task, tables per range and class, differences between runs."""
    evaluated = {name: value for name, value in material.evaluations.items() if value["metrics"] is not None}
    if not material.evaluations:
        return None
    if not evaluated:
        return Section("metrics", "Metrics", [Text("The data set has no labels: there are no metrics.", "muted")])
    metric = find_metric(material.spec.task)
    blocks: list[Block] = [] if task is None else list(task.metric_blocks(material))
    by_class = float_class_table(material.evaluations, metric)
    if by_class is not None:
        blocks.append(grid(by_class))
    blocks.append(Heading(f"Tables of {titled(material.shown, evaluated[material.shown])}"))
    blocks += [grid(table) for table in metric.tables(evaluated[material.shown]["metrics"])]
    for name, evaluation in evaluated.items():
        if name != material.shown:
            tables = [grid(table) for table in metric.tables(evaluation["metrics"])]
            blocks.append(Details(f"The same of {titled(name, evaluation)}", tables))
    differences = difference_table(material.evaluations)
    if differences is not None:
        blocks.append(Details("Differences between the runs, on the same frames", [grid(differences)]))
    return Section("metrics", "Metrics", blocks)
