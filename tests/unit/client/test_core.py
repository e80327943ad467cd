"""The client without input or output: whom it asks, when it asks again, and until when a lease can be proven held."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coordinator import wire
from coordinator.channel import Endpoint
from coordinator.client import flows
from coordinator.client.calls import REDIRECT_US_MIN, RESEND_US_MAX, Call
from coordinator.client.core import Core
from coordinator.client.discovery import KNOCK_US
from coordinator.client.errors import (
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    OutcomeUnknown,
    SessionGone,
    Unavailable,
)
from coordinator.client.grants import ASK_US
from coordinator.client.lease import LeaseState
from coordinator.client.options import resolve
from coordinator.client.packets import Packet
from coordinator.client.session import Session
from coordinator.statemachine import commands
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, Granted, PutKey, Queued, SessionOpened
from coordinator.wire import Token

TOKEN = Token.new("0123abcd")
CLUSTER = 42


class Stage:
    """A core, and a test that plays all nodes."""

    def __init__(self) -> None:
        self.core = Core(TOKEN, "default", Random(1))
        self.now_us = 1_000_000
        self.sent: list[Packet] = []

    def requests(self) -> list[tuple[str, wire.Request]]:
        """What the core sends now: (node, request)."""
        found = []
        for packet in self.core.take_packets(self.now_us):
            self.sent.append(packet)
            envelope = wire.open_envelope(packet.data, wire.REQUEST)
            wire.verify(envelope, TOKEN.key)
            found += [(packet.node, request) for request in wire.decode_requests(envelope.body).requests]
        return found

    def reply(self, node: str, *replies: wire.Reply) -> None:
        packet = wire.seal(TOKEN.key, wire.REPLY, node, self.core.reply_channel, list(replies))
        self.core.receive(packet, self.now_us)

    def know(self, leader: str = "node1", term: int = 5, cluster: int = CLUSTER, says: str = "node2") -> None:
        nodes = (("node1", ""), ("node2", ""), ("node3", ""))
        entry = wire.ClusterEntry("default", cluster, leader, term, ("node1", "node2", "node3"))
        self.reply(says, wire.Directory(0, says, nodes, (entry,)))

    def session(self, ttl_ms: int = 9_000) -> Session:
        call = self.core.session(ttl_ms, self.now_us, self.now_us + 10_000_000)
        node, request = self.requests()[-1]
        self.reply(node, wire.Answer(request.id, SessionOpened(77, ttl_ms)))
        session: Session = call.result()
        return session

    def pass_time(self, us: int) -> None:
        self.now_us += us


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.know()
    return stage


def op_of(request: wire.Request):
    assert isinstance(request, wire.CommandRequest)
    return wire.decode_command(request.command)


def test_it_asks_everyone_who_leads_and_then_the_leader_alone():
    stage = Stage()
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    ((node, request),) = stage.requests()
    assert node == ""
    assert isinstance(request, wire.DirectoryRequest)
    assert stage.sent[-1].channel == stage.core.channels.discovery
    stage.know("node3")
    ((node, request),) = stage.requests()
    assert node == "node3"
    assert isinstance(request, wire.QueryRequest)
    assert request.cluster == CLUSTER


def test_what_is_not_answered_is_sent_again_under_the_same_number(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 60_000_000)
    first = stage.requests()[-1][1]
    times = 0
    while times < 4:
        stage.pass_time(20_000)
        for _, request in stage.requests():
            if isinstance(request, wire.CommandRequest):
                assert request.id == first.id
                assert op_of(request).number == op_of(first).number
                times += 1
    assert not call.done
    stage.reply("node1", wire.Answer(first.id, commands.Done(9)))
    assert call.result() == commands.Done(9)


def test_a_redirect_is_followed(stage):
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    ((node, request),) = stage.requests()
    assert node == "node1"
    stage.reply("node1", wire.NotLeader(request.id, "node2"))
    stage.pass_time(10_000)
    assert ("node2", request.id) in [(n, r.id) for n, r in stage.requests()]
    stage.reply("node2", wire.Answer(request.id, commands.KeyValue(b"x")))
    assert call.result().value == b"x"


def test_who_is_turned_away_without_a_name_is_told_that_its_token_may_be_another_clusters(stage):
    """A leader says no more to whom it does not know: it may not know them yet."""
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 100_000)
    ((node, request),) = stage.requests()
    stage.reply(node, wire.NotLeader(request.id, ""))
    stage.pass_time(200_000)
    stage.requests()
    with pytest.raises(Unavailable, match=r"knows no such token \(yet\) in this cluster"):
        call.result()


def test_who_has_a_token_that_nobody_knows_is_told_that_and_not_that_nobody_leads(stage):
    calls = [stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 100_000) for _ in range(2)]
    stage.requests()
    for node in ("node1", "node2"):
        refusal = wire.Refusal(wire.REFUSED_TOKEN, f"{node} knows no such token (yet)", 1)
        stage.core.receive(wire.seal_refusal(node, stage.core.reply_channel, refusal), stage.now_us)
    stage.pass_time(200_000)
    stage.requests()
    for call in calls:
        with pytest.raises(Unavailable, match=r"^no such token is known to node1, node2: it was revoked, "):
            call.result()
    stage.know()
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 100_000)
    stage.pass_time(200_000)
    stage.requests()
    with pytest.raises(Unavailable, match="is thought to lead"):
        call.result()


def test_what_went_wrong_before_an_answer_came_is_not_said_of_what_goes_wrong_later(stage):
    refusal = wire.Refusal(wire.REFUSED_WAITING, "its replica is new", 1)
    stage.core.receive(wire.seal_refusal("node3", stage.core.reply_channel, refusal), stage.now_us)
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 100_000)
    ((node, request),) = stage.requests()
    stage.reply(node, wire.Answer(request.id, commands.KeyValue(b"x")))
    assert call.result().value == b"x"
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 100_000)
    stage.pass_time(200_000)
    stage.requests()
    with pytest.raises(Unavailable, match=r"^no answer in time; node1 is thought to lead$"):
        call.result()


def test_two_nodes_that_name_each_other_do_not_make_it_spin(stage):
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 60_000_000)
    sends = 0
    for _ in range(1_000):
        for node, request in stage.requests():
            if isinstance(request, wire.QueryRequest):
                sends += 1
                other = "node2" if node == "node1" else "node1"
                stage.reply(node, wire.NotLeader(request.id, other))
        stage.pass_time(1_000)
    assert sends <= 130


def test_a_mailbox_that_nobody_listens_to_is_left_at_once(stage):
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    stage.requests()
    stage.core.undelivered(stage.sent[-1], stage.now_us)
    ((node, request),) = stage.requests()
    assert (node, type(request)) == ("", wire.DirectoryRequest)
    stage.know("node1", term=5)
    assert stage.requests() == [], "others still name the dead leader: it is not believed"
    stage.pass_time(REDIRECT_US_MIN)
    stage.know("node3", term=6)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node3", wire.QueryRequest)]


def test_a_word_of_an_older_term_makes_nobody_leader(stage):
    """A node that was cut off names whom it knew; who leads now is asked on."""
    stage.know("node3", term=4, says="node3")
    assert (stage.core.routing.leader, stage.core.routing.term) == ("node1", 5)


def test_while_nobody_is_known_to_lead_it_is_asked_in_time(stage):
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    stage.requests()
    stage.core.routing.doubt("node1", stage.now_us)
    assert stage.core.due_us(stage.now_us) <= stage.core.routing.probe_due_us


def test_a_silent_leader_is_knocked_at(stage):
    """What was published in the last millisecond of a killed process is lost; Redis then counts no listener."""
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    stage.requests()
    stage.pass_time(KNOCK_US)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node1", wire.DirectoryRequest)]


def asks(stage: Stage) -> tuple[Call, int, bool]:
    """A read, the number of its request, and whether nobody need count who listens at the leader's mailbox."""
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    ((node, request),) = stage.requests()
    assert node == "node1"
    return call, request.id, stage.sent[-1].is_sure


