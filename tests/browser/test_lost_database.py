"""The database lost what is wanted of a cluster: the page says so, and takes the log's word when it is told to."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SHOTS, OpenPage
from tests.integration.installation import Installation

pytestmark = pytest.mark.timeout(180)


def test_the_page_says_what_is_wrong_and_takes_the_logs_word(installation: Installation, open_page: OpenPage) -> None:
    installation.manage("cluster", "replace-after", "default", "600")
    with closing(sqlite3.connect(installation.data.path / "db.sqlite3")) as database:
        database.execute("DELETE FROM conclave_wantedmembership")
        database.commit()
    live = open_page()
    live.expect_state("healthy")
    expect(live.page.locator("#notes")).to_contain_text(re.compile("the database was lost or put back"), timeout=60_000)
    live.shoot(SHOTS / "lost-database.png")
    live.find("rebuild").click()
    live.shoot(SHOTS / "rebuild.png")
    live.find("confirm-rebuild").click()
    expect(live.page.locator("#notices")).to_contain_text("The database says what the log says")
    expect(live.page.locator("#notes")).not_to_contain_text("membership", timeout=60_000)
    expect(live.find("rebuild")).to_be_hidden()
    live.take_lock("deploy")
