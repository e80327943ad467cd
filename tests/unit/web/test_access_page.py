"""The page on which administrators say who may do what, `manage.py access`, and narrow tokens over HTTP."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client as DjangoClient

from coordinator import permitting
from coordinator.client import errors
from coordinator.management.commands import access as command
from coordinator.models import AuditEntry, Cluster
from coordinator.statemachine import commands
from coordinator.statemachine.permissions import (
    ListRoles,
    NarrowToken,
    Permission,
    Quota,
    RemoveRole,
    SetPermission,
    SetQuota,
    SetRole,
    SetRoles,
)
from tests.unit.web.fake_cluster import FakeClient, FakeCluster, FakeSyncClient
from tests.unit.web.helpers import API, Bearer, new_token

PAGE = "/access/default"


def change(pages: DjangoClient, kind: str, **fields: str) -> Any:
    """What is shown in the end."""
    return pages.post(PAGE, {"kind": kind, "reason": "because", **fields}, follow=True)


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (
            "permit",
            {"holder": "role", "name": "r", "prefix": "/build/", "rights": "write read"},
            SetPermission("role", "r", "build/", ("read", "write")),
        ),
        ("permit", {"name": "p", "prefix": "", "rights": ""}, SetPermission("principal", "p", "", ())),
        ("role", {"name": "r", "permissions": "a:b:read :lock"}, None),
        ("remove-role", {"name": " r "}, RemoveRole("r")),
        ("roles", {"name": "p", "roles": "r  s"}, SetRoles("p", ("r", "s"))),
        ("narrow", {"name": "t", "permissions": ""}, NarrowToken("t", ())),
        ("widen", {"name": "t"}, NarrowToken("t", None)),
        ("quota", {"name": "*", "keys": "10", "waiters": " 0 "}, SetQuota("*", Quota(keys=10, waiters=0))),
        ("no-quota", {"name": ""}, SetQuota("", None)),
    ],
)
def test_what_is_said_becomes_a_command(kind: str, fields: dict[str, str], expected: Any) -> None:
    if expected is None:
        expected = SetRole("r", (Permission("a:b", ("read",)), Permission("", ("lock",))))
    assert permitting.change_of(kind, fields) == expected


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("permit", {"holder": "token"}, "a principal or a role"),
        ("permit", {"prefix": "a\nb"}, "control characters"),
        ("permit", {"rights": "read,fly"}, "came fly"),
        ("role", {"permissions": "build/"}, "PREFIX:RIGHTS"),
        ("quota", {"keys": "-1"}, "a number from 0 on"),
        ("quota", {"keys": "٣"}, "a number from 0 on"),
        ("fly", {}, "expected one of"),
    ],
)
def test_what_says_nothing_is_refused(kind: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        permitting.change_of(kind, fields)


# --- the page -------------------------------------------------------------------------------------


def test_it_shows_principals_roles_tokens_and_quotas(pages: DjangoClient, cluster: FakeCluster) -> None:
    token = new_token(cluster, "worker", ("read",), ("logs/",))
    for kind, fields in (
        ("role", {"name": "builders", "permissions": "build/:write"}),
        ("roles", {"name": "worker", "roles": "builders"}),
        ("permit", {"holder": "principal", "name": "worker", "prefix": "tmp/", "rights": "lock"}),
        ("narrow", {"name": token.token_id, "permissions": "logs/eu/:read"}),
        ("quota", {"name": "worker", "keys": "5"}),
        ("quota", {"name": "", "sessions": "500"}),
    ):
        answer = change(pages, kind, **fields)
        assert answer.status_code == 200, answer.content.decode()
        assert f"Done: {kind}" in answer.content.decode()
    text = pages.get(PAGE).content.decode()
    for said in ("logs/:read<br>tmp/:lock", "builders", "build/:write", "only logs/eu/:read", "keys 0 of 5", "of 500"):
        assert said in text, said
    entry = AuditEntry.objects.filter(action="access.changed").earliest("id")
    assert (entry.actor, entry.principal, entry.target) == ("admin", "user:admin", "default/builders")
    assert entry.reason == "because"


def test_the_page_behind_a_change_can_be_loaded_again_and_changes_nothing(
    pages: DjangoClient, cluster: FakeCluster
) -> None:
    """To send a form once more undid what somebody else had changed meanwhile."""
    shown = change(pages, "role", name="builders", permissions="build/:write")
    assert shown.redirect_chain == [(PAGE, 302)]
    assert "Done: role builders" in shown.content.decode()
    assert "Done" not in pages.get(PAGE).content.decode(), "said once"
    assert AuditEntry.objects.filter(action="access.changed").count() == 1
    behind = pages.post(f"{PAGE}?after=a", {"kind": "role", "name": "builders", "permissions": ""})
    assert behind.headers["Location"] == f"{PAGE}?after=a", "the page of principals that was looked at"


def test_what_the_cluster_refuses_is_said_and_audited(pages: DjangoClient, cluster: FakeCluster) -> None:
    answer = change(pages, "roles", name="web", roles="nothing")
    assert answer.status_code == 409
    assert "web tier" in answer.content.decode(), "a person is not the web tier"
    assert AuditEntry.objects.get(action="access.changed").outcome == "refused"
    answer = change(pages, "quota", name="web", keys="many")
    assert answer.status_code == 409
    assert "a number from 0 on" in answer.content.decode()


def test_what_is_refused_stays_in_its_form_beside_what_there_is(pages: DjangoClient, cluster: FakeCluster) -> None:
    new_token(cluster, "worker", ("read",), ("logs/",))
    for text in (
        change(pages, "quota", form="quota", name="worker", keys="many").content.decode(),
        change(pages, "permit", form="permission", holder="role", name="worker", rights="many").content.decode(),
    ):
        assert 'value="worker"' in text
        assert 'value="many"' in text
        assert text.count('value="because"') == 1, "the other forms are empty"
        assert 'data-name="worker"' in text
    assert "<option selected>role</option>" in text
    assert 'value="many"' not in pages.get(PAGE).content.decode()


def test_what_was_done_is_said_though_nothing_can_be_shown(
    pages: DjangoClient, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = FakeClient.query

    async def slow(self: FakeClient, asked: Any, **options: Any) -> Any:
        if isinstance(asked, ListRoles):
            raise errors.Unavailable("no leader is known")
        return await query(self, asked, **options)

    monkeypatch.setattr(FakeClient, "query", slow)
    answer = change(pages, "role", name="builders", permissions="")
    assert answer.status_code == 503
    assert "Done: role builders" in answer.content.decode()
    assert "no leader is known" in answer.content.decode()


def test_another_cluster_is_chosen_for_the_same_page(pages: DjangoClient, cluster: FakeCluster) -> None:
    Cluster.objects.create(name="other", cluster_id="aa")
    assert 'value="/access/other"' in pages.get(PAGE).content.decode()


def test_where_no_leader_answers_it_says_so_and_audits_no_refusal(pages: DjangoClient, cluster: FakeCluster) -> None:
    assert pages.get(PAGE).status_code == 200
    cluster.has_leader = False
    assert pages.get(PAGE).status_code == 503
    assert change(pages, "role", name="builders").status_code == 503
    assert AuditEntry.objects.get(action="access.changed").outcome == "failed"


def test_it_is_for_administrators_alone(reader: Any, cluster: FakeCluster) -> None:
    client = DjangoClient()
    assert client.get(PAGE).status_code == 302
    client.force_login(reader)
    assert client.get(PAGE).status_code == 403
    assert change(client, "remove-role", name="r").status_code == 403
    assert not AuditEntry.objects.filter(action="access.changed").exists()


def test_principals_come_in_pages_and_an_unknown_cluster_is_none(pages: DjangoClient, cluster: FakeCluster) -> None:
    for number in range(30):
        new_token(cluster, f"p{number:02}")
    first = pages.get(PAGE).content.decode()
    assert first.count('data-testid="principal"') == 25
    assert "?after=p24" in first
    assert pages.get(PAGE, {"after": "p24"}).content.decode().count('data-testid="principal"') == 7
    assert pages.get("/access/other").status_code == 404


# --- manage.py access -----------------------------------------------------------------------------


@pytest.fixture
def shell(transactional_db: None, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(command, "make_client", lambda name: FakeSyncClient(FakeClient(cluster)))

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("access", *arguments, stdout=out)
        return out.getvalue()

    return run


def test_the_shell_says_and_changes_the_same(shell: Any, cluster: FakeCluster) -> None:
    token = new_token(cluster, "worker", ("read",), ("logs/",))
    shell("role", "builders", "build/:write", ":read")
    shell("roles", "worker", "builders")
    shell("permit", "principal", "worker", "tmp/", "lock,write")
    shell("narrow", token.token_id, "build/:write")
    shell("quota", "worker", "--keys", "5", "--watches", "2")
    shell("quota", "cluster", "--sessions", "500")
    out = shell("list")
    for line in (
        f"principal worker: logs/:read tmp/:write,lock; roles builders; tokens {token.token_id}",
        "quota of worker: keys 0 of 5, watches up to 2",
        "role builders: 1 have it",
        "role builders: :read",
        "role builders: build/:write",
        f"token {token.token_id}: build/:write",
    ):
        assert line in out.splitlines(), out
    assert "quota of the cluster: sessions" in out
    shell("widen", token.token_id)
    shell("remove-role", "builders")
    shell("no-quota", "cluster")
    assert cluster.machine.state.narrowings.rows == {}
    assert cluster.machine.state.roles.rows == {}
    assert [*cluster.machine.state.quotas.rows] == ["worker"]
    assert AuditEntry.objects.filter(action="access.changed").count() == 9


def test_the_shell_says_what_is_wrong(shell: Any, cluster: FakeCluster) -> None:
    with pytest.raises(CommandError, match="came fly"):
        shell("role", "r", "a:fly")
    with pytest.raises(CommandError, match="no principal"):
        shell("roles", "nobody")


# --- narrow tokens over HTTP ----------------------------------------------------------------------


async def test_a_narrow_token_is_narrow_over_http_at_once(cluster: FakeCluster) -> None:
    token = new_token(cluster, "worker")
    worker = Bearer(str(token))
    assert (await worker.put(f"{API}/keys/b", b"1")).status_code == 200
    hold = (await worker.post(f"{API}/locks/b/acquire", {"mode": "shared", "ttl_ms": 60_000})).json()
    await FakeClient(cluster).command(NarrowToken(token.token_id, (Permission("a", ("read", "write", "lock")),)))
    change = {"session": hold["session"], "acquisition": hold["acquisition"], "mode": "exclusive", "wait_ms": 1_000}
    assert (await worker.post(f"{API}/holds/b/mode", change)).status_code == 403
    assert (await worker.put(f"{API}/keys/a", b"1")).status_code == 200
    assert (await worker.put(f"{API}/keys/b", b"2")).status_code == 403
    assert (await worker.get(f"{API}/keys/b")).status_code == 403
    acquired = await worker.post(f"{API}/locks/a/acquire")
    assert acquired.status_code == 200
    assert acquired.json()["principal"] == "worker"
    assert (await worker.post(f"{API}/locks/b/acquire")).status_code == 403
    opened = await worker.post(f"{API}/sessions", {"ttl_ms": 5_000})
    assert opened.json()["principal"] == "worker"


async def test_where_nodes_are_older_a_token_speaks_for_its_principal(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Bearer(str(new_token(cluster, "worker")))
    query = FakeClient.query

    async def older(self: FakeClient, asked: Any, **options: Any) -> Any:
        if type(asked).__name__ == "GetTokenAccess":
            raise errors.InvalidRequest("the command does not parse; is the client of another version?")
        return await query(self, asked, **options)

    monkeypatch.setattr(FakeClient, "query", older)
    assert (await worker.put(f"{API}/keys/b", b"1")).status_code == 200
    assert isinstance(cluster.commands[-1], commands.PutKey)
