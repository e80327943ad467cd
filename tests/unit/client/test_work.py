"""What the work of a client for threads says of its sleep: how long, and when somebody is to look again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest

from coordinator.channel import ChannelError
from coordinator.client import links
from coordinator.client.clock import now_us
from coordinator.client.core import Core
from coordinator.client.session import Session
from coordinator.client.work import OVER, TURN_US_MAX, Work
from tests.unit.client.test_sync import TOKEN, FakeChannel


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """One that is connected, and of which nobody asks anything."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    core, (reader, writer) = Core(TOKEN, "default", Random(1)), os.pipe()
    made = Work(core, links.Links(core, "redis://nowhere", Random(1)), reader)
    made.turn_for_all()
    (link,) = made.to_connect
    made.to_connect.clear()
    made.tried.append((link, made.links.connect(link)))
    made.turn_for_all()
    yield made
    made.links.close()
    os.close(reader)
    os.close(writer)


def test_who_has_nothing_to_do_sleeps_and_is_not_in_the_middle_of_anything(work):
    work.in_the_middle = True
    assert work.before_sleep(now_us()) > 0
    assert work.asleep
    assert not work.in_the_middle


@pytest.mark.parametrize("what", ["tried", "closing", "going_on"])
def test_what_came_meanwhile_is_not_slept_over(work, what):
    if what == "tried":
        work.tried.append((links.Link("redis://nowhere", work.links.links[links.HOME].back_off), ChannelError("no")))
    elif what == "closing":
        work.closing = True
    else:
        work.going_on.append(None)
    assert work.before_sleep(now_us()) == 0


def test_where_nobody_asks_the_loops_own_thread_looks_again_when_something_is_due(work):
    """As it is to keep a session alive."""
    work.core.routing.cluster, work.core.routing.leader = 42, "node1"
    session = work.core.sessions[15_000] = Session(77, 15_000, now_us())
    assert work.turn_for_all() == OVER
    session.renew_due_us = now_us() + 100_000
    assert work.turn_for_all() == OVER
    assert work.looks_us == session.renew_due_us


def test_a_caller_leaves_word_of_when_something_is_due(work):
    work.turn_for_all()
    work.leave_the_rest()
    assert 0 <= work.links.due_us(now_us()) - work.next_us < TURN_US_MAX
    assert not work.is_needed()
    work.looks_us = work.next_us + 1  # The loop's own thread would come too late.
    assert work.is_needed()


def test_after_a_defect_nothing_of_before_is_connected(work):
    stale = work.links.links[links.HOME]
    work.to_connect.append(stale)
    work.begin_anew(RuntimeError("planted"))
    assert work.to_connect == []
