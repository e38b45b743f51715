"""How soon the report shows something: time to the first paint, and until its frames can be looked through.

Each visit starts a browser of its own, without cache; the figures hold the start of the page's process, too. An empty
page is visited in the same way, for comparison. Needs Chromium.

    .venv/tools/bin/python -m benchmarks.report_paint work/centerpoint/report/index.html
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VISITS = 7
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "about:blank")
# Milliseconds since the navigation began; the frames are there when the list has an entry.
ASK = """(async () => {
  const paint = () => performance.getEntriesByName("first-contentful-paint")[0];
  const frames = () => document.querySelector(".thumbs button") || !document.querySelector("[data-explorer]");
  while (document.readyState !== "complete" || !paint() || !frames()) await new Promise((done) => setTimeout(done, 5));
  return JSON.stringify([paint().startTime, performance.now()]);
})()"""
EMPTY = "data:text/html,<p>empty"


class Browser:
    """A headless browser, spoken to by its protocol over a pair of pipes."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._count, self._rest = 0, b""

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """A browser with an empty profile."""
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            # The browser reads commands from descriptor 3, and answers on 4.
            [
                "sh",
                "-c",
                f'exec "$0" "$@" 3<&{command_out} 4>&{answer_in}',
                program,
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(command_out, answer_in),
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(command_in, answer_out)
        finally:
            process.kill()
            process.wait()
            for descriptor in (command_out, command_in, answer_out, answer_in):
                os.close(descriptor)


def visit(program: str, address: str) -> tuple[float, float]:
    """Milliseconds to the first paint, and until the frames are there."""
    with open_browser(program) as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.call("Page.enable", session)
        browser.call("Page.navigate", session, url=address)
        time.sleep(0.2)
        answer = browser.call("Runtime.evaluate", session, expression=ASK, awaitPromise=True)
        first, ready = json.loads(answer["result"]["value"])
        return first, ready


def main() -> None:
    """Print milliseconds of the first paint and until the frames are there, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("no Chromium here")
    result: dict[str, Any] = {"page": str(page), "bytes": page.stat().st_size, "visits": VISITS}
    for name, address in (("empty", EMPTY), ("report", page.resolve().as_uri())):
        visits = [visit(program, address) for _ in range(VISITS)]
        for what, times in zip(("first_paint_ms", "frames_ms"), zip(*visits, strict=True), strict=True):
            result[f"{name}_{what}"] = {"median": round(statistics.median(times)), "slowest": round(max(times))}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
