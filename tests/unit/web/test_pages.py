"""What holds for every page: behind a login, under a strict policy, with no address of others; and the admin."""

from __future__ import annotations

import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
)
from django.test import AsyncClient as DjangoAsyncClient
from django.test import Client as DjangoClient
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from coordinator import accounts, audit
from coordinator.middleware import ADMIN_POLICY, DOCS_POLICY, OWN_POLICY, policy_for
from coordinator.models import AuditEntry, Cluster, Node, Replica
from tests.integration.waiting import eventually
from tests.unit.web.fake_cluster import FakeCluster
from tests.unit.web.helpers import PASSWORD

OPEN = {
    "/healthz",
    "/readyz",
    "/readyz/default",
    "/metrics",  # it has credentials of its own: test_web_metrics.py
    "/accounts/login/",
    "/accounts/logout/",
    "/admin/login/",
    "/admin/logout/",
}
FOREIGN = re.compile(r"""(?:src|href|action)\s*=\s*["'](?:https?:)?//""", re.IGNORECASE)

ADMIN_PAGES = [
    "/admin/",
    "/admin/conclave/cluster/",
    "/admin/conclave/node/",
    "/admin/conclave/replica/",
    "/admin/conclave/auditentry/",
    "/admin/auth/user/",
    "/admin/auth/user/add/",
    "/admin/auth/group/",
    "/admin/auth/group/add/",
    "/admin/password_change/",
]


@pytest.fixture
def record(transactional_db: None) -> dict[str, Any]:
    cluster = Cluster.objects.create(name="default", cluster_id="c0ffee")
    node = Node.objects.create(name="node1")
    replica = Replica.objects.create(
        cluster=cluster, node=node, replica_id="a0", role="leader", term=4, applied_index=17
    )
    entry = audit.record(actor="admin", action=audit.NODE_CRASHED, target="default/node1", reason="to see it")
    return {"cluster": cluster, "node": node, "replica": replica, "auditentry": entry}


# --- behind a login -------------------------------------------------------------------------------


def _addresses(patterns: Any, prefix: str = "/") -> list[str]:
    found = []
    for pattern in patterns:
        part = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found += _addresses(pattern.url_patterns, prefix + part)
        elif isinstance(pattern, URLPattern) and not part.startswith(("^", "(")):
            found.append(prefix + re.sub(r"<(?:\w+:)?\w+>", "1", part))
    return found


def test_every_address_but_the_open_ones_is_behind_a_login(db: None) -> None:
    client = DjangoClient()
    addresses = [address for address in _addresses(get_resolver().url_patterns) if not address.startswith("/api/v1/")]
    assert len(addresses) > 20
    for address in addresses:
        address = address.replace("/readyz/1", "/readyz/default")
        if address in OPEN:
            continue
        response = client.get(address)
        assert response.status_code in (302, 404), (address, response.status_code)
        if response.status_code == 302:
            assert response["Location"].startswith(("/accounts/login/", "/admin/login/")), address


def test_signing_in_leads_back_and_lands_in_the_audit(admin: User) -> None:
    client = DjangoClient(enforce_csrf_checks=True)
    page = client.get("/accounts/login/?next=/admin/")
    assert page.status_code == 200
    form = {"username": "admin", "password": PASSWORD, "next": "/admin/"}
    assert client.post("/accounts/login/", form).status_code == 403
    token = client.cookies[settings.CSRF_COOKIE_NAME].value
    response = client.post("/accounts/login/", form | {"csrfmiddlewaretoken": token})
    assert response.status_code == 302
    assert response["Location"] == "/admin/"
    assert AuditEntry.objects.get().action == audit.SIGNED_IN
    cookie = next(value for name, value in client.cookies.items() if name.startswith("conclave_session_"))
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert not cookie["secure"]


def test_a_wrong_password_signs_nobody_in(admin: User) -> None:
    client = DjangoClient()
    response = client.post("/accounts/login/", {"username": "admin", "password": "wrong"})
    assert response.status_code == 200
    assert client.get("/admin/").status_code == 302
    assert not AuditEntry.objects.exists()


def test_whoever_is_signed_in_and_may_not_see_a_page_is_told_as_whom(db: None) -> None:
    client = DjangoClient()
    client.force_login(User.objects.create_user("eve"))
    refused = client.get("/admin/auth/user/", follow=True).content.decode()
    assert "You are signed in as eve, who may not see that page." in refused
    assert "You are signed in" not in DjangoClient().get("/accounts/login/?next=/admin/").content.decode()


