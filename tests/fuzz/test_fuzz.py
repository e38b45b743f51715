"""Every reader of users' files takes mutated ones: data or a line comes out, no crash, no hang, no other error.

Seconds here; ``make fuzz SECONDS=3600`` goes on for hours. FUZZ_SECONDS sets another time for each reader.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Reader, answer_of, corpus, fuzz, mutated
from tests.fuzz.readers import READERS

_SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_answered(name: str) -> None:
    outcome = fuzz(READERS[name], _SECONDS)
    assert outcome.inputs > 20
    assert outcome.findings == {}


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, file) for name, reader in READERS.items() for file in corpus(reader)],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_what_was_a_finding_is_answered(name: str, file: Path) -> None:
    assert answer_of(READERS[name], file) is None


@pytest.mark.parametrize("name", READERS)
def test_the_seeds_are_read(name: str, tmp_path: Path) -> None:
    """Otherwise mutations of them show little."""
    reader = READERS[name]
    for seed in reader.seeds():
        file = tmp_path / f"input{reader.suffix}"
        file.write_bytes(seed)
        assert answer_of(reader, file) is None


def _crash(file: Path) -> None:
    if b"!" in file.read_bytes():
        os.abort()


def _hang(file: Path) -> None:
    if b"!" in file.read_bytes():
        time.sleep(300)


def _spin(file: Path) -> None:
    while b"!" in file.read_bytes():
        pass


def _leak(file: Path) -> None:
    if b"!" in file.read_bytes():
        raise KeyError("leaked")


@pytest.mark.parametrize(
    ("read", "what"), [(_crash, "ended by signal 6"), (_hang, "hang"), (_spin, "hang"), (_leak, "KeyError at")]
)
def test_crashes_hangs_and_other_errors_are_findings(
    read: engine.Callable[[Path], object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if read is _hang:
        monkeypatch.setattr(engine, "SECONDS_PER_INPUT", 1.0)
    monkeypatch.setattr(engine, "PROCESSOR_SECONDS_PER_INPUT", 1.0)
    seed = next(seed for seed in itertools.count() if b"!" in mutated(seed, [b"abc"], [b"!"]))
    outcome = fuzz(Reader("none", read, ".txt", lambda: [b"abc"], [b"!"]), 60, first=seed, most=1)
    ((finding, content),) = outcome.findings.items()
    assert finding.startswith(what) and b"!" in content


def test_what_follows_a_finding_is_tried_too() -> None:
    seeds = [seed for seed in range(200) if b"!" in mutated(seed, [b"abc"], [b"!"])]
    outcome = fuzz(Reader("none", _crash, ".txt", lambda: [b"abc"], [b"!"]), 60, most=seeds[2])
    assert outcome.inputs == seeds[2] and outcome.findings
