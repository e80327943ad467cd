"""One entry is short work, whatever it asks for: what a transaction deletes and goes over, and what a session has."""

from __future__ import annotations

import random

import pytest

from coordinator import wire
from coordinator.statemachine import commands, files, history, lock_commands, locking, locks, namespace, work
from coordinator.statemachine.commands import (
    Aborted,
    DeleteKey,
    Done,
    Failure,
    Granted,
    PutKey,
    Queued,
    ReleaseLock,
    SetPrincipal,
    Transact,
    Transacted,
)
from coordinator.statemachine.files import (
    Compare,
    DeletePath,
    DeleteRange,
    ListDirectory,
    ReadChanges,
    ReadDirectory,
    ReadRange,
    ReadStat,
)
from coordinator.statemachine.lock_commands import Acquire, CheckSequencer, HandOver, ReadLockEvents
from coordinator.statemachine.permissions import ListMembers, ListPermissions, SetRole
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

PAST = ReadRange("", prefix=True, revision=6)
"""Just behind the third of the keys of `with_keys`."""


def with_keys(count: int, level: int = commands.LEVEL) -> tuple[Asking, int]:
    """Keys `k/0`, `k/1`, …, and a session that asks."""
    asking = Asking(level)
    session = asking.open()
    asking.open()
    for number in range(count):
        put = asking.send(session, number + 1, PutKey(f"k/{number}", b"v"), acked=number + 1)
        assert isinstance(put, Done)
    asking.numbers[session] = count
    return asking, session


def rows(asking: Asking, query: commands.Query) -> int:
    before = asking.machine.state.work.rows
    asking.query(query)
    return asking.machine.state.work.rows - before


def refused(asking: Asking, session: int, op: Transact) -> Aborted | Failure:
    """The refusal, behind which nothing is changed but the session's results."""
    state = asking.machine.state
    machine = asking.machine
    before = sorted(state.keys.rows.items()), len(state.history.rows), state.children
    answer = asking.ask(session, op)
    assert isinstance(answer, (Aborted, Failure)), answer
    refusal = answer.refusal if isinstance(answer, Aborted) else answer
    assert (refusal.code, type(refusal)) == (commands.TOO_MANY, Failure)
    assert (sorted(state.keys.rows.items()), len(state.history.rows), state.children) == before
    restored(machine)
    return answer


# --- deletions ------------------------------------------------------------------------------------


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("ops", "place"),
    [
        ((DeleteRange("k/0"), DeleteRange("k/1"), DeleteRange("k/2"), DeleteRange("k/3")), (3,)),
        ((DeleteKey("k/0"), DeleteKey("k/1"), DeletePath("k/2"), DeleteKey("k/3")), (3,)),
        ((DeleteKey("k/0"), DeleteKey("k/1"), DeleteKey("k/3"), DeletePath("k/2")), (3,)),
        ((DeleteKey("k/0"), DeletePath("k", recursive=True)), (1,)),
        ((DeleteKey("k/0"), Transact((), (DeleteKey("k/1"), DeleteRange("k/2", "k/4")))), (1, 1)),
        ((Transact((), (DeleteRange("k/0", "k/3"),)), Transact((), (), ()), DeleteKey("k/4")), (2,)),
    ],
)
def test_a_transaction_deletes_no_more_than_one_command_may(monkeypatch, ops, place):
    monkeypatch.setattr(files, "DELETED_MAX", 3)
    asking, session = with_keys(6)
    answer = refused(asking, session, Transact((), ops))
    assert answer.place == place
    assert "at most 3" in answer.refusal.message


@pytest.mark.interpreted
def test_as_many_as_it_may_are_deleted_and_the_next_one_begins_anew(monkeypatch):
    monkeypatch.setattr(files, "DELETED_MAX", 3)
    asking, session = with_keys(9)
    for start in (0, 3, 6):
        ops = (DeleteRange(f"k/{start}", f"k/{start + 2}"), DeleteKey("none"), DeleteKey(f"k/{start + 2}"))
        assert asking.ask(session, Transact((), ops)).succeeded
    assert not asking.machine.keys


