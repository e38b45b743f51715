"""Takes pictures of a report: ``python docs/screenshots.py REPORT FOLDER``, in a headless Chromium.

``report-frames.webp`` is the one in the README; FOLDER docs renews it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

SECTIONS = ("frames", "metrics")
_WIDTH, _HEIGHT = 1280, 860
# The page draws its frames when it has been loaded; then it shows the section.
_VISIT = """<!doctype html>
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: {height}px }}</style>
<iframe src="{report}"></iframe>
<script>
addEventListener("load", async () => {{
  const page = document.querySelector("iframe").contentDocument;
  while (!page.querySelector(".explorer .thumbs button")) await new Promise((done) => setTimeout(done, 100));
  page.getElementById("{section}").scrollIntoView();
}});
</script>
"""


def browser() -> str | None:
    """The Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


def take(chromium: str, report: Path, section: str, picture: Path) -> None:
    """Save a picture of one section of ``report`` as WebP."""
    with tempfile.TemporaryDirectory() as folder:
        visit, image = Path(folder, "visit.html"), Path(folder, "picture.png")
        visit.write_text(_VISIT.format(width=_WIDTH, height=_HEIGHT, report=report.as_uri(), section=section))
        command = [
            chromium, "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--hide-scrollbars", "--allow-file-access-from-files",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--blink-settings=preferredColorScheme=1",
            "--virtual-time-budget=20000", f"--window-size={_WIDTH},{_HEIGHT}", f"--user-data-dir={folder}/profile",
            f"--screenshot={image}", visit.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        Image.open(image).convert("RGB").save(picture, quality=50, method=6)


def main() -> None:
    """Take the pictures, where there are a report and a browser; else say in a line what is missing."""
    report, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    chromium = browser()
    if not report.is_file():
        print(f"no pictures of the report: there is no {sys.argv[1]}; make centerpoint-all makes it")  # noqa: T201
    elif chromium is None:
        print("no pictures of the report: there is no Chromium here; install the package chromium")  # noqa: T201
    else:
        for section in SECTIONS:
            take(chromium, report, section, folder / f"report-{section}.webp")


if __name__ == "__main__":
    main()
