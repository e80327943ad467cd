"""A leader that says nothing, though Redis counts a listener: a process that stands still, a machine that is gone.

What is asked and answered within a moment is asked again, and so finds another leader; here is who only keeps a session
alive, or waits for what may take its time.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from coordinator import wire
from coordinator.client.calls import REDIRECT_US_MIN
from coordinator.client.discovery import KNOCK_US, PATIENT_KNOCK_US
from coordinator.client.session_keeper import KEEP_ALIVE_RESEND_US
from coordinator.statemachine import commands
from coordinator.statemachine.commands import SessionOpened
from tests.unit.client.test_core import CLUSTER, Stage, keep_alives

EVERYONE = ("", wire.DirectoryRequest)


def by_itself(stage: Stage, until_us: int) -> list[tuple[int, str, wire.Request]]:
    """What the core sends up to then, woken as it says and not otherwise: when (from now on), to whom, what."""
    began_us, sent = stage.now_us, []
    while (due_us := stage.core.due_us(stage.now_us)) <= began_us + until_us:
        stage.now_us = max(stage.now_us, due_us)
        requests = stage.requests()
        sent += [(stage.now_us - began_us, node, request) for node, request in requests]
        stage.pass_time(0 if requests else 1)
    return sent


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.know()
    return stage


# --- who only keeps a session alive ---------------------------------------------------------------


@pytest.mark.parametrize(("ttl_ms", "times_us"), [(1_500, (200_000, 400_000, 600_000)), (9_000, (400_000, 600_000))])
def test_who_is_not_kept_alive_asks_who_leads_though_nothing_else_is_asked(stage, ttl_ms, times_us):
    """Redis counts a listener: the leader's process stands still, or its machine is gone."""
    session = stage.session(ttl_ms)
    sent = by_itself(stage, ttl_ms * 1_000 // 3 + 700_000)
    first_us = sent[0][0]
    assert (first_us, sent[0][1:2]) == (ttl_ms * 1_000 // 3, ("node1",))
    assert tuple(at - first_us for at, node, what in sent if (node, type(what)) == EVERYONE) == times_us
    assert [at - first_us for at, node, _ in sent if node == "node1"] == [0, 200_000, 400_000, 600_000]
    stage.know("node1", term=5)
    asked_us = stage.now_us
    stage.know("node3", term=6)
    ((at_us, node, request), *_) = by_itself(stage, 100_000)
    assert (stage.now_us - asked_us, node, type(request)) == (at_us, "node3", wire.KeepAliveRequest)
    assert at_us <= REDIRECT_US_MIN, "another leader is asked at once"
    stage.reply("node3", wire.KeptAlive(request.id, 77, ttl_ms))
    assert session.valid(stage.now_us)
    assert [(node, type(what)) for _, node, what in by_itself(stage, ttl_ms * 1_000 // 3 + 100_000)] == [
        ("node3", wire.KeepAliveRequest)
    ]


def test_of_many_sessions_that_are_not_kept_alive_no_more_is_asked_of_everyone(stage):
    stage.session(9_000)
    stage.pass_time(70_000)
    call = stage.core.session(9_100, stage.now_us, stage.now_us + 10_000_000)
    node, request = stage.requests()[-1]
    stage.reply(node, wire.Answer(request.id, SessionOpened(78, 9_100)))
    assert call.result() is not stage.core.sessions[9_000]
    asked_us = [at for at, node, what in by_itself(stage, 5_000_000) if (node, type(what)) == EVERYONE]
    assert len(asked_us) > 5
    assert all(later - earlier >= KEEP_ALIVE_RESEND_US for earlier, later in pairwise(asked_us))


@pytest.mark.parametrize("lost", ["the first", "the last"])
def test_who_was_kept_alive_though_one_answer_was_lost_asks_nobody_who_leads(stage, lost):
    stage.session(1_500)
    for _ in range(3):
        stage.pass_time(500_000)
        ((_, first),) = keep_alives(stage)
        if lost == "the first":
            stage.pass_time(KEEP_ALIVE_RESEND_US - 1)
            assert stage.requests() == []
            stage.reply("node1", wire.KeptAlive(first.id, 77, 1_500))
        else:
            stage.pass_time(KEEP_ALIVE_RESEND_US)
            stage.requests()
            stage.reply("node1", wire.KeptAlive(first.id, 77, 1_500))
    stage.pass_time(500_000)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node1", wire.KeepAliveRequest)]


def test_a_leader_of_another_term_and_another_connection_are_no_silence(stage):
    stage.session(1_500)
    stage.pass_time(500_000)
    ((_, first),) = keep_alives(stage)
    stage.pass_time(KEEP_ALIVE_RESEND_US - 1)
    stage.reply("node1", wire.OtherTerm(first.id, 6))
    assert [(n, type(r)) for n, r in stage.requests()] == [("node1", wire.KeepAliveRequest)]
    stage.pass_time(KEEP_ALIVE_RESEND_US - 1)
    stage.core.link_up(stage.now_us)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node1", wire.KeepAliveRequest)]


# --- who only watches -----------------------------------------------------------------------------


def watches(stage: Stage) -> None:
    """It asks what may take its time, and is asked again after half a minute."""

    def build(request_id: int) -> wire.Request:
        return wire.ConfirmRequest(request_id, CLUSTER)

    stage.core.wait_at_leader(build, 30_000_000, stage.now_us, stage.now_us + 60_000_000)


def test_a_watcher_whose_leader_says_nothing_asks_who_leads(stage):
    """Redis counts a listener: the process stands still. What may take its time is not asked again before that."""
    watches(stage)
    ((_, watch),) = stage.requests()
    stage.pass_time(KNOCK_US)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node1", wire.DirectoryRequest)]
    assert [(at, n, type(r)) for at, n, r in by_itself(stage, PATIENT_KNOCK_US)] == [
        (PATIENT_KNOCK_US, "node1", wire.DirectoryRequest), (PATIENT_KNOCK_US, "", wire.DirectoryRequest)
    ]  # fmt: skip
    stage.know("node3", term=6)
    assert ("node3", watch.id) in [(node, request.id) for node, request in stage.requests()]


@pytest.mark.parametrize("says", ["the directory", "something else"])
def test_a_watcher_whose_leader_answers_when_it_is_knocked_at_asks_nobody_else(stage, says):
    watches(stage)
    stage.requests()
    stage.pass_time(KNOCK_US)
    for _ in range(5):
        ((node, knock),) = stage.requests()
        assert node == "node1"
        if says == "the directory":
            stage.reply("node1", wire.Directory(knock.id, "node1", (), ()))
        else:
            stage.reply("node1", wire.KeptAlive(1, 77, 9_000))
        stage.pass_time(PATIENT_KNOCK_US)


def test_a_watcher_asks_who_leads_while_nobody_does(stage):
    """Though its question is not due to be asked again for half a minute, and it has no session."""
    watches(stage)
    stage.requests()
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 300_000)
    ((_, request),) = stage.requests()
    stage.reply("node1", wire.NotLeader(request.id, ""))
    sent = by_itself(stage, 3_000_000)
    assert call.done
    assert len([at for at, node, what in sent if (node, type(what)) == EVERYONE and at > 1_000_000]) > 3


def test_a_leader_that_is_slow_for_a_moment_is_knocked_at_and_nobody_else_is_asked(stage):
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    sent = by_itself(stage, 4 * KNOCK_US)
    assert [type(what) for _, _, what in sent] == [wire.QueryRequest] + 4 * [wire.DirectoryRequest]
    assert {node for _, node, _ in sent} == {"node1"}
