"""Principals, roles, permissions, tokens and quotas over HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from django.db import OperationalError

from coordinator.models import AuditEntry
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token, settled
from tests.unit.web.test_web_process import Exchange


@pytest.fixture
def operator(transactional_db: None, cluster: FakeCluster) -> Bearer:
    return Bearer(str(new_token(cluster, "operator", commands.RIGHTS)))


async def test_a_principal_may_what_it_is_permitted_until_it_is_taken_away(
    operator: Bearer, worker: Bearer, cluster: FakeCluster
) -> None:
    jobs = {"rights": ["lock", "read"], "prefixes": ["/jobs/"], "reason": "less is enough"}
    changed = await operator.put_json(f"{API}/principals/worker", jobs)
    assert (changed.status_code, changed.json()["existed"]) == (200, True), changed.content
    assert (await worker.put(f"{API}/keys/jobs/a", b"")).status_code == 403
    permit = {"prefix": "jobs/", "rights": ["write"]}
    assert (await operator.put_json(f"{API}/principals/worker/permissions", permit)).json()["existed"] is False
    assert (await worker.put(f"{API}/keys/jobs/a", b"")).status_code == 200
    seen = (await worker.get(f"{API}/access")).json()
    assert seen == {
        "principal": "worker",
        "rights": ["read", "lock"],
        "prefixes": ["jobs/"],
        "act_for": False,
        "permissions": [{"prefix": "jobs/", "rights": ["write"]}],
        "roles": [],
    }
    assert (await operator.get(f"{API}/principals/worker")).json() == seen
    assert (await worker.get(f"{API}/principals/operator")).status_code == 403
    page = (await operator.get(f"{API}/principals", limit=1)).json()
    assert ([each["name"] for each in page["principals"]], page["next"]) == (["operator"], "operator")
    rest = (await operator.get(f"{API}/principals", after=page["next"])).json()
    assert ([each["name"] for each in rest["principals"]], rest["next"]) == (["web", "worker"], None)
    removed = await operator.delete(f"{API}/principals/worker?reason=gone")
    assert (removed.status_code, removed.json().get("existed")) == (200, True), removed.content
    assert (await operator.get(f"{API}/principals/worker")).status_code == 404
    told = [(entry.target, entry.reason, entry.outcome) async for entry in AuditEntry.objects.order_by("pk")]
    assert told[0] == ("default/worker", "less is enough", AuditEntry.Outcome.DONE)
    assert told[-1] == ("default/worker", "gone", AuditEntry.Outcome.DONE)


async def test_roles_are_had_by_principals(operator: Bearer, worker: Bearer) -> None:
    await operator.put_json(f"{API}/principals/worker", {"rights": []})
    role = {"permissions": [{"prefix": "deploy/", "rights": ["write", "read"]}]}
    assert (await operator.put_json(f"{API}/roles/deployer", role)).json()["existed"] is False
    assert (await operator.put_json(f"{API}/principals/worker/roles", {"roles": ["deployer"]})).status_code == 200
    assert (await worker.put(f"{API}/keys/deploy/eu", b"")).status_code == 200
    assert (await operator.get(f"{API}/roles")).json() == {
        "roles": [{"name": "deployer", "permissions": 1, "members": 1}],
        "next": None,
    }
    assert (await operator.get(f"{API}/roles/deployer/members")).json() == {"principals": ["worker"]}
    listed = (await operator.get(f"{API}/permissions", holder="role")).json()
    assert listed == {"permissions": [{"name": "deployer", "prefix": "deploy/", "rights": ["read", "write"]}]}
    await operator.put_json(f"{API}/roles/deployer/permissions", {"prefix": "deploy/", "rights": []})
    assert (await worker.put(f"{API}/keys/deploy/eu", b"")).status_code == 403
    assert (await operator.delete(f"{API}/roles/deployer")).json()["existed"] is True
    assert (await operator.get(f"{API}/roles/deployer/members")).status_code == 404


async def test_tokens_are_narrowed_widened_and_removed(operator: Bearer, cluster: FakeCluster) -> None:
    token = new_token(cluster, "third")
    third, address = Bearer(str(token)), f"{API}/tokens/{token.token_id}"
    await operator.put_json(address, {"permissions": [{"prefix": "a", "rights": ["read"]}]})
    assert (await third.put(f"{API}/keys/a", b"")).status_code == 403
    listed = (await operator.get(f"{API}/permissions", holder="token")).json()["permissions"]
    assert listed == [{"name": token.token_id, "prefix": "a", "rights": ["read"]}]
    await operator.put_json(address, {"permissions": None})
    assert (await third.put(f"{API}/keys/a", b"")).status_code == 200
    assert (await operator.delete(address)).json()["existed"] is True
    assert (await operator.put_json(address, {"permissions": None})).status_code == 404


async def test_quotas_stop_growth(operator: Bearer, worker: Bearer) -> None:
    assert (await operator.put_json(f"{API}/quotas", {"principal": "*", "keys": 1})).json()["existed"] is False
    await operator.put_json(f"{API}/quotas", {"principal": "", "key_bytes": 1000})
    assert (await worker.put(f"{API}/keys/a", b"x")).status_code == 200
    full = await worker.put(f"{API}/keys/b", b"x")
    assert (full.status_code, full.json()["error"]) == (429, "busy")
    assert "retry_after_ms" not in full.json(), "somebody has to give one back first, and nobody knows when"
    mine = (await worker.get(f"{API}/quotas", principal="worker")).json()
    assert (mine["own"], mine["quota"]["keys"], mine["used"]["keys"]) == (None, 1, 1)
    whole = (await operator.get(f"{API}/quotas")).json()
    assert (whole["own"]["key_bytes"], whole["own"]["keys"], whole["used"]["keys"]) == (1000, None, 1)
    assert (await operator.delete(f"{API}/quotas?principal=*")).json()["existed"] is True
    assert (await worker.put(f"{API}/keys/b", b"x")).status_code == 200


async def test_who_may_not_administer_changes_nothing_and_is_in_the_audit(
    transactional_db: None, worker: Bearer
) -> None:
    refused = await worker.put_json(f"{API}/principals/worker", {"rights": ["administer"], "reason": "please"})
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    entry = await AuditEntry.objects.aget()
    assert (entry.reason, entry.outcome, entry.principal) == ("please", AuditEntry.Outcome.REFUSED, "worker")
    for path in ("principals", "roles", "permissions?holder=role", "quotas"):
        assert (await worker.get(f"{API}/{path}")).status_code == 403


async def test_a_change_whose_caller_is_gone_before_its_answer_is_in_the_audit(
    operator: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hung up in time had changed rights, or broken a lock, and the audit knew nothing of it."""
    is_done, is_answered = asyncio.Event(), asyncio.Event()
    at_once = FakeClient.command

    async def slowly(self: FakeClient, op: Any, **options: Any) -> Any:
        result = await at_once(self, op, **options)
        if isinstance(op, commands.SetPrincipal):
            is_done.set()
            await is_answered.wait()
        return result

    monkeypatch.setattr(FakeClient, "command", slowly)
    exchange = Exchange("PUT", f"{API}/principals/friend", operator.headers, b'{"rights": ["administer"]}')
    running = asyncio.ensure_future(exchange.run())
    await is_done.wait()
    exchange.hang_up()
    await running
    is_answered.set()
    await settled()
    entry = await AuditEntry.objects.aget()
    assert (entry.target, entry.actor, entry.outcome) == ("default/friend", "token of operator", "done")


