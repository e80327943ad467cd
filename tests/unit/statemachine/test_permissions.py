"""Permissions of principals, roles and narrowed tokens: what each request may do, from which entry on, and who may
change it."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, permissions
from coordinator.statemachine.commands import (
    RIGHTS,
    AddToken,
    DeleteKey,
    Done,
    GetKey,
    PutKey,
    RemovePrincipal,
    RemoveToken,
    SetPrincipal,
)
from coordinator.statemachine.files import ChangePage, Compare, ListDirectory, ReadChanges, ReadRange
from coordinator.statemachine.lock_commands import Acquire, ForceRelease, HandOver
from coordinator.statemachine.ordered import OrderedKeys
from coordinator.statemachine.permissions import (
    AccessView,
    GetAccess,
    GetTokenAccess,
    HeldPermission,
    ListMembers,
    ListPermissions,
    ListRoles,
    NarrowToken,
    Permission,
    RemoveRole,
    RoleView,
    SetPermission,
    SetRole,
    SetRoles,
)
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

EVERYTHING = Permission("", RIGHTS)


class Company(Asking):
    """`op` is nobody yet: a principal without any right, which has the session `self.op`."""

    def __init__(self) -> None:
        super().__init__()
        self.web = self.open("web")
        self.command(SetPrincipal("op", ()))
        self.op = self.open("op")

    def command(self, op: commands.ClientOp):
        return self.ask(self.web, op, "web")

    def puts(self, key: str, token: str = "") -> bool:
        return isinstance(self.ask(self.op, PutKey(key, b"1"), "op", token=token), Done)

    def reads(self, key: str, token: str = "") -> bool:
        answer = self.query(GetKey(key), "op", token=token)
        return not (isinstance(answer, commands.Failure) and answer.code == commands.FORBIDDEN)


def test_a_permission_is_some_rights_on_what_begins_with_a_prefix():
    company = Company()
    assert not company.puts("build/x")
    assert company.command(SetPermission("principal", "op", "build/", ("write",))) == Done(company.index, existed=False)
    assert company.puts("build/x")
    assert not company.puts("built")
    assert not company.reads("build/x")
    company.command(SetPermission("principal", "op", "", ("read",)))
    assert company.reads("anything")
    assert not company.puts("anything")
    assert company.command(SetPermission("principal", "op", "build/", ())) == Done(company.index, existed=True)
    assert not company.puts("build/x")


def test_each_right_reaches_as_far_as_its_own_prefixes():
    company = Company()
    company.command(SetPermission("principal", "op", "a/", ("read", "lock")))
    company.command(SetPermission("principal", "op", "b/", ("lock", "administer")))
    assert company.ask(company.op, Acquire(("a/1", "b/1"), 1), "op").token
    assert company.ask(company.op, Acquire(("a/1", "c/1"), 2), "op").code == commands.FORBIDDEN
    assert company.query(ReadRange("a/", prefix=True), "op").count == 0
    for query in (ReadRange("b/", prefix=True), ReadRange("a", "c"), ListDirectory("b"), ReadChanges("", prefix=True)):
        assert company.query(query, "op").code == commands.FORBIDDEN
    assert company.query(ListDirectory("a"), "op").code == commands.NOT_FOUND
    assert company.query(commands.GetLock("b/1"), "op").holder.session == company.op
    assert [lock.name for lock in company.query(commands.ListLocks(), "op").locks] == ["a/1", "b/1"]
    assert isinstance(company.ask(company.op, ForceRelease("b/1", "stuck"), "op"), Done)
    assert company.ask(company.op, ForceRelease("a/1", "stuck"), "op").code == commands.FORBIDDEN


@pytest.mark.interpreted
def test_a_page_of_locks_looks_at_no_others_than_may_be_seen(monkeypatch):
    """With a million locks of others one request for a page held up the node for a tenth of a second."""
    company = Company()
    names = ["a", "a/1", "a/1/x", "a/2", "b", "b/1", "c", "d/1", "d/2", "d0", "z"]
    for number, name in enumerate(names):
        company.ask(company.web, Acquire((name,), number), "web")
    for prefix, right in (("a/", "read"), ("a/1/", "lock"), ("d/", "lock"), ("e", "read"), ("z", "lock")):
        company.command(SetPermission("principal", "op", prefix, (right,)))
    looked: list[str] = []
    seek = OrderedKeys.seek

    def told(self, *where, **how):
        for name in seek(self, *where, **how):
            looked.append(name)
            yield name

    monkeypatch.setattr(OrderedKeys, "seek", told)
    seen = ["a/1", "a/1/x", "a/2", "d/1", "d/2", "z"]
    for limit in (1, 2, 4, 100):
        found: list[str] = []
        while page := company.query(commands.ListLocks(found[-1] if found else "", limit), "op").locks:
            found += [lock.name for lock in page]
            assert len(page) <= limit
        assert found == seen
    looked.clear()
    company.query(commands.ListLocks(), "op")
    assert len({*looked} - {*seen}) < len(("a/", "d/", "e", "z")), "one behind each prefix"


def test_a_transaction_is_held_to_each_of_its_parts():
    company = Company()
    company.command(SetPermission("principal", "op", "a/", ("write",)))
    company.command(SetPermission("principal", "op", "b/", ("read",)))
    good = commands.Transact((Compare("b/x", "version", "=", 0),), (PutKey("a/x", b"1"),))
    assert company.ask(company.op, good, "op").succeeded
    for compares, then in (((), (PutKey("b/x", b"1"),)), ((Compare("a/x", "version", "=", 0),), ())):
        assert company.ask(company.op, commands.Transact(compares, then), "op").code == commands.FORBIDDEN


def test_what_set_principal_says_keeps_its_meaning_beside_permissions_and_roles():
    company = Company()
    company.command(SetRole("readers", (Permission("logs/", ("read",)),)))
    company.command(SetRoles("op", ("readers",)))
    company.command(SetPermission("principal", "op", "tmp/", ("write",)))
    company.command(SetPrincipal("op", ("write",), ("build/",)))
    assert [company.puts(key) for key in ("build/x", "tmp/x", "logs/x")] == [True, True, False]
    assert company.reads("logs/x")
    company.command(SetPrincipal("op", ("write",)))
    assert company.puts("logs/x")
    assert company.query(GetAccess(), "op") == AccessView(
        "op", ("write",), (), False, (Permission("tmp/", ("write",)),), ("readers",)
    )


def test_a_role_is_changed_and_removed_for_all_that_have_it_at_one_index():
    company = Company()
    company.command(SetRole("builders", (Permission("build/", ("write",)),)))
    for principal in ("op", "narrow"):
        company.command(SetRoles(principal, ("builders",)))
    assert company.puts("build/x")
    company.command(SetRole("builders", (Permission("bin/", ("write", "read")),)))
    assert not company.puts("build/x")
    assert company.puts("bin/x")
    assert company.reads("bin/x")
    before = company.query(GetKey("bin/x"), "narrow")
    assert before.value == b"1"
    assert company.command(RemoveRole("builders")) == Done(company.index, existed=True)
    assert not company.puts("bin/x")
    assert not company.reads("bin/x")
    assert company.query(GetKey("bin/x"), "narrow").code == commands.FORBIDDEN
    company.command(SetRole("builders", (Permission("bin/", ("write",)),)))
    assert not company.puts("bin/x"), "a role that is made again is another one"
    assert company.query(ListRoles(), "web").roles == (RoleView("builders", 1, 0),)
    assert company.command(RemoveRole("nobody")) == Done(company.index, existed=False)


def test_what_is_in_the_log_before_a_removal_is_judged_before_it():
    """All in one batch of entries, as a leader proposes it: rights are those of each entry's own place."""
    company = Company()
    company.command(SetRole("r", (Permission("a", ("write",)),)))
    company.command(SetRoles("op", ("r",)))
    results = [company.puts("a1"), company.command(RemoveRole("r")), company.puts("a2")]
    assert [results[0], results[2]] == [True, False]
    assert "a2" not in company.machine.keys