def test_a_leader_whose_delegate_answers_is_as_sure_to_be_there_as_if_it_had_answered_itself(stage):
    """Else each read of many would have Redis count who listens, and wake the client for that."""
    stage.pass_time(KNOCK_US)
    call, number, is_sure = asks(stage)
    assert not is_sure
    stage.reply("node3", wire.Answer(number, commands.KeyValue(b"1", 7)))
    assert call.result() == commands.KeyValue(b"1", 7)
    _, number, is_sure = asks(stage)
    assert is_sure
    stage.pass_time(KNOCK_US)
    assert [type(request) for _, request in stage.requests()] == [wire.DirectoryRequest], "it is silent again"


def test_what_another_node_says_of_itself_says_nothing_of_the_leader(stage):
    stage.pass_time(KNOCK_US)
    _, number, _ = asks(stage)
    stage.reply("node3", wire.Answer(number + 99, commands.KeyValue(b"1", 7)))
    stage.reply("node3", wire.NotLeader(number + 98, ""))
    stage.reply("node3")
    call = stage.core.ask_node("node3", wire.DirectoryRequest, stage.now_us, stage.now_us + 10_000_000)
    ((_, asked),) = [one for one in stage.requests() if one[0] == "node3"]
    stage.reply("node3", wire.Answer(asked.id, commands.KeyValue(b"1", 7)))
    assert call.done
    call, number, is_sure = asks(stage)
    assert not is_sure, "what node3 was asked itself it may answer without the leader"
    stage.pass_time(REDIRECT_US_MIN)
    stage.know("node2", term=6)
    assert ("node2", number) in [(node, request.id) for node, request in stage.requests()], "another leads now"
    stage.reply("node1", wire.Answer(number, commands.KeyValue(b"1", 7)))
    assert call.done
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    assert [node for node, _ in stage.requests()] == ["node2"]
    assert not stage.sent[-1].is_sure, "the one that was asked first may have answered"


