"""docs/semantics.md says what each command and query is answered with. Here each of those answers comes about, and no
other does; the bounds are so small that they are reached."""

from __future__ import annotations

import re
import typing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.statemachine import administration, files, lock_events, locking, namespace, permissions, roles
from coordinator.statemachine import commands as c
from coordinator.statemachine import lock_commands as lc
from tests.unit import pages
from tests.unit.statemachine import fuzzing
from tests.unit.statemachine.asking import Asking

PAGE = pages.DOCS / "semantics.md"
OF_ANY = {"invalid", "forbidden"}
OF_COMMANDS = {"outcome-unknown", "acknowledged", "cancelled", "busy"}
ANSWERED = {
    request: {*pages.words(f"{done} | {refused}")}
    for table in pages.section(PAGE, "What each is answered with").split("\n\n")
    if table.startswith("| ")
    for requests, done, refused in ((*cells, "")[:3] for cells in pages.rows(table)[1:])
    for request in pages.words(requests)
}
"""Of each command and query: results, and codes of failures, that are its own."""
NOBODY = 9
"""A session that there is not."""


def told(result: Any) -> str:
    return result.code if isinstance(result, c.Failure) else type(result).__name__


class Noted(Asking):
    """`found`: what each request was answered with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, set[str]] = {}
        self.not_there: set[str] = set()
        """Those that were `Done` with `existed` false."""
        self.one, self.two, self.three = (self.open("web") for _ in range(3))

    def note(self, request: Any, result: Any) -> None:
        self.found.setdefault(type(request).__name__, set()).add(told(result))
        if result == c.Done(self.index):
            self.not_there.add(type(request).__name__)
        if isinstance(result, c.Aborted):
            self.note(request.then[result.place[0]], result.refusal)

    def by(self, session: int, *ops: Any) -> None:
        for op in ops:
            self.note(op, self.ask(session, op, "web"))

    def first(self, *ops: Any) -> None:
        self.by(self.one, *ops)

    def second(self, *ops: Any) -> None:
        self.by(self.two, *ops)

    def opens(self) -> None:
        op = c.OpenSession(15_000, b"")
        self.note(op, self.send(0, 0, op, "web"))

    def see(self, *queries: Any) -> None:
        for query in queries:
            self.note(query, self.query(query, "web"))


def of_files(noted: Noted, set_bound: Any) -> None:
    noted.first(c.PutKey("k", b"1"), files.AddToKey("n", 1), files.MakeDirectory("d"), files.MakeDirectory("d"))
    noted.first(c.PutKey("d", b""), files.AddToKey("d", 1), c.DeleteKey("d"), c.DeleteKey("none"))
    noted.first(files.MakeDirectory("x/y"), files.MakeDirectory("k/y"))
    noted.first(*(files.CreateFile(path, b"") for path in ("d/1", "d/1", "d/2", "d/3", "x/y", "k/y")))
    noted.first(files.CreateFile("e", b"", ephemeral=True), files.CreateFile("o", b"", owner=NOBODY))
    noted.first(files.WriteFile("k", b""), files.WriteFile("k", b"", 9), files.WriteFile("none", b""))
    noted.first(
        files.WriteFile("d", b""), files.DeletePath("none"), files.DeletePath("d"), files.DeletePath("k", False, 9)
    )
    noted.first(files.AttachFile("e"), files.AttachFile("none"), files.AttachFile("k"), files.AttachFile("e", NOBODY))
    noted.second(files.AttachFile("e"))
    set_bound(namespace, "ATTACHED_MAX", 2)
    noted.by(noted.three, files.AttachFile("e"), files.DetachFile("e"), files.DetachFile("e", NOBODY))
    set_bound(files, "DELETED_MAX", 3)
    noted.first(files.DeletePath("d", recursive=True), files.DeleteRange("d", prefix=True), files.DeleteRange("none"))
    noted.first(files.DeletePath("d/1"), c.Transact((), (c.PutKey("a", b""),)))
    noted.first(c.Transact((), tuple(c.DeleteKey(key) for key in ("a", "k", "n", "d/2"))))
    noted.first(c.Transact((files.Compare("k", "version", "=", 1),) * 129, ()))
    noted.see(c.GetKey("k"), files.ReadFile("k"), files.ReadFile("none"), files.ReadFile("d"))
    noted.see(files.GetStat("k"), files.GetStat("none"), files.ReadRange("", prefix=True), files.ReadChanges("k"))
    noted.see(files.ListDirectory("d"), files.ListDirectory("none"), files.ListDirectory("k"))
    noted.see(files.ReadDirectory("d"), files.ReadDirectory("none"), files.ReadDirectory("k"))
    noted.see(files.ReadStat("k"), files.ReadStat("none"))
    set_bound(files, "SORTED_MAX", 1)
    noted.see(files.ReadRange("", prefix=True, sort_by="value"))
    noted.first(files.Compact(noted.index), files.Compact(1), files.BeginCaching())
    noted.see(files.ReadFile("k", 1), files.ReadRange("k", revision=1), files.ReadChanges("k", since=1))
    noted.see(files.ReadStat("k", 1), files.ReadDirectory("d", 1))


def of_locks(noted: Noted, set_bound: Any) -> None:
    for take in (
        c.AcquireLock,
        lambda name, number, wait, owner=0: lc.Acquire((name,), number, wait=wait, owner=owner),
    ):
        noted.first(take("l", 1, True), take("l", 1, True, NOBODY))
        noted.second(take("l", 1, True), take("l", 2, False), c.CancelAcquire("l", 1, 999))
    noted.first(lc.Acquire(("p",), 1))
    noted.second(lc.Acquire(("q",), 1), lc.Acquire(("p",), 2))
    noted.first(lc.Acquire(("q",), 2), lc.Acquire(("s", "t"), 1))
    noted.second(c.ReleaseLock("none", 1), lc.Release(("none",), 1), c.CancelAcquire("none", 1, 999))
    noted.first(c.ReleaseLock("l", 1, NOBODY), lc.Release(("l",), 1, NOBODY), c.CancelAcquire("l", 1, 999, NOBODY))
    noted.first(lc.ForceRelease("l", "why"), lc.ForceRelease("none", "why"), lc.ForceRelease("s", "why"))
    noted.first(c.ReleaseLock("l", 1), lc.Release(("l",), 1), c.CancelAcquire("l", 1, 999), lc.Acquire(("s", "t"), 1))
    noted.see(c.AwaitGrant("l", 1, noted.one), c.AwaitGrant("p", 1, noted.one), c.AwaitGrant("p", 2, noted.two))
    noted.see(c.AwaitGrant("none", 1, noted.one), c.AwaitGrant("l", 1, NOBODY))
    noted.first(c.ReleaseLock("p", 1), lc.Acquire(("u",), 1, mode="shared"), lc.ChangeMode("none", 1, "shared"))
    noted.second(lc.Release(("q",), 1), lc.Acquire(("u",), 1, mode="shared"))
    noted.first(lc.ChangeMode("u", 1, "exclusive", wait=False), lc.ChangeMode("u", 1, "exclusive"))
    noted.by(noted.three, lc.Acquire(("u",), 1, mode="shared"))
    noted.second(lc.HandOver("u", 1, noted.three, 1))
    noted.by(noted.three, lc.Release(("u",), 1))
    noted.second(lc.ChangeMode("u", 1, "exclusive"), lc.ChangeMode("u", 1, "shared"))
    noted.first(lc.ChangeMode("u", 1, "shared", owner=NOBODY), lc.ChangeMode("u", 1, "shared"), lc.Acquire(("h",), 1))
    noted.by(noted.three, lc.Acquire(("z",), 1), lc.Acquire(("h",), 2))
    noted.second(lc.Acquire(("z",), 5))
    noted.first(lc.HandOver("h", 1, noted.two, 9), lc.HandOver("none", 1, noted.two, 9), lc.HandOver("h", 1, NOBODY, 9))
    noted.first(lc.HandOver("h", 1, noted.one, 9, NOBODY), lc.HandOver("h", 1, noted.one, 9))
    noted.see(c.GetLock("h"), lc.GetLockState("h"), c.ListLocks(), lc.CheckSequencer("h:exclusive:1"), lc.ListBreaks())
    set_bound(lock_events, "LOCK_EVENTS_MAX", 1)
    noted.first(lc.Acquire(("v",), 1))
    noted.see(lc.ReadLockEvents("h"), lc.ReadLockEvents("h", since=1))
    early = lc.ReadLockEvents("h")
    noted.note(early, Asking(level=3).query(early, "web"))
    noted.see(lc.ReadLockLives("h"), lc.ReadLockLives("h", since=1))
    ends = lc.ReadLockLives("h")
    noted.note(ends, Asking(level=4).query(ends, "web"))
    set_bound(locking, "PLACES_OF_SESSION_MAX", 0)
    noted.first(lc.HandOver("v", 1, noted.three, 9))


def of_rights(noted: Noted, set_bound: Any) -> None:
    key = b"k" * 32
    noted.first(c.SetPrincipal("x", ("read",)), c.AddToken("d" * 16, "x", key), c.AddToken("e" * 16, "none", key))
    noted.first(permissions.SetRole("r"), permissions.SetPermission("principal", "x", "", ("write",)))
    noted.first(permissions.SetPermission("role", "none", "", ()), permissions.SetRoles("x", ("r",)))
    noted.first(permissions.SetRoles("none", ()), permissions.NarrowToken("d" * 16, ()))
    noted.first(permissions.NarrowToken("none", ()), permissions.SetQuota("none", None))
    noted.see(c.GetToken("d" * 16), c.GetToken("none"), permissions.GetTokenAccess("d" * 16))
    noted.see(permissions.GetTokenAccess("none"), c.GetPrincipal("x"), c.GetPrincipal("none"), c.ListPrincipals())
    noted.see(permissions.GetAccess("x"), permissions.GetAccess("none"), permissions.ListPermissions("role"))
    noted.see(permissions.ListRoles(), permissions.ListMembers("r"), permissions.ListMembers("none"))
    noted.see(permissions.GetQuota(), permissions.GetQuota("none"), permissions.ListQuotas())
    for module, bound in ((administration, "PRINCIPALS_MAX"), (administration, "TOKENS_MAX"), (roles, "ROLES_MAX")):
        set_bound(module, bound, 0)
    noted.first(c.SetPrincipal("y", ()), c.AddToken("f" * 16, "x", key), permissions.SetRole("s"))
    noted.first(c.RemoveToken("d" * 16), permissions.RemoveRole("r"), c.RemovePrincipal("x"))
    noted.first(c.SetWantedMembership(1, b""), c.SetWantedMembership(9, b""))
    noted.see(c.GetWantedMembership(), c.GetSession(noted.one), c.GetSession(NOBODY))
    noted.opens()
    none = permissions.Quota(0, 0, 0, 0, 0)
    noted.first(c.AcquireLock("w", 1, True), permissions.SetQuota(permissions.EACH, none))
    noted.opens()
    noted.second(
        c.AcquireLock("w", 1, True),
        lc.Acquire(("w",), 2, refuse_deadlocks=False),
        c.PutKey("new", b""),
        files.AddToKey("new", 1),
    )
    noted.second(files.CreateFile("new", b""), files.MakeDirectory("new"), files.WriteFile("k", b"longer"))
    noted.by(noted.three, c.CloseSession(NOBODY), c.CloseSession())


@pytest.mark.long
@pytest.mark.interpreted
def test_each_answer_on_the_page_comes_about_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted()
    for deeds in (of_files, of_locks, of_rights):
        with monkeypatch.context() as bounds:
            deeds(noted, bounds.setattr)
    found = {request: words - OF_ANY - OF_COMMANDS for request, words in noted.found.items()}
    assert found == ANSWERED
    (said,) = re.findall(r"`existed`: (of .*?), of every other command always true", PAGE.read_text(), re.DOTALL)
    assert {name for name in noted.not_there if not name.startswith("Remove")} == {*pages.words(said)}
    assert {kind.__name__ for kind in (*typing.get_args(c.ClientOp), *typing.get_args(c.Query))} == ANSWERED.keys()


@given(st.data())
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_nothing_is_answered_with_what_the_page_does_not_say(data: st.DataObject) -> None:
    asking = Asking()
    sessions = [asking.open("web"), asking.open("web")]
    for _ in range(data.draw(st.integers(1, 20))):
        op = data.draw(fuzzing.any_of(c.ClientOp))
        answer = told(asking.ask(data.draw(st.sampled_from(sessions)), op, "web"))
        assert answer in ANSWERED[type(op).__name__] | OF_ANY | OF_COMMANDS, op
        query = data.draw(fuzzing.any_of(c.Query))
        assert told(asking.query(query, "web")) in ANSWERED[type(query).__name__] | OF_ANY, query
