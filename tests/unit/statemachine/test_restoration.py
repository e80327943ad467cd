"""A backup that becomes a new cluster: what was said behind it is undone, and nothing of that comes again."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.client import conditional
from coordinator.statemachine import lock_events, restoration
from coordinator.statemachine.commands import (
    CheckpointSessions,
    Done,
    ExpireSessions,
    Failure,
    GetKey,
    GetWantedMembership,
    Granted,
    PutKey,
    ResetCheckpoints,
    SetWantedMembership,
    WantedMembershipView,
)
from coordinator.statemachine.files import (
    BeginCaching,
    Compacted,
    CreateFile,
    Mismatch,
    ReadChanges,
    ReadFile,
    ReadRange,
    WriteFile,
)
from coordinator.statemachine.lock_commands import Acquire, EndLockDelays, LockEventPage, RaiseEpoch, ReadLockEvents
from coordinator.statemachine.locks import EPOCH_MAX, INDEX_BITS
from coordinator.statemachine.restoration import FIRST_INDEX_MAX, INDICES_PER_EPOCH, NotRestorable
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored


class Cluster(Asking):
    """Born in epoch 1."""

    def backed_up(self) -> Cluster:
        return self._copy()

    def restored(self, epoch: int, cluster: int = 99) -> Cluster:
        """The new cluster that this backup becomes; again and again, if need be."""
        copy = self._copy()
        index = restoration.first_index(copy.machine.state, copy.index, epoch)
        restoration.begin_anew(copy.machine.state, cluster, index - 1)
        copy.index = index - 1
        assert copy.node(RaiseEpoch(epoch)) == Done(index, existed=True)
        copy.machine = restored(copy.machine)
        return copy

    def _copy(self) -> Cluster:
        copy = Cluster.__new__(Cluster)
        copy.machine, copy.index = restored(self.machine), self.index
        copy.numbers, copy.log = dict(self.numbers), []
        return copy


def test_what_behind_the_backup_was_said_never_comes_again_though_one_backup_is_restored_twice():
    """Tokens, sessions and revisions: back up, go on, restore, go on, restore the same again, go on."""
    first = Cluster()
    first.open()
    backup = first.backed_up()
    seen: dict[str, list[Any]] = {"token": [], "session": [], "revision": []}
    for cluster in (first, backup.restored(2), backup.restored(3)):
        for _ in range(3):
            session = cluster.open()
            seen["session"].append(session)
            granted = cluster.acquire(session)
            assert isinstance(granted, Granted)
            seen["token"].append(granted.token)
            seen["revision"].append(cluster.ask(session, PutKey("k", b"v")).index)
            cluster.release(session)
    for what, numbers in seen.items():
        assert numbers == sorted({*numbers}), what
    assert max(seen["token"]) < 2**53


def test_a_client_of_before_does_not_speak_for_the_session_of_another():
    """Were sessions named by the index alone, the second would have the first one's name, and its results."""
    old = Cluster()
    backup = old.backed_up()
    ours = old.open()
    old.acquire(ours)
    new = backup.restored(2)
    for _ in range(20):
        theirs = new.open()
        assert theirs != ours
    new.acquire(theirs)
    answer = new.send(ours, 1, PutKey("k", b"v"))
    assert isinstance(answer, Failure)
    assert answer.code == "outcome-unknown"


def test_a_name_that_is_made_again_under_a_higher_epoch_has_other_sessions():
    old = Cluster()
    again = Cluster()
    again.machine.state.epoch = 2
    assert {old.open() for _ in range(5)}.isdisjoint({again.open() for _ in range(5)})


def test_whoever_followed_the_old_log_is_told_to_read_anew_and_can_go_on_from_there():
    """Else the watcher would keep what was undone, and never hear that it is not so."""
    old = Cluster()
    session = old.open()
    old.ask(session, PutKey("k", b"before"))
    backup = old.backed_up()
    position = old.ask(session, PutKey("k", b"undone")).index + 1
    new = backup.restored(2)
    for since in (1, position, position + 1_000):
        assert isinstance(new.query(ReadChanges("k", since=since)), Compacted)
        assert isinstance(new.query(ReadLockEvents("k", since=since)), Compacted)
    view = new.query(ReadRange("k"))
    assert view.keys[0].value == b"before"
    changed = new.ask(session, PutKey("k", b"after"))
    page = new.query(ReadChanges("k", since=view.revision + 1))
    assert [change.revision for change in page.changes] == [changed.index]


@pytest.mark.interpreted
def test_events_of_the_lost_log_stay_compacted_though_the_oldest_ones_of_the_backup_are_dropped(monkeypatch):
    """A backup has as many as are kept, so that the first one of the new log drops one of them."""
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 4)
    old = Cluster()
    session = old.open()
    for number in range(5):
        old.acquire(session, f"a{number}")
    backup = old.backed_up()
    old.acquire(session, "of the lost log")
    followed = old.index
    new = backup.restored(2)
    session = new.open()
    for _ in range(4):
        new.acquire(session)
        new.release(session)
        told = new.query(ReadLockEvents("", prefix=True, since=followed + 1))
        assert isinstance(told, Compacted)
        assert told.oldest > followed
    since = told.oldest + 1
    assert isinstance(new.query(ReadLockEvents("", prefix=True, since=since)), LockEventPage)