def test_another_leader_is_asked_at_once(stage):
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    stage.requests()
    stage.pass_time(REDIRECT_US_MIN)
    stage.know("node2", term=6)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node2", wire.QueryRequest)]


def test_a_leader_that_may_not_answer_is_not_asked_for_ever(stage):
    """A witness leads for a moment, and holds no token. Its word is not signed: the client asks around, no more."""
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    stage.requests()
    stage.pass_time(REDIRECT_US_MIN)
    refusal = wire.Refusal(wire.REFUSED_WAITING, "it is a witness", 7)
    stage.core.receive(wire.seal_refusal("node3", stage.core.reply_channel, refusal), stage.now_us)
    assert stage.core.routing.leader == "node1", "another's word says nothing of the leader"
    stage.core.receive(wire.seal_refusal("node1", stage.core.reply_channel, refusal), stage.now_us)
    stage.pass_time(20_000)
    assert [(n, type(r)) for n, r in stage.requests()] == [("", wire.DirectoryRequest)], "everyone is asked who leads"
    stage.know("node2", term=6)
    assert [(n, type(r)) for n, r in stage.requests()] == [("node2", wire.QueryRequest)]


def test_the_wait_for_an_answer_is_bounded_and_a_read_is_then_known_to_have_done_nothing(stage):
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 500_000)
    stage.requests()
    stage.pass_time(500_000)
    stage.requests()
    with pytest.raises(Unavailable) as caught:
        call.result()
    assert not isinstance(caught.value, OutcomeUnknown)


def test_each_wait_ends_in_its_own_time(stage):
    calls = [
        stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + us) for us in (9_000, 3_000, 2_000, 5_000)
    ]
    ended = []
    for _ in range(10):
        stage.pass_time(1_000)
        stage.core.give_up(stage.now_us)
        ended.append([call.done for call in calls].count(True))
    assert ended == [0, 1, 2, 2, 3, 3, 3, 3, 4, 4]


def test_a_change_that_was_sent_and_not_answered_has_an_unknown_outcome(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 500_000)
    stage.requests()
    stage.pass_time(500_000)
    stage.requests()
    with pytest.raises(OutcomeUnknown) as caught:
        call.result()
    assert not caught.value.session_gone


def test_a_change_that_was_never_sent_is_known_not_to_have_happened():
    stage = Stage()
    session = Session(77, 9_000, stage.now_us)
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 500_000)
    stage.pass_time(500_000)
    stage.requests()
    with pytest.raises(Unavailable) as caught:
        call.result()
    assert not isinstance(caught.value, OutcomeUnknown)