@pytest.mark.interpreted
def test_what_was_taken_back_is_not_deleted(monkeypatch):
    monkeypatch.setattr(files, "DELETED_MAX", 3)
    asking, session = with_keys(3)
    for _ in range(2):
        answer = asking.ask(session, Transact((), (DeleteRange("k/", prefix=True), DeletePath("none"))))
        assert answer.refusal.code == commands.NOT_FOUND
    assert asking.ask(session, DeleteRange("k/", prefix=True)) == files.Deleted(asking.index, 3)


@pytest.mark.interpreted
def test_single_commands_do_not_add_up(monkeypatch):
    monkeypatch.setattr(files, "DELETED_MAX", 1)
    asking, session = with_keys(3)
    assert asking.ask(session, Transact((), (DeleteKey("k/0"),))).succeeded
    for number in (1, 2):
        assert asking.ask(session, DeleteKey(f"k/{number}")) == Done(asking.index, existed=True)


def test_the_real_number_is_that_of_all_operations():
    asking, session = with_keys(files.DELETED_MAX + 1)
    one_by_one = tuple(DeleteKey(f"k/{number}") for number in range(64))
    answer = refused(asking, session, Transact((), (*one_by_one, DeleteRange("k/", prefix=True))))
    assert answer.place == (64,)
    assert f"at most {files.DELETED_MAX}, here are {files.DELETED_MAX + 1}" in answer.refusal.message


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.interpreted
@pytest.mark.parametrize(
    "read",
    [
        ReadRange("", prefix=True, revision=6, count_only=True),
        PAST,
        ReadRange("", prefix=True, sort_by="version", limit=1),
        ReadRange("", prefix=True, keys_only=True, limit=6),
        ReadRange("k/", prefix=True, revision=6, sort_by="value", descending=True, limit=1),
    ],
)
def test_a_transaction_goes_over_so_many_rows_and_no_more(monkeypatch, read):
    asking, session = with_keys(12)
    needed = rows(asking, read)
    assert needed >= 6
    monkeypatch.setattr(files, "TRANSACTION_ROWS_MAX", 3 * needed)
    for _ in range(2):  # The next one begins anew.
        assert isinstance(asking.ask(session, Transact((), (read, read, read))), Transacted)
    answer = refused(asking, session, Transact((), (read, Transact((), (read, read, PutKey("new", b""), read)))))
    assert answer.place == (1, 3)
    assert f"at most {3 * needed}" in answer.refusal.message
    assert rows(asking, read) == needed, "behind it there is no bound any more"


@pytest.mark.interpreted
def test_what_is_the_same_however_much_there_is_costs_no_rows(monkeypatch):
    monkeypatch.setattr(files, "TRANSACTION_ROWS_MAX", 0)
    asking, session = with_keys(12)
    ops = (
        ReadRange("", prefix=True, count_only=True),
        files.ReadFile("k/1"),
        files.ReadFile("k/1", revision=10),
        PutKey("k/1", b""),
        DeleteRange("k/2", "k/6"),
    )
    assert asking.ask(session, Transact((Compare("k/1", "lock", "=", 0),), ops)).succeeded


@pytest.mark.interpreted
@pytest.mark.parametrize("target", ["lock", "lock-holder"])
def test_holders_that_are_compared_are_rows(monkeypatch, target):
    asking, session = with_keys(1)
    for acquisition in range(3):
        op = Acquire(("many",), acquisition, "counting", limit=3)
        assert isinstance(asking.ask(session, op), Granted)
    monkeypatch.setattr(files, "TRANSACTION_ROWS_MAX", 6)
    compare = Compare("many", target, "!=", 0)
    assert asking.ask(session, Transact((compare, compare), ())).succeeded
    assert isinstance(refused(asking, session, Transact((compare,) * 3, ())), Failure)
    inner = Transact((), (PutKey("new", b""), Transact((compare,), (), ())))
    assert refused(asking, session, Transact((compare, compare), (inner,))).place == (0, 1)


