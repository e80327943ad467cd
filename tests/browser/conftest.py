"""Real Chromium over a real installation. A page that logs an error, or that the policy had to stop, fails its test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from tests.browser.live_page import LivePage
from tests.conftest import chromium
from tests.integration.installation import ADMIN_PASSWORD, ADMINISTRATOR, Installation

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 15_000
DESK = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)
SHOTS = Path(__file__).parent / "shots"

EXPECTED = re.compile(
    r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)"
    r"|WebSocket connection to .* failed|status of (403|409|410|503)"
)
"""What a browser says by itself where the web process is killed, a leader away, a lock held, a session gone, a page
refused."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS, headless=True)
        yield running
        running.close()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One for all tests of a module: each leaves it healthy, and its locks free."""
    with Installation(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running


OpenPage = Callable[..., LivePage]


@pytest.fixture
def open_page(browser: Browser, installation: Installation) -> Iterator[OpenPage]:
    """Opens a page in a browser of its own, signed in. When the test is over, looks at what all of them logged."""
    troubles: list[str] = []
    contexts = []

    def watch(page: Page) -> None:
        def hear(message: ConsoleMessage) -> None:
            if message.type == "error" and not EXPECTED.search(message.text):
                troubles.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: troubles.append(str(error)))

    def open_one(
        name: str = ADMINISTRATOR, password: str = ADMIN_PASSWORD, *, viewport: ViewportSize = DESK, **options: Any
    ) -> LivePage:
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        live = LivePage(page, installation.url)
        live.sign_in(name, password)
        return live

    yield open_one
    for context in contexts:
        context.close()
    assert not troubles, troubles