def test_a_large_request_has_the_time_that_it_takes_before_another_copy_is_sent(stage):
    """Of forty with 900 kB each, which a leader with a slow disk takes a second or two for, no more copies."""
    session = stage.session()
    copies = {}
    for name, size in (("small", 100), ("large", 900_000)):
        stage.core.command(session, PutKey(name, bytes(size)), stage.now_us, stage.now_us + 20_000_000)
        copies[name] = len(stage.requests())
    ends_us = stage.now_us + 900_000
    while stage.now_us < ends_us:
        stage.pass_time(10_000)
        for _, request in stage.requests():
            if isinstance(request, wire.CommandRequest):
                copies["large" if len(bytes(request.command)) > 100_000 else "small"] += 1
    assert copies["small"] >= 3
    assert copies["large"] == 1
    stage.pass_time(RESEND_US_MAX)
    assert [request for _, request in stage.requests() if isinstance(request, wire.CommandRequest)], "it may be lost"


def test_refusals_are_raised_and_busy_is_asked_again(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 2_000_000)
    request = stage.requests()[-1][1]
    stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.BUSY, "full")))
    assert not call.done
    stage.pass_time(RESEND_US_MAX)
    assert request.id in [r.id for _, r in stage.requests()]
    stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.FORBIDDEN, "no")))
    with pytest.raises(Forbidden, match="no"):
        call.result()


def test_busy_speaks_for_one_copy_alone_and_the_deadline_says_that_the_outcome_is_unknown(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 300_000)
    request = stage.requests()[-1][1]
    stage.pass_time(250_000)
    stage.requests()
    stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.BUSY, "full")))
    assert not call.done
    stage.pass_time(100_000)
    stage.requests()
    with pytest.raises(OutcomeUnknown):
        call.result()


def test_a_client_that_closes_proves_no_lease_any_more(stage):
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    closing = flows.close(stage.core, lambda: stage.now_us, 1_000_000)
    closing.send(None)
    assert [type(op_of(r).op) for _, r in stage.requests()] == [commands.CloseSession]
    with pytest.raises(LeaseLost):
        lease.check()


def test_an_answer_that_is_not_signed_by_this_key_decides_nothing(stage):
    call = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    request = stage.requests()[-1][1]
    forged = wire.seal(
        b"x" * 32, wire.REPLY, "node1", stage.core.reply_channel, [wire.Answer(request.id, commands.KeyValue(b"z"))]
    )
    stage.core.receive(forged, stage.now_us)
    other = wire.seal(
        TOKEN.key, wire.REPLY, "node1", "conclave:0123abcd:r:other", [wire.Answer(request.id, commands.KeyValue(b"z"))]
    )
    stage.core.receive(other, stage.now_us)
    stage.core.receive(b"garbage", stage.now_us)
    assert not call.done


# --- sessions and leases --------------------------------------------------------------------------


def lease_of(stage: Stage, session: Session) -> LeaseState:
    return LeaseState(flows.Grant(session, "deploy", 1, 99), lambda: stage.now_us)


def keep_alives(stage: Stage) -> list[tuple[str, wire.KeepAliveRequest]]:
    return [(n, r) for n, r in stage.requests() if isinstance(r, wire.KeepAliveRequest)]


def test_one_session_for_each_time_to_live_opened_once(stage):
    one = stage.core.session(9_000, stage.now_us, stage.now_us + 1_000_000)
    two = stage.core.session(9_000, stage.now_us, stage.now_us + 1_000_000)
    opened = [r for _, r in stage.requests() if isinstance(r, wire.CommandRequest)]
    assert len(opened) == 1
    stage.reply("node1", wire.Answer(opened[0].id, SessionOpened(77, 9_000)))
    assert one.result() is two.result()
    assert stage.core.session(9_000, stage.now_us, stage.now_us).result() is one.result()
    assert stage.requests() == []


def test_a_lease_counts_from_the_sending_less_a_margin_for_drift(stage):
    """History 1."""
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    lease.check()
    stage.pass_time(3_000_000)
    ((_, request),) = keep_alives(stage)
    sent_us = stage.now_us
    stage.pass_time(2_000_000)  # The answer is late: the lease does not count from it.
    stage.reply("node1", wire.KeptAlive(request.id, 77, 9_000))
    assert session.valid_until_us == sent_us + 9_000_000 - 90_000 - 5_000


