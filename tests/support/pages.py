"""Pages of commands, and somebody who follows them: in order, as written, in one shell at the root of a fresh copy.

A command is a line ``$ …`` of a ``console`` block; ``\\`` at its end and lines ``> …`` continue it. It must print what
the block shows below it: ``…`` stands for anything, alone in a line for any lines. Numbers may differ by 2 %, those
with an exponent by a factor of ten, and times as they like; spaces, and the rules of tables, may be longer or shorter.
Progress, which a slow machine reports, doesn't count.

Comments of a page's source, before a block::

    <!-- not run: REASON -->        the block is for the reader alone, since REASON
    <!-- needs: THING -->           it is followed where THING is (`THINGS`)
    <!-- before: COMMAND -->        the reader has files of their own at this point; COMMAND makes some
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What a page may need, and the file that tells that it is here.
THINGS = {"TensorRT for RTX": ROOT / ".venv/rtx/.ready"}

_FENCED = re.compile(
    r"(?P<above>(?:<!-- [^>]*? -->\n|`[^`\n]+`:\n\n|[^\n]*<code>[^\n]*</code></summary>\n\n)*)"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"`([\w/.]+)`:|<code>([\w/.]+)</code></summary>")
_COMMENT = re.compile(r"<!-- (not run|needs|before): (.*?) -->", re.DOTALL)
_SHELLS = ("bash", "sh", "shell")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w.]*\d)")
_PROGRESS = re.compile(r"\d\d:\d\d:\d\d INFO    .*: \d+ of \d+, about .* left")
_TIME = re.compile(r"\s*(?:ms|s|min|h)\b")


@dataclass
class Command:
    """What a reader types, and the lines that the page shows below it."""

    line: int
    text: str
    shown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """Commands that belong together.

    Attributes:
        before: commands that are not in the page as it is read.
        not_run: why no test follows the block; None: one does.
        needs: what must be there to follow it.
    """

    commands: list[Command]
    before: list[str]
    not_run: str | None
    needs: str | None

    @property
    def left_out(self) -> str | None:
        """Why the block isn't followed here."""
        if self.needs is not None and not THINGS[self.needs].is_file():
            return f"{self.needs} is not here"
        return self.not_run


@dataclass(frozen=True)
class File:
    """A file that the page shows whole, below its name."""

    name: str
    text: str


def steps(page: str) -> list[Block | File]:
    """The console blocks and files of a page's text, in their order.

    Raises:
        ValueError: a block of shell commands is no console block, or a line of one belongs to no command.
    """
    found: list[Block | File] = []
    for match in _FENCED.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        if match["language"] in _SHELLS:
            raise ValueError(f"line {line}: commands are shown in a console block, each after $")
        if match["language"] == "console":
            comments = [(kind, " ".join(said.split())) for kind, said in _COMMENT.findall(match["above"])]
            said = dict(comments)
            before = [command for kind, command in comments if kind == "before"]
            found.append(Block(list(_commands(match["text"], line)), before, said.get("not run"), said.get("needs")))
        elif name := _FILE.search(match["above"]):
            found.append(File(name[1] or name[2], match["text"]))
    return found


def _commands(block: str, first_line: int) -> Iterator[Command]:
    command: Command | None = None
    for line, text in enumerate(block.splitlines(), first_line):
        if text.startswith("$ "):
            if command is not None:
                yield command
            command = Command(line, text[2:])
        elif command is None:
            raise ValueError(f"line {line} is shown before any command")
        elif not command.shown and (text.startswith("> ") or command.text.endswith("\\")):
            command.text += "\n" + text.removeprefix("> ")
        else:
            command.shown.append(text)
    if command is not None:
        yield command


