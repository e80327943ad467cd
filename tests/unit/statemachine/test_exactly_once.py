"""Requests are applied once, whatever the network does (rule 7; histories 4 and 12), and only with the right to."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import (
    AddToken,
    CheckpointSessions,
    CloseSession,
    DeleteKey,
    Done,
    ExpireSessions,
    GetKey,
    GetPrincipal,
    GetToken,
    KeyValue,
    OpenSession,
    PutKey,
    RaiseLevel,
    RemovePrincipal,
    RemoveToken,
    ResetCheckpoints,
    SessionOpened,
    SetPrincipal,
)
from coordinator.statemachine.events import CheckpointReset
from coordinator.statemachine.files import Created, CreateFile
from coordinator.statemachine.lock_commands import Acquire
from coordinator.statemachine.machine import Machine, stamp_without_tokens
from coordinator.statemachine.permissions import NarrowToken, SetQuota, SetRole
from coordinator.statemachine.sessions import RESULTS_MAX
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored


def test_a_retry_is_answered_with_the_first_result():
    asking = Asking()
    session = asking.open()
    first = asking.send(session, 1, PutKey("a", b"1"))
    asking.send(session, 2, PutKey("a", b"2"))
    assert asking.send(session, 1, PutKey("a", b"1")) == first
    assert asking.query(GetKey("a")).value == b"2"
    assert asking.query(GetKey("a")).version == 2


def test_numbers_may_come_out_of_order_and_with_gaps():
    asking = Asking()
    session = asking.open()
    for number in (5, 3, 9, 4):
        assert isinstance(asking.send(session, number, PutKey(f"k{number}", b"x")), Done)
    assert asking.query(GetKey("k3")).version == 1


def test_what_is_acknowledged_is_forgotten_and_never_applied_again():
    asking = Asking()
    session = asking.open()
    asking.send(session, 1, PutKey("a", b"1"))
    asking.send(session, 2, PutKey("b", b"1"), acked=2)
    assert list(asking.machine.sessions[session].results) == [2]
    late = asking.send(session, 1, PutKey("a", b"0"))
    assert late.code == commands.ACKNOWLEDGED
    assert asking.query(GetKey("a")).value == b"1"


def test_a_request_can_not_acknowledge_itself_away():
    asking = Asking()
    session = asking.open()
    assert isinstance(asking.send(session, 1, PutKey("a", b"1"), acked=99), Done)


def test_at_the_bound_new_requests_are_refused_and_results_kept():
    """History 12."""
    asking = Asking()
    session = asking.open()
    for number in range(1, RESULTS_MAX + 1):
        asking.send(session, number, PutKey("a", b"1"))
    full = asking.send(session, RESULTS_MAX + 1, PutKey("b", b"1"))
    assert full.code == commands.BUSY
    assert asking.query(GetKey("b")) == KeyValue(None)
    assert isinstance(asking.send(session, 1, PutKey("a", b"1")), Done)
    assert isinstance(asking.send(session, RESULTS_MAX + 1, PutKey("b", b"1"), acked=RESULTS_MAX), Done)


def test_the_lowest_number_is_always_taken():
    """Else nothing could ever be acknowledged again."""
    asking = Asking()
    session = asking.open()
    for number in range(2, RESULTS_MAX + 100):
        asking.send(session, number, PutKey("k", b""), acked=1)
    assert isinstance(asking.send(session, 1, PutKey("one", b""), acked=1), Done)
    assert len(asking.machine.sessions[session].results) == RESULTS_MAX


def test_a_retry_whose_session_is_gone_has_an_unknown_outcome():
    """History 4."""
    asking = Asking()
    session = asking.open()
    asking.send(session, 1, PutKey("a", b"1"))
    asking.node(ExpireSessions((session,)))
    again = asking.send(session, 1, PutKey("a", b"1"))
    assert again.code == commands.OUTCOME_UNKNOWN
    assert asking.query(GetKey("a")).version == 1


def test_a_copy_of_old_traffic_speaks_to_a_session_that_is_gone():
    """History 7: sessions are named by the index that opened them, so no copy reaches a later one."""
    asking = Asking()
    session = asking.open()
    asking.acquire(session)
    asking.ask(session, CloseSession())
    copies = list(asking.log[1:])
    for entry in copies:
        asking.apply(entry)
    assert asking.holder() is None
    assert session not in asking.machine.sessions


def test_opening_again_under_the_same_nonce_finds_the_session():
    asking = Asking()
    first = asking.send(0, 0, OpenSession(5_000, b"n"))
    assert asking.send(0, 0, OpenSession(5_000, b"n")) == first
    other = asking.send(0, 0, OpenSession(5_000, b"n"), "narrow")
    assert isinstance(other, SessionOpened)
    assert other.session != first.session, "another principal's nonce is another's"
    asking.node(ExpireSessions((first.session,)))
    assert asking.send(0, 0, OpenSession(5_000, b"n")).session > first.session


def test_a_time_to_live_outside_its_bounds_is_refused():
    asking = Asking()
    for ttl_ms in (0, 499, 86_400_001, -1):
        assert asking.send(0, 0, OpenSession(ttl_ms, b"")).code == commands.INVALID


def test_a_session_serves_its_own_principal_alone():
    asking = Asking()
    session = asking.open("ci")
    assert asking.send(session, 1, PutKey("a", b"1"), "narrow").code == commands.OUTCOME_UNKNOWN
    assert asking.send(session, 1, PutKey("a", b"1"), "ci", "narrow").code == commands.OUTCOME_UNKNOWN


def test_rights_are_checked_at_apply():
    asking = Asking()
    web, narrow = asking.open("web"), asking.open("narrow")
    assert asking.ask(narrow, PutKey("other", b"1"), "narrow").code == commands.FORBIDDEN
    assert isinstance(asking.ask(narrow, PutKey("build/x", b"1"), "narrow"), Done)
    assert asking.query(GetKey("other"), "narrow").code == commands.FORBIDDEN
    asking.ask(web, SetPrincipal("narrow", ("read",), ("build/",)), "web")
    assert asking.ask(narrow, DeleteKey("build/x"), "narrow").code == commands.FORBIDDEN
    assert asking.query(GetKey("build/x"), "narrow").value == b"1"


def test_whoever_may_lock_may_see_who_holds():
    asking = Asking()
    web = asking.open("web")
    asking.ask(web, SetPrincipal("locker", ("lock",)), "web")
    assert asking.query(commands.GetLock("deploy"), "locker").holder is None
    assert asking.query(GetKey("deploy"), "locker").code == commands.FORBIDDEN


def test_only_an_administrator_edits_principals_and_nobody_becomes_the_web_tier():
    asking = Asking()
    web, ci = asking.open("web"), asking.open("ci")
    assert asking.ask(ci, SetPrincipal("ci", commands.RIGHTS)).code == commands.FORBIDDEN
    asking.ask(web, SetPrincipal("boss", commands.RIGHTS), "web")
    boss = asking.open("boss")
    assert asking.ask(boss, SetPrincipal("boss", commands.RIGHTS, act_for=True), "boss").code == commands.FORBIDDEN
    assert asking.ask(boss, SetPrincipal("web", ("read",)), "boss").code == commands.FORBIDDEN
    assert asking.ask(boss, RemovePrincipal("web"), "boss").code == commands.INVALID
    assert asking.query(GetToken("aa"), "boss").code == commands.FORBIDDEN
    assert asking.ask(web, SetPrincipal("web", ("read",), act_for=True), "web").code == commands.INVALID
    assert asking.ask(web, SetPrincipal("web", commands.RIGHTS), "web").code == commands.INVALID


def test_a_refusal_never_speaks_for_what_an_earlier_copy_brought_to_effect():
    asking = Asking()
    web, user = asking.open("web"), SetPrincipal("user:u", ("write",))
    asking.ask(web, user, "web")
    first = asking.send(web, 50, PutKey("a", b"1"), "user:u", "web")
    asking.ask(web, RemovePrincipal("user:u"), "web")
    assert asking.send(web, 50, PutKey("a", b"1"), "user:u", "web") == first
    assert asking.send(web, 51, PutKey("a", b"2"), "user:u", "web").code == commands.FORBIDDEN


def test_tokens_speak_for_their_principal_until_they_are_removed():
    asking = Asking()
    web = asking.open("web")
    asking.ask(web, AddToken("c" * 16, "ci", b"k" * 32), "web")
    assert asking.machine.key_of("c" * 16) == ("ci", b"k" * 32)
    assert asking.query(GetPrincipal("ci"), "web").tokens == ("bb", "c" * 16)
    assert asking.ask(web, AddToken("c" * 16, "narrow", b"x" * 32), "web").code == commands.INVALID
    asking.ask(web, RemoveToken("c" * 16), "web")
    assert asking.machine.key_of("c" * 16) is None


@pytest.mark.parametrize(
    ("token_id", "key"), [("c" * 16, b"k" * 65), ("c" * 16, b""), ("CC", b"k" * 32), ("", b"k" * 32)]
)
def test_a_token_that_is_none_is_refused(token_id, key):
    """A key of more than 64 bytes would end every node that hears its name, an empty one signs for anybody."""
    asking = Asking()
    assert asking.ask(asking.open("web"), AddToken(token_id, "ci", key), "web").code == commands.INVALID


def test_an_administrator_does_not_become_the_web_tier_by_its_tokens():
    asking = Asking()
    web = asking.open("web")
    asking.ask(web, SetPrincipal("boss", commands.RIGHTS), "web")
    boss = asking.open("boss")
    assert asking.ask(boss, AddToken("d" * 16, "web", b"k" * 32), "boss").code == commands.FORBIDDEN
    assert asking.ask(boss, RemoveToken("aa"), "boss").code == commands.FORBIDDEN
    assert asking.machine.key_of("aa") is not None


def test_with_a_principal_go_its_tokens_and_its_places_in_line_but_no_lease_that_can_be_proven():
    asking = Asking()
    web, session, other = asking.open("web"), asking.open("ci"), asking.open("narrow")
    asking.acquire(session)
    asking.send(other, 1, commands.AcquireLock("build/x", 1, wait=True), "narrow")
    asking.acquire(session, "build/x")
    asking.ask(web, RemovePrincipal("ci"), "web")
    assert asking.query(commands.GetLock("deploy"), "web").holder.session == session
    assert asking.query(commands.GetLock("build/x"), "web").waiters == ()
    assert asking.machine.key_of("bb") is None
    assert asking.send(session, 9, PutKey("a", b"1")).code == commands.FORBIDDEN
    asking.node(ExpireSessions((session,)))
    assert asking.query(commands.GetLock("deploy"), "web").holder is None


def test_the_genesis_comes_once():
    asking = Asking()
    again = asking.node(commands.Genesis(9, "other", 5, (), ()))
    assert again.code == commands.INVALID
    assert (asking.machine.cluster_id, asking.machine.epoch) == (7, 1)


# --- checkpoints and levels -----------------------------------------------------------------------


def test_a_checkpoint_is_what_a_new_leader_begins_with_until_it_is_reset():
    """History 10: the machine's part."""
    asking = Asking()
    kept, dead = asking.open(ttl_ms=9_000), asking.open(ttl_ms=9_000)
    asking.node(CheckpointSessions(((kept, 4_000), (dead, 4_000), (999, 1))))
    asking.node(CheckpointSessions(((dead, 20_000), (kept, -5))))
    machine = restored(asking.machine)
    assert [machine.sessions[session].lease_ms for session in (kept, dead)] == [0, 4_000]
    asking.machine.events.clear()
    asking.node(ResetCheckpoints((kept, 999)))
    assert asking.machine.events == [CheckpointReset(kept)]
    assert asking.machine.sessions[kept].lease_ms == 9_000