def test_each_keep_alive_counts_from_its_own_sending(stage):
    session = stage.session(9_000)
    stage.pass_time(3_000_000)
    ((_, first),) = keep_alives(stage)
    first_us = stage.now_us
    stage.pass_time(400_000)
    ((_, second),) = keep_alives(stage)
    assert second.id != first.id
    stage.reply("node1", wire.KeptAlive(first.id, 77, 9_000))
    assert session.valid_until_us < first_us + 9_000_000


def test_what_is_said_of_another_session_confirms_none(stage):
    session = stage.session(9_000)
    before_us = session.valid_until_us
    stage.pass_time(3_000_000)
    ((_, request),) = keep_alives(stage)
    stage.reply("node1", wire.KeptAlive(request.id, 78, 9_000))
    assert session.valid_until_us == before_us


def test_a_keep_alive_names_the_leadership_that_it_is_for_and_is_numbered(stage):
    """History 7: a copy of it renews nothing."""
    session = stage.session(9_000)
    stage.pass_time(3_000_000)
    ((_, first),) = keep_alives(stage)
    stage.reply("node1", wire.OtherTerm(first.id, 6))
    ((_, second),) = keep_alives(stage)
    assert (second.term, second.count) == (6, first.count + 1)
    stage.reply("node1", wire.KeptAlive(second.id, 77, 9_000))
    assert session.renew_due_us == stage.now_us + 3_000_000
    call = stage.core.keep_alive(5, stage.now_us, stage.now_us + 1_000_000, "user:x")
    ((_, third),) = keep_alives(stage)
    assert (third.term, third.count > second.count) == (6, True)
    stage.reply("node1", wire.OtherTerm(third.id, 7))
    ((_, fourth),) = keep_alives(stage)
    assert (fourth.id, fourth.term) == (third.id, 7)
    stage.reply("node1", wire.KeptAlive(fourth.id, 5, 9_000))
    assert call.result().session == 5


def test_jeopardy_ends_when_a_leader_confirms_the_lease_again(stage):
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    stage.pass_time(9_000_000)
    with pytest.raises(LeaseLost, match="no leader has confirmed"):
        lease.check()
    ((_, request),) = keep_alives(stage)
    stage.reply("node1", wire.KeptAlive(request.id, 77, 9_000))
    lease.check()


def test_a_session_that_the_cluster_ended_is_lost_for_good(stage):
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    stage.pass_time(3_000_000)
    ((_, request),) = keep_alives(stage)
    stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.SESSION_GONE, "gone")))
    with pytest.raises(LeaseLost, match="gone"):
        lease.check()
    stage.reply("node1", wire.KeptAlive(request.id, 77, 9_000))
    with pytest.raises(LeaseLost, match="gone"):
        lease.check()
    assert (lease.held, lease.expires_in) == (False, 0.0)


def test_another_cluster_under_the_name_has_none_of_its_sessions(stage):
    """One that was restored from a backup: what was granted behind that, it knows nothing of, though it may know the
    session and keep it alive."""
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    stage.know("node2", 6)
    lease.check()
    stage.know("node2", 1, cluster=CLUSTER + 1)
    with pytest.raises(LeaseLost):
        lease.check()
    stage.pass_time(3_000_000)
    assert not keep_alives(stage)
    assert stage.core.session(9_000, stage.now_us, stage.now_us + 10_000_000) is not session
    ((_, request),) = stage.requests()
    assert isinstance(op_of(request).op, commands.OpenSession)
    assert request.cluster == CLUSTER + 1


def test_a_replica_left_over_of_an_earlier_cluster_ends_no_session_of_the_one_that_is_led(stage):
    """It answers whoever asks who leads, as all do at a failover: without a leader, or naming one that is gone."""
    session = stage.session(9_000)
    lease = lease_of(stage, session)
    stage.core.routing.doubt("node1", stage.now_us)
    stage.know("", 7, cluster=CLUSTER + 1, says="node4")
    stage.know("node5", 7, cluster=CLUSTER + 1, says="node4")
    lease.check()
    stage.know("node2", 6)
    lease.check()
    stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 10_000_000)
    ((node, request),) = [(node, sent) for node, sent in stage.requests() if isinstance(sent, wire.QueryRequest)]
    assert (node, request.cluster) == ("node2", CLUSTER)


