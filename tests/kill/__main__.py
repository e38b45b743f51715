"""Kills every command that writes at its file-system events: ``python -m tests.kill [--points N] [COMMAND ...]``.

For each command an undisturbed run counts the events (`events.cpp`). Then the command is run again and again on a copy
of the same workspace, and killed (SIGKILL) just before one of them. After each kill

- ``manifest check`` passes: what the manifest says is there, whole;
- the old result is usable, or the new one is: its stage is ``done``;
- the same command, run again, ends as the undisturbed one did, and leaves the same files and the same manifest, but for
  times and latencies.

Each run is a process of its own, forked from one that has imported the tools.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared import cuda, engines
from shared.cuda import GpuInfo
from shared.files import sha256_of_file
from shared.manifest import Manifest, read_manifest
from shared.table import Table
from tests.kill.commands import COMMANDS, GROUPS, Command, make_base
from tests.support import tensorrt_double
from tests.support.tensorrt_double import Behavior, Recorded
from trt_builder import target as targets
from trt_builder.compat import TensorRT
from trt_builder.target import Target

SOURCE = Path(__file__).with_name("events.cpp")
_PRELOADED = "KILL_TEST_PRELOADED"


def main() -> int:
    """Returns 0 where everything was survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="COMMAND", help="Only commands whose line holds this text.")
    parser.add_argument("--points", type=int, help="Kill at so many events of a command at most. [default: at all]")
    arguments = parser.parse_args()
    if _PRELOADED not in os.environ:
        _start_with_library()
    _pretend_to_have_tensorrt()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        root = Path(folder)
        make_base(root, lambda line, work: _must_run(root, line, work))
        chosen = [
            each for each in COMMANDS if not arguments.names or any(name in each.name for name in arguments.names)
        ]
        outcomes = []
        for command in chosen:
            outcomes.append(Sweep(root, command).run(arguments.points))
            sys.stderr.write(f"{command.name}: {outcomes[-1].kills} kills, {len(outcomes[-1].wrong)} wrong\n")
    sys.stdout.write(_table(outcomes).text() + "\n")
    for outcome in outcomes:
        for wrong in outcome.wrong:
            sys.stdout.write(f"{outcome.command.name}: {wrong}\n")
    return int(any(outcome.wrong for outcome in outcomes))


def _start_with_library() -> None:
    """Compile the library and start again with it."""
    library = Path(tempfile.mkdtemp(prefix="kill-library-")) / "events.so"
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        sys.exit("a C++ compiler is needed")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), _PRELOADED: "1", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-m", "tests.kill", *sys.argv[1:]], env=environment, check=False)
    shutil.rmtree(library.parent)
    sys.exit(answer.returncode)


def _pretend_to_have_tensorrt() -> None:
    trt = tensorrt_double.make("8.6.0", Recorded(), Behavior())
    gpu = GpuInfo(0, "NVIDIA H200", (9, 0), 132, 150 << 30)
    found = Target(TensorRT("tensorrt", trt, "8.6.0"), gpu)
    targets.find = lambda wanted: found
    cuda.use_gpu = lambda index=0: None
    engines.layer_times = lambda trt, engine: {}


# -- processes --------------------------------------------------------------------------------------------------------


def _run(root: Path, line: Sequence[str], work: Path, *, at: int = -1, log: Path | None = None) -> int:
    """Run a command line on a workspace in a process of its own; what it prints is in ``root / "output"``.

    Args:
        root: folder of this test.
        line: tool, command and options.
        work: the workspace.
        at: event to be killed at, the first is 1; negative: none.
        log: file to write the events to.

    Returns:
        Its exit code, negative the signal that ended it.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        output = os.open(root / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        tool, name, *options = (word.format(copy=root / "copy", shards=root / "shards") for word in line)
        sys.argv = [tool, name, "--work", str(work), *options]
        if at > 0 or log is not None:
            library = ctypes.CDLL(None)
            library.kill_at_event(str(work).encode(), ctypes.c_long(at), str(log or "").encode())
        GROUPS[tool].main(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(code)


def _must_run(root: Path, line: Sequence[str], work: Path) -> None:
    if _run(root, line, work) not in (0, 6):
        sys.exit(f"{' '.join(line)} failed:\n{(root / 'output').read_text()}")


# -- a command --------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What the kills of a command came to."""

    command: Command
    events: dict[str, int]
    kills: int = 0
    old: int = 0
    new: int = 0
    wrong: list[str] = field(default_factory=list)


