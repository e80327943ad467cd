"""What a person can do: sign in, see the quorum, take a lock, kill the leader, and still hold it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.browser.company import Company
from tests.browser.conftest import PHONE, SHOTS, OpenPage
from tests.browser.live_page import LivePage
from tests.integration.installation import ADMIN_PASSWORD, ADMINISTRATOR, Installation
from tests.integration.quorum import web_client
from tests.integration.waiting import eventually

pytestmark = pytest.mark.timeout(180)

NODES = ("node1", "node2", "node3")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "live.png"
IS_FOR_THE_README = psutil.Process().environ().get("CONCLAVE_PICTURES") == "1"
"""As this process was started: the settings of the tests take such names out of the environment."""


def test_the_whole_of_what_a_person_can_do(installation: Installation, open_page: OpenPage) -> None:
    live = open_page()
    sees_three_replicas_with_one_leader(live)
    token = takes_the_lock_and_sees_it_run_down(live)
    kills_the_leader_and_still_holds_it(live, token)
    restarts_the_web_process_and_still_holds_it(installation, live, token)
    live.shoot(SHOTS / "live.png")
    live.release("deploy")
    expect(live.page.get_by_text("Nobody holds a lock.")).to_be_visible()
    finds_the_crash_in_the_audit(live)


def sees_three_replicas_with_one_leader(live: LivePage) -> None:
    live.expect_state("healthy")
    expect(live.find("sentence")).to_have_text(re.compile(r"^Healthy\. node[123] leads; one more node can be lost\.$"))
    expect(live.page.locator("[data-testid^=replica-]")).to_have_count(3)
    expect(live.page.locator("[data-testid^=replica-][data-role=leader]")).to_have_count(1)
    expect(live.page.locator("[data-testid^=replica-][data-role=follower]")).to_have_count(2)
    expect(live.find(f"replica-{live.leader}")).to_have_attribute("data-role", "leader")
    for node in NODES:
        cells = live.find(f"replica-{node}").get_by_role("cell").all_inner_texts()
        term, vote, last, commit, applied = cells
        assert int(term) == live.term, cells
        assert vote in {*NODES, "\N{EN DASH}"}, cells
        assert int(last.replace(",", "")) >= int(commit.replace(",", "")) >= int(applied.replace(",", "")) > 0, cells
        expect(live.find(f"log-{node}").locator(".is-committed")).not_to_have_count(0)
    expect(live.find(f"election-{live.term}")).to_contain_text(f"{live.leader} won term {live.term}")
    live.expect_connection("live")


def takes_the_lock_and_sees_it_run_down(live: LivePage) -> int:
    live.take_lock("deploy")
    row = live.lock("deploy")
    expect(row.get_by_test_id("lock-holder")).to_have_text("you (this page)")
    token = live.token("deploy")
    assert token > 0
    lease_s = live.lease_s("deploy")
    assert 0 < lease_s <= 30
    expect(row.get_by_test_id("lock-lease")).not_to_have_text(f"{lease_s:.1f} s")
    assert live.lease_s("deploy") < lease_s
    return token


def kills_the_leader_and_still_holds_it(live: LivePage, token: int) -> None:
    leader, term = live.leader, live.term
    live.find("lose-leader").click()
    expect(live.page.get_by_role("heading", name=f"Crash {leader}?")).to_be_visible()
    live.shoot(SHOTS / "crash.png")
    live.find("confirm-crash").click()
    election = live.page.locator("[data-testid^=election-]").filter(has_text=re.compile(r"won term (\d+)"))
    expect(election.first).not_to_contain_text(f"won term {term}")
    expect(live.find("leader-name")).not_to_have_text(leader)
    winner, new_term = live.leader, live.term
    assert new_term > term
    told = live.find(f"election-{new_term}")
    expect(told).to_contain_text(f"{winner} won term {new_term}")
    expect(told).to_contain_text(leader)
    expect(told).to_contain_text("2 of 3 votes")
    live.expect_mine("deploy", token)
    live.shoot(SHOTS / "elected.png")
    live.expect_state("healthy")
    live.expect_mine("deploy", token)


def restarts_the_web_process_and_still_holds_it(installation: Installation, live: LivePage, token: int) -> None:
    installation.kill("web")
    live.expect_connection("disconnected")
    expect(live.page.locator("#banner")).to_contain_text("Stale")
    live.shoot(SHOTS / "disconnected.png")
    live.expect_connection("live")
    live.expect_state("healthy")
    live.expect_mine("deploy", token)
    live.lock("deploy").get_by_test_id("renew").click()
    expect(live.page.get_by_text("deploy has its full lease again.")).to_be_visible()
    answer = live.page.request.get(f"{live.url}/api/v1/clusters/default/locks/deploy").json()
    assert answer["token"] == token
    assert answer["holder"]["principal"] == "user:admin"


def finds_the_crash_in_the_audit(live: LivePage) -> None:
    live.page.get_by_role("link", name="Audit").click()
    entry = live.find("audit-entry").filter(has_text="node.crashed").first
    expect(entry).to_contain_text("admin")
    expect(entry).to_contain_text("default/node")
    live.shoot(SHOTS / "audit.png")


def test_others_are_shown_by_name_with_their_queues(installation: Installation, open_page: OpenPage) -> None:
    live = open_page()
    live.expect_state("healthy")
    live.take_lock("deploy")
    with Company(installation):
        row = live.lock("billing/month-end")
        expect(row.get_by_test_id("lock-holder")).to_have_text("invoices")
        expect(row).to_contain_text("2 waiting")
        expect(row.get_by_test_id("wait")).to_be_visible()
        expect(row.get_by_test_id("release")).to_be_hidden()
        expect(live.page.locator(".lock-table tbody tr").first).to_contain_text("deploy")
        expect(live.page.get_by_text("4 held, 3 waiting in line")).to_be_visible()
        loses_the_leader(live)
        expect(live.page.locator(".notice")).to_have_count(0)
        live.expect_state("healthy")
        live.shoot(SHOTS / "company.png")
        if IS_FOR_THE_README:
            live.shoot(PICTURE)
    live.release("deploy")


def loses_the_leader(live: LivePage) -> None:
    leader = live.leader
    live.find("lose-leader").click()
    live.find("confirm-crash").click()
    expect(live.find("leader-name")).not_to_have_text(leader)


def test_at_phone_width_it_is_one_column_and_nothing_scrolls_sideways(open_page: OpenPage) -> None:
    live = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    live.expect_state("healthy")
    live.take_lock("a/rather-long-name/of-a-lock/that-somebody-gave-without-thinking-of-phones")
    name = "a/rather-long-name/of-a-lock/that-somebody-gave-without-thinking-of-phones"
    expect(live.lock(name).get_by_test_id("release")).to_be_visible()
    assert live.sideways_px <= 0
    lefts = {panel.bounding_box()["x"] for panel in live.page.locator(".panel").all()}  # type: ignore[index]
    assert len(lefts) == 1, "one column"
    live.shoot(SHOTS / "phone.png", whole=True)
    live.page.get_by_role("button", name="Menu").click()
    expect(live.page.get_by_role("link", name="Audit")).to_be_visible()
    live.page.get_by_role("button", name="Close this message").click()
    live.release(name)


def test_in_the_dark_and_without_motion_it_is_the_same_page(open_page: OpenPage) -> None:
    live = open_page(color_scheme="dark", reduced_motion="reduce")
    live.expect_state("healthy")
    live.shoot(SHOTS / "dark.png")
    background = live.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(17, 21, 26)"
    expect(live.page.locator("#replicas-hint")).to_have_text("")


def test_a_lock_may_have_any_name(open_page: OpenPage) -> None:
    """Also one that objects of JavaScript have by themselves, or that a row has, or that browsers take out of
    addresses."""
    live = open_page()
    live.expect_state("healthy")
    of_others = [acquired(live, name)["session"] for name in ("__proto__", "plain")]
    for name in ("__proto__", "plain"):
        expect(live.lock(name).get_by_test_id("lock-holder")).to_have_text("you (another page or program)")
    expect(live.page.locator("#locks-hint")).to_have_text("2 held")
    names = ("constructor", "holder", "toString", "waiters", ".", "..", "a/../b")
    for name in names:
        live.take_lock(name)
        assert live.lease_s(name) > 0, "known from the leader's report"
    live.page.reload()
    expect(live.lock("__proto__")).to_have_count(1)
    for name in names:
        live.expect_mine(name, live.token(name))
        live.release(name)
    for session in of_others:
        live.page.request.delete(f"{live.url}/api/v1/clusters/default/sessions/{session}", headers=token_of(live))
    expect(live.lock("__proto__")).to_have_count(0)
    live.take_lock("__proto__")
    assert live.lease_s("__proto__") > 0
    live.release("__proto__")


def test_a_lock_outlives_a_reload_of_the_page(open_page: OpenPage) -> None:
    live = open_page()
    live.take_lock("reload")
    expect(live.lock("reload").get_by_test_id("release")).to_be_visible()
    token = live.token("reload")
    live.page.reload()
    live.expect_mine("reload", token)
    live.release("reload")


def test_a_lease_is_not_proven_by_a_clock_that_stood_still_in_a_suspend(open_page: OpenPage) -> None:
    """Which the monotonic clock of a browser may; the one on the wall goes on."""
    live = open_page()
    live.page.add_init_script(
        "const now = Date.now; window.suspendedMs = 0; Date.now = () => now() + window.suspendedMs;"
    )
    live.page.reload()
    live.take_lock("suspend", ttl_s=600)
    assert live.lease_s("suspend") > 0
    live.page.route("**/keepalive", lambda route: route.abort("connectionrefused"))
    row = live.lock("suspend")
    live.page.evaluate("window.suspendedMs = 300_000")
    expect(row).to_contain_text(re.compile(r"not renewed yet, asking again; proven for (29\d|300)\.\d s more"))
    live.page.evaluate("window.suspendedMs = 601_000")
    expect(row).to_contain_text("not proven held")
    live.page.unroute("**/keepalive")
    expect(row).not_to_contain_text("not proven held")
    expect(row).not_to_contain_text("not renewed yet")
    live.release("suspend")


def test_who_waits_in_line_gets_the_lock_with_a_higher_token(open_page: OpenPage) -> None:
    first, second = open_page(), open_page()
    first.take_lock("line")
    expect(first.lock("line").get_by_test_id("release")).to_be_visible()
    token = first.token("line")

    second.take_lock("line")
    expect(second.find("lock-error")).to_contain_text("line is held by you, in another page or program")
    second.page.keyboard.press("Escape")
    expect(second.lock("line").get_by_test_id("lock-holder")).to_have_text("you (another page or program)")
    second.lock("line").get_by_test_id("wait").click()
    expect(second.lock("line").get_by_test_id("leave")).to_be_visible()
    expect(second.lock("line")).to_contain_text("you are 1st of 1")
    expect(first.lock("line")).to_contain_text("1 waiting")

    first.lock("line").get_by_test_id("release").click()
    expect(second.lock("line").get_by_test_id("lock-holder")).to_have_text("you (this page)")
    expect(first.lock("line").get_by_test_id("lock-holder")).to_have_text("you (another page or program)")
    assert second.token("line") > token
    second.release("line")


def test_who_leaves_the_line_is_gone_from_it(open_page: OpenPage) -> None:
    first, second = open_page(), open_page()
    first.take_lock("leave")
    second.lock("leave").get_by_test_id("wait").click()
    expect(first.lock("leave")).to_contain_text("1 waiting")
    second.lock("leave").get_by_test_id("leave").click()
    expect(first.lock("leave")).to_contain_text("nobody")
    first.release("leave")


def test_who_waits_in_line_stands_in_it_again_once_the_page_is_loaded_again(open_page: OpenPage) -> None:
    """It had left the line, and did not say so; its session went on with nothing to hold."""
    first, second = open_page(), open_page()
    first.take_lock("loaded")
    second.take_lock("loaded", wait=True)
    expect(second.lock("loaded")).to_contain_text("you are 1st of 1")
    second.page.reload()
    expect(second.lock("loaded").get_by_test_id("leave")).to_be_visible()
    expect(second.lock("loaded")).to_contain_text("you are 1st of 1")
    first.lock("loaded").get_by_test_id("release").click()
    expect(second.lock("loaded").get_by_test_id("lock-holder")).to_have_text("you (this page)")
    second.page.reload()
    expect(second.lock("loaded").get_by_test_id("lock-holder")).to_have_text("you (this page)")
    second.release("loaded")


def test_who_waits_in_line_for_a_name_keeps_its_place_though_it_asks_for_it_again(open_page: OpenPage) -> None:
    """It was told to wait no longer, though it did; with another time to live it stood in line twice."""
    first, second = open_page(), open_page()
    first.take_lock("again")
    second.take_lock("again", wait=True)
    expect(second.lock("again")).to_contain_text("you are 1st of 1")
    for wait, ttl_s in ((False, 30), (True, 60)):
        second.take_lock("again", wait=wait, ttl_s=ttl_s)
        expect(second.find("lock-error")).to_have_text("This page waits in line for again already.")
        second.page.keyboard.press("Escape")
    expect(second.lock("again")).to_contain_text("you are 1st of 1")
    first.lock("again").get_by_test_id("release").click()
    expect(second.lock("again").get_by_test_id("lock-holder")).to_have_text("you (this page)")
    expect(second.lock("again")).to_contain_text("nobody")
    second.release("again")


def test_who_waits_in_line_is_told_that_it_does_no_more_where_the_session_has_ended(open_page: OpenPage) -> None:
    """As after a night in which the machine was suspended: the page left the line and said nothing."""
    first, second = open_page(), open_page()
    first.take_lock("ended")
    second.take_lock("ended", wait=True)
    expect(second.lock("ended")).to_contain_text("you are 1st of 1")
    kept = second.page.evaluate("JSON.parse(Object.values(sessionStorage)[0])")
    second.page.route("**/acquire", lambda route: route.abort("connectionrefused"))
    second.page.reload()
    expect(second.lock("ended").get_by_test_id("leave")).to_be_visible()
    (session,) = (saved["session"] for saved in kept["sessions"])
    ended = f"{second.url}/api/v1/clusters/default/sessions/{session}"
    assert second.page.request.delete(ended, headers=token_of(second)).ok
    expect(second.page.get_by_text("You no longer wait for ended: ")).to_be_visible()
    expect(second.lock("ended").get_by_test_id("wait")).to_be_visible()
    first.release("ended")


def test_a_lock_that_was_taken_by_force_is_shown_as_lost(installation: Installation, open_page: OpenPage) -> None:
    live = open_page()
    live.take_lock("forced", ttl_s=600)
    expect(live.lock("forced").get_by_test_id("release")).to_be_visible()
    with web_client(installation) as administrator:
        administrator.locks.force_release("forced", "the program hangs")
        with administrator.lock("forced"):
            expect(live.page.get_by_text("Lost: forced is no longer yours.")).to_be_visible()
            expect(live.lock("forced").get_by_test_id("lock-holder")).to_have_text("web")
            expect(live.lock("forced").get_by_test_id("release")).to_be_hidden()
    live.take_lock("taken-away", ttl_s=600)
    expect(live.lock("taken-away").get_by_test_id("release")).to_be_visible()
    with web_client(installation) as administrator:
        administrator.locks.force_release("taken-away", "the program hangs")
    expect(live.page.get_by_text("Lost: taken-away is no longer yours.")).to_be_visible()
    expect(live.page.get_by_text("Nobody holds a lock.")).to_be_visible()


def test_a_tab_that_is_duplicated_does_not_take_over_what_the_first_one_holds(open_page: OpenPage) -> None:
    """It has a copy of all that the first one keeps over a reload. Else both would say "you (this page)", and one would
    let go what the other relies on."""
    live = open_page()
    live.take_lock("twice")
    expect(live.lock("twice").get_by_test_id("release")).to_be_visible()
    with live.page.expect_popup() as opened:
        live.page.evaluate("window.open(location.href)")
    other = LivePage(opened.value, live.url)
    other.expect_state("healthy")
    kept = "Object.values(sessionStorage).map((kept) => JSON.parse(kept).sessions.length)"
    eventually(lambda: other.page.evaluate(kept) == [0], timeout_s=15, what="the copy of the session is let go")
    expect(other.lock("twice").get_by_test_id("lock-holder")).to_have_text("you (another page or program)")
    expect(other.lock("twice").get_by_test_id("release")).to_be_hidden()
    live.release("twice")


def test_a_connection_on_which_nothing_comes_is_no_live_one(open_page: OpenPage) -> None:
    live = open_page()
    live.expect_state("healthy")
    falls_silent = False

    def door(browser_side: WebSocketRoute) -> None:
        server_side = browser_side.connect_to_server()
        server_side.on_message(lambda message: None if falls_silent else browser_side.send(message))

    live.page.route_web_socket(re.compile(r"/ws/live/default/$"), door)
    live.page.reload()
    live.expect_connection("live")
    falls_silent = True
    live.expect_connection("stale")
    expect(live.page.locator("#banner")).to_contain_text("the connection is open, and nothing comes")
    falls_silent = False
    live.expect_connection("live")
    expect(live.page.locator("#banner")).to_be_hidden()


NEVER_OPENS = """
    const Real = window.WebSocket;
    window.tried = 0;
    window.WebSocket = class extends Real {
        constructor(url) {
            super(url);
            this.hangs = (window.tried += 1) === 1;
        }
        get readyState() { return this.hangs ? Real.CONNECTING : super.readyState; }
        addEventListener(type, listener) { super.addEventListener(type, (event) => this.hangs || listener(event)); }
    };