@pytest.mark.interpreted
def test_a_bound_is_reached_before_the_work_is_done(monkeypatch):
    """Not behind it: one operation could go over all changes and all keys."""
    asking, session = with_keys(200)
    monkeypatch.setattr(files, "TRANSACTION_ROWS_MAX", 10)
    looked_at = []
    at = history.History.at

    def look(*asked):
        looked_at.append(asked[1])
        return at(*asked)

    monkeypatch.setattr(history.History, "at", look)
    monkeypatch.setattr(history.History, "since", None)
    count = ReadRange("", prefix=True, revision=6, count_only=True)
    assert refused(asking, session, Transact((), (count,))).place == (0,)
    assert not looked_at
    # What fills a page of the past is known on the way alone.
    end = asking.machine.state.history.order.following
    monkeypatch.setattr(history.History, "count_since", lambda self, revision: 0 if end else 1)
    monkeypatch.setattr(history.History, "since", lambda self, revision: iter(()))
    assert refused(asking, session, Transact((), (PAST,))).place == (0,)
    assert len(looked_at) == 5


@pytest.mark.interpreted
@pytest.mark.parametrize("level", [2, 3])
def test_below_level_4_a_transaction_is_applied_as_it_was(monkeypatch, level):
    """Replicas of an earlier program know of no such bound."""
    monkeypatch.setattr(files, "DELETED_MAX", 3)
    monkeypatch.setattr(files, "TRANSACTION_ROWS_MAX", 0)
    monkeypatch.setattr(locking, "PLACES_OF_SESSION_MAX", 0)
    asking, session = with_keys(6, level)
    assert isinstance(asking.acquire(session), Granted)
    ops = (ReadRange("", prefix=True), DeleteRange("k/0", "k/3"), DeleteRange("k/3", "k/6"))
    assert asking.ask(session, Transact((Compare("deploy", "lock", ">", 0),), ops)).succeeded


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", range(20))
def test_a_replica_that_began_with_a_snapshot_goes_over_as_many_rows(monkeypatch, seed):
    """What is refused for them is refused by all."""
    monkeypatch.setattr(history, "CHANGES_MAX", 12)
    monkeypatch.setattr(history, "_STALE_MAX", 3)
    chance = random.Random(seed)
    asking = Asking()
    session = asking.open()
    for _ in range(60):
        key = f"{chance.choice('abcd')}/{chance.randrange(4)}"
        asking.ask(session, DeleteKey(key) if chance.random() < 0.3 else PutKey(key, b"v"))
        if chance.random() < 0.05:
            asking.ask(session, DeleteRange(key[:2], prefix=True))
    other = Asking()
    other.machine = restored(asking.machine)
    compared = 0
    for revision in range(asking.machine.state.history.compacted, asking.index + 1):
        for start in ("", "a/", "c/2"):
            for sort_by in ("key", "version"):
                query = ReadRange(start, prefix=True, revision=revision, sort_by=sort_by)
                assert rows(asking, query) == rows(other, query)
                compared += 1
    assert compared


@pytest.mark.parametrize(("keys", "revision", "key_by_key"), [(40, 0, False), (2, 3, True)])
def test_a_count_of_the_past_takes_the_shorter_way(keys, revision, key_by_key):
    asking, session = with_keys(0)
    for number in range(40):
        asking.ask(session, PutKey(f"k/{number % keys}", b""))
    for number in range(40):
        asking.ask(session, DeleteKey(f"k/{number % keys}"))
        asking.ask(session, PutKey("other", b""))
    revision = revision or asking.index - 10
    query = ReadRange("k/", prefix=True, revision=revision, count_only=True)
    before = asking.machine.state.work.rows
    counted = asking.query(query).count
    assert (asking.machine.state.work.rows - before == 2 * keys) == key_by_key
    walked = asking.query(ReadRange("k/", prefix=True, revision=revision)).keys
    assert counted == len(walked)


def test_what_a_directory_of_the_past_goes_over_is_counted():
    asking, session = with_keys(40)
    revision = asking.index
    for number in range(60):
        asking.ask(session, PutKey(f"other/{number}", b""))
    assert rows(asking, ReadDirectory("other", revision)) >= 60, "each change since"
    assert rows(asking, ReadStat("k", revision)) == 60
    for _ in range(300):
        asking.ask(session, PutKey("other/0", b""))
    assert rows(asking, ReadStat("k", revision)) == 2 * 40, "or each key, where these are few"


