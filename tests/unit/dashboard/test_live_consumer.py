"""The socket of a live page: who gets in, what it says, and that no browser can make it grow."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError

from coordinator import asgi
from dashboard import broadcast, consumers, feed_reader, sign_out
from dashboard.broadcast import Broadcast
from dashboard.feed_reader import FeedReader
from dashboard.model import with_changes
from dashboard.routing import websocket_urlpatterns
from tests.unit.dashboard.reports import NODES, quorum
from tests.unit.dashboard.socket_client import PATIENCE_S, Socket

pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def live(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Broadcast:
    """The broadcast of cluster `default`, turned by hand."""
    reader = FeedReader("redis://127.0.0.1:1", realm="00000000", peer_key=b"", nodes=NODES, clock=clock)

    async def running() -> FeedReader:
        return reader

    monkeypatch.setattr(feed_reader, "start", running)
    return reader.clusters["default"]


def report(live: Broadcast, clock: Clock, last: int) -> None:
    clock.now_ms += 100
    for each in quorum(last_index=last):
        live.model.apply(each, clock())
    live.dirty = True
    live.turn(clock())


def make_user(name: str, *, may_read: bool) -> Any:
    user = get_user_model().objects.create_user(name, password="x")
    if may_read:
        user.user_permissions.add(Permission.objects.get(codename="read_state"))
    return user


async def reader_user() -> Any:
    return await sync_to_async(make_user)("ann", may_read=True)


async def connected(user: Any, cluster: str = "default", application: Any = None, **scope: Any) -> Socket:
    application = application or URLRouter(websocket_urlpatterns)
    socket = Socket(application, f"/ws/live/{cluster}/", user=user, **scope)
    await socket.connect()
    return socket


# --- who gets in --------------------------------------------------------------------------------


@pytest.mark.usefixtures("live")
async def test_nobody_in_particular_is_refused() -> None:
    assert await (await connected(AnonymousUser())).close_code() == consumers.SIGNED_OUT


@pytest.mark.usefixtures("live")
async def test_a_user_without_the_right_to_read_is_refused() -> None:
    user = await sync_to_async(make_user)("eve", may_read=False)
    assert await (await connected(user)).close_code() == consumers.FORBIDDEN


@pytest.mark.usefixtures("live")
async def test_a_user_who_is_no_longer_active_is_refused() -> None:
    user = await reader_user()
    user.is_active = False
    await user.asave()
    assert await (await connected(user)).close_code() == consumers.SIGNED_OUT


@pytest.mark.usefixtures("live")
async def test_a_cluster_that_nobody_knows_is_refused() -> None:
    assert await (await connected(await reader_user(), "nobody")).close_code() == consumers.NO_CLUSTER


@pytest.mark.parametrize("path", ["/ws/zz", "/", "/ws/live/no slug/"])
async def test_at_another_address_there_is_no_socket(path: str) -> None:
    socket = Socket(URLRouter(websocket_urlpatterns), path, user=AnonymousUser())
    await socket.connect()
    assert await socket.close_code() == consumers.NO_CLUSTER
    await socket.disconnect()


async def test_one_page_too_many_is_refused(live: Broadcast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "SUBSCRIBERS_MAX", 0)
    assert await (await connected(await reader_user())).close_code() == consumers.TOO_MUCH


def signed_in(user: Any) -> SessionStore:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


@pytest.mark.parametrize("what", ["signed out", "other password", "no right"])
@pytest.mark.usefixtures("live")
async def test_a_page_does_not_outlive_what_let_it_in(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "RECHECK_S", 0.02)
    user = await reader_user()
    session = await sync_to_async(signed_in)(user)
    socket = await connected(user, session=session)
    assert (await socket.take())["type"] == "snapshot"
    if what == "signed out":
        await sync_to_async(SessionStore(session.session_key).delete)()
    elif what == "other password":
        user.set_password("y")
        await user.asave()
    else:
        await user.user_permissions.aclear()
    assert await socket.close_code() == (consumers.FORBIDDEN if what == "no right" else consumers.SIGNED_OUT)
    await socket.disconnect()


@pytest.mark.usefixtures("live")
async def test_signing_out_ends_all_pages_of_that_session_at_once() -> None:
    user = await reader_user()
    ended, other = await sync_to_async(signed_in)(user), await sync_to_async(signed_in)(user)
    pages = [await connected(user, session=session) for session in (ended, ended, other)]
    for page in pages:
        assert (await page.take())["type"] == "snapshot"
    await sync_to_async(SessionStore(ended.session_key).delete)()
    assert consumers.RECHECK_S > 2 * PATIENCE_S, "so it is not seen by looking again"
    assert [await page.close_code() for page in pages[:2]] == [consumers.SIGNED_OUT] * 2
    for page in pages[:2]:
        await page.disconnect()
    assert set(sign_out._listening) == {other.session_key}
    await pages[2].disconnect()
    assert not sign_out._listening


async def test_one_who_signs_out_while_the_page_opens_does_not_keep_it(
    live: Broadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await sync_to_async(signed_in)(user := await reader_user())
    start = feed_reader.start

    async def signing_out() -> FeedReader:
        await sync_to_async(SessionStore(session.session_key).delete)()
        return await start()

    monkeypatch.setattr(feed_reader, "start", signing_out)
    assert consumers.RECHECK_S > 2 * PATIENCE_S
    page = await connected(user, session=session)
    assert await page.close_code() == consumers.SIGNED_OUT
    await page.disconnect()


async def test_a_sign_out_is_not_forgotten_where_the_database_can_not_be_asked(
    live: Broadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "AGAIN_S", 0.02)
    session = await sync_to_async(signed_in)(user := await reader_user())
    page = await connected(user, session=session)
    assert (await page.take())["type"] == "snapshot"
    refusal, asked = consumers._refusal, []

    def busy(scope: Any) -> int:
        asked.append(scope)
        if len(asked) < 3:
            raise OperationalError("database is locked")
        return refusal(scope)

    monkeypatch.setattr(consumers, "_refusal", busy)
    await sync_to_async(SessionStore(session.session_key).delete)()
    assert await page.close_code() == consumers.SIGNED_OUT
    await page.disconnect()


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.usefixtures("live")
async def test_a_page_that_can_not_be_judged_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database could not be asked each page that tried again left a listener for as long as the process."""
    user = await reader_user()
    session = await sync_to_async(signed_in)(user)

    def no_database(scope: Any) -> int:
        raise OperationalError("planted")

    monkeypatch.setattr(consumers, "_refusal", no_database)
    socket = await connected(user, session=session)
    assert await socket.close_code() == consumers.TRY_AGAIN
    await socket.disconnect()
    assert not sign_out._listening


