"""Quotas: what is counted for whom, what is refused over them, and what never is."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, quotas
from coordinator.statemachine.commands import (
    RIGHTS,
    CloseSession,
    DeleteKey,
    Done,
    ExpireSessions,
    Failure,
    Granted,
    OpenSession,
    PutKey,
    Queued,
    RemovePrincipal,
    SetPrincipal,
    Transact,
)
from coordinator.statemachine.files import (
    AddToKey,
    Created,
    CreateFile,
    DeletePath,
    DetachFile,
    MakeDirectory,
    ReadRange,
    WriteFile,
)
from coordinator.statemachine.lock_commands import Acquire, Release
from coordinator.statemachine.permissions import CLUSTER, EACH, GetQuota, ListQuotas, Quota, QuotaView, SetQuota, Used
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored


class Counted(Asking):
    def __init__(self) -> None:
        super().__init__()
        self.web = self.open("web")
        self.ci = self.open("ci")
        self.other = self.open("narrow")
        self.set(SetPrincipal("narrow", ("read", "write", "lock")))

    def set(self, op: commands.ClientOp):
        return self.ask(self.web, op, "web")

    def quota(self, principal: str = "ci", **amounts: int):
        done = self.set(SetQuota(principal, Quota(**amounts)))
        assert isinstance(done, Done), done
        return done

    def used(self, principal: str = "ci") -> Used:
        return self.query(GetQuota(principal), "web").used

    def full(self, result, what: str) -> bool:
        assert isinstance(result, Failure), result
        assert result.code == commands.FULL, result
        assert what in result.message, result.message
        return True


def test_a_key_counts_for_who_created_it_whoever_writes_it():
    cluster = Counted()
    cluster.ask(cluster.ci, PutKey("abc", b"12"))
    cluster.ask(cluster.other, PutKey("abc", b"1234"), "narrow")
    assert (cluster.used(), cluster.used("narrow")) == (Used(7, 1, 1, 0), Used(0, 0, 1, 0))
    cluster.ask(cluster.other, WriteFile("abc", b""), "narrow")
    assert cluster.used() == Used(3, 1, 1, 0)
    cluster.ask(cluster.other, DeleteKey("abc"), "narrow")
    cluster.ask(cluster.other, AddToKey("abc", 10), "narrow")
    assert (cluster.used(), cluster.used("narrow")) == (Used(0, 0, 1, 0), Used(5, 1, 1, 0))
    assert cluster.used(CLUSTER) == Used(5, 1, 3, 0)


def test_over_quota_is_full_with_the_number_and_what_it_counts_and_nothing_is_done():
    cluster = Counted()
    cluster.quota(keys=2, key_bytes=10)
    cluster.ask(cluster.ci, PutKey("a", b"123"))
    cluster.ask(cluster.ci, PutKey("b", b"1"))
    assert cluster.ask(cluster.ci, PutKey("c", b"")) == Failure(
        "full", "principal 'ci' has a quota of 2 keys, has 2, and this takes 1 more"
    )
    assert cluster.ask(cluster.ci, PutKey("b", b"123456")) == Failure(
        "full", "principal 'ci' has a quota of 10 bytes of keys and contents, has 6, and this takes 5 more"
    )
    assert isinstance(cluster.ask(cluster.ci, PutKey("b", b"12345")), Done), "to the last byte"
    assert cluster.full(cluster.ask(cluster.other, PutKey("b", b"123456"), "narrow"), "principal 'ci'"), "its owner's"
    assert isinstance(cluster.ask(cluster.other, PutKey("x", bytes(99)), "narrow"), Done)
    assert cluster.query(ReadRange("", prefix=True)).count == 3


def test_reads_releases_and_what_shrinks_still_work_over_quota():
    cluster = Counted()
    cluster.ask(cluster.ci, PutKey("a", b"123"))
    cluster.ask(cluster.ci, PutKey("b", b"123"))
    held = [cluster.ask(cluster.ci, Acquire(("l",), 1)), cluster.ask(cluster.other, Acquire(("l",), 1), "narrow")]
    assert [type(result) for result in held] == [Granted, Queued]
    cluster.quota(keys=0, key_bytes=0, sessions=0, waiters=0)
    cluster.quota(CLUSTER, keys=0, key_bytes=0, sessions=0, waiters=0)
    assert cluster.query(commands.GetKey("a")).value == b"123"
    assert isinstance(cluster.ask(cluster.ci, PutKey("a", b"12")), Done)
    assert isinstance(cluster.ask(cluster.ci, PutKey("a", b"34")), Done), "no larger"
    assert cluster.full(cluster.ask(cluster.ci, PutKey("a", b"345")), "the cluster")
    assert isinstance(cluster.ask(cluster.ci, DeleteKey("a")), Done)
    assert cluster.full(cluster.ask(cluster.ci, PutKey("a", b"")), "the cluster")
    assert cluster.ask(cluster.ci, Acquire(("m",), 2)).token, "no line is joined"
    assert cluster.full(cluster.ask(cluster.web, Acquire(("l",), 1), "web"), "waiters")
    assert isinstance(cluster.ask(cluster.ci, Release(("l",), 1)), Done)
    assert cluster.holder("l") == (cluster.other, 1)
    assert isinstance(cluster.ask(cluster.ci, CloseSession()), Done)
    assert cluster.full(cluster.send(0, 0, OpenSession(5_000, b""), "ci"), "sessions")


def test_shrinking_below_use_stops_growth_only_and_room_comes_back():
    cluster = Counted()
    for key in "abc":
        cluster.ask(cluster.ci, PutKey(key, b""))
    cluster.quota(keys=2)
    assert cluster.query(GetQuota("ci"), "web") == QuotaView("ci", Quota(keys=2), Quota(keys=2), Used(3, 3, 1, 0))
    assert cluster.full(cluster.ask(cluster.ci, PutKey("d", b"")), "quota of 2 keys, has 3")
    for key in "ab":
        cluster.ask(cluster.ci, DeleteKey(key))
    assert isinstance(cluster.ask(cluster.ci, PutKey("d", b"")), Done)
    assert cluster.full(cluster.ask(cluster.ci, PutKey("e", b"")), "keys")
    assert cluster.set(SetQuota("ci", None)) == Done(cluster.index, existed=True)
    assert isinstance(cluster.ask(cluster.ci, PutKey("e", b"")), Done)
    assert cluster.set(SetQuota("ci", None)) == Done(cluster.index, existed=False)


def test_directories_that_are_made_on_the_way_count_all_together():
    cluster = Counted()
    cluster.quota(keys=3)
    assert cluster.full(cluster.ask(cluster.ci, CreateFile("a/b/c/d", b"", parents=True)), "takes 4 more")
    assert cluster.machine.keys == {}
    assert isinstance(cluster.ask(cluster.ci, CreateFile("a/b/c", b"", parents=True)), Created)
    assert cluster.used() == Used(9, 3, 1, 0)
    assert cluster.full(cluster.ask(cluster.ci, MakeDirectory("e")), "keys")
    cluster.quota(keys=9, key_bytes=9 + 10)
    assert cluster.full(cluster.ask(cluster.ci, CreateFile("e/f/g", bytes(2), parents=True)), "takes 11 more")
    assert isinstance(cluster.ask(cluster.ci, CreateFile("e/f/g", bytes(1), parents=True)), Created)
    cluster.ask(cluster.other, DeletePath("a", recursive=True), "narrow")
    assert cluster.used() == Used(10, 3, 1, 0)


def test_an_aborted_transaction_leaves_the_counts_as_they_were():
    cluster = Counted()
    cluster.ask(cluster.other, PutKey("o", b"123"), "narrow")
    before = (cluster.used(), cluster.used("narrow"), cluster.used(CLUSTER))
    cluster.quota(keys=2)
    ops = (PutKey("a", b"1"), DeleteKey("o"), CreateFile("d/e", b"", parents=True))
    aborted = cluster.ask(cluster.ci, Transact((), ops))
    assert aborted.place == (2,)
    assert cluster.full(aborted.refusal, "keys")
    assert (cluster.used(), cluster.used("narrow"), cluster.used(CLUSTER)) == before
    cluster.ask(cluster.ci, Transact((), (PutKey("a", b"1"), PutKey("o", b""))))
    assert (cluster.used(), cluster.used("narrow")) == (Used(2, 1, 1, 0), Used(1, 1, 1, 0))


def test_what_goes_with_a_session_is_given_back_to_its_owner():
    cluster = Counted()
    second = cluster.open("ci")
    cluster.ask(second, CreateFile("e", b"12", ephemeral=True))
    cluster.ask(cluster.other, Acquire(("l", "m"), 1), "narrow")
    cluster.ask(second, Acquire(("l", "m"), 1))
    cluster.ask(cluster.ci, Acquire(("m",), 1))
    assert cluster.used() == Used(3, 1, 2, 3)
    cluster.machine = restored(cluster.machine)
    cluster.node(ExpireSessions((second,)))
    assert cluster.used() == Used(0, 0, 1, 1)
    cluster.ask(cluster.other, Release(("l", "m"), 1), "narrow")
    assert cluster.used() == Used(0, 0, 1, 0)
    cluster.node(ExpireSessions((cluster.ci, cluster.other)))
    assert {*cluster.machine.state.uses} == {"web"}, "nothing is remembered of who has nothing"
    cluster.ask(cluster.web, Acquire(("l",), 1), "web")


def test_places_in_line_count_one_each_and_no_one_gets_in_past_the_quota():
    cluster = Counted()
    cluster.ask(cluster.other, Acquire(("a", "b", "c"), 1), "narrow")
    cluster.quota(waiters=3)
    assert isinstance(cluster.ask(cluster.ci, Acquire(("a", "b"), 1)), Queued)
    refused = cluster.ask(cluster.ci, Acquire(("b", "c"), 2))
    assert cluster.full(refused, "principal 'ci' has a quota of 3 waiters, has 2, and this takes 2 more")
    assert isinstance(cluster.ask(cluster.ci, commands.AcquireLock("c", 2, wait=True)), Queued)
    assert isinstance(cluster.ask(cluster.ci, Acquire(("a", "b"), 1)), Queued), "asked again it has its place"
    assert cluster.full(cluster.ask(cluster.ci, commands.AcquireLock("c", 3, wait=True)), "waiters")
    cluster.quota(CLUSTER, waiters=4)
    assert isinstance(cluster.ask(cluster.web, Acquire(("a",), 1), "web"), Queued)
    assert cluster.full(cluster.ask(cluster.web, Acquire(("a",), 2), "web"), "the cluster has a quota of 4 waiters")


def test_sessions_are_counted_and_a_retry_finds_the_first():
    cluster = Counted()
    cluster.quota(sessions=2)
    opened = cluster.send(0, 0, OpenSession(5_000, b"n"), "ci")
    assert opened.session
    assert cluster.send(0, 0, OpenSession(5_000, b"n"), "ci") == opened
    assert cluster.full(cluster.send(0, 0, OpenSession(5_000, b"m"), "ci"), "principal 'ci' has a quota of 2 sessions")
    for_user = cluster.send(0, 0, OpenSession(5_000, b""), "ci", "web")
    assert cluster.full(for_user, "principal 'ci'")
    assert isinstance(cluster.send(0, 0, OpenSession(5_000, b""), "narrow"), commands.SessionOpened)
    cluster.ask(cluster.ci, CloseSession())
    assert isinstance(cluster.send(0, 0, OpenSession(5_000, b"m"), "ci"), commands.SessionOpened)


def test_a_principal_without_a_quota_of_its_own_has_that_of_each():
    cluster = Counted()
    cluster.quota(EACH, keys=1, watches=7)
    cluster.quota("ci", sessions=5)
    assert isinstance(cluster.ask(cluster.other, PutKey("a", b""), "narrow"), Done)
    assert cluster.full(cluster.ask(cluster.other, PutKey("b", b""), "narrow"), "principal 'narrow' has a quota of 1")
    assert all(isinstance(cluster.ask(cluster.ci, PutKey(key, b"")), Done) for key in "bc")
    watches = cluster.machine.refuse_watch
    assert (watches("narrow", 999, 6), watches("ci", 999, 999)) == (None, None)
    assert cluster.full(watches("narrow", 999, 7), "principal 'narrow' has a quota of 7 watches")
    cluster.quota(CLUSTER, watches=100)
    assert watches("ci", 99, 99) is None
    assert cluster.full(watches("ci", 100, 0), "the cluster has a quota of 100 watches")
    view = cluster.query(GetQuota("narrow"), "web")
    assert (view.own, view.quota) == (None, Quota(keys=1, watches=7))


def test_who_is_removed_leaves_what_it_owns_and_takes_its_quota_along():
    cluster = Counted()
    cluster.ask(cluster.ci, PutKey("a", b"1"))
    cluster.quota(keys=1)
    cluster.set(RemovePrincipal("ci"))
    assert cluster.query(GetQuota("ci"), "web") == QuotaView("ci", None, Quota(), Used(2, 1, 1, 0))
    cluster.machine = restored(cluster.machine)
    cluster.ask(cluster.other, PutKey("a", b"12"), "narrow")
    cluster.node(ExpireSessions((cluster.ci,)))
    assert cluster.used() == Used(3, 1, 0, 0)
    cluster.ask(cluster.other, DeleteKey("a"), "narrow")
    assert cluster.query(GetQuota("ci"), "web").code == commands.NOT_FOUND


def test_quotas_are_an_administrators_and_ones_own_may_be_seen():
    cluster = Counted()
    assert cluster.ask(cluster.ci, SetQuota("ci", None)).code == commands.FORBIDDEN
    assert cluster.query(GetQuota("ci")).used.sessions == 1
    assert cluster.query(GetQuota("narrow")).code == commands.FORBIDDEN
    assert cluster.query(GetQuota()).code == commands.FORBIDDEN
    assert cluster.query(ListQuotas()).code == commands.FORBIDDEN
    assert cluster.set(SetQuota("nobody", Quota())).code == commands.NOT_FOUND
    for amount in (-2, 2**53):
        assert cluster.set(SetQuota("ci", Quota(keys=amount))).code == commands.INVALID
    names = [view.principal for view in cluster.query(ListQuotas(limit=2), "web").quotas]
    assert names == ["ci", "narrow"]
    assert [view.principal for view in cluster.query(ListQuotas("narrow"), "web").quotas] == ["web"]


def test_a_detached_ephemeral_is_given_back_and_another_may_be_made():
    cluster = Counted()
    cluster.quota(keys=1)
    cluster.ask(cluster.ci, CreateFile("e", b"", ephemeral=True))
    assert cluster.full(cluster.ask(cluster.ci, CreateFile("f", b"", ephemeral=True)), "keys")
    cluster.ask(cluster.ci, DetachFile("e"))
    assert isinstance(cluster.ask(cluster.ci, CreateFile("f", b"", ephemeral=True)), Created)


@pytest.mark.parametrize("level", [1, 2])
def test_before_level_3_keys_have_no_owner_and_are_counted_for_the_cluster_alone(level):
    asking = Asking(level)
    web, ci = asking.open("web"), asking.open("ci")
    asking.ask(ci, PutKey("old", b"1"))
    for below in range(level, commands.LEVEL):
        asking.node(commands.RaiseLevel(below + 1))
    asking.ask(ci, PutKey("old", b"12"))
    asking.ask(ci, PutKey("new", b"1"))
    assert asking.query(GetQuota("ci")).used == Used(4, 1, 1, 0)
    assert isinstance(asking.ask(web, SetQuota(CLUSTER, Quota(keys=2, key_bytes=9)), "web"), Done)
    assert asking.ask(ci, PutKey("x", b"")).code == commands.FULL
    assert asking.ask(ci, PutKey("old", b"123")).code == commands.FULL
    assert isinstance(asking.ask(web, SetPrincipal("boss", RIGHTS), "web"), Done)
    asking.ask(ci, DeleteKey("old"))
    assert asking.query(GetQuota("ci")).used == Used(4, 1, 1, 0)
    restored(asking.machine)


@pytest.mark.interpreted
def test_no_quotas_cost_no_look_at_them(monkeypatch):
    """What most clusters have. The row of the table is looked for, and nothing else."""
    cluster = Counted()
    monkeypatch.setattr(quotas, "quota_of", None)
    assert isinstance(cluster.ask(cluster.ci, PutKey("a", b"1")), Done)
    assert isinstance(cluster.ask(cluster.other, Acquire(("a",), 1), "narrow"), Granted)
    assert isinstance(cluster.ask(cluster.ci, Acquire(("a",), 1)), Queued)