class Sweep:
    """A command, killed at its events one after another."""

    def __init__(self, root: Path, command: Command) -> None:
        self.root, self.command = root, command
        # Every copy has the same path, which is in commands and messages.
        self.work = root / "copy-of-work"

    def run(self, points: int | None) -> Outcome:
        """Kill it at ``points`` of its events, spread evenly; None: at all."""
        code, log = self._undisturbed()
        expected = Snapshot(self.work)
        self._undisturbed()
        expected.forget_what_differs(Snapshot(self.work))
        count = len(log)
        outcome = Outcome(self.command, dict(collections.Counter(line.split()[1] for line in log)))
        at = range(1, count + 1)
        if points is not None and points < count:
            at = sorted({1 + round(place * (count - 1) / max(1, points - 1)) for place in range(points)})
        for number in at:
            self._fresh()
            if _run(self.root, self.command.line, self.work, at=number) != -signal.SIGKILL:
                continue  # fewer events than before: flushes depend on the time
            outcome.kills += 1
            where = f"killed before event {' '.join(log[number - 1].split())}"
            outcome.wrong += [f"{where}: {problem}" for problem in self._problems(code, expected, outcome)]
        return outcome

    def _fresh(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.root / "work"), str(self.work)], check=True)

    def _undisturbed(self) -> tuple[int, list[str]]:
        self._fresh()
        log = self.root / "events"
        code = _run(self.root, self.command.line, self.work, log=log)
        if code not in (0, 6):
            sys.exit(f"{self.command.name} failed:\n{(self.root / 'output').read_text()}")
        return code, log.read_text().splitlines()

    def _problems(self, code: int, expected: Snapshot, outcome: Outcome) -> list[str]:
        problems = []
        if _run(self.root, ("manifest", "check"), self.work) != 0:
            problems.append(f"manifest check: {self._said()}")
        before, after = (read_manifest(folder / "manifest.json") for folder in (self.root / "work", self.work))
        is_old = self._result(self.root / "work", before) == self._result(self.work, after)
        outcome.old += is_old
        outcome.new += not is_old
        stage = self.command.stage
        if stage is not None and after.stages[stage].status != "done":
            problems.append(f"stage {stage} is {after.stages[stage].status}")
        again = _run(self.root, self.command.line, self.work)
        if again != code and not self._was_done():
            problems.append(f"the same command ends with {again}: {self._said()}")
        problems += expected.differences(Snapshot(self.work))
        return problems

    def _result(self, work: Path, manifest: Manifest) -> Any:
        """What the command makes, to tell the old from the new."""
        if self.command.stage is None:
            return sorted(path.name for path in (work / ".versions").glob("*.json")), _essence(manifest)
        return manifest.stages[self.command.stage].model_copy(update={"attempt": None})

    def _was_done(self) -> bool:
        """Whether the command refused because it had done its work before it was killed."""
        return any(text in self._said() for text in ("there is a version 'v2' already", "there is no version 'v1'"))

    def _said(self) -> str:
        return (self.root / "output").read_text(errors="replace").strip()[-300:]


class Snapshot:
    """What is in a workspace, without what differs from run to run."""

    def __init__(self, work: Path) -> None:
        self._files = {
            str(path.relative_to(work)): sha256_of_file(path)
            for path in sorted(work.rglob("*"))
            if path.is_file() and path.suffix != ".lock" and path.name != "manifest.json"
        }
        self._versions = {name for name in self._files if name.startswith(".versions/") and "before-" in name}
        self._manifest = _essence(read_manifest(work / "manifest.json"))
        self._varying: set[str] = set()

    def forget_what_differs(self, other: Snapshot) -> None:
        """Note which files' content depends on the time."""
        self._varying = {
            name
            for name, sha256 in self._files.items()
            # Engines' records hold the time of their build, which may round to the same.
            if other._files.get(name, sha256) != sha256 or name.endswith(".engine.json")
        }

    def differences(self, other: Snapshot) -> list[str]:
        """What is other than here."""
        ours, theirs = self._names(), other._names()
        problems = [f"{name} is missing" for name in sorted(ours - theirs)]
        problems += [f"{name} was left" for name in sorted(theirs - ours)]
        problems += [
            f"{name} has other content"
            for name in sorted(ours & theirs - self._varying)
            if name in self._files and self._files[name] != other._files.get(name)
        ]
        if self._manifest != other._manifest:
            problems.append(f"the manifest differs: {_first_difference(self._manifest, other._manifest)}")
        return problems

    def _names(self) -> set[str]:
        """Files; the versions that a rollback kept by their number, as their names hold times."""
        return {*self._files} - self._versions | {f"{len(self._versions)} versions of the time before a rollback"}


def _essence(manifest: Manifest) -> dict[str, Any]:
    value = manifest.model_dump(mode="json")
    stages = {
        name: {key: stage.get(key) for key in ("status", "fingerprint", "outputs", "results")}
        for name, stage in value["stages"].items()
    }
    artifacts = {path: record["kind"] for path, record in value["artifacts"].items()}
    results = {kind: sorted(values) for kind, values in value["results"].items()}
    return {"stages": stages, "artifacts": artifacts, "results": results, "switch": value.get("switch")}


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    for part, value in one.items():
        if value != other[part]:
            return f"{part}: {json.dumps(value)[:200]} -> {json.dumps(other[part])[:200]}"
    return "nothing"


def _table(outcomes: Sequence[Outcome]) -> Table:
    kinds = sorted({kind for outcome in outcomes for kind in outcome.events})
    rows = [
        [
            outcome.command.name,
            *(str(outcome.events.get(kind, 0)) for kind in kinds),
            str(outcome.kills),
            str(outcome.old),
            str(outcome.new),
            str(len(outcome.wrong)),
        ]
        for outcome in outcomes
    ]
    return Table("Killed before file-system events", ["command", *kinds, "kills", "old", "new", "wrong"], rows)


if __name__ == "__main__":
    sys.exit(main())