def test_who_is_said_to_lead_another_cluster_of_the_name_is_asked_itself(stage):
    """Over several Redis servers it may not hear what is asked of all."""
    lease = lease_of(stage, stage.session(9_000))
    stage.core.routing.doubt("node1", stage.now_us)
    stage.know("node3", 2, cluster=CLUSTER + 1, says="node2")
    stage.pass_time(300_000)
    assert {node for node, sent in stage.requests() if isinstance(sent, wire.DirectoryRequest)} == {"", "node3"}
    lease.check()
    stage.pass_time(300_000)
    assert {node for node, sent in stage.requests() if isinstance(sent, wire.DirectoryRequest)} == {""}, "once a word"
    stage.know("node3", 2, cluster=CLUSTER + 1, says="node3")
    with pytest.raises(LeaseLost):
        lease.check()


def test_of_clusters_that_nobody_was_heard_to_lead_the_one_with_a_leader_is_taken():
    stage = Stage()
    stage.know("", 7, cluster=CLUSTER + 1)
    stage.know("", 3, says="node3")
    assert stage.core.routing.cluster == CLUSTER + 1
    stage.know("node1", 3, says="node3")
    assert (stage.core.routing.cluster, stage.core.routing.leader) == (CLUSTER, "node1")


def test_a_session_in_jeopardy_is_asked_after_before_anything_is_sent_under_it(stage):
    session = stage.session(9_000)
    stage.pass_time(20_000_000)
    call = stage.core.session(9_000, stage.now_us, stage.now_us + 5_000_000)
    assert not call.done
    ((_, request),) = keep_alives(stage)
    stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.SESSION_GONE, "gone")))
    assert call.result() is None
    assert session.gone
    again = stage.core.session(9_000, stage.now_us, stage.now_us + 5_000_000)
    (_, opening) = stage.requests()[-1]
    stage.reply("node1", wire.Answer(opening.id, SessionOpened(88, 9_000)))
    assert again.result().session == 88


def test_numbers_are_acknowledged_up_to_the_first_that_is_open(stage):
    session = stage.session()
    calls = [stage.core.command(session, PutKey("a", b"1"), stage.now_us, None) for _ in range(4)]
    sent = {op_of(r).number: r for _, r in stage.requests()}
    for number in (2, 3):
        stage.reply("node1", wire.Answer(sent[number].id, commands.Done(9)))
    assert session.acked == 1
    stage.reply("node1", wire.Answer(sent[1].id, commands.Done(9)))
    assert session.acked == 4
    assert not calls[3].done


# --- taking a lock --------------------------------------------------------------------------------


class Taking:
    """Drives the flow that takes a lock, step by step."""

    def __init__(self, stage: Stage, wait_us: int | None) -> None:
        self.stage = stage
        self.flow = flows.acquire(stage.core, lambda: stage.now_us, "deploy", 9_000, wait_us, 5_000_000)
        self.call: Call = self.flow.send(None)
        self.outcome: Any = None

    def step(self):
        """Hand the flow what its call came to."""
        assert self.call.done
        try:
            if isinstance(self.call.outcome, BaseException):
                self.call = self.flow.throw(self.call.outcome)
            else:
                self.call = self.flow.send(self.call.outcome)
        except StopIteration as end:
            self.outcome = end.value

    def ask(self) -> wire.CommandRequest:
        """Up to the sent AcquireLock."""
        if self.call.done:
            self.step()  # It had to wait for a session.
        return next(
            r
            for _, r in self.stage.requests()
            if isinstance(r, wire.CommandRequest) and isinstance(op_of(r).op, AcquireLock)
        )


@pytest.fixture
def open_stage(stage: Stage) -> Stage:
    stage.session(9_000)
    return stage


def test_a_grant_is_a_token_and_an_acquisition(open_stage):
    taking = Taking(open_stage, None)
    request = taking.ask()
    open_stage.reply("node1", wire.Answer(request.id, Granted(1234)))
    taking.step()
    assert (taking.outcome.token, taking.outcome.acquisition) == (1234, op_of(request).op.acquisition)


