"""The next tool removes temporaries of killed ones and leaves those of living ones: a lock tells, not a process id."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import temporaries
from shared.temporaries import remove_orphans, temporary
from shared.work_path import WorkPath
from shared.workspace import Workspace

WEEK = 7 * 24 * 3600
WRITER = """
import sys, time
from pathlib import Path
from shared.temporaries import temporary
from shared.work_path import WorkPath
with temporary(WorkPath(Path(sys.argv[1]), sys.argv[2])) as path:
    path.unchecked.write_bytes(b"half")
    print(path, flush=True)
    sys.stdin.readline()
"""
COLLECTOR = """
import sys
from pathlib import Path
from shared.temporaries import remove_orphans
print(len(remove_orphans(Path(sys.argv[1]))))
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    root = Workspace.create(tmp_path / "work").root
    (root / "onnx").mkdir()
    return root


@contextlib.contextmanager
def _writer(root: Path, relative: str, *prefix: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in the middle of writing a file of a workspace, and its temporary."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", WRITER, str(root), relative],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def _owners(root: Path) -> list[Path]:
    return list((root / ".locks").glob("owner-*"))


def test_of_a_living_and_of_a_killed_process(work: Path) -> None:
    whole = work / "onnx" / "model.onnx"
    whole.write_bytes(b"whole")
    with _writer(work, "onnx/model.onnx") as (process, path):
        assert remove_orphans(work) == []
        assert path.exists()
        process.kill()
        process.wait()
        assert remove_orphans(work) == [path]
    assert [each.name for each in (work / "onnx").iterdir()] == ["model.onnx"]
    assert whole.read_bytes() == b"whole"
    assert _owners(work) == []


def test_of_this_process(work: Path) -> None:
    with temporary(WorkPath(work, "a")) as one, temporary(WorkPath(work, "b")) as other:
        one.unchecked.write_bytes(b"half")
        other.unchecked.mkdir()
        (other / "half").unchecked.write_bytes(b"half")
        assert remove_orphans(work) == []
        assert len(_owners(work)) == 1
    assert one.status() is None and other.status() is None
    assert _owners(work) == []


@pytest.mark.skipif(
    shutil.which("unshare") is None or os.geteuid() != 0, reason="process namespaces need unshare, and root"
)
def test_two_containers_of_one_host_name_leave_each_other_alone(work: Path) -> None:
    """They share the volume and, as compose services may, the host name; neither sees the other's processes."""
    # The shell is process 1 of its namespace, the writer 2; the collector's namespace has no process 2.
    container = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c")
    with _writer(work, "onnx/model.onnx", *container, '"$@"; true', "sh") as (_, path):
        collect = ["unshare", "--pid", "--fork", sys.executable, "-c", COLLECTOR, str(work)]
        answer = subprocess.run(collect, check=True, capture_output=True, text=True)
        assert answer.stdout == "0\n"
        assert path.exists()


def test_a_folder_of_a_killed_process(work: Path) -> None:
    with _writer(work, "bundle") as (process, path):
        path.unlink()
        path.mkdir()
        (path / "half").write_text("")
        process.kill()
        process.wait()
    assert remove_orphans(work) == [path]
    assert not path.exists()


def test_a_forked_child_keeps_its_parent_s_temporaries_and_has_its_own(work: Path) -> None:
    with temporary(WorkPath(work, "parent")) as path:
        path.unchecked.write_bytes(b"half")
        child = os.fork()
        if child == 0:
            with temporary(WorkPath(work, "child")) as own:
                own.unchecked.write_bytes(b"half")
                os._exit(0 if len(_owners(work)) == 2 and remove_orphans(work) == [] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [each.name.split(".")[1] for each in remove_orphans(work)] == ["child"]
        assert path.is_file()


@pytest.mark.parametrize("owner", ["4f1c0ffee123-17", "unlocked"])
@pytest.mark.parametrize(("age", "stays"), [(0, True), (WEEK - 60, True), (WEEK + 60, False)])
def test_without_a_lock_age_decides(work: Path, owner: str, age: float, stays: bool) -> None:
    """Those that earlier versions named by host and process, and those of file systems without locks."""
    path = work / "onnx" / f".model.onnx.partial-{owner}-0123abcd"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    remove_orphans(work)
    assert path.exists() == stays


def test_a_file_system_without_locks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(temporaries.fcntl, "flock", flock)
    with temporary(WorkPath(work, "model")) as path:
        path.unchecked.write_bytes(b"half")
        assert "unlocked" in path.name
        assert remove_orphans(work) == []
    assert _owners(work) == []


def test_outside_a_workspace_nothing_but_the_temporary_is_left_beside(tmp_path: Path) -> None:
    with temporary(WorkPath(tmp_path, "report.csv")) as path:
        path.unchecked.write_bytes(b"half")
        assert list(tmp_path.iterdir()) == [path.unchecked]


def test_many_threads_share_the_owner(work: Path) -> None:
    wrong: list[str] = []

    def write(number: int) -> None:
        for _ in range(50):
            with temporary(WorkPath(work, f"{number}")) as path:
                path.unchecked.write_bytes(b"half")
                if remove_orphans(work) or not path.is_file():
                    wrong.append(str(path))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert _owners(work) == []


def test_a_lock_file_of_a_dead_owner_goes(work: Path) -> None:
    dead, alive = (work / ".locks" / f"owner-{letter * 32}.lock" for letter in "ab")
    dead.touch()
    with alive.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_orphans(work)
        assert _owners(work) == [alive]