@pytest.mark.parametrize("there", ["/live/default", "/admin/auth/user/"])
def test_whoever_comes_back_to_the_form_behind_it_is_not_told_to_be_refused(
    pages: DjangoClient, db: None, there: str
) -> None:
    """Back, from the first page behind a sign-in, leads here."""
    form = pages.get(f"/accounts/login/?next={there}").content.decode()
    assert "may not see" not in form
    assert f'You are signed in as admin: <a href="{there}">go on</a>' in form


def test_one_password_is_checked_at_a_time_and_so_many_wait_for_that(
    admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty strangers at the form took the processors from everybody: a call of the API took 5 s instead of 0.03 s."""
    checked: list[int] = []
    begun, go_on, lock = threading.Event(), threading.Event(), threading.Lock()

    def check(request: Any, **credentials: Any) -> None:
        assert lock.acquire(blocking=False), "another one is checked at this moment"
        begun.set()
        go_on.wait(10)
        checked.append(1)
        lock.release()

    monkeypatch.setattr("django.contrib.auth.forms.authenticate", check)
    form = {"username": "eve", "password": "guessed", "next": "/audit"}
    with ThreadPoolExecutor(accounts.SIGN_INS_MAX) as strangers:
        posts = [strangers.submit(DjangoClient().post, "/accounts/login/", form) for _ in range(accounts.SIGN_INS_MAX)]
        assert begun.wait(10)
        eventually(lambda: accounts._under_way._value == 0, timeout_s=10, what="all wait")
        refused = DjangoClient().post("/accounts/login/", form)
        go_on.set()
        assert [post.result().status_code for post in posts] == [200] * accounts.SIGN_INS_MAX
    assert len(checked) == accounts.SIGN_INS_MAX
    assert (refused.status_code, refused["Retry-After"]) == (503, "3")
    for kept in ("Too many people sign in at this moment.", 'value="eve"', 'name="next" value="/audit"'):
        assert kept in refused.content.decode()
    monkeypatch.undo()
    assert DjangoClient().post("/accounts/login/", {"username": "admin", "password": PASSWORD}).status_code == 302


def test_over_https_every_cookie_is_secure(admin: User) -> None:
    client = DjangoClient()
    response = client.post("/accounts/login/", {"username": "admin", "password": PASSWORD}, secure=True)
    assert response.status_code == 302
    assert len(client.cookies) == 2
    assert all(cookie["secure"] for cookie in client.cookies.values())


def test_no_cookie_is_that_of_another_copy_on_the_same_machine(admin: User) -> None:
    """Cookies know no ports. Who signs in gets a new CSRF token, and every page that is open has an old one then."""
    client = DjangoClient()
    client.post("/accounts/login/", {"username": "admin", "password": PASSWORD})
    port = str(settings.CONCLAVE.port)
    assert {name.rpartition("_")[2] for name in client.cookies} == {port}


@pytest.mark.parametrize("address", ["/live/default", "/x", "/access/default", "/audit", "/admin/", "/api/docs"])
def test_nothing_is_kept_of_what_a_person_who_signed_in_sees(
    pages: DjangoClient, cluster: FakeCluster, address: str
) -> None:
    """A browser that goes back to a page that it has kept asks nobody, and the next person may sit before it."""
    assert "no-store" in pages.get(address)["Cache-Control"]


def test_signing_out_takes_a_post(pages: DjangoClient) -> None:
    assert pages.get("/accounts/logout/").status_code == 405
    assert pages.post("/accounts/logout/").status_code == 302
    assert pages.get("/admin/").status_code == 302


def test_the_admin_signs_in_where_everybody_does(db: None) -> None:
    response = DjangoClient().get("/admin/", follow=True)
    assert response.redirect_chain[-1][0] == "/accounts/login/?next=/admin/"


def test_leading_back_never_leads_away(admin: User) -> None:
    form = {"username": "admin", "password": PASSWORD, "next": "https://evil.example/"}
    assert DjangoClient().post("/accounts/login/", form)["Location"] == "/"


def test_whoever_asks_by_a_name_that_is_none_of_ours_is_told_which_setting_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It said "Bad Request", and left a traceback about a setting that there is not, for each stranger."""
    page = DjangoClient().get("/", headers={"host": "<b>evil.example"})
    assert page.status_code == 400
    assert "“&lt;b&gt;evil.example”. Whoever runs it says with CONCLAVE_HOSTS" in page.content.decode()
    assert page["Content-Security-Policy"] == OWN_POLICY
    answer = DjangoClient().get("/api/v1/clusters/default/status", headers={"host": "evil.example:80"})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-request")
    assert "CONCLAVE_HOSTS" in answer.json()["detail"]
    assert [(entry.levelname, entry.exc_info) for entry in caplog.records] == [("WARNING", None)] * 2


# --- policies -------------------------------------------------------------------------------------


def test_each_part_has_its_own_policy() -> None:
    assert policy_for("/") == policy_for("/live/default") == policy_for("/accounts/login/") == OWN_POLICY
    assert policy_for("/admin/auth/user/") == ADMIN_POLICY
    assert policy_for("/api/docs") == DOCS_POLICY
    assert "unsafe" not in OWN_POLICY
    assert "default-src 'none'" in OWN_POLICY
    assert "frame-ancestors 'none'" in OWN_POLICY
    assert "'unsafe-inline'" not in ADMIN_POLICY.split("style-src")[0]
    for policy in (OWN_POLICY, ADMIN_POLICY, DOCS_POLICY):
        assert "http:" not in policy
        assert "https:" not in policy
        assert "*" not in policy


def test_every_answer_carries_the_policy_and_its_companions(pages: DjangoClient) -> None:
    for path in ("/accounts/login/", "/admin/", "/api/docs", "/nothing/here", "/healthz"):
        response = pages.get(path)
        assert response["Content-Security-Policy"] == policy_for(path), path
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Referrer-Policy"] == "same-origin"


def test_our_own_pages_hold_no_inline_script_or_style(pages: DjangoClient) -> None:
    for path in ("/accounts/login/", "/live/default", "/nothing/here"):
        text = pages.get(path).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", text), path
        assert "<style" not in text, path
        assert not re.search(r"\s(?:style|on\w+)=", text), path


def test_the_documents_of_the_api_need_a_login_and_nobody_elses_server(pages: DjangoClient) -> None:
    assert DjangoClient().get("/api/docs").status_code == 302
    page = pages.get("/api/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.content.decode()
    assert '"url": "/api/v1/openapi.json"' in page.content.decode()
    assert not FOREIGN.search(page.content.decode())
    described = pages.get("/api/v1/openapi.json")
    assert described.status_code == 200
    assert described.json()["info"]["title"] == "Conclave"


# --- the admin ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ADMIN_PAGES)
def test_the_admins_pages_render_with_no_address_of_anybody_elses(
    pages: DjangoClient, record: dict[str, Any], path: str
) -> None:
    response = pages.get(path)
    assert response.status_code == 200
    text = response.content.decode()
    assert "Conclave" in text
    assert not FOREIGN.search(text)


def test_each_row_of_the_record_can_be_looked_at_and_not_touched(pages: DjangoClient, record: dict[str, Any]) -> None:
    for model, row in record.items():
        address = f"/admin/conclave/{model}/{row.pk}/change/"
        page = pages.get(address)
        assert page.status_code == 200, model
        assert 'name="_save"' not in page.content.decode(), model
        assert pages.post(address, {"name": "changed", "actor": "changed"}).status_code == 403, model
        assert pages.get(f"/admin/conclave/{model}/add/").status_code == 403, model
        assert pages.post(f"/admin/conclave/{model}/{row.pk}/delete/", {"post": "yes"}).status_code == 403, model
    assert "held by the log" in pages.get(f"/admin/conclave/cluster/{record['cluster'].pk}/change/").content.decode()


def test_searches_and_filters_of_the_record_work(pages: DjangoClient, record: dict[str, Any]) -> None:
    for path in (
        "/admin/conclave/replica/?q=node1",
        "/admin/conclave/replica/?role=leader",
        "/admin/conclave/auditentry/?q=node1&outcome__exact=done",
        "/admin/conclave/node/?q=x",
    ):
        assert pages.get(path).status_code == 200, path


@pytest.mark.parametrize("address", [path for path in ADMIN_PAGES if "/conclave/" in path])
def test_no_list_of_the_admin_has_the_database_compute_something_of_every_row(
    pages: DjangoClient, record: dict[str, Any], address: str
) -> None:
    """The days that there are entries of, as `date_hierarchy` offers them, took 13 s of a million entries."""
    with CaptureQueriesContext(connection) as asked:
        assert pages.get(address).status_code == 200
    assert not [query["sql"] for query in asked if "trunc" in query["sql"].lower()]


def test_the_entries_of_some_days_can_be_asked_for(pages: DjangoClient, record: dict[str, Any]) -> None:
    shown = pages.get("/admin/conclave/auditentry/").content.decode()
    assert "at__gte=" in shown
    for narrowed, count in (
        ("at__gte=2001-01-01T00:00Z&at__lt=2002-01-01T00:00Z", 0),
        ("at__gte=2001-01-01T00:00Z", 1),
        ("at__year=2001", 0),
    ):
        answer = pages.get(f"/admin/conclave/auditentry/?{narrowed}")
        assert answer.status_code == 200
        assert answer.context["cl"].result_count == count, narrowed


def test_a_user_whose_name_cannot_be_a_principal_is_not_made(pages: DjangoClient) -> None:
    form = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    refused = pages.post("/admin/auth/user/add/", form | {"username": "jürgen"})
    assert refused.status_code == 200
    assert "cannot be a principal" in refused.content.decode()
    assert pages.post("/admin/auth/user/add/", form | {"username": "juergen"}).status_code == 302
    assert set(User.objects.values_list("username", flat=True)) == {"admin", "juergen"}


def test_rights_are_given_as_permissions(db: None) -> None:
    names = set(Permission.objects.filter(content_type__app_label="conclave").values_list("codename", flat=True))
    assert {"read_state", "write_keys", "use_locks", "administer"} <= names


def test_an_audit_entry_is_never_changed_nor_deleted(record: dict[str, Any]) -> None:
    entry = AuditEntry.objects.get()
    entry.actor = "somebody else"
    with pytest.raises(PermissionDenied):
        entry.save()
    with pytest.raises(PermissionDenied):
        entry.delete()


# --- async from end to end ------------------------------------------------------------------------


def test_every_middleware_is_async_capable(settings: Any) -> None:
    from django.utils.module_loading import import_string

    for path in settings.MIDDLEWARE:
        assert getattr(import_string(path), "async_capable", False), path


async def test_an_async_view_runs_on_the_event_loop(async_client: DjangoAsyncClient) -> None:
    import threading

    from coordinator import health

    where: list[int] = []

    def look(request: Any) -> None:
        where.append(threading.get_ident())

    original = health._safe_only
    try:
        health._safe_only = look
        await async_client.get("/healthz")
    finally:
        health._safe_only = original
    assert where == [threading.get_ident()]


def of_the_driver(text: str) -> DatabaseError:
    """As what SQLite says of a damaged file comes through Django."""
    error = DatabaseError(text)
    error.__cause__ = sqlite3.DatabaseError(text)
    return error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("connection refused"),
        InterfaceError("connection already closed"),
        ProgrammingError('relation "x" does not exist\nLINE 1: …'),
        of_the_driver("database disk image is malformed"),
    ],
)
def test_a_page_that_the_database_keeps_from_being_shown_says_so(
    pages: DjangoClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: DatabaseError
) -> None:
    """It said that the web process had made a mistake, and each was a traceback in the log."""

    def fails(*_: object) -> Any:
        raise error

    for name in ("coordinator.record.cluster_names", "django.contrib.sessions.backends.db.SessionStore.load"):
        monkeypatch.setattr(name, fails)
        response = pages.get("/live/default")
        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert "The database cannot be used now." in response.content.decode()
    assert {(each.levelname, each.exc_info) for each in caplog.records if each.name != "django.request"} == {
        ("WARNING", None)
    }


@pytest.mark.parametrize("error", [IntegrityError("duplicate key"), DatabaseError("a save that changed no row")])
def test_another_fault_of_a_page_is_called_one(
    pages: DjangoClient, monkeypatch: pytest.MonkeyPatch, error: DatabaseError
) -> None:
    def fails() -> Any:
        raise error

    monkeypatch.setattr("coordinator.record.cluster_names", fails)
    pages.raise_request_exception = False
    assert pages.get("/live/default").status_code == 500