def test_what_queries_go_over_without_telling_of_it_is_counted():
    asking, session = with_keys(10)
    for acquisition in range(5):
        asking.ask(session, Acquire(("many",), acquisition, "counting", limit=9))
    assert rows(asking, ReadChanges("none", since=1)) >= 9
    assert rows(asking, ReadLockEvents("none", since=1)) >= 4
    assert rows(asking, ListDirectory("k")) >= 10
    assert rows(asking, CheckSequencer("many:counting:1")) == 5
    administer = SetPrincipal("ci", commands.RIGHTS)
    asking.ask(asking.open("web"), administer, "web")
    asking.ask(session, SetRole("nobodys"))
    assert rows(asking, ListMembers("nobodys")) == rows(asking, ListPermissions("principal")) == 3


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.interpreted
def test_a_session_holds_and_waits_for_so_many_and_no_more(monkeypatch):
    monkeypatch.setattr(locking, "PLACES_OF_SESSION_MAX", 4)
    asking = Asking()
    one, other = asking.open(), asking.open()
    assert isinstance(asking.acquire(other, "taken"), Granted)
    assert isinstance(asking.ask(one, Acquire(("a", "b"), 1)), Granted)
    assert isinstance(asking.ask(one, Acquire(("taken", "c"), 2)), Queued)
    for op in (
        Acquire(("d",), 3),
        Acquire(("a",), 3, reentrant=True),
        Acquire(("taken",), 3),
        commands.AcquireLock("d", 3, wait=False),
        commands.AcquireLock("taken", 3, wait=True),
    ):
        answer = asking.ask(one, op)
        assert (answer.code, "its 4 holds" in answer.message) == (commands.FULL, True)
    assert "d" not in asking.machine.locks
    assert isinstance(asking.ask(one, commands.AcquireLock("taken", 3, wait=False)), commands.Held), "it takes no place"
    assert isinstance(asking.ask(one, Acquire(("a", "b"), 1)), Granted), "asked again it takes none"
    asking.release(other, "taken")
    assert asking.machine.sessions[one].places == 4, "let in, it has what it had"
    assert isinstance(asking.ask(one, ReleaseLock("a", 1)), Done)
    assert isinstance(asking.ask(one, Acquire(("d",), 3)), Granted)
    assert isinstance(asking.ask(other, Acquire(("e", "f", "g", "h"), 1)), Granted), "another's are its own"


@pytest.mark.interpreted
def test_a_refusal_for_it_is_no_conflict(monkeypatch):
    monkeypatch.setattr(locking, "PLACES_OF_SESSION_MAX", 1)
    asking = Asking()
    one, other = asking.open(), asking.open()
    asking.acquire(other, "taken")
    asking.acquire(one, "mine")
    assert asking.acquire(one, "taken").code == commands.FULL
    events = asking.query(ReadLockEvents("taken", since=1)).events
    assert [event.kind for event in events] == [lock_commands.ACQUIRED]


@pytest.mark.interpreted
def test_nothing_is_handed_over_to_a_session_that_has_all_it_may(monkeypatch):
    monkeypatch.setattr(locking, "PLACES_OF_SESSION_MAX", 2)
    asking = Asking()
    one, heir = asking.open(), asking.open()
    asking.ask(one, Acquire(("a",), 1))
    asking.ask(one, Acquire(("b",), 1))
    asking.ask(heir, Acquire(("c",), 1))
    asking.ask(heir, Acquire(("a",), 1))
    answer = asking.ask(one, HandOver("b", 1, heir, 9))
    assert (answer.code, f"session {heir}" in answer.message) == (commands.FULL, True)
    assert asking.holder("b") == (one, 1)
    assert isinstance(asking.ask(one, HandOver("b", 1, one, 2)), Done), "to itself it takes no place more"
    assert isinstance(asking.ask(one, HandOver("a", 1, heir, 1)), Done), "it leaves the line for it"
    assert asking.machine.sessions[heir].places == 2
    restored(asking.machine)


