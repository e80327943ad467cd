"""Numbers, bounds and snapshots of what goes to browsers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dashboard import broadcast as module
from dashboard.broadcast import CHANGES_MAX, PULSE_MS, VIEW_MS, Broadcast, Subscription, TooManySubscribersError
from dashboard.model import ClusterModel, with_changes
from tests.unit.dashboard.reports import NODES, quorum


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> Broadcast:
    return Broadcast(ClusterModel("default", NODES, clock()), clock)


def report(live: Broadcast, clock: Clock, last: int) -> None:
    """A quorum reports and a turn is made."""
    clock.now_ms += 100
    for each in quorum(last_index=last):
        live.model.apply(each, clock())
    live.dirty = True
    live.turn(clock())


async def take(subscription: Subscription) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(subscription.next(), 1))
    return message


async def test_a_snapshot_then_changes_numbered_without_a_gap(live: Broadcast, clock: Clock) -> None:
    subscription = live.subscribe()
    first = await take(subscription)
    assert first["type"] == "snapshot"
    view, number = first["view"], first["number"]
    for last in (21, 22, 23):
        report(live, clock, last)
        change = await take(subscription)
        assert (change["type"], change["number"], change["clock_ms"]) == ("change", number + 1, clock())
        number = change["number"]
        view = with_changes(view, change)
    assert view == json.loads(json.dumps(live.model.view(clock())))


async def test_nothing_is_made_where_nobody_listens(live: Broadcast, clock: Clock) -> None:
    report(live, clock, 21)
    assert live.number == 0


async def test_a_calm_cluster_still_has_a_pulse(live: Broadcast, clock: Clock) -> None:
    subscription = live.subscribe()
    before = (await take(subscription))["number"]
    for _ in range((PULSE_MS + VIEW_MS) // 100 + 1):
        clock.now_ms += 100
        live.turn(clock())
    assert live.number > before


async def test_a_slow_browser_gets_one_fresh_snapshot_instead_of_a_queue(live: Broadcast, clock: Clock) -> None:
    slow, quick = live.subscribe(), live.subscribe()
    await take(slow)
    await take(quick)
    for last in range(21, 21 + 3 * CHANGES_MAX):
        report(live, clock, last)
        assert (await take(quick))["type"] == "change"
        assert len(slow._pending) <= CHANGES_MAX
    message = await take(slow)
    assert (message["type"], message["number"]) == ("snapshot", live.number)
    assert live.overruns == 1
    report(live, clock, 500)
    assert (await take(slow))["number"] == message["number"] + 1


async def test_a_snapshot_has_the_clock_of_its_asking(live: Broadcast, clock: Clock) -> None:
    first = await take(live.subscribe())
    clock.now_ms += 70
    second = await take(live.subscribe())
    assert second == first | {"clock_ms": first["clock_ms"] + 70}


async def test_subscribers_have_a_bound_and_leave(live: Broadcast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUBSCRIBERS_MAX", 2)
    subscriptions = [live.subscribe(), live.subscribe()]
    with pytest.raises(TooManySubscribersError):
        live.subscribe()
    subscriptions[0].close()
    assert live.subscribe()
