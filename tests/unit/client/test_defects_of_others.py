"""Defects that were reported of clients of other lock services, as histories of this one. Each test is named after its
report; the first sentence says what went wrong there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import wire
from coordinator.client.errors import LeaseLost
from coordinator.client.grants import ASK_US
from coordinator.replica.leases import Leases
from coordinator.statemachine.commands import Granted, Queued
from tests.unit.client.test_core import Stage, Taking, keep_alives, lease_of


@settings(deadline=None)  # How long an example takes on the wall is the machine's affair.
@given(
    out_us=st.integers(0, 3_000_000),
    back_us=st.integers(0, 3_000_000),
    drift_millionths=st.integers(-5_000, 5_000),
    ttl_ms=st.integers(1_000, 20_000),
)
def test_etcd_10811_who_is_cut_off_knows_that_it_has_lost_the_lock_before_anybody_else_can_have_it(
    out_us, back_us, drift_millionths, ttl_ms
):
    """There, a client that was cut off went on as the owner after its lease had run out at the server and another had
    been granted the lock."""
    stage = Stage()
    stage.know()
    session = stage.session(ttl_ms)
    lease = lease_of(stage, session)
    stage.pass_time(ttl_ms * 1_000 // 3)
    ((_, request),) = keep_alives(stage)
    sent_us = stage.now_us
    # In true time, counted from the sending: the keep-alive arrives, is answered, and that is the last to get through.
    leases = Leases(out_us)
    leases.renew(77, ttl_ms)
    proven = False
    for true_us in range(out_us, out_us + ttl_ms * 1_000 + 100_000, 5_000):
        leases.advance(true_us, connected=True)
        stage.now_us = sent_us + true_us + true_us * drift_millionths // 1_000_000
        if true_us >= out_us + back_us:
            stage.reply("node1", wire.KeptAlive(request.id, 77, ttl_ms))
        try:
            lease.check()
        except LeaseLost:
            continue
        proven = True
        assert leases.take_expired(true_us) == [], f"{true_us} us after its sending both believe in it"
    if out_us < ttl_ms * 300:
        assert proven, "a lease that can never be proven serves nobody"
    assert leases.take_expired(1 << 60) == [77], "and in the end it is free for others"


def test_pysyncobj_183_a_waiter_goes_on_with_the_next_leader():
    """There, whoever waited for a lock when the leader died stood still for good."""
    stage = Stage()
    stage.know("node1", term=5)
    stage.session(9_000)
    taking = Taking(stage, None)
    request = taking.ask()
    stage.reply("node1", wire.Answer(request.id, Queued(1)))
    taking.step()
    # The leader dies without a word. The waiter asks, nobody answers, and it looks for the next leader by itself.
    asked: list[tuple[str, wire.Request]] = []
    for _ in range(200):
        stage.pass_time(ASK_US // 20)
        asked += stage.requests()
        if any(isinstance(request, wire.DirectoryRequest) and node != "node1" for node, request in asked):
            break
    else:
        pytest.fail("it never asks anybody else who leads")
    stage.know("node2", term=6)
    questions: list[wire.QueryRequest] = []
    for _ in range(20):
        questions += [r for n, r in stage.requests() if isinstance(r, wire.QueryRequest) and n == "node2"]
        stage.pass_time(ASK_US // 20)
    question = questions[0]
    stage.reply("node2", wire.Answer(question.id, Granted(8)))
    taking.step()
    assert taking.outcome.token == 8