"""


@pytest.mark.parametrize("is_told", [False, True])
def test_a_connection_that_does_not_come_about_is_tried_again(open_page: OpenPage, is_told: bool) -> None:
    """As on a phone out of reach: a browser itself gives up after minutes, also once there is a network again."""
    live = open_page()
    live.expect_state("healthy")
    live.page.add_init_script(NEVER_OPENS)
    live.page.reload()
    live.page.wait_for_function("window.tried === 1")
    if is_told:
        live.page.evaluate("window.dispatchEvent(new Event('online'))")
    live.expect_connection("live")
    assert live.page.evaluate("window.tried") == 2


def test_a_lost_message_is_healed_by_a_fresh_snapshot(open_page: OpenPage) -> None:
    live = open_page()
    live.expect_state("healthy")
    asked: list[str] = []
    lost: list[str] = []
    snapshots: list[str] = []

    def lossy(browser_side: WebSocketRoute) -> None:
        server_side = browser_side.connect_to_server()

        def from_server(message: str | bytes) -> None:
            text = str(message)
            if '"type":"snapshot"' in text:
                snapshots.append(text)
            elif '"locks":{"gap"' in text and not lost:
                lost.append(text)
                return
            browser_side.send(message)

        def from_browser(message: str | bytes) -> None:
            asked.append(str(message))
            server_side.send(message)

        server_side.on_message(from_server)
        browser_side.on_message(from_browser)

    live.page.route_web_socket(re.compile(r"/ws/live/default/$"), lossy)
    live.page.reload()
    live.expect_state("healthy")
    live.take_lock("gap")
    assert live.lease_s("gap") > 0, "known from the leader's report alone"
    assert lost
    assert asked == ['{"type":"snapshot"}']
    assert len(snapshots) == 2
    live.release("gap")


def test_a_lock_that_several_hold_says_so_and_one_that_is_kept_back_is_not_counted(open_page: OpenPage) -> None:
    live, phone = open_page(), open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    session = str(acquired(live, "alone")["session"])
    for name, how in (("reports", {"mode": "shared"}), ("slots", {"mode": "counting", "limit": 5})):
        for _ in range(2):
            acquired(live, name, session=session, **how)
    acquired(live, "reports", session=session, mode="shared")
    for page in (live, phone):
        for name, mode, others in (
            ("reports", "shared, 3 hold it", "and 2 more"),
            ("slots", "counting, 2 of 5 taken", "and 1 more"),
            ("alone", "exclusive", ""),
        ):
            expect(page.lock(name).get_by_test_id("lock-mode")).to_have_text(mode)
            expect(page.lock(name).get_by_test_id("lock-others")).to_have_text(others)
    expect(phone.lock("reports").get_by_test_id("lock-mode")).to_be_visible()
    acquired(live, "delayed", ttl_ms=500, lock_delay_ms=20_000)
    expect(live.page.locator("#locks-hint")).to_have_text("3 held, 1 kept back for a lock-delay (delayed)")
    live.shoot(SHOTS / "shared.png")
    phone.shoot(SHOTS / "shared-phone.png", whole=True)
    assert phone.sideways_px <= 0
    live.take_lock("delayed")
    expect(live.find("lock-error")).to_contain_text("its last holder died, and it is kept back for its lock-delay")
    live.shoot(SHOTS / "delayed.png")
    live.page.keyboard.press("Escape")
    assert asked(live, "forced-releases", name="delayed", reason="the test is over")["released"]
    live.page.request.delete(f"{live.url}/api/v1/clusters/default/sessions/{session}", headers=token_of(live))
    expect(live.page.get_by_text("Nobody holds a lock.")).to_be_visible()


COUNTS_CHANGES = """(names) => new Promise((resolve) => {
    const counts = names.map(() => 0);
    names.forEach((name, place) => {
        const lease = document.querySelector(`[data-testid="lock-row-${name}"] [data-testid=lock-lease]`);
        new MutationObserver(() => { counts[place] += 1; }).observe(lease, { childList: true });
    });
    setTimeout(() => resolve(counts), 4000);
})"""


def test_leases_that_nobody_sees_are_counted_down_seldom(open_page: OpenPage) -> None:
    """With 200 locks the page had a processor for itself, and was drawn twice a second."""
    live = open_page()
    session = str(acquired(live, "many-00")["session"])
    for number in range(1, 40):
        acquired(live, f"many-{number:02}", session=session)
    expect(live.page.locator("#locks-hint")).to_have_text("40 held")
    live.lock("many-00").scroll_into_view_if_needed()
    assert live.lease_s("many-39") > 0
    seen, unseen = live.page.evaluate(COUNTS_CHANGES, ["many-00", "many-39"])
    assert 0 < unseen <= 5
    assert seen > 2 * unseen
    live.lock("many-39").scroll_into_view_if_needed()
    (seen,) = live.page.evaluate(COUNTS_CHANGES, ["many-39"])
    assert seen > 2 * unseen
    live.page.request.delete(f"{live.url}/api/v1/clusters/default/sessions/{session}", headers=token_of(live))
    expect(live.page.get_by_text("Nobody holds a lock.")).to_be_visible()


def token_of(live: LivePage) -> dict[str, str]:
    return {"X-CSRFToken": live.page.locator("#main").get_attribute("data-csrf") or "", "Referer": live.url}


def closed(live: LivePage, session: str) -> None:
    """Ends a session, with all that it holds."""
    ended = f"{live.url}/api/v1/clusters/default/sessions/{session}"
    assert live.page.request.delete(ended, headers=token_of(live)).ok


def asked(live: LivePage, path: str, **body: Any) -> dict[str, Any]:
    """Over the API, with the page's cookies."""
    url = f"{live.url}/api/v1/clusters/default/{path}"
    response = live.page.request.post(url, headers=token_of(live), data=body)
    assert response.ok, response.text()
    answer: dict[str, Any] = response.json()
    return answer


