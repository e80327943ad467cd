"""The socket of one live page: a snapshot under a number, then changes under the numbers that follow.

    server  {"type": "snapshot", "number": N, "clock_ms": T, "view": {section: {key: value}}}
            {"type": "change", "number": N + 1, "clock_ms": T, "set": {section: {key: value}}, "gone": {section: [key]}}
            {"type": "error", "message": "..."}
    client  {"type": "snapshot"}        after a gap in the numbers, and only then

It closes with 1013 (the database can not be asked: come again), 4401 (nobody is signed in), 4403 (signed in without the
right to read), 4404 (no cluster of this name is known yet, where a page tries again; or no such address), 4408 (the
browser reads nothing), 4429 (too many pages, or too much nonsense). The socket is accepted first in each case: a
browser is told the code of an open socket only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Any, Final

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from django.contrib.auth import HASH_SESSION_KEY, get_user_model
from django.utils.crypto import constant_time_compare

from coordinator import database_errors
from coordinator.database import asking
from coordinator.seldom import Seldom
from dashboard import feed_reader, rights, sign_out
from dashboard.broadcast import Subscription, TooManySubscribersError

MESSAGE_CHARACTERS_MAX: Final = 1_024
MISTAKES_MAX: Final = 20
"""Bad messages of one browser; then it is closed."""
SNAPSHOT_S_MIN: Final = 0.5
"""Between two snapshots that one browser asks for; the second is sent when this is over."""
WISHES_MAX: Final = 200
"""Of one browser for a snapshot that it is about to be sent anyway; then it is closed. A page of ours has one."""
SEND_S_MAX: Final = 20.0
"""A browser that takes no message for so long is closed."""
RECHECK_S: Final = 15.0
"""A page outlives neither its sign-in nor its rights by more than this. Where one signs out by the same web process, it
ends at once."""
AGAIN_S: Final = 1.0
"""Until it is looked again, where the database could not be asked."""

TRY_AGAIN: Final = 1013
SIGNED_OUT: Final = 4401
FORBIDDEN: Final = 4403
NO_CLUSTER: Final = 4404
TOO_SLOW: Final = 4408
TOO_MUCH: Final = 4429

log = logging.getLogger(__name__)

_unasked: Final = Seldom()


def _note(what: str, error: Exception) -> None:
    """Of all pages, each of which asks again every second: what is said while a database is away is said once."""
    if not _unasked.is_due(f"{what}: {error!r}"):
        return
    if database_errors.is_of_the_database(error):
        log.warning("%s: %s", what, database_errors.in_words(error))
    else:
        log.warning("%s", what, exc_info=error)


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends one browser what `dashboard.broadcast` has for it. Holds nothing but its subscription."""

    async def connect(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Subscription | None = None
        self._mistakes = 0
        self._wishes = 0
        self._asked_s = float("-inf")
        self._asking: asyncio.TimerHandle | None = None
        self._heard = contextlib.ExitStack()
        session = self.scope.get("session")
        signed_out = self._heard.enter_context(sign_out.heard_of(session.session_key if session is not None else None))
        await self.accept()
        try:
            refusal = await self._refusal()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page can not be let in
            _note("a page's rights could not be looked up; it has to come again", error)
            refusal = TRY_AGAIN
        if refusal:
            await self.close(refusal)
            return
        reader = await feed_reader.start()
        broadcast = reader.broadcast(self.scope["url_route"]["kwargs"]["cluster"])
        if broadcast is None:
            await self.close(NO_CLUSTER)
            return
        try:
            self._subscription = broadcast.subscribe()
        except TooManySubscribersError:
            await self.close(TOO_MUCH)
            return
        self._tasks = [
            asyncio.create_task(self._write(self._subscription)),
            asyncio.create_task(self._recheck(signed_out)),
        ]

    async def disconnect(self, code: int) -> None:
        if self._subscription is not None:
            self._subscription.close()
        if self._asking is not None:
            self._asking.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._heard.close()

    # --- out ------------------------------------------------------------------------------------

    async def _write(self, subscription: Subscription) -> None:
        while True:
            message = await subscription.next()
            try:
                async with asyncio.timeout(SEND_S_MAX):
                    await self.send(text_data=message)
            except TimeoutError:
                await self._close(TOO_SLOW)
                return

    async def _recheck(self, signed_out: asyncio.Event) -> None:
        """Signing out, and a right taken away, end the page that is open."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_S):
                    await signed_out.wait()
            try:
                refusal = await self._refusal()
            except Exception as error:  # noqa: BLE001 - whatever it is, the page stays
                _note("a page's rights could not be checked again; it stays until they can", error)
                await asyncio.sleep(AGAIN_S)
                continue
            if refusal:
                await self._close(refusal)
                return
            signed_out.clear()

    async def _close(self, code: int) -> None:
        """`disconnect` follows, and cancels the task of this consumer that calls it. What comes meanwhile is passed
        over."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND_S_MAX):
                await self.close(code)

    async def _refusal(self) -> int:
        """The code to close with, 0 where this person may watch."""
        refusal = await asking(_refusal)(self.scope)
        _unasked.over()
        return refusal

    # --- in -------------------------------------------------------------------------------------

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        if self._subscription is None:
            return
        problem = self._take(text_data)
        if problem is not None:
            self._mistakes += 1
            await self.send_json({"type": "error", "message": problem})
        if self._mistakes >= MISTAKES_MAX or self._wishes > WISHES_MAX:
            await self._close(TOO_MUCH)

    def _take(self, text: str | None) -> str | None:
        """Do what a message asks; what is wrong with it otherwise."""
        if text is None:
            return 'expected a text message such as {"type": "snapshot"}, got bytes'
        if len(text) > MESSAGE_CHARACTERS_MAX:
            return f"expected at most {MESSAGE_CHARACTERS_MAX} characters, got {len(text)}"
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return "expected JSON"
        if not isinstance(message, dict) or message.get("type") != "snapshot":
            return 'expected {"type": "snapshot"}'
        self._ask_for_snapshot()
        return None

    def _ask_for_snapshot(self) -> None:
        """At most one each SNAPSHOT_S_MIN; more of them wait as one."""
        assert self._subscription is not None
        if self._asking is not None:
            self._wishes += 1
            return
        wait_s = self._asked_s + SNAPSHOT_S_MIN - time.monotonic()
        if wait_s <= 0:
            self._send_snapshot()
        else:
            self._asking = asyncio.get_running_loop().call_later(wait_s, self._send_snapshot)

    def _send_snapshot(self) -> None:
        self._asking = None
        self._wishes = 0
        self._asked_s = time.monotonic()
        if self._subscription is not None:
            self._subscription.want_snapshot()


class NoSuchSocket(AsyncWebsocketConsumer):
    """At any other address there is nothing."""

    async def connect(self) -> None:
        await self.accept()
        await self.close(NO_CLUSTER)


def _refusal(scope: Any) -> int:
    """Read from the database: the session must still be there and the password the same, the person active and allowed
    to read."""
    user = scope.get("user")
    if user is None or not user.is_authenticated:
        return SIGNED_OUT
    now = get_user_model()._default_manager.filter(pk=user.pk, is_active=True).first()
    if now is None:
        return SIGNED_OUT
    session = scope.get("session")
    if session is not None:
        known = session.get(HASH_SESSION_KEY, "")
        if not session.exists(session.session_key) or not constant_time_compare(known, now.get_session_auth_hash()):
            return SIGNED_OUT
    return 0 if now.has_perm(rights.READ) else FORBIDDEN