async def test_a_page_that_comes_back_while_the_database_is_away_is_to_come_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try of each page was refused with a 500, and left ninety lines of traceback in the log."""

    def away(store: SessionStore) -> Any:
        raise OperationalError("no such table: django_session")

    monkeypatch.setattr(SessionStore, "load", away)
    application = asgi.WithoutDatabase(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
    cookie = (b"cookie", f"{settings.SESSION_COOKIE_NAME}={'a' * 32}".encode())
    for _ in range(3):
        socket = Socket(application, "/ws/live/default/", headers=[cookie])
        await socket.connect()
        assert await socket.close_code() == consumers.TRY_AGAIN
    assert [(each.levelname, each.exc_info) for each in caplog.records] == [("WARNING", None)]
    assert "python manage.py migrate" in caplog.text


@pytest.mark.usefixtures("live")
async def test_open_pages_do_not_fill_the_log_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(scope: Any) -> int:
        raise OperationalError("connection refused")

    user = await reader_user()
    monkeypatch.setattr(consumers, "_refusal", away)
    for _ in range(3):
        socket = await connected(user)
        assert await socket.close_code() == consumers.TRY_AGAIN
        await socket.disconnect()
    said = [each for each in caplog.records if each.name == consumers.log.name]
    assert [(each.levelname, each.exc_info) for each in said] == [("WARNING", None)]


async def test_a_snapshot_then_the_changes_that_follow_it(live: Broadcast, clock: Clock) -> None:
    socket = await connected(await reader_user())
    snapshot = await socket.take()
    view = snapshot["view"]
    for place, last in enumerate((21, 22, 23), 1):
        report(live, clock, last)
        change = await socket.take()
        assert (change["type"], change["number"]) == ("change", snapshot["number"] + place)
        view = with_changes(view, change)
    assert view == json.loads(json.dumps(live.model.view(clock())))
    await socket.disconnect()
    assert live.subscribers == 0


async def test_after_a_gap_a_fresh_snapshot_is_there_for_the_asking(live: Broadcast, clock: Clock) -> None:
    socket = await connected(await reader_user())
    await socket.take()
    report(live, clock, 21)
    await socket.take()  # Taken for lost by this browser.
    report(live, clock, 22)
    await socket.take()
    await socket.ask_for_snapshot()
    snapshot = await socket.take()
    assert (snapshot["type"], snapshot["number"]) == ("snapshot", live.number)
    report(live, clock, 23)
    assert (await socket.take())["number"] == snapshot["number"] + 1
    await socket.disconnect()


async def test_many_wishes_for_a_snapshot_are_one(
    live: Broadcast, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "SNAPSHOT_S_MIN", 0.05)
    socket = await connected(await reader_user())
    await socket.take()
    for _ in range(50):
        await socket.ask_for_snapshot()
    assert (await socket.take())["type"] == "snapshot"
    assert (await socket.take())["type"] == "snapshot"
    report(live, clock, 21)
    assert (await socket.take())["type"] == "change"
    await socket.disconnect()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "expected JSON"),
        ("[]", 'expected {"type": "snapshot"}'),
        ("1" * 5_000, "expected at most 1024 characters, got 5000"),
        ('{"type": "everything"}', 'expected {"type": "snapshot"}'),
        ("[" * 1_000, "expected JSON"),
    ],
)
@pytest.mark.usefixtures("live")
async def test_nonsense_is_answered_with_what_was_expected(text: str, says: str) -> None:
    socket = await connected(await reader_user())
    await socket.take()
    await socket.send(text)
    assert await socket.take() == {"type": "error", "message": says}
    await socket.disconnect()


@pytest.mark.usefixtures("live")
async def test_bytes_are_nonsense_too() -> None:
    socket = await connected(await reader_user())
    await socket.take()
    await socket.send(data=b"\x00")
    assert "got bytes" in (await socket.take())["message"]
    await socket.disconnect()


@pytest.mark.usefixtures("live")
async def test_too_much_nonsense_ends_it() -> None:
    socket = await connected(await reader_user())
    await socket.take()
    for _ in range(consumers.MISTAKES_MAX):
        await socket.send("{")
    assert await socket.close_code() == consumers.TOO_MUCH


@pytest.mark.usefixtures("live")
async def test_who_wishes_for_one_snapshot_without_end_is_sent_away() -> None:
    """Each wish is a message as it should be; thousands of them a second kept a processor busy for one browser."""
    socket = await connected(await reader_user())
    await socket.take()
    for _ in range(consumers.WISHES_MAX + 3):
        await socket.ask_for_snapshot()
    assert await socket.close_code() == consumers.TOO_MUCH


# --- slow browsers ------------------------------------------------------------------------------


class SlowBrowser:
    """Takes the first message, then none until `gate` opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.is_held = asyncio.Event()
        self._inner = URLRouter(websocket_urlpatterns)
        self._sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def slow_send(message: Any) -> None:
            if message["type"] == "websocket.send":
                self._sent += 1
                if self._sent > 1:
                    self.is_held.set()
                    await self.gate.wait()
            await send(message)

        await self._inner(scope, receive, slow_send)


