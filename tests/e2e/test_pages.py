"""README, quick start and examples, followed by a reader: every command works as written, and prints what is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.jobs import ROOT
from tests.support.pages import Block, Reader, steps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLES = sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("examples/*/README.md"))
PAGES = ["README.md", "docs/quick_start.md", *EXAMPLES]

#: What no test follows, by the reason that stands in the page.
NOT_RUN = {
    "needs a GPU": 1,
    "real frames can't be part of the repository": 1,
    "it is what runs the tests": 1,
    "the quick start runs these stages one by one": 1,
    "the test of docs/extending.md builds this package from the page, and runs it": 1,
}


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_can_follow(page: str, demo_data: Path, main_job: tuple[Path, str], tmp_path: Path) -> None:
    """What `make centerpoint-all` makes is there before; its own test makes it from nothing."""
    with Reader(tmp_path, demo=demo_data, centerpoint=main_job[0]) as reader:
        reader.follow((ROOT / page).read_text(encoding="utf-8"))


def test_what_is_not_run_is_counted() -> None:
    left_out = Counter(
        step.not_run
        for page in PAGES
        for step in steps((ROOT / page).read_text(encoding="utf-8"))
        if isinstance(step, Block) and step.not_run is not None
    )
    assert left_out == NOT_RUN