def lose_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**_: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(AuditEntry.objects, "create", gone)


async def test_a_change_that_the_database_does_not_take_down_is_answered_as_it_ended(
    operator: Bearer, worker: Bearer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was done, or refused, and answered with 500; nothing anywhere said who had done what."""
    lose_database(monkeypatch)
    with caplog.at_level(logging.ERROR, "coordinator.audit"):
        done = await operator.put_json(f"{API}/principals/friend", {"rights": ["read"], "reason": "a new one"})
        assert (done.status_code, done.json()["existed"]) == (200, False)
        assert (await worker.delete(f"{API}/principals/friend")).status_code == 403
        broken = await operator.post(f"{API}/forced-releases", {"name": "deploy", "reason": "its holder is lost"})
        assert (broken.status_code, broken.json()["released"]) == (200, False)
    assert "database is locked" in caplog.text
    for told in ('"reason": "a new one"', '"actor": "token of worker"', '"outcome": "refused"', "its holder is lost"):
        assert told in caplog.text, told


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("principals/p", {"rights": ["own"]}, "rights.0"),
        ("principals/p", {}, "rights: field required"),
        ("principals/p", {"rights": [], "prefixes": ["//"]}, "two slashes"),
        ("principals/-", {"rights": []}, "a principal's name matches"),
        ("roles/r", {"permissions": [{"prefix": "a"}]}, "permissions.0.rights"),
        ("tokens/x", {}, "permissions: field required"),
        ("quotas", {"principal": "", "keys": -1}, "keys"),
        ("quotas", {"keys": 1}, "principal: field required"),
    ],
)
async def test_bad_input_is_refused_with_what_was_expected(operator: Bearer, path: str, body: Any, said: str) -> None:
    answer = await operator.put_json(f"{API}/{path}", body)
    assert answer.status_code == 422, answer.content
    assert said in answer.json()["detail"]
