"""Blocks with temporaries that nobody ends: the garbage collector does, whenever and in whichever thread it runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from shared import temporaries
from shared.locks import LOCKS
from shared.work_path import WorkPath


def test_the_garbage_collector_may_end_one_while_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / LOCKS).mkdir()
    given_up = temporaries.temporary(WorkPath(tmp_path, "first"))
    first = given_up.__enter__()

    class Collecting(dict[Any, Any]):
        """What looks up an owner holds the guard; there the collector strikes."""

        def get(self, *arguments: Any) -> Any:
            found = super().get(*arguments)
            given_up.__exit__(None, None, None)
            return found

    monkeypatch.setattr(temporaries, "_owners", Collecting(temporaries._owners))
    seen = []

    def write() -> None:
        with temporaries.temporary(WorkPath(tmp_path, "second")) as second:
            monkeypatch.setattr(temporaries, "_owners", dict(temporaries._owners))
            seen.append((second.name, [path.name for path in (tmp_path / LOCKS).glob("owner-*")]))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(300)
    assert not thread.is_alive(), "it waits for itself"
    ((name, owners),) = seen
    # Both have one owner, whose lock stays until the second is gone, too.
    assert owners == [f"owner-{first.name.partition('partial-')[2].partition('-')[0]}.lock"]
    assert owners[0][6:38] in name
    assert not list((tmp_path / LOCKS).glob("owner-*"))