def acquired(live: LivePage, name: str, **how: Any) -> dict[str, Any]:
    return asked(live, f"locks/{name}/acquire", **({"ttl_ms": 60_000} | how))


def test_a_page_that_is_told_that_there_is_no_such_cluster_tries_again(open_page: OpenPage) -> None:
    """A web process that has just started may not have heard of the cluster yet."""
    live = open_page()
    live.expect_state("healthy")
    turned_away: list[str] = []
    lets_in = False

    def door(browser_side: WebSocketRoute) -> None:
        if lets_in:
            browser_side.connect_to_server()
            return
        turned_away.append(browser_side.url)
        browser_side.close(code=4404)

    live.page.route_web_socket(re.compile(r"/ws/live/default/$"), door)
    live.page.reload()
    banner = live.page.locator("#banner")
    expect(banner).to_have_text("No node has reported a cluster of this name yet; trying again.")
    live.shoot(SHOTS / "no-cluster.png")
    lets_in = True
    live.expect_connection("live")
    live.expect_state("healthy")
    expect(banner).to_be_hidden()
    assert turned_away


def test_a_lost_redis_is_said_and_the_lock_is_still_there_when_it_is_back(
    installation: Installation, open_page: OpenPage
) -> None:
    live = open_page()
    live.take_lock("redis")
    expect(live.lock("redis").get_by_test_id("release")).to_be_visible()
    token = live.token("redis")
    installation.part("redis").suspend()
    try:
        live.expect_state("blind")
        live.shoot(SHOTS / "blind.png")
    finally:
        installation.part("redis").resume()
    live.expect_state("healthy")
    live.expect_mine("redis", token)
    live.release("redis")


