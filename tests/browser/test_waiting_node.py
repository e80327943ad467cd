"""A node that lost its disk waits, the others serve, and the page says so and for what."""

from __future__ import annotations

import re
import shutil

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SHOTS, OpenPage
from tests.integration.installation import Installation

pytestmark = pytest.mark.timeout(180)


def test_the_page_names_the_node_that_waits_and_what_it_waits_for(
    installation: Installation, open_page: OpenPage
) -> None:
    live = open_page()
    live.expect_state("healthy")
    lost = next(node for node in ("node1", "node2", "node3") if node != live.leader)
    shutil.rmtree(installation.data.nodes / lost)
    installation.kill(lost)

    expect(live.find(f"replica-{lost}")).to_have_attribute("data-role", "waiting")
    live.expect_state("degraded")
    expect(live.find("sentence")).to_have_text(
        re.compile(f"^Degraded. {lost} waits; one more loss stops the cluster.$")
    )
    expect(live.page.locator("#notes")).to_have_text(re.compile(f"^{lost} waits: .+"))
    expect(live.find("leader-name")).to_have_count(1)
    live.shoot(SHOTS / "waiting.png")

    live.take_lock("deploy")
    assert live.lease_s("deploy") > 0
    live.release("deploy")
