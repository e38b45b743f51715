"""Who may change files: the code of the tools does it through `shared.work_path`, which no link in a workspace leads
out of. What writes where the user's command names a place outside a workspace is listed here, with the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "exporter", "trt_builder", "runtime", "verifier", "evaluator", "demo", "docker")

# Files or patterns of files, and what they may do that others may not.
ALLOWED = {
    # The gateway, and what it hands temporary paths to.
    "shared/work_path.py": {"os", "mkdir"},
    "shared/files.py": {"open", "shutil"},
    "shared/stages.py": {"open"},
    "shared/arrays.py": {"open"},
    "shared/sample_table.py": {"open"},
    "trt_builder/probe.py": {"open"},
    "exporter/quantize/sensitivity.py": {"open"},
    # Opens to read, whatever it is; /dev/null for descriptors that are closed.
    "shared/regular_files.py": {"os"},
    "shared/terminal.py": {"os"},
    # The key of this user, outside of workspaces.
    "shared/user_key.py": {"os", "mkdir", "unlink"},
    # Caches of this user, and folders that --out names.
    "runtime/cuda/compile.py": {"write_text"},
    "exporter/models/*/demo*.py": {"mkdir", "replace"},
    "exporter/demo_training.py": {"mkdir", "write_text"},
    "demo/t4_writer.py": {"mkdir", "write_bytes"},
    "demo/data_set.py": {"mkdir", "write_text", "rename", "shutil"},
    "docker/bundle.py": {"chmod", "mkdir", "open", "rename", "replace", "shutil", "unlink", "write_text"},
    "docker/bundle_main.py": {"os", "shutil"},
    # A file of its own in a temporary folder, read by the process that it starts.
    "verifier/bisect/runners.py": {"unlink", "open"},
}

_OF_PATHS = {
    *("write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch", "symlink_to", "hardlink_to", "chmod"),
}
# `str.replace` and `str.rename` take two arguments or none that is a path; `Path.replace(target)` takes one.
_WITH_ONE_ARGUMENT = {"replace", "rename"}
_OF_OS = {
    *("open", "link", "symlink", "unlink", "remove", "removedirs", "rename", "renames", "replace", "mkdir", "makedirs"),
    *("rmdir", "truncate", "chmod", "mknod", "mkfifo", "utime"),
}
_READING = {"r", "rb", "rt"}
_WRITING = {f"{way}{rest}" for way in ("w", "a", "x", "r+") for rest in ("", "b", "t", "+", "b+", "+b")}


def _accesses(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a source file that change files, and how."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            if called.id == "open" and _mode(node, 1) not in _READING:
                yield node.lineno, "open"
            if called.id in ("FileLock", "SoftFileLock"):
                yield node.lineno, "FileLock"
        elif isinstance(called, ast.Attribute):
            module = called.value.id if isinstance(called.value, ast.Name) else ""
            if module == "os":
                if called.attr in _OF_OS:
                    yield node.lineno, "os"
            elif module == "shutil":
                if called.attr != "which":
                    yield node.lineno, "shutil"
            elif called.attr in _OF_PATHS or (called.attr in _WITH_ONE_ARGUMENT and len(node.args) == 1):
                yield node.lineno, called.attr
            elif called.attr == "open" and _mode(node, 0) in _WRITING:
                yield node.lineno, "open"


def _mode(call: ast.Call, position: int) -> str:
    modes = [*call.args[position : position + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    return str(modes[0].value) if modes and isinstance(modes[0], ast.Constant) else "r"


def _forbidden(root: Path) -> list[str]:
    found = []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            place = path.relative_to(root)
            allowed: set[str] = set().union(*(ways for name, ways in ALLOWED.items() if place.match(name)))
            found += [f"{place}:{line}: {way}" for line, way in _accesses(path) if way not in allowed]
    return found


def test_files_are_changed_through_the_gateway() -> None:
    assert not _forbidden(ROOT)


def test_no_leave_is_given_that_nobody_takes() -> None:
    for name, ways in ALLOWED.items():
        taken = {way for path in ROOT.glob(name) for _, way in _accesses(path)}
        assert ways <= taken, f"{name} does not use {ways - taken}"


@pytest.mark.parametrize(
    "line",
    [
        'path.write_text("x")',
        "path.unlink(missing_ok=True)",
        "path.replace(target)",
        "path.mkdir()",
        'path.open("w")',
        'path.open(mode="ab")',
        'open(name, "w")',
        "os.link(one, other)",
        "shutil.rmtree(folder)",
        "FileLock(path)",
    ],
)
def test_a_forbidden_access_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/a.py").write_text(line)
    assert len(_forbidden(tmp_path)) == 1


@pytest.mark.parametrize("line", ['text.replace("a", "b")', "path.open()", 'open(name, "rb")', 'shutil.which("uv")'])
def test_what_changes_no_file_is_fine(tmp_path: Path, line: str) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/a.py").write_text(line)
    assert not _forbidden(tmp_path)