def test_a_reader_watches_and_a_stranger_does_not(installation: Installation, open_page: OpenPage) -> None:
    make = (
        "from django.contrib.auth.models import Permission, User;"
        "ann = User.objects.create_user('ann', password='pw');"
        "ann.user_permissions.add(Permission.objects.get(codename='read_state'));"
        "User.objects.create_user('eve', password='pw')"
    )
    installation.manage("shell", "-c", make)
    reader = open_page("ann", "pw")
    reader.expect_state("healthy")
    expect(reader.find("take-lock")).to_have_count(0)
    expect(reader.find("lose-leader")).to_be_hidden()
    stranger = open_page("eve", "pw")
    expect(stranger.page.get_by_role("heading", name="You may not see this.")).to_be_visible()


def test_before_a_node_is_crashed_the_page_says_what_that_would_do_now(
    installation: Installation, open_page: OpenPage
) -> None:
    """Not what it would have done when that was first asked: another node may have failed since."""
    live = open_page()
    live.expect_state("healthy")
    leader = live.leader
    other = next(node for node in NODES if node != leader)
    live.find("lose-leader").click()
    facts = live.page.locator("#crash-facts")
    expect(facts).to_contain_text("elect a new leader")
    installation.freeze(other)
    try:
        expect(facts).to_contain_text("would be left, and two are needed: the cluster stops")
    finally:
        installation.part(other).resume()
    expect(facts).to_contain_text("elect a new leader")
    live.page.keyboard.press("Escape")
    live.expect_state("healthy")


