"""The check command: which engines, against which machine, and what to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from shared.errors import EnvironmentLacks, InputError, UsageError
from shared.plan import numbers
from shared.workspace import Workspace
from trt_builder.loadable import Machine, Verdict, check, judge_missing, this_machine

# TensorRT for RTX began anew at 1; of TensorRT itself, 8.6 is the oldest that is served.
_FIRST_MAJOR_OF_TENSORRT = 8


def run_checks(
    engine: Path | None,
    work: Path | None,
    *,
    version: str | None,
    architecture: str | None,
    say: Callable[[str], None],
) -> None:
    """Check one engine, or all of a workspace.

    Args:
        engine: a plan file.
        work: a workspace; its manifest's hashes are checked too.
        version: TensorRT version to check for, instead of the installed one.
        architecture: GPU architecture to check for, instead of the one here.
        say: takes the lines.

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
        _check_all(Workspace.open(work), here, say)
        return
    verdict = check(engine, here, work=work)
    if work is not None:
        _check_hash(Workspace.open(work), engine)
    _say_verdict(engine, verdict, say)
    if not verdict.loads:
        raise EnvironmentLacks("this engine will not load here")


def _check_hash(ws: Workspace, engine: Path) -> None:
    """Whether an engine that is in the manifest is the one that it describes."""
    for relative in ws.manifest().artifacts:
        if ws.root / relative == engine:
            ws.artifact(relative)


def _check_all(ws: Workspace, here: Machine, say: Callable[[str], None]) -> None:
    manifest = ws.manifest()
    records = {result["engine"]: result for result in manifest.results.get("engines", {}).values()}
    engines = [relative for relative, artifact in manifest.artifacts.items() if artifact.kind == "engine"]
    verdicts = Counter(_check_one(ws, relative, records.get(relative), here, say) for relative in engines)
    if verdicts["faulty"]:
        how_many = f"{verdicts['faulty']} of {len(engines)}"
        raise InputError(f"{how_many} engines are missing, damaged or not finished", where=str(ws.root))
    if verdicts["refused"] or (engines and not verdicts["loads"]):
        raise EnvironmentLacks(f"{len(engines) - verdicts['loads']} of {len(engines)} engines will not load here")
    if not engines:
        say(f"{ws.root}: no engines")


def _check_one(
    ws: Workspace, relative: str, record: dict[str, Any] | None, here: Machine, say: Callable[[str], None]
) -> Literal["loads", "refused", "faulty", "elsewhere"]:
    """Check an engine of a workspace; ``elsewhere``: it is not on disk, and would not load here anyway."""
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
            say(f"{path}: FAULTY: {error.message}")
        else:
            would = "would not load here" if elsewhere else "would load here"
            say(f"{path}: is MISSING ({would}): built with {missing.built}; here {missing.here}")
        say(f"  {error.hint}")
        return "elsewhere" if elsewhere else "faulty"
    _say_verdict(path, verdict, say)
    return "loads" if verdict.loads else "refused"


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


def _say_verdict(path: Path, verdict: Verdict, say: Callable[[str], None]) -> None:
    say(f"{path}: {'loads' if verdict.loads else 'will NOT load'}: built with {verdict.built}; here {verdict.here}")
    for reason in verdict.reasons:
        say(f"  {reason}")
    for warning in verdict.warnings:
        say(f"  note: {warning}")
    if verdict.command:
        say(f"  to build one that does: {verdict.command}")
