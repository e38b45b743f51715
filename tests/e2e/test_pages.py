"""README, quick start and examples, followed by a reader: every command works as written, and prints what is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shared.manifest import read_manifest
from tests.support.jobs import ROOT
from tests.support.pages import THINGS, Block, File, Reader, steps

pytestmark = pytest.mark.e2e

QUICK_START = "docs/quick_start.md"
EXAMPLES = sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("examples/*/README.md"))


def _steps(page: str) -> list[Block | File]:
    return steps((ROOT / page).read_text(encoding="utf-8"))


def _is_followed(page: str) -> bool:
    """Whether there is something to do; the bundle of the device takes packages from an index (tests/docker)."""
    return page != "examples/edge_device/README.md" and any(
        isinstance(step, Block) and step.not_run is None for step in _steps(page)
    )


#: What no test follows, by the reason that stands in the page.
NOT_RUN = {
    "needs a GPU": 1,
    "needs a Jetson": 1,
    "takes half an hour on a CPU": 1,
    "real frames can't be part of the repository": 1,
    "it is what runs the tests": 1,
    "the test of docs/extending.md builds this package from the page, and runs it": 1,
}


@pytest.fixture(scope="module")
def my_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the quick start leaves in ``work/``."""
    with Reader(tmp_path_factory.mktemp("quick-start"), {}) as reader:
        reader.follow((ROOT / QUICK_START).read_text(encoding="utf-8"))
        return reader.root / "work"


def test_the_quick_start_ends_with_an_engine(my_model: Path) -> None:
    stages = read_manifest(my_model / "my-model" / "manifest.json").stages
    done = {name.partition(":")[0] for name, stage in stages.items() if stage.status == "done"}
    assert {"export", "run", "verify", "evaluate", "report"} <= done
    assert "build" in done or not THINGS["TensorRT for RTX"].is_file()


@pytest.mark.parametrize("page", [page for page in ["README.md", *EXAMPLES] if _is_followed(page)])
def test_a_reader_can_follow(
    page: str, demo_data: Path, main_job: tuple[Path, str], my_model: Path, tmp_path: Path
) -> None:
    """What the main job and the quick start leave is there before, so that their commands have little to do."""
    made = {
        "demo": demo_data,
        "centerpoint": main_job[0],
        **{name: my_model / name for name in ("my-model", "my-data")},
    }
    with Reader(tmp_path, made) as reader:
        reader.follow((ROOT / page).read_text(encoding="utf-8"))


def test_what_is_not_run_is_counted() -> None:
    left_out = Counter(
        step.not_run
        for page in ["README.md", QUICK_START, *EXAMPLES]
        for step in _steps(page)
        if isinstance(step, Block) and step.not_run is not None
    )
    assert left_out == NOT_RUN
