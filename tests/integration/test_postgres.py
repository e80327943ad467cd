"""PostgreSQL as the web tier's database: what SQLite serialises, takes, or never has to wait for."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Final

import httpx
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import OperationalError, connection, connections

from coordinator import audit, health, record, setting_up, wire
from coordinator.config import PROJECT
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.membership import edits
from coordinator.models import AuditEntry, Cluster, Node
from coordinator.replica.operations import ADDRESS_BYTES_MAX
from coordinator.settings import DATABASE_BUSY_S_MAX, database_at
from dashboard.consumers import LiveConsumer
from tests.conftest import without
from tests.integration.http_api import API, Caller, HangingCall
from tests.integration.installation import Installation
from tests.integration.private_postgres import PrivatePostgres, programs
from tests.integration.waiting import eventually
from tests.unit.membership.company import Company, FakeClient

SET_UP: Final = """
import django
django.setup()
from coordinator import setting_up
from coordinator.settings import CONCLAVE
setting_up.migrate()
setting_up.make_administrator(CONCLAVE, print)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    if programs() is None:
        without("PostgreSQL")
    if importlib.util.find_spec("psycopg") is None:
        without("psycopg, the driver of PostgreSQL", by="make")
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def empty(postgres: PrivatePostgres, request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[str]:
    """Django's database in this test: a new one there, without tables. Its URL. `param`: its encoding."""
    url = postgres.new_database(f"of_{abs(hash(request.node.name)):x}", getattr(request, "param", "UTF8"))
    kept = connections.settings["default"]
    with django_db_blocker.unblock():
        before = _take_for_default(database_at(url))
        try:
            yield url
        finally:
            _take_for_default(kept, *before)


@pytest.fixture
def database(empty: str) -> str:
    """The same, with its tables."""
    call_command("migrate", interactive=False, verbosity=0)
    return empty


def _take_for_default(settings: dict[str, Any], *ours: Any) -> list[Any]:
    """Have it for the default database, in this thread and in that in which what is asked on the event loop is asked;
    the connections of both that there were. `ours`: to take instead of new ones."""
    connections.settings["default"] = connections.configure_settings({"default": settings})["default"]

    def take(instead: Any) -> Any:
        before = connections["default"]
        before.close()
        if instead is None:
            del connections["default"]
        else:
            connections["default"] = instead
        return before

    here, there = ours or (None, None)
    return [take(here), SyncToAsync.single_thread_executor.submit(take, there).result()]


# --- two who say something at the same time -------------------------------------------------------


def test_of_two_first_words_at_the_same_time_one_is_refused_and_the_other_is_in_database_and_log(database, monkeypatch):
    """Both found no row: the second wrote its word over the first one's, under the same generation, and the log was
    told both."""
    client: Any = FakeClient(0xAA, Company("node1", "node2"))
    client.configuration, client.leader = Configuration((Member(1, "node1"),)), 1
    row = edits.cluster_row("default", 0xAA)
    both_have_looked = threading.Barrier(2)

    def say(seconds: int) -> Any:
        def change(wanted):
            both_have_looked.wait(10)
            return wanted.replacing_after(seconds)

        try:
            return edits.say(client, row, change)
        except edits.DatabaseBehind as refused:
            return refused
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        said = [*threads.map(say, (70, 80))]
    refused = [each for each in said if isinstance(each, edits.DatabaseBehind)]
    assert len(refused) == 1, said
    assert "at the same time; look again" in str(refused[0])
    (done,) = (each for each in said if each not in refused)
    kept = edits.compare(row, edits.view_of(client, row))
    assert (kept.agreement, kept.wanted) == (edits.Agreement.SAME, done)


def test_what_nodes_report_as_a_cluster_is_born_and_its_record_do_not_wait_for_each_other(database):
    """The record began with the cluster and a report with the node: one of the two was refused as a deadlock, and then
    `cluster create` ended as failed."""
    names = ("node1", "node2", "node3")
    rounds = range(0x100, 0x110)
    together = threading.Barrier(2 + len(names), timeout=30)

    def each(write: Callable[[int], object]) -> None:
        for number in rounds:
            together.wait()
            write(number)
        connection.close()

    def report(node: str) -> Callable[[int], object]:
        def write(number: int) -> None:
            said: Any = SimpleNamespace(node=node, cluster=number, cluster_name=f"c{number}", replica=int(node[-1]))
            said.role, said.term, said.applied_index = "follower", 1, 1
            record.note(said)

        return write

    births = [
        lambda number: record.record_birth(f"c{number}", f"{number:x}", names),
        lambda number: record.record_birth(f"d{number}", f"{number + 0x1000:x}", names[::-1]),
    ]
    with ThreadPoolExecutor(2 + len(names)) as threads:
        for done in [threads.submit(each, write) for write in (*births, *map(report, names))]:
            done.result()
    assert Cluster.objects.count() == 2 * len(rounds)


def test_two_that_set_up_the_same_database_at_the_same_time_both_do(postgres, tmp_path):
    """One of them found tables that had not been there when it looked, and gave up."""
    url = postgres.new_database("empty")
    own = {"CONCLAVE_DATA": str(tmp_path), "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "coordinator.settings"}
    environment = os.environ | own | {"CONCLAVE_ADMIN_PASSWORD": "a password of the tests"}
    both = [
        subprocess.Popen([sys.executable, "-c", SET_UP], cwd=PROJECT, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert postgres.ask("empty", "SELECT username FROM auth_user") == ["admin"]


# --- what it does not take ------------------------------------------------------------------------


def test_what_the_database_takes_no_text_for_is_in_the_audit_all_the_same(database):
    """One NUL in a reason kept a change out of the audit."""
    audit.keep(actor="a\0b", action="access.changed", target="x\0y", reason="be\0cause", details={"change": ["a\0b"]})
    audit.keep(actor="ci", action="access.changed", reason="bad \udcff byte", details={"error": "\ud800"})
    first, second = AuditEntry.objects.order_by("id")
    assert (first.actor, first.target, first.reason) == (r"a\x00b", r"x\x00y", r"be\x00cause")
    assert first.details == {"change": [r"a\x00b"]}
    assert (second.reason, second.details) == (r"bad \udcff byte", {"error": r"\ud800"})


def test_the_longest_address_that_a_log_takes_is_recorded_as_far_as_it_fits(database):
    """None of what nodes say was recorded beside one that was longer than its column, and `cluster rebuild` failed."""
    address = f"rediss://{'h' * (ADDRESS_BYTES_MAX - len('rediss://:6379/0'))}:6379/0"
    record.note_directory(wire.Directory(1, "node1", (("node1", address), ("node2", "")), ()))
    assert [*Node.objects.values_list("name", "address")] == [("node1", address[:255]), ("node2", "")]


# --- it goes away and comes back ------------------------------------------------------------------


def _signed_in() -> dict[str, Any]:
    user = get_user_model()._default_manager.create_superuser("ann", "", "a password of the tests")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {"user": user, "session": session}


async def test_an_open_page_is_judged_again_once_the_database_is_back(database, postgres):
    """It was asked on the connection that had died, each time, and the page outlived its sign-in."""
    page = LiveConsumer()
    page.scope = await sync_to_async(_signed_in)()
    assert await page._refusal() == 0
    postgres.stop()
    try:
        with pytest.raises(OperationalError):
            await page._refusal()
    finally:
        postgres.start()
    assert await page._refusal() == 0
    await sync_to_async(page.scope["session"].flush)()


@pytest.mark.parametrize("empty", ["LATIN1"], indirect=True)
def test_a_database_that_lacks_most_characters_is_refused(empty):
    """It was taken, and what people wrote with any of them was missing from the audit."""
    with pytest.raises(setting_up.SetUpError, match="encoding UTF8; came LATIN1"):
        setting_up.migrate()


def test_setting_up_tells_a_server_that_is_away_from_one_that_fails(database, postgres):
    connection.close()
    postgres.stop()
    try:
        with pytest.raises(setting_up.NotThereNow, match="DATABASE_URL"):
            setting_up.migrate()
    finally:
        postgres.start()
    setting_up.migrate()


def test_one_that_takes_no_writes_is_told_from_one_that_does(database):
    """As behind a failover to a standby: `/readyz` said that all is ready."""
    assert health._takes_writes(connection)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    assert not health._takes_writes(connection)
    assert health._problem_with_pages() is None, "those who are signed in are served"


def test_one_that_takes_connections_and_answers_nobody_is_given_up(database, postgres):
    """Pages, and commands, hung for as long as it did."""
    connection.close()
    postgres.pause()
    began = time.monotonic()
    try:
        with pytest.raises(OperationalError, match="timeout"):
            AuditEntry.objects.exists()
        assert time.monotonic() - began < 2 * DATABASE_BUSY_S_MAX
    finally:
        postgres.resume()
    assert not AuditEntry.objects.exists()


# --- a whole installation -------------------------------------------------------------------------

WEB: Final = "web"
WAITERS: Final = 12


@pytest.fixture(scope="module")
def on_postgres(postgres: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    settings = {"DATABASE_URL": postgres.new_database(WEB)}
    with Installation(tmp_path_factory.mktemp("postgres") / "data", settings=settings) as running:
        yield running


def _connections(postgres: PrivatePostgres) -> int:
    return int(postgres.ask("postgres", f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{WEB}'")[0])


def test_calls_that_wait_keep_no_connection(on_postgres, postgres):
    """Each had one for as long as it stood in line: a hundred of them, and nobody else came in, here or in what else
    uses the server."""
    with Caller(on_postgres).sign_in() as ann:
        assert ann.acquire("busy", ttl_ms=60_000).status_code == 200
        path, body = f"{API}/locks/busy/acquire", b'{"wait_ms": 60000}'
        calls = [HangingCall(on_postgres, ann, path, body) for _ in range(WAITERS)]
        eventually(
            lambda: ann.lock("busy")["waiting"] == WAITERS,
            timeout_s=20,
            what=lambda: f"all stand in line; it is {ann.lock('busy')}",
        )
        eventually(
            lambda: _connections(postgres) < WAITERS,
            timeout_s=5,
            what=lambda: f"they keep none; there are {_connections(postgres)}",
        )
        for call in calls:
            call.hang_up()


def test_a_strangers_cookie_with_a_nul_in_it_is_no_error_of_ours(on_postgres):
    """Django reads the escape; each page was a 500, and the API said that the database cannot be used."""
    cookie = {"Cookie": rf'conclave_session_{on_postgres.port}="\000aaaaaaaaaaaaaaa"'}
    assert httpx.get(f"{on_postgres.url}/", headers=cookie).headers["Location"] == "/accounts/login/?next=/"
    assert httpx.get(f"{on_postgres.url}{API}/status", headers=cookie).status_code == 401


def test_a_server_that_dies_and_comes_back_costs_pages_alone_and_only_for_so_long(on_postgres, postgres):
    with Caller(on_postgres).sign_in() as ann:
        postgres.stop(signal.SIGKILL)
        assert on_postgres.get("/readyz").status == 503
        assert on_postgres.get("/readyz/default").status == 200
        assert ann.http.get(f"{API}/status").json()["error"] == "unavailable"
        for path in ("/", "/admin/", "/accounts/login/"):
            page = ann.http.get(path)
            assert (page.status_code, page.headers["Retry-After"]) == (503, "5"), path
            assert "The database cannot be used now." in page.text
        assert "Traceback" not in on_postgres.log("web")
        postgres.start()
        eventually(lambda: on_postgres.get("/readyz").status == 200, timeout_s=10, what="pages are served")
        assert ann.acquire("again").status_code == 200