def test_a_token_narrows_its_principal_and_never_widens_it():
    company = Company()
    company.command(AddToken("c" * 16, "op", b"k" * 32))
    company.command(SetPermission("principal", "op", "build/", ("write",)))
    company.command(SetPermission("principal", "op", "logs/", ("read", "write")))
    narrow = (Permission("build/eu/", ("write", "administer")), Permission("l", ("read",)), Permission("z", RIGHTS))
    assert company.command(NarrowToken("c" * 16, narrow)) == Done(company.index, existed=False)
    keys = ("build/eu/x", "build/us/x", "logs/x", "l", "z")
    assert [company.puts(key, "c" * 16) for key in keys] == [True, False, False, False, False]
    assert [company.reads(key, "c" * 16) for key in keys] == [False, False, True, False, False]
    assert [company.puts(key) for key in keys] == [True, True, True, False, False], "without it as before"
    company.command(SetPrincipal("op", RIGHTS))
    assert [company.puts(key, "c" * 16) for key in keys] == [True, False, False, False, True]
    assert company.ask(company.op, SetPrincipal("x", RIGHTS), "op", token="c" * 16).code == commands.FORBIDDEN
    company.command(NarrowToken("c" * 16, ()))
    assert not any(company.puts(key, "c" * 16) or company.reads(key, "c" * 16) for key in keys)
    assert company.command(NarrowToken("c" * 16, None)) == Done(company.index, existed=True)
    assert company.puts("anything", "c" * 16)


