"""Two runs compared, sample by sample: raw outputs where both kept them, results on every sample that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.errors import InputError
from shared.progress import track
from shared.runs import Run
from shared.several_tasks import qualified
from shared.tasks import find
from verifier.results import ResultStatistics
from verifier.statistics import OutputStatistics


def compare_runs(
    reference: Run, test: Run, score_threshold: float | None, operating_score: float | None = None
) -> dict[str, Any]:
    """Compare ``test`` with ``reference``, which is right.

    Args:
        reference, test: the runs.
        score_threshold: below it the model drops results.
        operating_score: results of lower scores are no use; None: as the task says.

    Returns:
        JSON, without any limit in it: ``reference``, ``test`` (which runs), ``samples`` (tokens whose raw outputs were
        compared), ``score_threshold``, ``problems`` (what could not be compared), ``outputs`` (statistics by name),
        ``results`` (statistics of the decoded results; of several tasks, ``parts`` by their names), ``agreement`` (the
        task's metric of the test's results, taking the reference's for the truth).

    Raises:
        InputError: the runs are of different models or data, have no sample in common, or can't be read.
    """
    _check_same_subject(reference, test)
    positions = {token: position for position, token in enumerate(test.header.tokens)}
    places = [i for i, token in enumerate(reference.header.tokens) if token in positions]
    others = [positions[reference.header.tokens[i]] for i in places]
    if not places:
        raise InputError(
            "the two runs have no sample in common",
            where=f"{reference.folder} and {test.folder}",
            hint="run both on the same samples of the same data set",
        )
    problems = _missing_samples(reference, test, positions)
    statistics: dict[str, OutputStatistics] = {}
    raw_reference, raw_test = set(reference.header.raw_samples), set(test.header.raw_samples)
    compared = []
    for i, j in zip(places, others, strict=True):
        if i in raw_reference and j in raw_test:
            compared.append(reference.header.tokens[i])
            problems += _compare_raw(i, reference.raw(i), test.raw(j), statistics)
    given = test.parts()
    parts = {
        name: _results(part, given[name], places, others, operating_score) for name, part in reference.parts().items()
    }
    return {
        "reference": _run_json(reference),
        "test": _run_json(test),
        "samples": compared,
        "score_threshold": score_threshold,
        "problems": problems,
        "outputs": {name: output.summary() for name, output in statistics.items()},
        "results": parts[""][0] if "" in parts else {"parts": {name: results for name, (results, _) in parts.items()}},
        "agreement": {
            name: value for part, (_, agreement) in parts.items() for name, value in qualified(part, agreement).items()
        },
    }


def _results(
    reference: Run, test: Run, places: Sequence[int], others: Sequence[int], operating_score: float | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Statistics of the decoded results at these positions of the two runs, and the agreement."""
    task = find(reference.header.task)
    results = ResultStatistics(task, operating_score, reference.header.classes)

    def answers() -> tuple[Iterator[Any], Iterator[Any]]:
        return reference.predictions_at(places, task.container), test.predictions_at(others, task.container)

    both = zip(places, *answers(), strict=True)
    for sample, right, given in track(both, f"{reference.folder.name} and {test.folder.name}", len(places)):
        results.add(sample, right, given)
    return results.summary(), task.agreement(*answers())


def _check_same_subject(reference: Run, test: Run) -> None:
    for what, hint in (
        ("model", "run both on the same export"),
        ("task", "run both on the same export"),
        ("classes", "run both on the same export"),
        ("dataset", "run both on the same data set, with the same data section of the config"),
    ):
        ours, theirs = getattr(reference.header, what), getattr(test.header, what)
        if ours != theirs:
            raise InputError(
                f"the runs differ in their {what}: {ours} and {theirs}",
                where=f"{reference.folder} and {test.folder}",
                hint=hint,
            )


def _missing_samples(reference: Run, test: Run, positions: Mapping[str, int]) -> list[str]:
    """Verification samples of the reference that the test lacks.

    Backends may be run on more samples than the framework was, or on fewer of those that have no raw outputs; what was
    recorded to be verified must be there.
    """
    problems = []
    raw_test = set(test.header.raw_samples)
    for i in reference.header.raw_samples:
        token = reference.header.tokens[i]
        if token not in positions:
            problems.append(f"sample {i} ({token}): not in {test.folder.name}; run it on more samples")
        elif positions[token] not in raw_test:
            problems.append(f"sample {i} ({token}): {test.folder.name} kept no raw outputs of it")
    return problems


def _compare_raw(
    sample: int, reference: Mapping[str, Any], test: Mapping[str, Any], statistics: dict[str, OutputStatistics]
) -> list[str]:
    """Add one sample's raw outputs to ``statistics``; the outputs that only the reference has, as problems."""
    for name, values in reference.items():
        if name in test:
            statistics.setdefault(name, OutputStatistics()).add(sample, values, test[name])
    return [f"sample {sample}: output '{name}' is missing" for name in reference if name not in test]


def _run_json(run: Run) -> dict[str, Any]:
    header = run.header
    return {
        "run": run.folder.name,
        "backend": header.backend,
        "device": header.device,
        "samples": len(header.tokens),
        "details": header.details,
    }
