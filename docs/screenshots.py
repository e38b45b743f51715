"""Takes pictures of a report: ``python docs/screenshots.py REPORT FOLDER``, in a headless Chromium.

``report-frames.webp`` is the one in the README; FOLDER docs renews it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.support.browser import chromium, visit

SECTIONS = ("frames", "metrics")
_WIDTH, _HEIGHT = 1280, 860


def take(report: Path, section: str, picture: Path) -> None:
    """Save a picture of one section of ``report`` as WebP."""
    with visit(report.as_uri(), width=_WIDTH, height=_HEIGHT) as seen:
        seen.page.locator(".stage[aria-busy=false]").first.wait_for(state="attached")
        seen.page.locator(f"#{section}").evaluate("section => section.scrollIntoView()")
        image = Image.open(io.BytesIO(seen.page.screenshot()))
        image.convert("RGB").save(picture, quality=50, method=6)


def main() -> None:
    """Take the pictures, where there are a report and a browser; else say in a line what is missing."""
    report, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if not report.is_file():
        print(f"no pictures of the report: there is no {sys.argv[1]}; make centerpoint-all makes it")  # noqa: T201
    elif chromium() is None:
        print("no pictures of the report: there is no Chromium here; install the package chromium")  # noqa: T201
    else:
        for section in SECTIONS:
            take(report, section, folder / f"report-{section}.webp")


if __name__ == "__main__":
    main()