def test_commands_of_a_later_level_are_refused_until_all_replicas_have_it():
    asking = Asking(level=1)
    session = asking.open()
    early = [
        asking.ask(session, CreateFile("a", b"")),
        asking.ask(session, Acquire(("a",), 1)),
        asking.node(CheckpointSessions(())),
        asking.node(RaiseLevel(commands.LEVEL + 1)),
    ]
    assert [refused.code for refused in early] == [commands.INVALID] * 4
    assert isinstance(asking.ask(session, PutKey("a", b"1")), Done)
    asking.node(RaiseLevel(2))
    assert restored(asking.machine).state.level == 2
    assert isinstance(asking.ask(session, CreateFile("b", b"")), Created)
    assert asking.node(RaiseLevel(2)).code == commands.INVALID


def without_tokens(session, number, op, principal="ci"):
    head, tail = stamp_without_tokens(principal, "")
    return head + msgspec.msgpack.encode(commands.Command(session, number, 0, op)) + tail


def test_commands_of_level_3_leave_nothing_behind_in_a_cluster_of_level_2():
    """A replica of level 2 can not read them: it refuses without a look at session or number. Where others kept the
    refusal, or that something was acknowledged, their states would differ."""
    asking = Asking(level=2)
    web = asking.open("web")
    asking.ask(web, PutKey("a", b"1"), "web")
    before = snapshot.dump(asking.machine)
    index = asking.index
    for op in (SetRole("r"), SetQuota("", None), NarrowToken("bb", ())):
        refused = asking.send(web, 2, op, "web", acked=2)
        assert refused.code == commands.INVALID
        assert "of level 3, the cluster is at level 2" in refused.message
    asking.machine.state.applied = index
    assert snapshot.dump(asking.machine) == before
    asking.machine.state.applied = asking.index
    asking.node(RaiseLevel(3))
    assert isinstance(asking.send(web, 2, SetRole("r"), "web"), Done), "the number is as if it had not been used"