def test_the_page_that_back_leads_to_has_the_name_of_its_own_cluster(
    installation: Installation, open_page: OpenPage
) -> None:
    """The browser put back what had been chosen on it: one cluster was shown, and led to be lost, under the name of
    another."""
    installation.manage("cluster", "create", "other")
    live = open_page()
    live.expect_state("healthy")
    chosen = live.page.get_by_label("Cluster", exact=True)
    chosen.select_option("other")
    live.page.wait_for_url("**/live/other")
    live.expect_state("healthy")
    expect(chosen).to_have_value("/live/other")
    live.page.go_back()
    live.page.wait_for_url("**/live/default")
    live.expect_state("healthy")
    expect(chosen).to_have_value("/live/default")
    chosen.select_option("other")
    live.page.wait_for_url("**/live/other")


def test_signing_out_elsewhere_ends_the_page(open_page: OpenPage) -> None:
    live = open_page()
    live.expect_state("healthy")
    other = live.page.context.new_page()
    other.goto(live.url)
    other.get_by_role("button", name="Sign out").click()
    expect(live.page.locator("#banner")).to_contain_text("You are signed out.")
    expect(live.page.get_by_role("link", name="Sign in again")).to_be_visible()


def test_a_page_keeps_its_locks_over_a_sign_out_and_a_new_sign_in_elsewhere(open_page: OpenPage) -> None:
    """Which make its CSRF token an old one: no keep-alive was taken any more, though the person was back in time."""
    live = open_page()
    live.take_lock("elsewhere", ttl_s=600)  # Not due before this is over: it is asked for here.
    row = live.lock("elsewhere")
    expect(row.get_by_test_id("release")).to_be_visible()
    token = live.token("elsewhere")
    other = LivePage(live.page.context.new_page(), live.url)
    other.page.goto(live.url)
    other.page.get_by_role("button", name="Sign out").click()
    expect(live.page.locator("#banner")).to_contain_text("You are signed out.")
    expect(other.page.get_by_label("Name")).to_be_visible()
    other.sign_in(ADMINISTRATOR, ADMIN_PASSWORD)
    other.expect_state("healthy")
    row.get_by_test_id("renew").click()
    expect(live.page.get_by_text("elsewhere has its full lease again.")).to_be_visible()
    live.expect_connection("live")
    expect(live.page.locator("#banner")).to_be_hidden()
    live.expect_mine("elsewhere", token)
    live.release("elsewhere")


