"""Who may call the API: a bearer token, or a session's cookie with the CSRF token. What each may do, the log says."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient as DjangoAsyncClient

from coordinator import access, wire
from coordinator.client import errors
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API, PASSWORD, Bearer, new_token

ACQUIRE = f"{API}/locks/deploy/acquire"
JSON = "application/json"

EVERY_CALL = [
    ("GET", f"{API}/status"),
    ("GET", f"{API}/locks"),
    ("GET", f"{API}/locks/deploy"),
    ("POST", f"{API}/locks/deploy/acquire"),
    ("POST", f"{API}/locks/deploy/release"),
    ("POST", f"{API}/sessions"),
    ("GET", f"{API}/sessions/s7"),
    ("DELETE", f"{API}/sessions/s7"),
    ("POST", f"{API}/sessions/s7/keepalive"),
    ("GET", f"{API}/keys/a"),
    ("PUT", f"{API}/keys/a"),
    ("DELETE", f"{API}/keys/a"),
    ("POST", f"{API}/nodes/node1/crash"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/nothing/here"),
    ("POST", "/api/v1/"),
]


@pytest.mark.parametrize(("method", "path"), EVERY_CALL)
async def test_without_credentials_every_call_answers_401(cluster: FakeCluster, method: str, path: str) -> None:
    response = await DjangoAsyncClient().generic(method, path, b"{}", JSON)
    assert response.status_code == 401
    assert response.json()["error"] == "unauthenticated"
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer conclave_0123abcd_0123456789abcdef_" + "0" * 64,
        "Basic YWRtaW46YWRtaW4=",
        "",
    ],
)
async def test_a_bad_authorization_header_answers_401_even_with_a_good_cookie(
    as_admin: DjangoAsyncClient, header: str
) -> None:
    for path in (f"{API}/status", f"{API}/locks"):
        response = await as_admin.get(path, headers={"Authorization": header})
        assert response.status_code == 401, header
        assert response.json()["error"] == "unauthenticated"


async def test_a_token_whose_secret_is_wrong_is_refused_and_not_repeated(cluster: FakeCluster) -> None:
    token = new_token(cluster, "worker")
    forged = wire.Token(token.realm, token.token_id, "ab" * 32)
    response = await Bearer(str(forged)).get(f"{API}/locks")
    assert response.status_code == 401
    assert forged.secret not in response.content.decode()


async def test_a_revoked_token_is_refused_once_it_is_asked_for_again(
    cluster: FakeCluster, worker: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await worker.get(f"{API}/locks")).status_code == 200
    await FakeClient(cluster).command(commands.RemovePrincipal("worker"))
    monkeypatch.setattr(access, "TOKEN_FRESH_S", -1)
    assert (await worker.get(f"{API}/locks")).status_code == 401


async def test_a_verified_token_is_not_asked_for_again_for_a_while(
    cluster: FakeCluster, worker: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.get(f"{API}/locks")

    async def never(*args: Any, **options: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(access, "_ask_for_token", never)
    assert (await worker.get(f"{API}/locks")).status_code == 200


async def test_a_bearer_token_needs_no_database(worker: Bearer) -> None:
    """No database fixture here: a query would raise."""
    assert (await worker.post(ACQUIRE)).status_code == 200
    assert (await worker.get(f"{API}/status")).status_code == 200


# --- people ---------------------------------------------------------------------------------------


async def test_a_signed_in_person_acts_as_a_principal_of_their_own(
    as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    response = await as_admin.post(ACQUIRE, {}, content_type=JSON)
    assert response.status_code == 200
    assert response.json()["principal"] == "user:admin"
    assert cluster.machine.principals["user:admin"].rights == commands.RIGHTS


async def test_a_change_by_cookie_needs_the_csrf_token(admin: User, cluster: FakeCluster) -> None:
    client = DjangoAsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(admin)
    refused = await client.post(ACQUIRE, {}, content_type=JSON)
    assert refused.status_code == 403
    assert refused.json()["error"] == "csrf-failed"
    assert "user:admin" not in cluster.machine.principals
    await client.get("/accounts/login/")
    secret = client.cookies[settings.CSRF_COOKIE_NAME].value
    accepted = await client.post(ACQUIRE, {}, content_type=JSON, headers={"X-CSRFToken": secret})
    assert accepted.status_code == 200
    assert (await client.get(f"{API}/locks")).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"no form"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--'),
        ("application/x-www-form-urlencoded", b"a=1&" * 2_000),
    ],
)
async def test_a_body_that_says_that_it_is_a_form_is_none_of_ours(
    admin: User, cluster: FakeCluster, content_type: str, body: bytes
) -> None:
    client = DjangoAsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(admin)
    await client.get("/accounts/login/")
    secret = client.cookies[settings.CSRF_COOKIE_NAME].value
    response = await client.post(ACQUIRE, body, content_type=content_type, headers={"X-CSRFToken": secret})
    assert (response.status_code, response.json()["error"]) == (400, "bad-json")
    written = await client.post(f"{API}/files/form", body, content_type=content_type, headers={"X-CSRFToken": secret})
    assert written.status_code == 201
    assert cluster.machine.state.keys.rows["form"].value == body


async def test_the_csrf_token_counts_in_the_header_alone(admin: User, cluster: FakeCluster) -> None:
    client = DjangoAsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(admin)
    await client.get("/accounts/login/")
    form = {"csrfmiddlewaretoken": client.cookies[settings.CSRF_COOKIE_NAME].value}
    assert (await client.post(ACQUIRE, form)).status_code == 403


async def test_a_change_by_token_needs_no_csrf_token(cluster: FakeCluster, worker: Bearer) -> None:
    client = DjangoAsyncClient(enforce_csrf_checks=True)
    response = await client.post(ACQUIRE, {}, content_type=JSON, headers=worker.headers)
    assert response.status_code == 200


async def test_permissions_become_rights(as_reader: DjangoAsyncClient, cluster: FakeCluster) -> None:
    assert (await as_reader.get(f"{API}/locks")).status_code == 200
    assert (await as_reader.post(ACQUIRE, {}, content_type=JSON)).status_code == 403
    assert (await as_reader.put(f"{API}/keys/a", b"1")).status_code == 403
    assert cluster.machine.principals["user:reader"].rights == ("read",)


async def test_a_permission_given_or_taken_holds_from_the_next_call_on(
    as_reader: DjangoAsyncClient, reader: User, cluster: FakeCluster
) -> None:
    assert (await as_reader.post(ACQUIRE, {}, content_type=JSON)).status_code == 403
    lock = await Permission.objects.aget(codename="use_locks")
    await reader.user_permissions.aadd(lock)
    assert (await as_reader.post(ACQUIRE, {}, content_type=JSON)).status_code == 200
    await reader.user_permissions.aremove(lock)
    assert (await as_reader.post(f"{API}/locks/other/acquire", {}, content_type=JSON)).status_code == 403


async def test_a_person_without_permissions_may_see_the_status_and_nothing_else(
    cluster: FakeCluster, admin: User
) -> None:
    user = await User.objects.acreate_user("nobody", password=PASSWORD)
    client = DjangoAsyncClient()
    await client.aforce_login(user)
    assert (await client.get(f"{API}/status")).status_code == 200
    assert (await client.get(f"{API}/locks")).status_code == 403


async def test_a_person_who_was_made_inactive_is_signed_out(
    as_reader: DjangoAsyncClient, reader: User, cluster: FakeCluster
) -> None:
    reader.is_active = False
    await reader.asave()
    assert (await as_reader.get(f"{API}/locks")).status_code == 401
    with pytest.raises(errors.Forbidden):
        await access.act_as_user(reader.pk)


async def test_a_principal_that_the_log_lost_is_made_again(as_admin: DjangoAsyncClient, cluster: FakeCluster) -> None:
    await as_admin.get(f"{API}/locks")
    cluster.machine.state.principals.remove("user:admin")
    cluster.machine.state.rights_changed(cluster.machine.applied)
    assert (await as_admin.get(f"{API}/locks")).status_code == 403
    assert (await as_admin.get(f"{API}/locks")).status_code == 200


async def test_a_name_that_cannot_be_a_principal_is_refused_in_words(
    transactional_db: None, cluster: FakeCluster
) -> None:
    user = await User.objects.acreate_superuser("jürgen", password=PASSWORD)
    client = DjangoAsyncClient()
    await client.aforce_login(user)
    response = await client.get(f"{API}/locks")
    assert response.status_code == 403
    assert "jürgen" in response.json()["detail"]


async def test_one_persons_session_is_not_anothers(
    as_admin: DjangoAsyncClient, worker: Bearer, cluster: FakeCluster
) -> None:
    session = (await as_admin.post(ACQUIRE, {}, content_type=JSON)).json()["session"]
    assert (await worker.get(f"{API}/sessions/{session}")).status_code == 410


# --- addresses ------------------------------------------------------------------------------------


async def test_an_unknown_cluster_answers_404(worker: Bearer, as_admin: DjangoAsyncClient) -> None:
    for cluster in ("nowhere", "Bad_Name", "a" * 80):
        for client in (worker, as_admin):
            for path in ("locks", "status"):
                response = await client.get(f"/api/v1/clusters/{cluster}/{path}")
                assert response.status_code == 404, (cluster, path)
                assert response.json()["error"] == "not-found"


async def test_an_address_where_nothing_is_and_a_wrong_method_answer_in_the_same_shape(worker: Bearer) -> None:
    nothing = await worker.get("/api/v1/nothing/here")
    assert nothing.status_code == 404
    assert set(nothing.json()) == {"error", "detail"}
    wrong = await worker.get(f"{API}/sessions/s7/keepalive")
    assert wrong.status_code == 405
    assert wrong["Allow"] == "POST"
    assert wrong.json()["error"] == "method-not-allowed"


async def test_a_foreign_host_is_refused_in_the_same_shape(worker: Bearer) -> None:
    response = await DjangoAsyncClient().get(f"{API}/status", headers=worker.headers | {"Host": "evil.example"})
    assert response.status_code == 400
    assert response.json()["error"] == "bad-request"
