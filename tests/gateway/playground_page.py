"""Drives the playground in a real Chromium, and watches that it stays within its bounds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from server_process import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = PATIENCE_S * 1000
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 640},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
WATCH_POLICY = (
    "window.violations = [];"
    "document.addEventListener('securitypolicyviolation', (event) =>"
    " window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));"
)
# The browser reports each status of 400 and above by itself.
OWN_REPORT = "Failed to load resource: the server responded with a status of"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium with a fresh profile; skips the test where none is installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


class Tab:
    """One tab with the playground of one server.

    Attributes:
        page: Playwright's page.
        problems: what the console, the page and the policy complained about.
        foreign: requests to anywhere but the server.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.problems: list[str] = []
        self.foreign: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.add_init_script(WATCH_POLICY)
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._note_request(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(OWN_REPORT):
            self.problems.append(text)

    def _note_request(self, url: str) -> None:
        if not url.startswith((self.url + "/", "data:", "blob:")):
            self.foreign.append(url)

    def open(self, path: str = "/") -> Tab:
        """Load the page."""
        self.page.goto(self.url + path)
        return self

    def open_ready(self) -> Tab:
        """Load the page and wait for its list of models."""
        self.open()
        expect(self.page.locator("#model option").first).to_be_attached()
        return self

    def ask(self, text: str) -> None:
        """Type a message and press Enter."""
        self.page.fill("#input", text)
        self.page.press("#input", "Enter")

    def answer(self) -> str:
        """Wait for the end of the answer; the last turn's text."""
        self.wait_idle()
        return self.page.locator(".turn.assistant .text:not(.reasoning)").last.inner_text()

    def wait_idle(self) -> None:
        """Wait until nothing is being answered."""
        expect(self.page.locator("#log")).to_have_attribute("aria-busy", "false")
        expect(self.page.locator("#retry")).to_be_visible()

    def expect_error(self, *parts: str) -> None:
        """Wait for the error of the last turn, which names all of these."""
        error = self.page.locator(".turn .error").last
        for part in parts:
            expect(error).to_contain_text(re.compile(part))

    def stream_back(self, *streams: str) -> list[dict[str, Any]]:
        """Answer the next chats with these event streams; returns the bodies sent."""
        bodies: list[dict[str, Any]] = []

        def fulfil(route: Route) -> None:
            bodies.append(route.request.post_data_json)
            stream = streams[min(len(bodies), len(streams)) - 1]
            route.fulfill(status=200, content_type="text/event-stream", body=stream)

        self.page.route("**/v1/chat/completions", fulfil)
        return bodies

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the screen."""
        return bool(
            self.page.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
                " || document.querySelector('#log')?.scrollWidth"
                " > document.querySelector('#log')?.clientWidth"
            )
        )

    def check(self) -> None:
        """Nothing complained, nothing was blocked, and nothing left this server."""
        violations = self.page.evaluate("window.violations")
        assert violations == []
        assert self.problems == []
        assert self.foreign == []


class Tabs:
    """Opens tabs in a browser of their own, and checks each at the end."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._tabs: list[Tab] = []

    def context(self, **options: Any) -> BrowserContext:
        """A fresh profile."""
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        return context

    def new(self, url: str, context: BrowserContext | None = None, **options: Any) -> Tab:
        """A tab, in a fresh profile unless one is given."""
        tab = Tab(context or self.context(**options), url)
        self._tabs.append(tab)
        return tab

    def check(self) -> None:
        """Check every tab."""
        for tab in self._tabs:
            tab.check()

    def close(self) -> None:
        """Close every profile."""
        for context in self._contexts:
            context.close()