def test_a_page_is_not_gone_on_with_as_somebody_else_who_signs_in_at_the_same_browser(
    installation: Installation, open_page: OpenPage
) -> None:
    installation.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User; User.objects.create_superuser('bob', password='pw')",
    )
    live = open_page()
    live.take_lock("mine", ttl_s=600)
    row = live.lock("mine")
    expect(row.get_by_test_id("release")).to_be_visible()
    token = live.token("mine")
    other = LivePage(live.page.context.new_page(), live.url)
    for name, password in (("bob", "pw"), (ADMINISTRATOR, ADMIN_PASSWORD)):
        other.page.goto(live.url)
        other.page.get_by_role("button", name="Sign out").click()
        expect(other.page.get_by_label("Name")).to_be_visible()
        other.sign_in(name, password)
        other.expect_state("healthy")
        row.get_by_test_id("renew").click()
        if name == "bob":
            expect(row).to_contain_text("not renewed yet")
            live.expect_connection("disconnected")
            expect(live.page.locator("#banner")).to_contain_text("You are signed out.")
    expect(row).not_to_contain_text("not renewed yet")
    live.expect_connection("live")
    live.expect_mine("mine", token)
    live.release("mine")


def test_the_keyboard_is_enough(open_page: OpenPage) -> None:
    live = open_page()
    live.expect_state("healthy")
    live.find("take-lock").focus()
    live.page.keyboard.press("Enter")
    expect(live.find("lock-name")).to_be_focused()
    live.page.keyboard.type("keys")
    live.page.keyboard.press("Enter")
    expect(live.lock("keys").get_by_test_id("release")).to_be_visible()
    ring = live.page.get_by_role("button", name=re.compile(f"^{live.leader}, leader"))
    ring.focus()
    live.page.keyboard.press("Enter")
    expect(live.page.get_by_role("heading", name=f"Crash {live.leader}?")).to_be_visible()
    live.page.keyboard.press("Escape")
    expect(live.page.get_by_role("heading", name=f"Crash {live.leader}?")).to_be_hidden()
    live.lock("keys").get_by_test_id("release").focus()
    live.page.keyboard.press("Enter")
    expect(live.lock("keys")).to_have_count(0)
    expect(live.find("take-lock"), "the focus is not lost with the row").to_be_focused()


def test_who_waits_in_line_by_the_keyboard_keeps_its_place_on_the_page(open_page: OpenPage) -> None:
    """Each button gives way to another: what had the focus is hidden, and then its row moves to the top."""
    live = open_page()
    live.expect_state("healthy")
    before = acquired(live, "a-lock-before")["session"]
    session = acquired(live, "keys")["session"]
    row = live.lock("keys")
    row.get_by_test_id("wait").focus()
    live.page.keyboard.press("Enter")
    expect(row.get_by_test_id("leave")).to_be_focused()
    live.page.keyboard.press("Enter")
    expect(row.get_by_test_id("wait")).to_be_focused()
    live.page.keyboard.press("Enter")
    expect(row.get_by_test_id("leave")).to_be_focused()
    closed(live, session)
    expect(row.get_by_test_id("renew")).to_be_focused()
    closed(live, before)
    live.release("keys")
