"""The check command: which engines, against which machine, and what to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shared.answer import Answer
from shared.errors import EnvironmentLacks, InputError, UsageError
from shared.plan import numbers
from shared.workspace import Workspace
from trt_builder.loadable import Machine, Verdict, check, judge_missing, this_machine

# TensorRT for RTX began anew at 1; of TensorRT itself, 8.6 is the oldest that is served.
_FIRST_MAJOR_OF_TENSORRT = 8


class Checked(NamedTuple):
    """What is known of an engine; ``elsewhere``: it is not on disk, and would not load here anyway."""

    outcome: Literal["loads", "refused", "faulty", "elsewhere"]
    lines: list[str]
    data: dict[str, Any]


def run_checks(engine: Path | None, work: Path | None, *, version: str | None, architecture: str | None) -> Answer:
    """Check one engine, or all of a workspace.

    Args:
        engine: a plan file.
        work: a workspace; its manifest's hashes are checked too.
        version: TensorRT version to check for, instead of the installed one.
        architecture: GPU architecture to check for, instead of the one here.

    Raises:
        UsageError: neither engine nor workspace, or a version or architecture that is none.
        InputError: a file is no engine, truncated, changed, or missing though it would load here.
        EnvironmentLacks: some engine will not load.
    """
    if engine is None and work is None:
        raise UsageError("check needs an engine or a workspace", hint="trt_builder check ENGINE, or --work WORK")
    here = _checked_for(this_machine(), version, architecture)
    if engine is None:
        assert work is not None
        return _check_all(Workspace.open(work), here)
    verdict = check(engine, here, work=work)
    if work is not None:
        _check_hash(Workspace.open(work), engine)
    answer = _answer([_judged(engine, verdict)])
    if not verdict.loads:
        raise EnvironmentLacks("this engine will not load here", answer=answer)
    return answer


def _answer(checked: Sequence[Checked]) -> Answer:
    lines = [line for each in checked for line in each.lines]
    return Answer("\n".join(lines), {"engines": [{"outcome": each.outcome, **each.data} for each in checked]})


def _check_hash(ws: Workspace, engine: Path) -> None:
    """Whether an engine that is in the manifest is the one that it describes."""
    for relative in ws.manifest().artifacts:
        if ws.root / relative == engine:
            ws.artifact(relative)


def _check_all(ws: Workspace, here: Machine) -> Answer:
    manifest = ws.manifest()
    records = {result["engine"]: result for result in manifest.results.get("engines", {}).values()}
    engines = [relative for relative, artifact in manifest.artifacts.items() if artifact.kind == "engine"]
    checked = [_check_one(ws, relative, records.get(relative), here) for relative in engines]
    answer, outcomes = _answer(checked), Counter(each.outcome for each in checked)
    if outcomes["faulty"]:
        how_many = f"{outcomes['faulty']} of {len(engines)}"
        message = f"{how_many} engines are missing, damaged or not finished"
        raise InputError(message, where=str(ws.root), answer=answer)
    if outcomes["refused"] or (engines and not outcomes["loads"]):
        message = f"{len(engines) - outcomes['loads']} of {len(engines)} engines will not load here"
        raise EnvironmentLacks(message, answer=answer)
    return answer if engines else Answer(f"{ws.root}: no engines", answer.data)


def _check_one(ws: Workspace, relative: str, record: dict[str, Any] | None, here: Machine) -> Checked:
    path = ws.root / relative
    try:
        if path.is_file():
            verdict = check(path, here, work=ws.root, known=record)
        ws.artifact(relative)
    except InputError as error:
        missing = judge_missing(record, here) if record is not None and not path.is_file() else None
        # A copy for a device leaves out what is for others: nothing is wrong with that.
        elsewhere = missing is not None and not missing.loads
        if missing is None:
            line = f"{path}: FAULTY: {error.message}"
        else:
            would = "would not load here" if elsewhere else "would load here"
            line = f"{path}: is MISSING ({would}): built with {missing.built}; here {missing.here}"
        data = {"engine": str(path), "problem": error.message, "hint": error.hint}
        return Checked("elsewhere" if elsewhere else "faulty", [line, f"  {error.hint}"], data)
    return _judged(path, verdict)


def _checked_for(machine: Machine, version: str | None, architecture: str | None) -> Machine:
    """The machine to check for: this one, but for what the user says."""
    versions = machine.versions
    if version is not None:
        if not numbers(version):
            raise UsageError(f"--tensorrt {version} is no version", hint="write it like 10.9.0")
        versions = {"rtx" if numbers(version)[0] < _FIRST_MAJOR_OF_TENSORRT else "tensorrt": version}
    if architecture is None:
        return Machine(versions, machine.architecture, machine.gpu)
    if not architecture.removeprefix("sm").isdigit():
        raise UsageError(f"--arch {architecture} is no architecture", hint="write it like sm89")
    return Machine(versions, f"sm{architecture.removeprefix('sm')}", None)


def _judged(path: Path, verdict: Verdict) -> Checked:
    lines = [
        f"{path}: {'loads' if verdict.loads else 'will NOT load'}: built with {verdict.built}; here {verdict.here}"
    ]
    lines += [f"  {reason}" for reason in verdict.reasons]
    lines += [f"  note: {warning}" for warning in verdict.warnings]
    if verdict.command:
        lines.append(f"  to build one that does: {verdict.command}")
    return Checked("loads" if verdict.loads else "refused", lines, {"engine": str(path), **asdict(verdict)})
