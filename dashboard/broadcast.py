"""Numbers the changes of one cluster's view and hands them to this process's browsers, each with a bound.

A view is made once for all subscribers, and encoded once. A subscriber that reads too slowly loses its pending
changes and gets one fresh snapshot in their place: what waits for a browser never grows beyond CHANGES_MAX.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from dashboard.model import ClusterModel, View, changes

CHANGES_MAX: Final = 32
"""Pending changes of one subscriber; at ten a second this is a browser some 3 s behind."""
SUBSCRIBERS_MAX: Final = 1_000
"""Browsers on one cluster and web process; the next one is refused."""
VIEW_MS: Final = 250
"""A view is made again after this long though nothing was heard: durations in it grow."""
PULSE_MS: Final = 1_000
"""A change is published this often, give or take VIEW_MS, empty if need be: a browser can tell silence from calm."""


class TooManySubscribersError(Exception):
    """Raised by `Broadcast.subscribe` at SUBSCRIBERS_MAX."""


def _encoded(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class Subscription:
    """What waits for one browser. Owned by its consumer; used on one event loop."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._pending: deque[str] = deque()
        self._wants_snapshot = True
        self._ready = asyncio.Event()
        self._ready.set()

    def offer(self, change: str) -> None:
        """Take a change, or drop it where a snapshot is due anyway or the bound is reached."""
        if self._wants_snapshot:
            return
        if len(self._pending) >= CHANGES_MAX:
            self._broadcast.overruns += 1
            self.want_snapshot()
            return
        self._pending.append(change)
        self._ready.set()

    def want_snapshot(self) -> None:
        """Pending changes are coalesced into one fresh snapshot."""
        self._pending.clear()
        self._wants_snapshot = True
        self._ready.set()

    async def next(self) -> str:
        """The next message for this browser, encoded. Waits until there is one."""
        await self._ready.wait()
        if self._wants_snapshot:
            self._wants_snapshot = False
            self._pending.clear()
            self._ready.clear()
            return self._broadcast.snapshot()
        message = self._pending.popleft()
        if not self._pending:
            self._ready.clear()
        return message

    def close(self) -> None:
        self._broadcast.unsubscribe(self)


class Broadcast:
    """The view of one cluster as last published, its number, and who listens. `clock` reads the monotonic clock, in
    ms, that the model's times are readings of."""

    def __init__(self, model: ClusterModel, clock: Callable[[], int]) -> None:
        self.model = model
        self._clock = clock
        self.number = 0
        self.dirty = True
        self.overruns = 0
        """How often a subscriber lost what was pending, and was sent a snapshot in its place."""
        self._view: View = {}
        self._viewed_ms: int | None = None
        self._published_ms = 0
        self._subscribers: set[Subscription] = set()
        self._encoded_view: str | None = None

    def subscribe(self) -> Subscription:
        """Raises TooManySubscribersError."""
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            raise TooManySubscribersError
        if not self._subscribers:
            self.publish(self._clock())
        subscription = Subscription(self)
        self._subscribers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def turn(self, now_ms: int) -> None:
        """Publish what is new, where anybody listens. Called some ten times a second."""
        if self._subscribers and (self.dirty or self._viewed_ms is None or now_ms - self._viewed_ms >= VIEW_MS):
            self.publish(now_ms)

    def publish(self, now_ms: int) -> None:
        view = self.model.view(now_ms)
        self.dirty = False
        self._viewed_ms = now_ms
        delta = changes(self._view, view)
        if not delta["set"] and not delta["gone"] and now_ms - self._published_ms < PULSE_MS:
            return
        self.number += 1
        self._view = view
        self._published_ms = now_ms
        self._encoded_view = None
        if self._subscribers:
            change = _encoded({"type": "change", "number": self.number, "clock_ms": now_ms, **delta})
            for subscriber in self._subscribers:
                subscriber.offer(change)

    def snapshot(self) -> str:
        """The whole view under its number, encoded. The view is encoded once a number, however many ask; the clock is
        read for each."""
        if self._encoded_view is None:
            self._encoded_view = _encoded(self._view)
        head = f'"type":"snapshot","number":{self.number},"clock_ms":{self._clock()}'
        return f'{{{head},"view":{self._encoded_view}}}'