def difference(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """The first line that a page shows and that was not printed in this place; None: all were.

    Args:
        shown: lines of the page. None at all: whatever was printed is right.
        printed: lines of the command.
    """
    if not shown:
        return None
    rest, anywhere = [line for line in printed if line.strip() and not _PROGRESS.fullmatch(line)], False
    for line in (line for line in shown if line.strip()):
        if line.strip() == "…":
            anywhere = True
            continue
        at = next((index for index, other in enumerate(rest) if same_line(line, other)), None) if anywhere else 0
        if at is None or at >= len(rest) or not same_line(line, rest[at]):
            return line
        rest, anywhere = rest[at + 1 :], False
    return None if anywhere or not rest else f"(nothing more, but this was printed: {rest[0]})"


def same_line(shown: str, printed: str) -> bool:
    """Whether a printed line is the one that a page shows, as above."""
    shown, pattern, numbers, end = shown.strip(), "", [], 0
    for match in _NUMBER.finditer(shown):
        pattern += _literal(shown[end : match.start()]) + r"([-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?)"
        is_time = _TIME.match(shown, match.end()) is not None
        numbers.append(None if is_time else match[0])
        end = match.end()
    found = re.fullmatch(pattern + _literal(shown[end:]), printed.strip())
    return found is not None and all(
        number is None or _near(number, other) for number, other in zip(numbers, found.groups(), strict=True)
    )


def _literal(text: str) -> str:
    parts = [re.escape(part) for part in re.split(r"(\s+|-{3,}|…)", text)]
    joined = "".join(parts)
    joined = re.sub(r"(?:\\\s)+", r"\\s+", joined)
    joined = re.sub(r"(?:\\-){3,}", r"-{3,}", joined)
    return joined.replace("…", ".*")


def _near(shown: str, printed: str) -> bool:
    expected, value = float(shown), float(printed)
    if "e" in shown:
        return expected / 10 <= value <= expected * 10 if expected > 0 else expected / 10 >= value >= expected * 10
    return abs(value - expected) <= 0.02 * abs(expected)


class Reader:
    """A fresh copy of the repository, and a shell in it.

    Args:
        home: a folder for the copy, and for what the commands install.
        work: what is in ``work/`` before the first command, by name: copies of workspaces, links to other folders.
    """

    def __init__(self, home: Path, work: Mapping[str, Path]) -> None:
        self.root = home / "awml-deploy"
        _copy_sources(self.root)
        for name, made in work.items():
            self.root.joinpath("work").mkdir(exist_ok=True)
            if (made / "manifest.json").is_file():
                shutil.copytree(made, self.root / "work" / name)
            else:
                (self.root / "work" / name).symlink_to(made)
        hidden = ("REAL_DATA", "MAKEFLAGS", "MAKELEVEL")
        self.site = home / "site"
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "PYTHONPATH": f"{self.site}:{self.root}", "RUN": "local",
            "PIP_TARGET": str(self.site), "PIP_UPGRADE": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
        }  # fmt: skip
        self._shell = subprocess.Popen(
            ["bash", "--norc", "-o", "pipefail"], cwd=self.root, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.communicate()

    def run(self, command: str) -> tuple[int, str]:
        """Type a command into the shell; its exit code, and what it prints on both streams."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f'{{ {command}\n}} </dev/null\necho "\n[ended: $?]"\n')
        self._shell.stdin.flush()
        printed = ""
        for line in self._shell.stdout:
            if ended := re.fullmatch(r"\[ended: (\d+)\]\n", line):
                return int(ended[1]), printed.removesuffix("\n")
            printed += line
        raise AssertionError(f"{command} ended the shell\n{printed}")

    def follow(self, page: str, files: str = "") -> dict[str, str]:
        """Write the files that a page shows and type its commands; each must succeed, and print what is shown.

        Args:
            page: its text.
            files: the folder that the names of its files start from.

        Returns:
            What each command printed.
        """
        printed = {}
        for step in steps(page):
            if isinstance(step, File):
                path = self.root / files / step.name
                assert path.parent.is_dir(), f"the page shows {step.name} before its folder is made"
                assert not path.exists() or path.read_text(encoding="utf-8") == step.text, f"{step.name} is another"
                path.write_text(step.text, encoding="utf-8")
            elif step.left_out is None:
                for command in [*(Command(0, text) for text in step.before), *step.commands]:
                    printed[command.text] = self._obey(command)
        return printed

    def _obey(self, command: Command) -> str:
        code, printed = self.run(command.text)
        assert code == 0, f"{printed}\nline {command.line}: {command.text} ends with {code}"
        missing = difference(command.shown, printed.splitlines())
        assert missing is None, f"line {command.line}: {command.text} prints\n{printed}\nand should print\n{missing}"
        return printed


def _copy_sources(folder: Path) -> None:
    """What a clone has; the environments are those here, and count as newer than what they were made from.

    Without the one with mmcv's ops, which `make` would take for the exporter's, and export anew.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    for path in [folder / "pyproject.toml", folder / "docker/docker.mk", *folder.glob("requirements/*.txt")]:
        os.utime(path, (0, 0))
    (folder / ".venv").mkdir()
    for made in (ROOT / ".venv").iterdir():
        if made.name != "exporter-full":
            (folder / ".venv" / made.name).symlink_to(made.resolve())
