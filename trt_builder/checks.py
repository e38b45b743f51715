"""The check command: which engines, against which machine, and what to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from shared.errors import EnvironmentLacks, UsageError
from shared.plan import read_header
from shared.workspace import Workspace
from trt_builder.check import Here, Verdict, check, this_machine


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
        UsageError: neither engine nor workspace.
        InputError: a file is no engine, truncated or changed.
        EnvironmentLacks: some engine will not load.
    """
    if engine is None and work is None:
        raise UsageError("check needs an engine or a workspace", hint="trt_builder check ENGINE, or --work WORK")
    machine = this_machine()
    failed = 0
    count = 0
    for path, sha256 in _engines(engine, work):
        count += 1
        here = _instead(machine, path, version, architecture)
        verdict = check(path, here, work=work, sha256=sha256)
        failed += not verdict.loads
        for line in _lines(path, verdict):
            say(line)
    if failed:
        raise EnvironmentLacks(f"{failed} of {count} engines will not load here")
    if not count:
        say(f"{work}: no engines")


def _engines(engine: Path | None, work: Path | None) -> Iterator[tuple[Path, str | None]]:
    artifacts = Workspace.open(work).manifest().artifacts if work is not None else {}
    if engine is not None:
        inside = {work / relative: record.sha256 for relative, record in artifacts.items()} if work is not None else {}
        yield engine, inside.get(engine)
        return
    assert work is not None
    for relative, record in artifacts.items():
        if record.kind == "engine":
            yield work / relative, record.sha256


def _instead(machine: Here, path: Path, version: str | None, architecture: str | None) -> Here:
    """The machine to check for: this one, but for what the user says."""
    versions = {**machine.versions, read_header(path).flavour: version} if version else machine.versions
    if architecture is None:
        return Here(versions, machine.architecture, machine.gpu)
    if not architecture.removeprefix("sm").isdigit():
        raise UsageError(f"--arch {architecture} is no architecture", hint="write it like sm89")
    return Here(versions, f"sm{architecture.removeprefix('sm')}", architecture)


def _lines(path: Path, verdict: Verdict) -> Iterator[str]:
    yield f"{path}: {'loads' if verdict.loads else 'will NOT load'}: built with {verdict.built}; here {verdict.here}"
    for reason in verdict.reasons:
        yield f"  {reason}"
    for warning in verdict.warnings:
        yield f"  note: {warning}"
    if verdict.command:
        yield f"  to build one that does: {verdict.command}"