def test_a_removed_token_does_nothing_from_its_removal_on():
    company = Company()
    company.command(AddToken("c" * 16, "op", b"k" * 32))
    company.command(SetPrincipal("op", RIGHTS))
    company.command(NarrowToken("c" * 16, (EVERYTHING,)))
    assert company.puts("a", "c" * 16)
    company.command(RemoveToken("c" * 16))
    assert not company.puts("a", "c" * 16)
    assert company.query(GetKey("a"), "op", token="c" * 16).code == commands.FORBIDDEN
    assert company.machine.state.narrowings.rows == {}
    company.command(AddToken("c" * 16, "narrow", b"k" * 32))
    assert not company.puts("a", "c" * 16), "another's token speaks for nobody here"
    assert company.puts("a")


def test_one_who_acts_for_others_is_held_to_both_tokens():
    company = Company()
    company.command(AddToken("c" * 16, "op", b"k" * 32))
    company.command(SetPrincipal("op", ("read", "write")))

    def put(key, token, for_token):
        return isinstance(company.ask(company.web, PutKey(key, b"1"), "op", "web", token, for_token), Done)

    assert put("a", "aa", "c" * 16)
    company.command(NarrowToken("c" * 16, (Permission("a", ("write",)),)))
    assert [put("a", "aa", "c" * 16), put("b", "aa", "c" * 16), put("b", "aa", "")] == [True, False, True]
    company.command(NarrowToken("aa", (Permission("b", ("write",)), Permission("ab", ("write",)))))
    assert [put("ab", "aa", "c" * 16), put("a", "aa", "c" * 16), put("b", "aa", "c" * 16)] == [True, False, False]
    assert company.query(GetKey("a"), "op", "web", "aa", "c" * 16).code == commands.FORBIDDEN
    assert not put("ab", "aa", "bb"), "a token of another principal"
    company.command(RemoveToken("c" * 16))
    assert not put("ab", "aa", "c" * 16)


def test_whoever_administers_a_prefix_gives_rights_within_it():
    company = Company()
    company.command(SetPermission("principal", "op", "build/", ("administer",)))

    def gives(prefix, rights=("read",), holder="principal", name="narrow"):
        return company.ask(company.op, SetPermission(holder, name, prefix, rights), "op")

    company.command(SetRole("r"))
    assert isinstance(gives("build/eu/"), Done)
    assert isinstance(gives("build/", holder="role", name="r"), Done)
    assert isinstance(gives("build/", RIGHTS, name="op"), Done)
    for prefix in ("", "build", "bui", "other/"):
        assert gives(prefix).code == commands.FORBIDDEN
    assert gives("build/", name="web").code == commands.FORBIDDEN
    for op in (
        SetRole("x"),
        SetRoles("op", ()),
        RemoveRole("r"),
        SetPrincipal("op", RIGHTS),
        RemovePrincipal("narrow"),
    ):
        assert company.ask(company.op, op, "op").code == commands.FORBIDDEN
    assert company.query(ListRoles(), "op").code == commands.FORBIDDEN
    company.command(SetPermission("principal", "op", "", ("administer",)))
    assert isinstance(company.ask(company.op, SetRole("x"), "op"), Done), "everything is a prefix too"


def test_the_web_tiers_principal_is_changed_by_itself_alone():
    company = Company()
    company.command(SetPrincipal("boss", RIGHTS))
    company.command(SetRole("r"))
    boss = company.open("boss")
    for op in (
        SetPermission("principal", "web", "a", ("read",)),
        SetRoles("web", ("r",)),
        NarrowToken("aa", (Permission("a", ("read",)),)),
    ):
        assert company.ask(boss, op, "boss").code == commands.FORBIDDEN
        assert isinstance(company.command(op), Done)