def test_what_was_stamped_without_its_token_is_not_applied_once_tokens_count():
    """A leader that has yet to apply the new level stamps no tokens. What it proposes lies behind a narrowing of the
    token that it was asked with: applied, it would do what the token may not."""
    asking = Asking(level=2)
    web, ci = asking.open("web"), asking.open("ci")
    assert isinstance(asking.apply(without_tokens(ci, 1, PutKey("a", b"1"))), Done), "before, it counts"
    asking.node(RaiseLevel(3))
    asking.ask(web, NarrowToken("bb", ()), "web")
    before = asking.machine.sessions[ci].results.copy()
    for number, op in ((1, PutKey("a", b"1")), (2, PutKey("a", b"2")), (2, CloseSession())):
        assert asking.apply(without_tokens(ci, number, op)).code == commands.BUSY
    assert asking.apply(without_tokens(0, 0, OpenSession(5_000, b""))).code == commands.BUSY
    assert asking.machine.keys["a"].value == b"1"
    assert asking.machine.sessions[ci].results == before
    assert asking.send(ci, 2, PutKey("a", b"2"), token="bb").code == commands.FORBIDDEN
    restored(asking.machine)


def test_a_genesis_of_before_there_were_levels_is_of_the_first():
    entry = commands.Entry(1, "", "", commands.NodeCommand(0, 0, 0, commands.Genesis(7, "old", 0, (), ())))
    machine = Machine()
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(entry))
    del fields[3][3][6]  # What an older version did not write.
    assert machine.apply(1, msgspec.msgpack.encode(fields)) == Done(1)
    assert machine.state.level == 1