def test_a_revision_of_the_lost_log_holds_for_nothing_though_a_generation_may():
    """What the page warns of: generations are counted anew from the backup on."""
    old = Cluster()
    session = old.open()
    old.ask(session, CreateFile("a", b"before"))
    backup = old.backed_up()
    lost = old.ask(session, WriteFile("a", b"undone")).index
    seen = old.query(ReadFile("a")).stat
    new = backup.restored(2)
    again = new.open()
    new.ask(again, WriteFile("a", b"another's"))
    stat = new.query(ReadFile("a")).stat
    assert (stat.version, stat.instance) == (seen.version, seen.instance), "by these nobody can tell them apart"
    assert stat.revision > seen.revision == lost
    refused = new.ask(again, conditional.unchanged("a", lost, WriteFile("a", b"mine")))
    assert conditional.outcome("a", refused) == Mismatch(stat.revision, stat.version, stat.instance)
    assert new.query(ReadFile("a")).value == b"another's"
    done = new.ask(again, conditional.unchanged("a", stat.revision, WriteFile("a", b"mine")))
    assert conditional.outcome("a", done) == Done(new.index, existed=True)


def test_what_was_held_is_held_until_its_session_ends_and_who_waits_gets_a_higher_token():
    old = Cluster()
    holder, waiter = old.open(), old.open()
    before = old.acquire(holder).token
    old.acquire(waiter)
    backup = old.backed_up()
    old.release(holder)  # The waiter holds it now, in the log that is lost.
    assert old.holder() == (waiter, 1)
    lost_token = old.machine.locks["deploy"].token
    new = backup.restored(2)
    assert new.holder() == (holder, 1)
    assert new.machine.locks["deploy"].token == before
    new.node(ExpireSessions((holder,)))
    assert new.holder() == (waiter, 1)
    assert new.machine.locks["deploy"].token > lost_token > before


def test_no_checkpoint_outlives_a_restore():
    """A keep-alive was answered behind the backup, and reset it there: its client can prove the whole lease. Given what
    the checkpoint said, the session would be ended, and the lock granted to another, while it still does."""
    old = Cluster()
    kept, silent = old.open(), old.open()
    old.acquire(kept)
    old.node(CheckpointSessions(((kept, 100), (silent, 0))))
    backup = old.backed_up()
    old.node(ResetCheckpoints((kept,)))
    old.node(CheckpointSessions(((silent, 0),)))
    new = backup.restored(2)
    for session in (kept, silent):
        assert new.machine.sessions[session].remaining_ms is None
        assert new.machine.sessions[session].lease_ms == old.machine.sessions[session].ttl_ms
    assert new.holder() == (kept, 1)


def test_a_lock_delay_begins_anew_and_its_end_is_still_said():
    old = Cluster()
    holder, waiter = old.open(), old.open()
    old.ask(holder, Acquire(("l",), 1, delay_ms=9_000))
    old.ask(waiter, Acquire(("l",), 1))
    old.node(ExpireSessions((holder,)))
    since = old.index
    backup = old.backed_up()
    old.node(EndLockDelays((("l", since),)))  # In the log that is lost.
    new = backup.restored(2)
    assert new.machine.delays() == [("l", since, 9_000)]
    new.node(EndLockDelays((("l", since),)))
    held = new.machine.locks["l"].holder
    assert held is not None
    assert held.session == waiter


def test_who_may_cache_is_remembered():
    """So the leader holds back what changes a file until their leases of before have run out."""
    old = Cluster()
    session = old.open()
    old.ask(session, BeginCaching())
    assert old.backed_up().restored(2).machine.state.caching == {session}


def test_the_wanted_membership_of_the_old_nodes_is_not_that_of_the_new_cluster():
    old = Cluster()
    session = old.open("web")
    old.ask(session, SetWantedMembership(1, b"old"), "web")
    new = old.backed_up().restored(2)
    assert new.query(GetWantedMembership(), "web") == WantedMembershipView(0, b"")
    assert new.machine.cluster_id == 99


def test_a_restored_cluster_is_backed_up_and_restored_itself():
    old = Cluster()
    session = old.open()
    old.ask(session, PutKey("k", b"1"))
    second = old.backed_up().restored(4)
    session = second.open()
    second.ask(session, PutKey("k", b"2"))
    third = second.backed_up().restored(5)
    assert third.query(GetKey("k")).value == b"2"
    assert third.acquire(third.open()).token >> INDEX_BITS == 5


@pytest.mark.parametrize("epoch", [-1, 0, 1, EPOCH_MAX + 1])
def test_an_epoch_that_is_not_above_that_of_the_backup_is_refused(epoch):
    with pytest.raises(NotRestorable, match="expected an epoch above 1"):
        Cluster().restored(epoch)


def test_an_epoch_so_high_that_the_indices_would_not_last_is_refused():
    most = FIRST_INDEX_MAX // INDICES_PER_EPOCH
    assert Cluster().restored(most).index > FIRST_INDEX_MAX - INDICES_PER_EPOCH
    with pytest.raises(NotRestorable, match="indices"):
        Cluster().restored(most + 2)


def test_the_highest_epoch_of_a_backup_is_the_last_that_is_taken():
    old = Cluster()
    most = restoration.epoch_max(old.machine.state.epoch, old.index)
    assert restoration.first_index(old.machine.state, old.index, most) <= FIRST_INDEX_MAX
    with pytest.raises(NotRestorable):
        restoration.first_index(old.machine.state, old.index, most + 1)
    assert restoration.epoch_max(EPOCH_MAX - 1, 1) == EPOCH_MAX
    assert restoration.epoch_max(7, 1 << INDEX_BITS) == 7


def test_a_state_that_is_no_clusters_and_one_of_the_first_level_are_refused():
    old = Cluster(level=1)
    with pytest.raises(NotRestorable, match="level 1"):
        restoration.first_index(old.machine.state, old.index, 2)
    old.machine.state.cluster_id = 0
    with pytest.raises(NotRestorable, match="no cluster"):
        restoration.first_index(old.machine.state, old.index, 2)
