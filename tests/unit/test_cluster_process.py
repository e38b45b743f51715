"""What a node's process does for a command: which nodes are refused, and what comes back of an error."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared import provenance
from shared.answer import Answer
from shared.cluster.process import Attempt, Site, attempt, inspect
from shared.errors import DeployError, EnvironmentLacks, InputError
from shared.logs import about, event
from shared.temporaries import temporary
from shared.work_path import WorkPath


def inspected(tmp_path: Path, **other: Any) -> Attempt:
    """What this machine answers as a node, with a folder that it shares with itself."""
    with temporary(WorkPath(tmp_path, "cluster")) as mark:
        mark.open_file("xb").close()
        code = provenance.code_digest("shared", "runtime")
        site = Site("runtime", code, {tmp_path: mark.relative}, Path.cwd(), None)
        return inspect(replace(site, **other))


def test_a_node_like_ours_is_fit(tmp_path: Path) -> None:
    assert inspected(tmp_path) == Attempt(None, None, [])


def test_a_node_with_other_code_is_refused(tmp_path: Path) -> None:
    answer = inspected(tmp_path, code="another")
    assert isinstance(answer.error, EnvironmentLacks)
    assert "another version of this software" in str(answer.error)


def test_a_folder_of_the_same_name_that_is_another_is_refused(tmp_path: Path) -> None:
    answer = inspected(tmp_path, marks={tmp_path: ".cluster.partial-of-another-machine"})
    assert isinstance(answer.error, EnvironmentLacks)
    assert f"{tmp_path} is not the folder of that name where the command runs" in str(answer.error)


def test_what_a_check_misses_is_the_answer(tmp_path: Path) -> None:
    def check() -> None:
        raise InputError("there is no such file", where="infos.pkl")

    answer = inspected(tmp_path, check=check)
    assert isinstance(answer.error, InputError)
    assert str(answer.error) == "infos.pkl: there is no such file"


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (OSError(28, "No space left on device", "/volume/a"), EnvironmentLacks, "no space left on the device"),
        (ValueError("three"), DeployError, "ValueError: three. This is a bug"),
    ],
)
def test_errors_come_back_as_what_a_user_can_act_on(raised: Exception, kind: type, text: str) -> None:
    def fail() -> None:
        raise raised

    answer = attempt(fail)
    assert type(answer.error) is kind
    assert text in str(answer.error)


def test_warnings_come_back_too() -> None:
    def work() -> int:
        logging.getLogger("runtime").warning("sample %d is empty", 3)
        logging.getLogger("runtime").info("nobody needs this")
        return 7

    assert attempt(work) == Attempt(7, None, ["sample 3 is empty"])


def test_an_error_comes_back_with_its_sample_and_what_is_no_line_in_text_does_not() -> None:
    def work() -> None:
        with about(stage="run:onnx-cpu", sample="token3"):
            logging.getLogger("stage").error("run: failed", extra=event("stage_failed", only_json=True))
            raise InputError("is empty", answer=Answer("", {"passed": False}))

    answer = pickle.loads(pickle.dumps(attempt(work)))
    assert answer.warnings == []
    assert (answer.error.stage, answer.error.sample) == ("run:onnx-cpu", "token3")
    assert answer.error.answer.data == {"passed": False}
