"""Principals, roles, permissions, tokens and quotas, asked for by the client of the state machine itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordinator import wire
from coordinator.client.access import CLUSTER, EACH, Access
from coordinator.client.errors import Busy, Forbidden, InvalidRequest, NotFound
from coordinator.statemachine import commands
from coordinator.statemachine.permissions import HeldPermission, Permission, Quota, RoleView
from tests.unit.client.cluster import Cluster, TestClient


def test_principals_may_what_they_are_permitted_until_it_is_taken_away(cluster: Cluster, client: TestClient):
    access = client.access
    assert access.set_principal("worker", "lock", "read", prefixes=["/jobs/"]) is False
    assert access.set_principal("worker", "read", "lock", prefixes=["jobs/"]) is True
    worker = cluster.client("worker")
    with pytest.raises(Forbidden):
        worker.put("jobs/a", b"")
    assert access.permit("worker", "jobs/", "write") is False
    worker.put("jobs/a", b"")
    mine = worker.access.look()
    assert (mine.principal, mine.rights, mine.prefixes) == ("worker", ("read", "lock"), ("jobs/",))
    assert mine.permissions == (Permission("jobs/", ("write",)),)
    assert access.look("worker") == mine
    with pytest.raises(Forbidden):
        worker.access.look("root")
    assert access.permissions("principal") == [HeldPermission("worker", "jobs/", ("write",))]
    assert access.permit("worker", "jobs/") is True
    with pytest.raises(Forbidden):
        worker.put("jobs/a", b"")
    assert [view.name for view in access.principals()] == ["root", "worker"]
    assert access.remove_principal("worker") is True
    assert access.remove_principal("worker") is False
    with pytest.raises(NotFound):
        access.look("worker")


def test_roles_are_had_by_principals(cluster: Cluster, client: TestClient):
    access = client.access
    for name in ("a", "b"):
        access.set_principal(name)
    assert access.set_role("deployer", {"deploy/": ("write", "read"), "/": ["read"]}) is False
    access.set_roles("a", "deployer")
    cluster.client("a").put("deploy/eu", b"")
    assert access.roles() == [RoleView("deployer", 2, 1)]
    assert access.members("deployer") == ["a"]
    assert access.permissions("role") == [
        HeldPermission("deployer", "", ("read",)),
        HeldPermission("deployer", "deploy/", ("read", "write")),
    ]
    access.permit_role("deployer", "deploy/", "read")
    with pytest.raises(Forbidden):
        cluster.client("a").put("deploy/eu", b"")
    assert access.remove_role("deployer") is True
    assert access.look("a").roles == ()
    with pytest.raises(NotFound):
        access.members("deployer")
    with pytest.raises(NotFound):
        access.set_roles("a", "deployer")


def test_tokens_are_narrowed_widened_and_removed(client: TestClient):
    token = wire.Token.new("0123abcd")
    client.command(commands.AddToken(token.token_id, "root", token.key))
    client.access.narrow_token(token.token_id, {"build/": ("read",)})
    assert client.access.permissions("token") == [HeldPermission(token.token_id, "build/", ("read",))]
    client.access.widen_token(token.token_id)
    assert client.access.permissions("token") == []
    assert client.access.remove_token(token.token_id) is True
    assert client.access.remove_token(token.token_id) is False
    with pytest.raises(NotFound):
        client.access.widen_token(token.token_id)


def test_quotas_stop_growth(cluster: Cluster, client: TestClient):
    access = client.access
    access.set_principal("worker", "write")
    access.set_quota(EACH, keys=2)
    access.set_quota(CLUSTER, keys=100, key_bytes=10_000)
    worker = cluster.client("worker")
    worker.put("a", b"1")
    worker.put("b", b"2")
    with pytest.raises(Busy, match="keys"):
        worker.put("c", b"3")
    view = access.quota("worker")
    assert (view.own, view.quota.keys, view.used.keys) == (None, 2, 2)
    assert worker.access.quota("worker") == view
    access.set_quota("worker", keys=3, sessions=0)
    worker.put("c", b"3")
    assert [(each.principal, each.quota.keys) for each in access.quotas()] == [("root", 2), ("worker", 3)]
    assert (access.quota().used.keys, access.quota().quota.key_bytes, access.quota().quota.keys) == (3, 10_000, 100)
    assert access.remove_quota("worker") is True
    assert access.remove_quota("worker") is False
    assert access.quota("worker").quota.keys == 2
    access.set_quota("worker", keys=11, key_bytes=12, sessions=13, watches=14, waiters=15)
    assert access.quota("worker").own == Quota(keys=11, key_bytes=12, sessions=13, watches=14, waiters=15)


def test_all_are_told_page_after_page(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coordinator.client.access._PAGE", 2)
    for number in range(4):
        client.access.set_principal(f"p{number}")
        client.access.permit(f"p{number}", "a", "read")
        client.access.permit(f"p{number}", "b", "read")
        client.access.set_role(f"r{number}", {})
    names = [f"p{number}" for number in range(4)]
    assert [view.name for view in client.access.principals()] == [*names, "root"]
    held = [(each.name, each.prefix) for each in client.access.permissions("principal")]
    assert held == [(name, prefix) for name in names for prefix in "ab"]
    assert [role.name for role in client.access.roles()] == ["r0", "r1", "r2", "r3"]
    for name in names:
        client.access.set_roles(name, "r1")
    assert client.access.members("r1") == names
    assert [view.principal for view in client.access.quotas()] == [*names, "root"]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda access: access.set_principal("p", "own"), "one of read, write, lock, administer, got 'own'"),
        (lambda access: access.set_principal("p", prefixes="a"), "prefixes are several, such as ('a',), got 'a'"),
        (lambda access: access.set_principal(7), "a principal is a str, got 7"),
        (lambda access: access.set_principal("-"), "a principal's name matches"),
        (lambda access: access.permit("root", "//", "read"), "two slashes"),
        (lambda access: access.set_role("r", ["read"]), "rights by prefix, such as {'build/': ('read',)}, got"),
        (lambda access: access.set_role("r", {"a": "read"}), "rights are several, such as ('read',), got 'read'"),
        (lambda access: access.permissions("group"), "a 'principal', a 'role' or a 'token', got 'group'"),
        (lambda access: access.set_quota("root", keys=-1), "a quota of keys is a whole number from 0"),
        (lambda access: access.set_quota("root", waiters=True), "a quota of waiters is a whole number from 0"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_what_came(
    client: TestClient, ask: Callable[[Access[Any]], Any], said: str
):
    with pytest.raises(InvalidRequest) as caught:
        ask(client.access)
    assert said in str(caught.value)
