"""Locks in all modes, sequencers, forced releases and elections over HTTP."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from coordinator.api import attempt, owning, ranges
from coordinator.models import AuditEntry
from coordinator.statemachine import commands, lock_events
from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token, settled, until

LOCKS = f"{API}/locks"


async def acquire(bearer: Bearer, name: str, **body: Any) -> Any:
    return await bearer.post(f"{LOCKS}/{name}/acquire", body)


async def test_sharers_hold_together_and_are_seen(worker: Bearer, other: Bearer) -> None:
    one = (await acquire(worker, "doc", mode="shared")).json()
    two = (await acquire(other, "doc", mode="shared")).json()
    assert (one["mode"], one["names"], one["sequencer"]) == ("shared", ["doc"], f"doc:shared:{one['token']}")
    refused = await acquire(other, "doc", session=two["session"], lock_delay_ms=1)
    assert (refused.status_code, refused.json()["error"]) == (409, "not-acquired")
    state = (await worker.get(f"{API}/holds/doc")).json()
    assert (state["mode"], state["holding"]) == ("shared", 2)
    assert [grant["holder"]["session"] for grant in state["holders"]] == [one["session"], two["session"]]
    released = await worker.post(f"{LOCKS}/doc/release", {"session": one["session"], "acquisition": one["acquisition"]})
    assert released.status_code == 200
    assert (await worker.get(f"{API}/holds/doc")).json()["holding"] == 1


async def test_a_counting_lock_lets_so_many_in(worker: Bearer) -> None:
    session = (await worker.post(f"{API}/sessions")).json()["session"]
    answers = [await acquire(worker, "slots", session=session, mode="counting", limit=2) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert len({answer.json().get("acquisition") for answer in answers[:2]}) == 2


async def test_several_names_are_taken_and_let_go_together(worker: Bearer, other: Bearer) -> None:
    body = (await acquire(worker, "b", also=["a", "/c"])).json()
    assert (body["name"], body["names"]) == ("b", ["a", "b", "c"])
    assert (await acquire(other, "c")).status_code == 409
    release = {"session": body["session"], "also": ["a", "c"]}
    assert (await worker.post(f"{LOCKS}/b/release", release)).status_code == 422
    release["acquisition"] = body["acquisition"]
    assert (await worker.post(f"{LOCKS}/b/release", release)).status_code == 200
    assert (await acquire(other, "c")).status_code == 200


async def test_a_waiter_in_another_mode_is_let_in_and_one_that_hangs_up_leaves_all_lines(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = (await acquire(worker, "a")).json()
    waiting = asyncio.create_task(acquire(other, "a", mode="shared", also=["b"], wait_ms=60_000))
    await until(lambda: cluster.machine.waiting == 2)
    await worker.post(f"{LOCKS}/a/release", {"session": held["session"]})
    body = (await waiting).json()
    assert (body["mode"], body["names"]) == ("shared", ["a", "b"])
    waiting = asyncio.create_task(acquire(worker, "b", lock_delay_ms=5, wait_ms=60_000))
    await until(lambda: cluster.machine.waiting == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await settled()
    assert cluster.machine.waiting == 0


@pytest.mark.parametrize(
    "how", [{"mode": "shared"}, {"mode": "counting", "limit": 3}, {"also": ["b"]}, {"lock_delay_ms": 5}, {}]
)
async def test_asked_again_with_its_acquisition_it_answers_the_same_hold(worker: Bearer, how: dict[str, Any]) -> None:
    session = (await worker.post(f"{API}/sessions", {})).json()["session"]
    answers = [await acquire(worker, "a", session=session, acquisition=7, **how) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({(answer.json()["acquisition"], answer.json()["token"]) for answer in answers}) == 1
    assert (await worker.get(f"{API}/holds/a")).json()["holding"] == 1
    other = await acquire(worker, "a", session=session, acquisition=8, **how)
    assert (other.status_code == 200) == ("mode" in how)


async def test_an_acquisition_of_the_callers_goes_on_waiting_in_its_place(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = (await acquire(worker, "a")).json()
    session = (await other.post(f"{API}/sessions", {})).json()["session"]
    wish = {"session": session, "acquisition": 7, "mode": "shared"}
    in_vain = await acquire(other, "a", wait_ms=1, **wish)
    assert in_vain.status_code == 409
    assert in_vain.json()["detail"].endswith("; acquisition 7 waits on in line, until it is released")
    hung_up = asyncio.create_task(acquire(other, "a", wait_ms=60_000, **wish))
    await until(lambda: attempt._waiting == 1)
    hung_up.cancel()
    await asyncio.gather(hung_up, return_exceptions=True)
    await settled()
    assert cluster.machine.waiting == 1
    both = [asyncio.create_task(acquire(other, "a", wait_ms=60_000, **wish)) for _ in range(2)]
    await until(lambda: attempt._waiting == 2)
    assert cluster.machine.waiting == 1
    await worker.post(f"{LOCKS}/a/release", {"session": held["session"]})
    first, second = [(await each).json() for each in both]
    assert (first["token"], first["acquisition"]) == (second["token"], second["acquisition"])
    assert (await worker.get(f"{API}/holds/a")).json()["holding"] == 1


async def test_the_place_of_a_callers_acquisition_is_let_go_by_releasing_it(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await acquire(worker, "a")
    session = (await other.post(f"{API}/sessions", {})).json()["session"]
    await acquire(other, "a", wait_ms=1, session=session, acquisition=7, mode="shared")
    released = await other.post(f"{LOCKS}/a/release", {"session": session, "acquisition": 7})
    assert released.status_code == 200
    assert cluster.machine.waiting == 0


async def test_a_deadlock_is_refused_with_its_cycle(worker: Bearer, other: Bearer, cluster: FakeCluster) -> None:
    one = (await acquire(worker, "a", mode="shared")).json()["session"]
    two = (await acquire(other, "b", mode="shared")).json()["session"]
    waiting = asyncio.create_task(acquire(worker, "b", session=one, reentrant=True, wait_ms=60_000))
    await until(lambda: cluster.machine.waiting == 1)
    refused = await acquire(other, "a", session=two, reentrant=True, wait_ms=60_000)
    assert (refused.status_code, refused.json()["error"]) == (409, "deadlock"), refused.content
    assert refused.json()["cycle"] == [{"session": two, "name": "a"}, {"session": one, "name": "b"}]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await settled()


async def test_a_plain_lock_is_refused_where_it_would_close_a_cycle(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    """Both waited in vain: the plain command is never refused for it."""
    one = (await acquire(worker, "a")).json()["session"]
    two = (await acquire(other, "b")).json()["session"]
    waiting = asyncio.create_task(acquire(worker, "b", session=one, wait_ms=60_000))
    await until(lambda: cluster.machine.waiting == 1)
    refused = await acquire(other, "a", session=two, wait_ms=60_000)
    assert (refused.status_code, refused.json()["error"]) == (409, "deadlock"), refused.content
    assert refused.json()["cycle"] == [{"session": two, "name": "a"}, {"session": one, "name": "b"}]
    assert cluster.machine.waiting == 1
    waited = await acquire(other, "a", session=two, wait_ms=30, refuse_deadlocks=False)
    assert (waited.status_code, waited.json()["error"]) == (409, "not-acquired"), waited.content
    await other.post(f"{LOCKS}/b/release", {"session": two})
    assert (await waiting).json()["session"] == one
    await settled()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mode": "counting"}, "limit with the mode counting"),
        ({"limit": 3}, "limit with the mode counting"),
        ({"mode": "both"}, "mode"),
        ({"acquisition": 7}, "expected a session with an acquisition"),
        ({"acquisition": -1, "session": "s1"}, "acquisition"),
        ({"acquisition": 2**63, "session": "s1"}, "acquisition"),
        ({"also": ["x" * 600]}, "1 to 512 bytes"),
        ({"lock_delay_ms": 60_001}, "lock_delay_ms"),
    ],
)
async def test_bad_input_is_refused_with_what_was_expected(worker: Bearer, body: Any, said: str) -> None:
    answer = await acquire(worker, "a", **body)
    assert answer.status_code == 422, answer.content
    assert said in answer.json()["detail"]


async def test_a_hold_is_upgraded_and_downgraded(worker: Bearer, other: Bearer) -> None:
    hold = (await acquire(worker, "doc", mode="shared")).json()
    shared = (await acquire(other, "doc", mode="shared")).json()
    change = {"session": hold["session"], "acquisition": hold["acquisition"], "mode": "exclusive"}
    refused = await worker.post(f"{API}/holds/doc/mode", change)
    assert (refused.status_code, refused.json()["error"]) == (409, "not-acquired")
    await other.post(f"{LOCKS}/doc/release", {"session": shared["session"]})
    upgraded = (await worker.post(f"{API}/holds/doc/mode", change)).json()
    assert upgraded["token"] > hold["token"]
    checked = await other.get(f"{API}/sequencers", sequencer=upgraded["sequencer"])
    assert checked.json()["valid"] is True
    assert (await other.get(f"{API}/sequencers", sequencer=hold["sequencer"])).json()["valid"] is False
    downgraded = (await worker.post(f"{API}/holds/doc/mode", change | {"mode": "shared"})).json()
    assert downgraded["token"] == upgraded["token"]
    gone = await worker.post(f"{API}/holds/doc/mode", change | {"acquisition": 7})
    assert (gone.status_code, gone.json()["error"]) == (409, "not-held")


async def test_an_upgrade_waits_until_the_others_have_let_go(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    hold = (await acquire(worker, "doc", mode="shared")).json()
    shared = (await acquire(other, "doc", mode="shared")).json()
    change = {"session": hold["session"], "acquisition": hold["acquisition"], "mode": "exclusive", "wait_ms": 60_000}
    waiting = asyncio.create_task(worker.post(f"{API}/holds/doc/mode", change))
    await until(lambda: cluster.machine.state.locks.rows["doc"].upgrading is not None)
    theirs = {"session": shared["session"], "acquisition": shared["acquisition"], "mode": "exclusive"}
    crossed = await other.post(f"{API}/holds/doc/mode", theirs | {"wait_ms": 60_000})
    assert (crossed.status_code, crossed.json()["error"]) == (409, "deadlock")
    await other.post(f"{LOCKS}/doc/release", {"session": shared["session"]})
    done = await waiting
    assert (done.status_code, done.json()["mode"]) == (200, "exclusive"), done.content
    assert done.json()["token"] > hold["token"]
    state = (await worker.get(f"{API}/holds/doc")).json()
    assert (state["mode"], state["token"]) == ("exclusive", done.json()["token"])


@pytest.mark.parametrize("ends", ["in vain", "hung up"])
async def test_an_upgrade_that_nobody_waits_for_any_more_is_given_up(
    worker: Bearer, other: Bearer, cluster: FakeCluster, ends: str
) -> None:
    hold = (await acquire(worker, "doc", mode="shared")).json()
    await acquire(other, "doc", mode="shared")
    wait_ms = 20 if ends == "in vain" else 60_000
    change = {"session": hold["session"], "acquisition": hold["acquisition"], "mode": "exclusive", "wait_ms": wait_ms}
    waiting = asyncio.create_task(worker.post(f"{API}/holds/doc/mode", change))
    await until(lambda: any(getattr(op, "mode", "") == "exclusive" for op in cluster.commands))
    if ends == "hung up":
        await until(lambda: cluster.machine.state.locks.rows["doc"].upgrading is not None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await settled()
    else:
        answer = await waiting
        assert (answer.status_code, answer.json()["error"]) == (409, "not-acquired"), answer.content
    state = (await worker.get(f"{API}/holds/doc")).json()
    assert (state["mode"], state["holding"], state["upgrading"]) == ("shared", 2, None)
    assert (await acquire(other, "doc", mode="shared")).status_code == 200, "others are let in again"


async def test_an_upgrade_of_what_is_not_held_is_refused(worker: Bearer) -> None:
    hold = (await acquire(worker, "doc", mode="shared")).json()
    change = {"session": hold["session"], "acquisition": 7, "mode": "exclusive", "wait_ms": 1000}
    gone = await worker.post(f"{API}/holds/doc/mode", change)
    assert (gone.status_code, gone.json()["error"]) == (409, "not-held")
    absurd = await worker.post(f"{API}/holds/doc/mode", change | {"mode": "shared"})
    assert absurd.status_code == 422
    assert "wait_ms with the mode exclusive" in absurd.json()["detail"]


async def test_a_hold_is_handed_over(worker: Bearer, other: Bearer) -> None:
    hold = (await acquire(worker, "a")).json()
    heir = (await other.post(f"{API}/sessions")).json()["session"]
    body = {
        "session": hold["session"],
        "acquisition": hold["acquisition"],
        "to_session": heir,
        "to_acquisition": 5,
    }
    assert (await worker.post(f"{API}/holds/a/hand-over", body)).status_code == 200
    for name in ("x/mode", "x/hand-over"):
        assert (await other.get(f"{API}/holds/{name}")).json()["name"] == name
    state = (await other.get(f"{API}/holds/a")).json()
    assert state["holders"][0]["holder"] == {"session": heir, "principal": "other", "acquisition": 5}
    assert state["token"] > hold["token"]
    again = await worker.post(f"{API}/holds/a/hand-over", body)
    assert (again.status_code, again.json()["error"]) == (409, "not-held")


async def test_a_lock_is_taken_away_by_force_which_is_kept_and_told(
    worker: Bearer, cluster: FakeCluster, transactional_db: None
) -> None:
    admin = Bearer(str(new_token(cluster, "boss", ("administer",))))
    hold = (await acquire(worker, "a", mode="shared")).json()
    forced = {"name": "a", "reason": "it hangs"}
    assert (await worker.post(f"{API}/forced-releases", forced)).status_code == 403
    assert (await admin.post(f"{API}/forced-releases", forced | {"reason": ""})).status_code == 422
    assert (await admin.post(f"{API}/forced-releases", forced)).json() == {"name": "a", "released": True}
    assert (await admin.post(f"{API}/forced-releases", forced)).json()["released"] is False
    (broken,) = (await admin.get(f"{API}/forced-releases")).json()["breaks"]
    assert (broken["name"], broken["by"], broken["reason"]) == ("a", "boss", "it hangs")
    told = await worker.post(f"{LOCKS}/a/release", {"session": hold["session"], "acquisition": hold["acquisition"]})
    assert (told.status_code, told.json()["error"], told.json()["by"]) == (409, "broken", "boss")
    entries = [entry async for entry in AuditEntry.objects.filter(action="lock.broken").order_by("pk")]
    assert [(entry.principal, entry.target, entry.reason) for entry in entries[-2:]] == [
        ("boss", "default/a", "it hangs")
    ] * 2


async def test_text_that_utf8_does_not_take_is_refused(
    worker: Bearer, cluster: FakeCluster, transactional_db: None
) -> None:
    refused = await worker.put_json(f"{API}/elections/e", {"token": 1, "text": "\ud800"})
    assert refused.status_code == 422
    assert "expected valid Unicode" in refused.json()["detail"]
    boss = Bearer(str(new_token(cluster, "boss", commands.RIGHTS)))
    quota = {"principal": "\ud800"}
    roles = {"roles": ["\ud800"]}
    reason = {"reason": "\udfff"}
    answers = [
        await boss.post(f"{API}/forced-releases", {"name": "a"} | reason),
        await boss.post(f"{API}/nodes/node1/crash", reason),
        await boss.put_json(f"{API}/principals/worker", {"rights": []} | reason),
        await boss.put_json(f"{API}/principals/worker/roles", roles),
        await boss.put_json(f"{API}/quotas", quota),
    ]
    assert [answer.status_code for answer in answers] == [422] * len(answers)


async def test_a_leader_proclaims_under_its_token_alone(worker: Bearer, other: Bearer) -> None:
    assert (await other.get(f"{API}/elections/e")).status_code == 404
    first = (await acquire(worker, "e")).json()
    assert (await other.get(f"{API}/elections/e")).json()["value"] is None
    body = {"token": first["token"], "text": "node-1"}
    assert (await worker.put_json(f"{API}/elections/e", body)).status_code == 200
    leader = (await other.get(f"{API}/elections/e")).json()
    assert (leader["session"], leader["principal"], leader["token"]) == (first["session"], "worker", first["token"])
    assert base64.b64decode(leader["value"]) == b"node-1"
    await worker.post(f"{LOCKS}/e/release", {"session": first["session"]})
    second = (await acquire(other, "e")).json()
    refused = await worker.put_json(f"{API}/elections/e", body)
    assert (refused.status_code, refused.json()["error"]) == (409, "not-held")
    leader = (await other.get(f"{API}/elections/e")).json()
    assert (leader["token"], leader["value"]) == (second["token"], None), "not what the one before proclaimed"


async def test_a_session_for_creating_is_used_again_and_made_anew_when_it_is_gone(
    worker: Bearer, cluster: FakeCluster
) -> None:
    for name in ("a", "b"):
        assert (await worker.post_bytes(f"{API}/files/{name}", b"")).status_code == 201
    assert sum(isinstance(op, commands.OpenSession) and op.ttl_ms == owning.TTL_MS for op in cluster.commands) == 1
    cluster.pass_time(owning.TTL_MS + 1)
    assert (await worker.post_bytes(f"{API}/files/c", b"")).status_code == 201
    await worker.post(f"{API}/transactions", {"then": [{"do": "create", "path": "d"}]})
    cluster.pass_time(owning.TTL_MS + 1)
    done = await worker.post(f"{API}/transactions", {"then": [{"do": "create", "path": "e"}]})
    assert done.status_code == 200, done.content


# --- events ---------------------------------------------------------------------------------------


async def test_a_call_that_waits_is_told_who_wants_what_is_held(worker: Bearer, other: Bearer) -> None:
    held = (await acquire(worker, "batch/7")).json()
    known = (await worker.get(f"{API}/lock-events", start="batch/", prefix=True, since=held["token"])).json()
    assert [(event["kind"], event["token"], event["waits"]) for event in known["events"]] == [
        ("acquired", held["token"], False)
    ]
    position = {"since": known["since"], "skip": known["skip"]}
    waiting = asyncio.create_task(
        worker.get(f"{API}/lock-events", start="batch/7", acquired=False, wait_ms=60_000, **position)
    )
    await until(lambda: ranges._watching == 1)
    refused = await acquire(other, "batch/7", mode="shared")
    assert refused.status_code == 409
    (event,) = (await waiting).json()["events"]
    assert (event["kind"], event["mode"], event["waits"], event["token"]) == (
        "conflict",
        "shared",
        False,
        held["token"],
    )
    assert ranges._watching == 0
    await worker.post(f"{LOCKS}/batch/7/release", {"session": held["session"], "acquisition": held["acquisition"]})
    kinds = {"acquired": False, "conflicts": False}
    (event,) = (await worker.get(f"{API}/lock-events", start="batch/7", since=held["token"], **kinds)).json()["events"]
    assert (event["kind"], event["token"]) == ("released", held["token"])
    kinds |= {"released": False}
    assert (await worker.get(f"{API}/lock-events", start="batch/7", since=1, **kinds)).json()["events"] == []


async def test_a_call_that_waits_is_told_at_once_that_another_leads(worker: Bearer, cluster: FakeCluster) -> None:
    held = (await acquire(worker, "a")).json()
    known = (await worker.get(f"{API}/lock-events", start="a", since=held["token"])).json()
    assert (known["fail_over"], known["term"]) == (None, 4)
    position = {"since": known["since"], "skip": known["skip"], "term": known["term"]}
    waiting = asyncio.create_task(worker.get(f"{API}/lock-events", start="a", wait_ms=60_000, **position))
    await until(lambda: ranges._watching == 1)
    await asyncio.sleep(0)
    cluster.fail_over()
    page = (await waiting).json()
    assert (page["fail_over"], page["events"], page["term"]) == ({"leader": "node2", "term": 5}, [], 5)
    again = (await worker.get(f"{API}/lock-events", start="a", **position | {"term": 5})).json()
    assert again["fail_over"] is None


async def test_events_that_are_not_kept_any_more_are_said_to_be_so(
    worker: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 1)
    first = (await acquire(worker, "a")).json()["token"]
    await acquire(worker, "b")
    answer = await worker.get(f"{API}/lock-events", start="a", since=first)
    assert (answer.status_code, answer.json()["error"], answer.json()["oldest"]) == (410, "compacted", first)
