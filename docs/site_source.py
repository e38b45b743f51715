"""Lays out what the site is built from: ``python docs/site_source.py FOLDER``.

The pages keep their places in the repository, so that their links stay right; what they link to beside pages (schemas,
scripts, pictures) is copied along. A page that mkdocs.yml does not list is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
#: Not for the site: what pages are made from, and notes that lie beside code.
_NOT_PAGES = ("docs/templates/", "evaluator/", "tests/")
_SCRIPT = ROOT / "docs" / "static" / "iframe-worker.js"
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def pages() -> list[str]:
    """Every page that git tracks, relative to the root of the repository."""
    command = ["git", "ls-files", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in listed if not path.startswith(_NOT_PAGES) or path == "tests/gpu/README.md"]


def listed() -> list[str]:
    """The pages that mkdocs.yml lists."""

    def leaves(tree: Any) -> Iterator[str]:
        if isinstance(tree, str):
            yield tree
        else:
            for child in tree.values() if isinstance(tree, dict) else tree:
                yield from leaves(child)

    return list(leaves(YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"]))


def lay_out(folder: Path) -> None:
    """Copy the pages and what they link to into ``folder``, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        place = folder / page
        place.parent.mkdir(parents=True, exist_ok=True)
        # Markdown inside of HTML is rendered where the element says so; GitHub always does.
        place.write_text(text.replace("<details>", "<details markdown>"), encoding="utf-8")
        for target in _LINK.findall(text):
            source = (ROOT / page).parent / target
            if "://" not in target and source.is_file() and source.suffix != ".md":
                copy = place.parent / target
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    shutil.copy(_SCRIPT, folder)


def main() -> None:
    """Lay out the source of the site in the folder that is given."""
    unlisted = sorted(set(pages()).symmetric_difference(listed()))
    if unlisted:
        sys.exit(f"in mkdocs.yml's nav or in the repository, not in both: {', '.join(unlisted)}")
    lay_out(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