def test_what_a_session_holds_is_told_in_one_packet():
    """With names that are as long as they may be."""
    names = tuple(f"{number:05}".ljust(commands.NAME_BYTES_MAX, "x") for number in range(locks.PLACES_OF_SESSION_MAX))
    view = commands.SessionView(1, "ci", 1_000, 1_000, names)
    assert len(wire.encode(wire.Answer(1, view))) + wire.PACKET_BYTES_TARGET < wire.PACKET_BYTES_MAX


def test_the_end_of_a_session_is_counted_as_what_it_had_and_itself():
    asking = Asking()
    session = asking.open()
    for number in range(3):
        asking.acquire(session, f"l{number}")
    asking.ask(session, files.CreateFile("f", b"", ephemeral=True))
    before = asking.machine.state.work.changes
    asking.ask(session, commands.CloseSession())
    assert asking.machine.state.work.changes - before == 5 * work.CHANGE_ROWS


@pytest.mark.interpreted
@pytest.mark.parametrize(("level", "most"), [(commands.LEVEL, 2), (3, 3)])
def test_a_session_has_so_many_ephemeral_files_and_no_more(monkeypatch, level, most):
    monkeypatch.setattr(namespace, "EPHEMERALS_MAX", 2)
    monkeypatch.setattr(namespace, "EPHEMERALS_MAX_BEFORE", 3)
    asking = Asking(level)
    one, other = asking.open(), asking.open()
    asking.ask(other, files.CreateFile("others", b"", ephemeral=True))
    for number in range(most):
        assert isinstance(asking.ask(one, files.CreateFile(f"f{number}", b"", ephemeral=True)), files.Created)
    for op in (files.CreateFile("g", b"", ephemeral=True), files.AttachFile("others")):
        answer = asking.ask(one, op)
        assert (answer.code, f"its {most} ephemeral files" in answer.message) == (commands.FULL, True)
    assert isinstance(asking.ask(one, files.CreateFile("g", b"")), files.Created)
    asking.ask(one, DeleteKey("f0"))
    assert isinstance(asking.ask(one, files.AttachFile("others")), Done)


# --- the lines of locks ---------------------------------------------------------------------------


def changes(asking: Asking, session: int, op: commands.ClientOp) -> int:
    before = asking.machine.state.work.changes
    asking.ask(session, op)
    return asking.machine.state.work.changes - before


def test_a_checksum_of_much_content_is_work():
    asking, session = with_keys(1)
    asking.ask(session, PutKey("large", b"v" * 40_960))
    assert (rows(asking, files.GetStat("k/0")), rows(asking, files.GetStat("large"))) == (0, 40)


def test_what_is_done_in_a_long_line_is_work():
    asking = Asking()
    holder, *waiting = [asking.open() for _ in range(6)]
    asking.ask(holder, Acquire(("a",), 1))
    for session in waiting:
        assert changes(asking, session, Acquire(("a",), 1, lock_commands.SHARED)) == 0
    let_in = changes(asking, holder, lock_commands.Release(("a",), 1))
    assert let_in == work.CHANGE_ROWS * len(waiting)


def test_to_take_over_a_place_in_a_long_line_is_work():
    asking = Asking()
    holder, *waiting = [asking.open() for _ in range(6)]
    asking.ask(holder, Acquire(("a",), 1))
    for session in waiting:
        asking.ask(session, Acquire(("a",), 1))
    assert changes(asking, waiting[0], commands.AcquireLock("a", 2, wait=True, take_over=True)) == len(waiting)
    assert changes(asking, holder, commands.AcquireLock("a", 2, wait=True, take_over=True)) == 1


def test_a_search_for_a_deadlock_is_work():
    asking = Asking()
    first, second = asking.open(), asking.open()
    asking.ask(first, Acquire(("a",), 1))
    asking.ask(second, Acquire(("b",), 1))
    assert changes(asking, first, Acquire(("c",), 2, refuse_deadlocks=True)) == 0
    asking.ask(second, Acquire(("a",), 2))
    assert changes(asking, first, Acquire(("b",), 3, refuse_deadlocks=True)) > 0


def test_changes_that_are_skipped_are_rows():
    asking, session = with_keys(8)
    asking.ask(session, DeleteRange("k", prefix=True))
    revision = asking.machine.applied
    assert rows(asking, ReadChanges("k", prefix=True, since=revision, skip=6)) >= 8
