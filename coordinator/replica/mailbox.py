"""A node's mailboxes on Redis: the `Bus` of a worker.

One connection listens and publishes. Nothing is queued in Redis, and nothing here waits for it: what can not be sent is
lost, as on any network, and counted. On the same connection the node looks at its leader's mailbox every 20 ms: when
that loses its only subscriber, the leader's process is dead or deaf (DESIGN.md, "A crash is seen through the channel").
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from coordinator.channel import Channel, ChannelError
from coordinator.replica.ports import Inbound, Outbound
from coordinator.wire import Channels

LOOK_US: Final = 20_000
"""How often the watched mailboxes are looked at."""
LOOK_OWN_US: Final = 500_000
"""How often the own one, where none is watched."""
PATIENCE_US: Final = 2_000
"""How long what peers say waits for something else to come, where nobody waits for it."""
READ_AGAIN_NS: Final = 200_000
"""What was read longer ago than this may lack what has come since."""
BACK_OFF_US_MIN: Final = 20_000
BACK_OFF_US_MAX: Final = 500_000
"""Between two tries to connect, doubled each time and jittered."""
SILENCE_US_MAX: Final = 5_000_000
"""A Redis that answers nothing for so long is given up, though its connection stands."""

logger = logging.getLogger(__name__)


class RedisBus:
    def __init__(
        self,
        node: str,
        url: str,
        channels: Channels,
        random: Random,
        *,
        greet: Callable[[], None],
        drops: Counter[str],
    ) -> None:
        """`greet` is called before each connection is made (it may see to the clients' user on a Redis that
        forgot it)."""
        self._node = node
        self._channels = channels
        self._channel = Channel(url)
        self._random = random
        self._greet = greet
        self._own = channels.peer(node)
        self._peer_channel = self._own.encode()
        self._watched: frozenset[str] = frozenset()
        self._seen: dict[str, int] = {}
        self._silent: list[str] = []
        self._looked_us = 0
        self._answered_us = 0
        self._looks_open = 0
        self._retry_us = 0
        self._back_off_us = BACK_OFF_US_MIN
        self._was_lost = False
        self._inbox: list[Inbound] = []
        self._read_ns = 0
        """When what had come was last read."""
        self._is_from_peers = True
        """Is all of it from peers?"""
        self._poll = select.poll()
        self._polled: tuple[int, int, int] = (-1, -1, 0)
        self.drops = drops

    # --- the connection ---------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._channel.connected

    def keep(self, now_us: int) -> None:
        """Reconnect where the connection is lost and the back-off is over; look at the watched mailboxes where due."""
        if not self._channel.connected:
            if now_us >= self._retry_us:
                self._connect(now_us)
            return
        if now_us - self._looked_us >= (LOOK_US if self._watched else LOOK_OWN_US):
            self._looked_us = now_us
            if self._looks_open and now_us - self._answered_us > SILENCE_US_MAX:
                self._lose(ChannelError(f"no answer for {SILENCE_US_MAX / 1e6:.0f} s"))
                return
            names = [self._channels.peer(node) for node in sorted(self._watched)]
            self._send([("look", ("PUBSUB", "NUMSUB", self._own, *names))])
            self._looks_open += 1

    def _connect(self, now_us: int) -> None:
        try:
            self._greet()
            mailboxes = (self._own, self._channels.client(self._node), self._channels.discovery)
            self._channel.connect(mailboxes)
        except ChannelError as error:
            delay_us = self._back_off_us // 2 + self._random.randrange(self._back_off_us)
            self._retry_us = now_us + delay_us
            self._back_off_us = min(2 * self._back_off_us, BACK_OFF_US_MAX)
            if not self._was_lost:
                self._was_lost = True
                logger.warning("%s is deaf: %s", self._node, error)
            return
        if self._was_lost:
            logger.warning("%s hears again", self._node)
        self._was_lost = False
        self._back_off_us = BACK_OFF_US_MIN
        self._seen = {}
        self._looks_open = 0
        self._answered_us = now_us

    def _lose(self, error: ChannelError) -> None:
        """A count that falls because the connection did says nothing: what was seen on it is forgotten."""
        self._channel.close()
        self._was_lost = True
        self._seen = {}
        self._silent = []
        logger.warning("%s is deaf: %s", self._node, error)

    def wait(self, wake: int, timeout_us: int, *, is_settled: bool = False) -> bool:
        """Sleep until something comes, `wake` is readable, or the time is up; for LOOK_US at the most. True where that
        is work for a turn, which an answer of Redis to what it was asked is not.

        `is_settled`: nobody waits for what peers say; then that alone is work only once nothing else came for
        PATIENCE_US."""
        descriptor = self._channel.fileno() if self._channel.connected else -1
        events = select.POLLIN | (select.POLLOUT if descriptor >= 0 and self._channel.wants_write else 0)
        if (wake, descriptor, events) != self._polled:
            self._poll = select.poll()
            self._poll.register(wake, select.POLLIN)
            if descriptor >= 0:
                self._poll.register(descriptor, events)
            self._polled = (wake, descriptor, events)
        ready = self._poll.poll(max(0, min(timeout_us, PATIENCE_US if self._inbox else LOOK_US)) / 1_000)
        if not ready:
            return bool(self._inbox)
        self._take_in()
        woken = any(found == wake for found, _ in ready)
        if woken:
            os.read(wake, 4_096)
        if woken or self._silent or not self._channel.connected:
            return True
        return bool(self._inbox) and not (is_settled and self._is_from_peers)

    def _take_in(self) -> None:
        """Read whatever has come. A connection that is lost takes what was read of it along."""
        if not self._channel.connected:
            return
        self._read_ns = time.monotonic_ns()
        try:
            if self._channel.wants_write:
                self._channel.flush()
            received = self._channel.receive()
        except ChannelError as error:
            self._lose(error)
            return
        for tag, reply in received.replies:
            if tag == "look":
                self._note_counts(reply)
        for channel, data in received.messages:
            from_peers = channel == self._peer_channel
            self._inbox.append(Inbound(from_peers, data))
            if not from_peers:
                self._is_from_peers = False

    # --- ports.Bus --------------------------------------------------------------------------------

    def drain(self) -> list[Inbound]:
        if time.monotonic_ns() - self._read_ns > READ_AGAIN_NS:
            self._take_in()  # Since `wait` read, the process may have slept (history 3).
        inbox, self._inbox = self._inbox, []
        self._is_from_peers = True
        return inbox

    def publish(self, packets: list[Outbound]) -> None:
        if not self._channel.connected:
            self.drops["not-connected"] += len(packets)
            return
        try:
            self._channel.publish([(packet.channel, packet.data) for packet in packets])
        except ChannelError as error:
            self.drops["not-connected"] += len(packets)
            self._lose(error)

    def _send(self, commands: list[tuple[str | None, tuple[str | bytes, ...]]]) -> None:
        if not self._channel.connected:
            self.drops["not-connected"] += len(commands)
            return
        try:
            self._channel.send(commands)
        except ChannelError as error:
            self.drops["not-connected"] += len(commands)
            self._lose(error)

    def watch(self, nodes: frozenset[str]) -> None:
        if nodes != self._watched:
            self._watched = nodes
            self._seen = {node: count for node, count in self._seen.items() if node in nodes}
            self._looked_us = 0  # Look at once: a leader that dies before it was seen alive leaves no hint.

    def take_silent(self) -> list[str]:
        silent, self._silent = self._silent, []
        return silent

    def _note_counts(self, reply: object) -> None:
        """Take an answer of NUMSUB: channel, count, channel, count, … our own mailbox first."""
        self._looks_open = 0
        self._answered_us = self._looked_us
        if not isinstance(reply, list) or len(reply) < 2:
            return
        counts = dict(zip(reply[::2], reply[1::2], strict=False))
        if counts.pop(self._peer_channel, 1) > 1:
            self.drops["second-subscriber"] += 1
            if self.drops["second-subscriber"] == 1:
                logger.error("more than one process listens to the mailbox of %s", self._node)
        for node in self._watched:
            count = counts.get(self._channels.peer(node).encode(), 0)
            before = self._seen.get(node, 0)
            self._seen[node] = count
            if count == 0 and before == 1:
                self._silent.append(node)
