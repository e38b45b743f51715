"""``exporter config init --ci``: the files by which a model's repository is deployed in a pipeline of its own."""

from __future__ import annotations

import shlex
from pathlib import Path

from shared import __version__
from shared.errors import UsageError
from shared.files import write_text

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPT = ("deploy.sh", "ci/deploy.sh")
# Templates, and where each service looks for its file in a repository; the script is all that others need.
_FILES = {
    "github": [_SCRIPT, ("github.yml", ".github/workflows/deploy.yml")],
    "gitlab": [_SCRIPT, ("gitlab.yml", ".gitlab-ci.yml")],
    "script": [_SCRIPT],
}
SERVICES = tuple(_FILES)


def write_pipeline(service: str, config: Path, root: Path, force: bool) -> list[tuple[str, bool]]:
    """Write the files of a pipeline.

    Args:
        service: one of `SERVICES`.
        config: the deploy config, in the repository.
        root: of the repository.
        force: files that are there too.

    Returns:
        Paths of the files, relative to ``root``, and whether they were written.

    Raises:
        UsageError: the config lies elsewhere.
        ConfigError: it is no deploy config.
    """
    from shared.config import load_config
    from shared.tasks import find

    root = root.absolute()
    if not config.absolute().is_relative_to(root):
        hint = "call this in the root of the repository that holds it"
        raise UsageError(f"is not below {root}", where=str(config), hint=hint)
    settings = load_config(config)
    values = {
        "@CONFIG@": _word(config.absolute(), root),
        "@DATA@": "" if settings.data.root is None else _word(Path(settings.data.root), root),
        "@NAME@": _name(config.stem),
        "@METRIC@": find(settings.task_type).metric,
        "@REF@": f"v{__version__}",
    }
    files = []
    for template, path in _FILES[service]:
        written = force or not (root / path).exists()
        if written:
            text = (_TEMPLATES / template).read_text(encoding="utf-8")
            for placeholder, value in values.items():
                text = text.replace(placeholder, value)
            write_text(root / path, text)
        files.append((path, written))
    return files


def _word(path: Path, root: Path) -> str:
    """A path as a word of a shell: relative to ``root`` where it is below."""
    return shlex.quote(str(path.relative_to(root) if path.is_relative_to(root) else path))


def _name(stem: str) -> str:
    """A name for folders, from that of a file: what needs no quotes anywhere."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
