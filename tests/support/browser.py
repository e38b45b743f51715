"""A page in this machine's Chromium, and what it says and asks for meanwhile.

Time in it is real: whoever looks at a page waits for what it should show, however busy the machine is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

MISSING = "no Chromium here; install the package chromium to run this"
PATIENCE_MS = 300_000
_FLAGS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def chromium() -> str | None:
    """The Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


@dataclass
class Visit:
    """A page that is open.

    Attributes:
        page: the page.
        console: the console's lines, and errors that nothing caught.
        asked: what the page asked for, also where its policy didn't let it.
        sockets: addresses of its web sockets.
    """

    page: Page
    console: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)

    def note(self, request: Request) -> None:
        """Take down a request."""
        self.asked.append(request)

    @property
    def requests(self) -> list[str]:
        """Addresses that the network was asked for."""
        sent = [request.url for request in self.asked if request.failure != "csp"]
        return [url for url in sent if url.startswith(("http", "ftp"))] + self.sockets


@contextmanager
def visit(
    address: str, *, width: int = 1280, height: int = 860, scheme: Literal["dark", "light"] = "light"
) -> Iterator[Visit]:
    """Open a page, and wait until it is loaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_FLAGS, timeout=PATIENCE_MS)
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE_MS)
        seen = Visit(page)
        page.on("console", lambda message: seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.on("request", seen.note)
        page.on("websocket", lambda socket: seen.sockets.append(socket.url))
        page.goto(address)
        yield seen
        browser.close()