def test_the_heir_of_a_lock_may_have_the_right_by_a_role():
    company = Company()
    ci = company.open("ci")
    company.ask(ci, Acquire(("l",), 1))
    assert company.ask(ci, HandOver("l", 1, company.op, 1)).code == commands.FORBIDDEN
    company.command(SetRole("r", (Permission("l", ("lock",)),)))
    company.command(SetRoles("op", ("r",)))
    assert isinstance(company.ask(ci, HandOver("l", 1, company.op, 1)), Done)


@pytest.mark.parametrize(
    "op",
    [
        SetRole("", ()),
        SetRole("a b", ()),
        SetRole("r", (Permission("/a", ("read",)),)),
        SetRole("r", (Permission("a\n", ("read",)),)),
        SetRole("r", (Permission("x" * 513, ("read",)),)),
        SetRole("r", (Permission("a", ("fly",)),)),
        SetRole("r", (Permission("a", ("read",)), Permission("a", ("write",)))),
        SetRole("r", tuple(Permission(f"{n}", ("read",)) for n in range(permissions.PERMISSIONS_MAX + 1))),
        SetPermission("principal", "op", "/a", ("read",)),
        SetPermission("principal", "op", "a", ("fly",)),
        SetRoles("op", tuple(f"r{n}" for n in range(permissions.ROLES_HELD_MAX + 1))),
        NarrowToken("bb", (Permission("a", ("fly",)),)),
    ],
)
def test_what_is_no_permission_is_refused_and_changes_nothing(op):
    company = Company()
    before = company.machine.state.rights_index
    assert company.command(op).code == commands.INVALID
    assert company.machine.state.rights_index == before
    assert not company.machine.state.roles.rows


@pytest.mark.parametrize(
    "op",
    [
        SetPermission("principal", "nobody", "a", ("read",)),
        SetPermission("role", "op", "a", ("read",)),
        SetRoles("nobody", ()),
        SetRoles("op", ("nothing",)),
        NarrowToken("dd", None),
    ],
)
def test_what_is_not_there_is_not_found(op):
    assert Company().command(op).code == commands.NOT_FOUND


@pytest.mark.interpreted
def test_there_are_no_more_roles_and_permissions_than_may_be(monkeypatch):
    company = Company()
    for number in range(permissions.PERMISSIONS_MAX):
        assert isinstance(company.command(SetPermission("principal", "op", f"{number}/", ("read",))), Done)
    assert company.command(SetPermission("principal", "op", "one/", ("read",))).code == commands.INVALID
    monkeypatch.setattr("coordinator.statemachine.roles.ROLES_MAX", 2)
    assert [isinstance(company.command(SetRole(name)), Done) for name in "abb"] == [True] * 3
    assert company.command(SetRole("c")).code == commands.FULL


def test_permissions_are_the_same_bytes_however_they_are_said():
    one, two = Company(), Company()
    for company, rights, order in ((one, ("read", "write"), 1), (two, ("write", "read", "read"), -1)):
        held = (Permission("a", rights), Permission("b", ("lock",)), Permission("c", ()))[::order]
        company.command(SetRole("r", held))
        company.command(SetRoles("op", ("r",)))
    one_bytes = one.machine.state.roles.rows["r"].permissions
    assert (
        one_bytes
        == two.machine.state.roles.rows["r"].permissions
        == (
            Permission("a", ("read", "write")),
            Permission("b", ("lock",)),
        )
    )


def test_permissions_are_listed_in_pages():
    company = Company()
    for name, prefix in (("op", "b"), ("narrow", "a"), ("op", "a"), ("ci", "z")):
        company.command(SetPermission("principal", name, prefix, ("read",)))
    company.command(SetRole("r", (Permission("", ("lock",)), Permission("x", ("read",)))))
    company.command(NarrowToken("bb", (Permission("q", ("read",)),)))
    pages: list[tuple[permissions.Holding, list[tuple[str, str]]]] = [
        ("principal", [("ci", "z"), ("narrow", "a"), ("op", "a"), ("op", "b")]),
        ("role", [("r", ""), ("r", "x")]),
        ("token", [("bb", "q")]),
    ]
    for holder, expected in pages:
        for limit in (1, 2, 100):
            found: list[HeldPermission] = []
            after = behind = ""
            while page := company.query(ListPermissions(holder, after, behind, limit), "web").permissions:
                assert len(page) <= limit
                found += page
                after, behind = page[-1].name, page[-1].prefix
            assert [(one.name, one.prefix) for one in found] == expected
    assert company.query(ListPermissions("role"), "ci").code == commands.FORBIDDEN


