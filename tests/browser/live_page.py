"""The live page as a person uses it: what is on it by the names that tests know it by, and the acts it offers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from playwright.sync_api import Locator, Page, expect

PATIENCE_MS: Final = 15_000


class LivePage:
    """Every act waits for what it needs, at most PATIENCE_MS."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    # --- acts ---

    def sign_in(self, name: str, password: str) -> None:
        self.page.goto(self.url)
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def take_lock(self, name: str, *, ttl_s: float | None = None, wait: bool = False) -> None:
        self.find("take-lock").click()
        self.find("lock-name").fill(name)
        if ttl_s is not None:
            self.find("lock-ttl").fill(str(ttl_s))
        self.find("lock-wait").set_checked(wait)
        self.find("lock-submit").click()

    def release(self, name: str) -> None:
        self.lock(name).get_by_test_id("release").click()
        expect(self.lock(name)).to_have_count(0, timeout=PATIENCE_MS)

    def shoot(self, path: Path, *, whole: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=whole)

    # --- what is on it ---

    def find(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def lock(self, name: str) -> Locator:
        return self.find(f"lock-row-{name}")

    def token(self, name: str) -> int:
        text = self.lock(name).get_by_test_id("lock-token").inner_text()
        return int(text.replace(",", ""))

    def lease_s(self, name: str) -> float:
        lease = self.lock(name).get_by_test_id("lock-lease")
        expect(lease).to_have_text(re.compile(r"^\d+\.\d s$"), timeout=PATIENCE_MS)
        return float(lease.inner_text().split()[0])

    @property
    def leader(self) -> str:
        name = self.find("leader-name")
        expect(name).to_have_count(1, timeout=PATIENCE_MS)
        return name.inner_text()

    @property
    def term(self) -> int:
        return int(self.find(f"replica-{self.leader}").get_attribute("data-term") or 0)

    def expect_state(self, state: str) -> None:
        """healthy, degraded, leaderless, blind or looking."""
        expect(self.find("sentence")).to_have_attribute("data-state", state, timeout=2 * PATIENCE_MS)

    def expect_connection(self, state: str) -> None:
        expect(self.find("connection")).to_have_attribute("data-state", state, timeout=PATIENCE_MS)

    def expect_mine(self, name: str, token: int) -> None:
        expect(self.lock(name).get_by_test_id("lock-holder")).to_have_text("you (this page)", timeout=PATIENCE_MS)
        expect(self.lock(name).get_by_test_id("lock-token")).to_have_text(f"{token:,}")

    @property
    def sideways_px(self) -> int:
        """By how much the page is wider than what shows it."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return width