def test_a_lock_that_is_held_is_refused_with_its_holder(open_stage):
    taking = Taking(open_stage, 0)
    request = taking.ask()
    assert op_of(request).op.wait is False
    holder = commands.Holder(5, 1, "ci")
    open_stage.reply("node1", wire.Answer(request.id, commands.Held(holder, 9)))
    with pytest.raises(LockNotAcquired) as caught:
        taking.step()
    assert caught.value.holder == holder


def queued(stage: Stage, wait_us: int | None = None) -> tuple[Taking, wire.CommandRequest]:
    taking = Taking(stage, wait_us)
    request = taking.ask()
    stage.reply("node1", wire.Answer(request.id, Queued(1)))
    taking.step()
    return taking, request


def push(request: wire.CommandRequest, token: int = 7) -> wire.GrantPushed:
    return wire.GrantPushed(CLUSTER, 77, "deploy", op_of(request).op.acquisition, token)


def test_a_waiter_is_told_of_its_grant(open_stage):
    taking, request = queued(open_stage)
    open_stage.reply("node1", push(request))
    taking.step()
    assert taking.outcome.token == 7


def test_a_push_that_overtakes_the_answer_is_not_lost(open_stage):
    taking = Taking(open_stage, None)
    request = taking.ask()
    open_stage.reply("node1", push(request))
    open_stage.reply("node1", wire.Answer(request.id, Queued(1)))
    taking.step()
    taking.step()
    assert taking.outcome.token == 7


def test_a_waiter_also_asks_since_a_push_may_be_lost(open_stage):
    """History 8."""
    taking, _ = queued(open_stage)
    open_stage.pass_time(ASK_US)
    asked = [r for _, r in open_stage.requests() if isinstance(r, wire.QueryRequest)]
    assert len(asked) == 1
    open_stage.reply("node1", wire.Answer(asked[0].id, Granted(8)))
    taking.step()
    assert taking.outcome.token == 8


