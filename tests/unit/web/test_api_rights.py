"""Principals, roles, permissions, tokens and quotas over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.models import AuditEntry
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token


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
