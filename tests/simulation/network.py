"""The network: a Redis with its channels, and the ways to it and from it, which may lose, double, delay and cut.

Pub/sub as the real one gives it: a message goes to whoever subscribes to its channel when it arrives there, a publisher
is told how many those are, nothing is kept, and all subscriptions are gone when the Redis is. A message carries the
places between which it goes, so that the way from one node to another can be bad while all others are good: that is how
several machines look, each with a Redis of its own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple, Protocol

from coordinator.wire import Channels
from tests.simulation.disk import flipped
from tests.simulation.scheduler import Scheduler

HOP_US_MIN: Final = 60
HOP_US_MAX: Final = 260
"""From a publisher through Redis to a subscriber, where nothing is wrong."""
KEPT_MAX: Final = 300
KEPT_BYTES_MAX: Final = 4_000
"""Messages of all of the past that may come again."""
KEPT_APART_MAX: Final = 30
"""Of some kinds so many of the last to each mailbox are kept apart: what is rare, or means most when it comes late."""


class Subscriber(Protocol):
    """One connection that listens. `place` is the machine it is on."""

    place: str

    def take(self, channel: str, data: bytes) -> None: ...


class Weather(NamedTuple):
    """Something that befalls messages for a while. `places`: only messages from or to one of them (a "late-answer": to
    one of them alone); empty: all.

    `share` of the messages are lost, doubled or late (each late one by `delay_us` at the most).
    """

    kind: str
    share: float
    delay_us: int
    places: frozenset[str]


class Network:
    def __init__(self, scheduler: Scheduler, random: Random, channels: Channels, faults: Counter[str]) -> None:
        """`faults` counts what befell messages, by kind."""
        self._scheduler = scheduler
        self._random = random
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._place_of: dict[str, str] = {}
        self._channels = channels
        self._faults = faults
        self.up = True
        self.weather: list[Weather] = []
        self.cuts: Counter[tuple[str, str]] = Counter()
        """Ways that nothing passes, (from, to); counted, since partitions may lie over one another."""
        self._kept: list[tuple[str, str, bytes]] = []
        self._repeated: set[bytes] = set()
        """Messages that came more than once, or are going to."""
        self._kept_apart: dict[tuple[str, str], deque[tuple[str, bytes]]] = {}
        self.doubled = ""
        """Of this kind of what is kept apart, each message comes twice."""
        self.delivered: Callable[[str, str, str, bytes], None] | None = None
        """Told of each message that arrives: from, to, channel, data."""

    # --- subscriptions ----------------------------------------------------------------------------

    def name_place(self, channel: str, place: str) -> None:
        """Messages to `channel` go to `place`, whether or not anyone listens there."""
        self._place_of[channel] = place

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._subscribers.setdefault(channel, []).append(subscriber)

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        listening = self._subscribers.get(channel, [])
        if subscriber in listening:
            listening.remove(subscriber)

    def count(self, channel: str) -> int:
        """PUBSUB NUMSUB."""
        return len(self._subscribers.get(channel, ()))

    # --- messages ---------------------------------------------------------------------------------

    def publish(
        self,
        sender: str,
        channel: str,
        data: bytes,
        ahead_us: int = 0,
        nobody_listens: Callable[[], None] | None = None,
    ) -> None:
        """Send off a message, `ahead_us` from now. `nobody_listens` is called back if so."""
        if not self.up:
            return
        random = self._random.random
        chance = random()
        delay_us = ahead_us + HOP_US_MIN + int(chance * (HOP_US_MAX - HOP_US_MIN))
        if len(data) < KEPT_BYTES_MAX and (len(self._kept) < KEPT_MAX or chance < 0.1):
            if len(self._kept) >= KEPT_MAX:
                self._kept[int(random() * KEPT_MAX)] = (sender, channel, data)
            else:
                self._kept.append((sender, channel, data))
        if self.weather:
            receiver = self._place_of.get(channel, "")
            for kind, share, extra_us, places in self.weather:
                if places and receiver not in places and (kind == "late-answer" or sender not in places):
                    continue
                if random() >= share:
                    continue
                self._faults[kind] += 1
                if kind == "loss":
                    return
                if kind == "flip-in-message":
                    data = flipped(data, random())
                    continue
                late_us = int(random() * extra_us)
                if kind == "duplication":
                    self._repeated.add(data)
                    self._scheduler.after(delay_us + late_us, self._arrive, sender, channel, data, None)
                else:
                    delay_us += late_us
        self._scheduler.after(delay_us, self._arrive, sender, channel, data, nobody_listens)

    def _arrive(self, sender: str, channel: str, data: bytes, nobody_listens: Callable[[], None] | None) -> None:
        listening = self._subscribers.get(channel)
        if not listening or not self.up:
            self._scheduler.nothing_happened()
            if nobody_listens is not None and self.up:
                self._scheduler.after(HOP_US_MIN, nobody_listens)
            return
        for subscriber in [*listening]:
            if self.cuts and self.cuts.get((sender, subscriber.place)):
                self._faults["cut-off-message"] += 1
                continue
            if self.delivered is not None:
                self.delivered(sender, subscriber.place, channel, data)
            subscriber.take(channel, data)

    # --- what befalls it --------------------------------------------------------------------------

    def cut(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self.cuts[way] += 1

    def mend(self, ways: list[tuple[str, str]]) -> None:
        for way in ways:
            self.cuts[way] -= 1
            if not self.cuts[way]:
                del self.cuts[way]

    def keep(self, kind: str, sender: str, channel: str, data: bytes) -> None:
        """Keep a copy of a message, apart from all others."""
        kept = self._kept_apart.get((kind, channel))
        if kept is None:
            kept = self._kept_apart[kind, channel] = deque(maxlen=KEPT_APART_MAX)
        kept.append((sender, data))
        if kind == self.doubled:
            self._scheduler.after(
                HOP_US_MAX + int(self._random.random() * 3_000), self._arrive, sender, channel, data, None
            )

    def comes_once(self, data: bytes) -> bool:
        """Does this message come no more than once, as with a Redis? Where that is so up to now, it stays so."""
        if data in self._repeated:
            return False
        self._kept = [kept for kept in self._kept if kept[2] != data]
        return True

    def replay(self, count: int) -> bool:
        """Somebody with a copy of the traffic sends some of it again (history 7)."""
        for _ in range(count if self._kept and self.up else 0):
            sender, channel, data = self._kept[int(self._random.random() * len(self._kept))]
            self._repeated.add(data)
            self._scheduler.after(int(self._random.random() * 20_000), self._arrive, sender, channel, data, None)
        return bool(self._kept) and self.up

    def replay_kept(self, kind: str, channel: str) -> bool:
        """All that is kept of a kind and went to `channel` comes again, in its order."""
        again = self._kept_apart.get((kind, channel), ()) if self.up else ()
        for number, (sender, data) in enumerate(again):
            self._scheduler.after(20 * number, self._arrive, sender, channel, data, None)
        return bool(again)

    def go_down(self) -> None:
        """Redis ends: all subscriptions are gone, and so is what is under way."""
        self.up = False
        self._subscribers = {}

    def come_up(self) -> None:
        self.up = True
