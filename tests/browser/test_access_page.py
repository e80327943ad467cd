"""The page of who may do what, as an administrator uses it, on a desk and on a telephone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from tests.browser.conftest import PHONE, SHOTS, OpenPage
from tests.browser.live_page import LivePage

pytestmark = pytest.mark.timeout(180)

NARROW_DESK = ViewportSize(width=1280, height=900)


def form(live: LivePage, heading: str) -> Locator:
    return live.page.locator("form", has=live.page.get_by_role("heading", name=heading, exact=True))


@pytest.mark.parametrize("viewport", [NARROW_DESK, PHONE], ids=["desk", "phone"])
def test_a_role_is_made_and_what_is_refused_stays_in_its_form(open_page: OpenPage, viewport: ViewportSize) -> None:
    live = open_page(viewport=viewport)
    live.expect_state("healthy")
    live.page.goto(f"{live.url}/access/default")
    role = form(live, "Role")
    role.get_by_label("Name").fill("builders")
    role.get_by_label("Permissions").fill("build/:read,write")
    role.get_by_role("button", name="Make or replace").click()
    expect(live.find("said")).to_have_text("Done: role builders")
    expect(live.find("role")).to_contain_text("build/:read,write")
    live.page.reload()
    expect(live.find("said")).to_have_count(0)
    live.page.goto(live.url)
    live.page.go_back()
    expect(live.find("role"), "and no question whether to send it once more").to_contain_text("build/:read,write")

    role.get_by_label("Name").fill("builders")
    role.get_by_label("Permissions").fill("build/:fly")
    role.get_by_role("button", name="Make or replace").click()
    expect(live.find("problem")).to_contain_text("came fly")
    expect(role.get_by_label("Permissions")).to_have_value("build/:fly")
    expect(live.find("role")).to_contain_text("build/:read,write")
    assert live.sideways_px <= 0
    live.shoot(SHOTS / f"access-{viewport['width']}.png", whole=True)