async def test_a_slow_browser_is_caught_up_with_one_snapshot(live: Broadcast, clock: Clock) -> None:
    browser = SlowBrowser()
    socket = await connected(await reader_user(), application=browser)
    first = await socket.take()
    report(live, clock, 21)
    await asyncio.wait_for(browser.is_held.wait(), PATIENCE_S)
    for last in range(22, 22 + 5 * broadcast.CHANGES_MAX):
        report(live, clock, last)
    (subscription,) = live._subscribers
    assert len(subscription._pending) <= broadcast.CHANGES_MAX
    browser.gate.set()
    held = await socket.take()
    assert (held["type"], held["number"]) == ("change", first["number"] + 1)
    fresh = await socket.take()
    assert (fresh["type"], fresh["number"]) == ("snapshot", live.number)
    assert live.overruns == 1
    report(live, clock, 999)
    assert (await socket.take())["number"] == fresh["number"] + 1
    await socket.disconnect()


async def test_a_browser_that_takes_nothing_is_closed(
    live: Broadcast, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "SEND_S_MAX", 0.05)
    browser = SlowBrowser()
    socket = await connected(await reader_user(), application=browser)
    await socket.take()
    report(live, clock, 21)
    assert await socket.close_code() == consumers.TOO_SLOW
    assert live.subscribers == 0