def test_a_waiter_that_still_waits_asks_again(open_stage):
    """Whatever push is lost: it asks until it is told."""
    queued(open_stage)
    for _ in range(3):
        open_stage.pass_time(ASK_US + ASK_US // 4)
        (asked,) = [r for _, r in open_stage.requests() if isinstance(r, wire.QueryRequest)]
        open_stage.reply("node1", wire.Answer(asked.id, Queued(1)))


def test_a_waiter_asks_a_new_leader_at_once(open_stage):
    """PySyncObj#183: waiters frozen after a leader's death."""
    queued(open_stage)
    open_stage.know("node2", term=6)
    assert [n for n, r in open_stage.requests() if isinstance(r, wire.QueryRequest)] == ["node2"]


def cancels(stage: Stage) -> list[CancelAcquire]:
    found = [op_of(r).op for _, r in stage.requests() if isinstance(r, wire.CommandRequest)]
    return [op for op in found if isinstance(op, CancelAcquire)]


def test_a_waiter_whose_time_is_up_leaves_the_queue(open_stage):
    """History 9."""
    taking, request = queued(open_stage, 2_000_000)
    open_stage.pass_time(2_000_000)
    open_stage.requests()
    taking.step()
    (cancel,) = cancels(open_stage)
    assert (cancel.name, cancel.number) == ("deploy", op_of(request).number)


def test_a_waiter_that_is_cancelled_leaves_the_queue_whatever_has_been_answered(open_stage):
    """Histories 9 and 12: the cancel names the request, so that it counts even where it arrives first."""
    taking = Taking(open_stage, None)
    request = taking.ask()
    with pytest.raises(KeyboardInterrupt):
        taking.flow.throw(KeyboardInterrupt())
    (cancel,) = cancels(open_stage)
    assert cancel.number == op_of(request).number
    assert request.id not in [r.id for _, r in open_stage.requests()]


def test_a_lock_asked_for_under_a_session_that_is_gone_is_asked_for_again(open_stage):
    taking = Taking(open_stage, None)
    request = taking.ask()
    open_stage.reply("node1", wire.Answer(request.id, commands.Failure(commands.OUTCOME_UNKNOWN, "gone")))
    taking.step()
    (_, opening) = open_stage.requests()[-1]
    open_stage.reply("node1", wire.Answer(opening.id, SessionOpened(88, 9_000)))
    again = taking.ask()
    assert op_of(again).session == 88


def test_an_acquisition_of_unknown_outcome_is_taken_back_and_its_session_goes_on(open_stage):
    """To lose the session would take all else that is held under it."""
    taking = Taking(open_stage, None)
    request = taking.ask()
    open_stage.pass_time(5_000_000)
    open_stage.core.give_up(open_stage.now_us)
    with pytest.raises(OutcomeUnknown):
        taking.step()
    (session,) = open_stage.core.sessions.values()
    assert not session.gone
    assert {cancel.number for cancel in cancels(open_stage)} == {op_of(request).number}


def test_under_a_new_session_it_waits_for_what_is_left_of_its_time(open_stage):
    taking, _ = queued(open_stage, 2_000_000)
    open_stage.pass_time(1_999_999)
    taking.call = taking.flow.throw(SessionGone("gone"))
    (opening,) = [request for _, request in open_stage.requests() if isinstance(request, wire.CommandRequest)]
    open_stage.reply("node1", wire.Answer(opening.id, SessionOpened(88, 9_000)))
    assert op_of(taking.ask()).session == 88
    open_stage.pass_time(1)
    with pytest.raises(LockNotAcquired):
        taking.flow.throw(SessionGone("gone"))


def test_a_push_to_one_that_acts_for_others_is_only_a_hint(open_stage):
    """An acquisition of another's may come again, so that a push may be an old one: what is true, the log says."""
    stage = open_stage
    stage.reply("node1", wire.GrantPushed(CLUSTER, 5, "deploy", 0, 7))
    call = stage.core.grant(5, "deploy", 0, stage.now_us, stage.now_us + 5_000_000, "user:s", ask=True)
    ((_, asked),) = stage.requests()
    stage.reply("node1", wire.Answer(asked.id, Queued(1)))
    stage.reply("node1", wire.GrantPushed(CLUSTER, 5, "deploy", 0, 7))
    assert not call.done
    ((_, asked),) = stage.requests()
    assert isinstance(asked, wire.QueryRequest)
    stage.reply("node1", wire.Answer(asked.id, Granted(9)))
    assert call.result() == Granted(9)


def test_a_request_that_can_not_be_encoded_is_its_own_askers_trouble_alone(stage):
    other = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 5_000_000)
    for query in (commands.GetSession(1 << 70), commands.GetKey("\ud800")):
        with pytest.raises(InvalidRequest):
            stage.core.query(query, stage.now_us, stage.now_us + 5_000_000)
    assert [type(request) for _, request in stage.requests()] == [wire.QueryRequest]
    assert not other.done


@pytest.mark.parametrize(("session", "act_for"), [(1 << 70, ""), (5, "\ud800")])
def test_a_wait_that_can_not_be_asked_for_is_its_own_askers_trouble_alone(stage, session, act_for):
    """It was asked for only as all others were sent, and failed them all."""
    other = stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 5_000_000)
    until_us = stage.now_us + 5_000_000
    call = stage.core.grant(session, "deploy", 0, stage.now_us, until_us, act_for, ask=True)
    assert [request.query for _, request in stage.requests()] == [commands.GetKey("a")]
    with pytest.raises(InvalidRequest, match="can not be encoded"):
        call.result()
    assert not other.done


def test_nothing_secret_is_in_a_repr():
    options = resolve("redis://u:hidden@127.0.0.1", str(TOKEN), "default", 1.0)
    shown = repr([options, TOKEN, Endpoint.parse(options.url), commands.AddToken("a", "b", b"hidden")])
    assert "hidden" not in shown
    assert TOKEN.secret not in shown


def test_many_questions_that_are_turned_away_do_not_storm_the_nodes(stage):
    """Nodes that name as leader one that leads no more, while nobody is elected."""
    for _ in range(20):
        stage.core.query(commands.GetKey("a"), stage.now_us, stage.now_us + 60_000_000)
    probes = 0
    for _ in range(1_000):
        for node, request in stage.requests():
            if isinstance(request, wire.DirectoryRequest):
                probes += node == ""
                stage.know("node1")
            else:
                stage.reply(node, wire.NotLeader(request.id, ""))
        stage.pass_time(1_000)
    assert probes <= 70