def test_who_has_a_role_is_listed_in_pages():
    company = Company()
    company.command(SetRole("r"))
    company.command(SetRole("s"))
    for principal in ("op", "ci", "narrow"):
        company.command(SetRoles(principal, ("r", "s") if principal == "ci" else ("r",)))
    assert company.query(ListMembers("r", limit=2), "web").principals == ("ci", "narrow")
    assert company.query(ListMembers("r", after="narrow"), "web").principals == ("op",)
    assert company.query(ListMembers("s"), "web").principals == ("ci",)
    assert company.query(ListMembers("t"), "web").code == commands.NOT_FOUND
    company.command(RemovePrincipal("ci"))
    assert company.query(ListRoles(), "web").roles == (RoleView("r", 0, 2), RoleView("s", 0, 0))
    company.command(SetPrincipal("ci", ()))
    assert company.query(GetAccess("ci"), "web").roles == (), "who comes again comes with nothing"


def test_everybody_may_see_its_own_access_and_only_administrators_that_of_others():
    company = Company()
    assert company.query(GetAccess(), "narrow").prefixes == ("build/",)
    assert company.query(GetAccess("narrow"), "narrow").prefixes == ("build/",)
    assert company.query(GetAccess("narrow"), "ci").code == commands.FORBIDDEN
    assert company.query(GetAccess("nobody"), "web").code == commands.NOT_FOUND


def test_the_access_of_a_token_is_told_with_its_key_to_the_web_tier_alone():
    company = Company()
    company.command(SetPrincipal("boss", RIGHTS))
    assert company.query(GetTokenAccess("bb"), "boss").code == commands.FORBIDDEN
    told = company.query(GetTokenAccess("bb"), "web")
    assert (told.principal, told.key, told.permissions) == ("ci", b"c" * 32, None)
    assert "cccc" not in repr(told)
    company.command(NarrowToken("bb", (Permission("q", ("read",)),)))
    assert company.query(GetTokenAccess("bb"), "web").permissions == (Permission("q", ("read",)),)
    assert company.query(GetTokenAccess("dd"), "web").code == commands.NOT_FOUND


def test_each_page_of_changes_is_held_to_the_rights_of_its_moment():
    company = Company()
    company.command(SetPermission("principal", "op", "a/", ("read",)))
    watch = ReadChanges("a/", prefix=True, since=1)
    assert isinstance(company.query(watch, "op"), ChangePage)
    company.command(SetPermission("principal", "op", "a/", ("write",)))
    assert company.query(watch, "op").code == commands.FORBIDDEN
    assert company.query(watch, "nobody").code == commands.FORBIDDEN


def test_all_of_it_survives_a_snapshot_and_goes_on():
    company = Company()
    company.command(SetRole("r", (Permission("a", ("write",)),)))
    company.command(SetRoles("op", ("r",)))
    company.command(SetPermission("principal", "op", "b", ("write",)))
    company.command(AddToken("c" * 16, "op", b"k" * 32))
    company.command(NarrowToken("c" * 16, (Permission("b", ("write",)),)))
    company.machine = restored(company.machine)
    assert [company.puts(key) for key in "abc"] == [True, True, False]
    assert [company.puts(key, "c" * 16) for key in "abc"] == [False, True, False]
    assert company.query(ListRoles(), "web").roles == (RoleView("r", 1, 1),)
    company.command(RemoveRole("r"))
    company.machine = restored(company.machine)
    assert not company.puts("a")


def test_a_right_that_is_lost_ends_no_hold_and_can_still_be_let_go():
    company = Company()
    company.command(SetPermission("principal", "op", "l", ("lock", "write")))
    assert company.ask(company.op, Acquire(("l",), 1), "op").token
    company.command(SetPermission("principal", "op", "l", ()))
    assert company.query(commands.GetLock("l"), "web").holder.session == company.op
    assert company.ask(company.op, DeleteKey("l"), "op").code == commands.FORBIDDEN
    assert isinstance(company.ask(company.op, commands.ReleaseLock("l", 1), "op"), Done)
