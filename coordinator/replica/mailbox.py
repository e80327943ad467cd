"""A node's mailboxes on Redis: the `Bus` of a worker.

One connection listens, and publishes to all nodes that have their mailboxes on the same Redis; where others have one of
their own, links to those do (`links.py`). Nothing is queued in Redis, and nothing here waits for it: what can not be
sent is lost, as on any network, and counted. On the same connections the node looks at its leader's mailbox every
20 ms: when that loses its only subscriber, the leader's process is dead or deaf (docs/design.md, "A crash is seen
through the channel").
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from coordinator.channel import BackOff, Channel, ChannelError, Received
from coordinator.replica.links import SILENCE_US_MAX, STEADY_US, Link, Links, counts_of
from coordinator.replica.ports import Bus, Inbound, Outbound
from coordinator.replica.yielding import Conversation, Yielding
from coordinator.seldom import Seldom
from coordinator.wire import Channels

LOOK_US: Final = 20_000
"""How often the watched mailboxes are looked at, unless the node has nothing to do."""
LOOK_OWN_US: Final = 500_000
"""How often the own one, where none is watched."""
PATIENCE_US: Final = 2_000
"""How long what peers say waits for something else to come, where nobody waits for it."""
INBOX_BYTES_MAX: Final = {False: 32 * 1024 * 1024, True: 64 * 1024 * 1024}
"""Taken in for one turn: of clients, and of peers (True), whom no flood of clients can keep from being heard. What is
more is dropped, as on any network: to leave it unread would have Redis cut the connection, with all that comes on it.
Leaders have no more than 16 MiB before a node that it has not acknowledged (`windows.py`)."""
TURN_BYTES: Final = 1024 * 1024
"""So much is work for a turn, whoever says it."""
READ_AGAIN_NS: Final = 200_000
"""What was read longer ago than this may lack what has come since."""
READ_ON_BYTES_MAX: Final = 16 * 1024 * 1024
READ_ON_NS_MAX: Final = 20_000_000
"""So much is taken in at once of what follows upon each other, and for so long."""
READ_ON_WAIT_MS: Final = 1.0
"""For the rest of a message, which Redis writes as soon as there is room for it."""

logger = logging.getLogger(__name__)


class RedisBus(Bus):
    def __init__(
        self,
        node: str,
        url: str,
        channels: Channels,
        random: Random,
        *,
        greet: Callable[[], None],
        drops: Counter[str],
        address: str = "",
    ) -> None:
        """`address`: where other nodes reach this Redis, "" where they listen on the same. `greet` is called before
        each connection is made (it may see to the clients' user on a Redis that forgot it)."""
        self._node = node
        self._channels = channels
        self._channel = Channel(url)
        self._greet = greet
        self._own = channels.peer(node)
        self._peer_channel = self._own.encode()
        self._links = Links(url, address, random, drops)
        self._now_us = 0
        self._watched: dict[str, str] = {}
        """Nodes whose mailboxes are looked at, and the address of each."""
        self._seen: dict[str, int] = {}
        self._silent: list[str] = []
        self.look_us = LOOK_US
        """How often the watched mailboxes are looked at, and how long `wait` sleeps at the most."""
        self._looked_us = 0
        self._asked_us = 0
        """When the first of the looks was sent that are open, or something came since: what is counted is Redis'
        silence, not our own, nor how long its answer lies behind what we have not read yet."""
        self._looks_open = 0
        self._back_off = BackOff(random)
        self._is_news = False
        """The connection was lost, and no turn was told yet."""
        self._loss = Seldom()
        self._steady_us: int | None = None
        """When the connection will have lived long enough (`links.STEADY_US`); None: it has, or there is none."""
        self._inbox: list[Inbound] = []
        self._inbox_bytes = {False: 0, True: 0}
        """Of clients, and of peers."""
        self._read_ns = 0
        """When what had come was last read."""
        self._is_from_peers = True
        """Is all of it from peers?"""
        self._yielding = Yielding()
        self._conversation = Conversation(self._yielding)
        self._poll = select.poll()
        self._polled: tuple[tuple[int, int], ...] | None = None
        self.drops = drops

    # --- the connection ---------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._channel.connected

    def keep(self, now_us: int) -> None:
        """Reconnect where a connection is lost and the back-off is over; look at the watched mailboxes where due."""
        self._now_us = now_us
        self._links.keep(now_us, self.look_us)
        if not self._channel.connected:
            if now_us >= self._back_off.retry_us:
                self._connect(now_us)
            return
        if self._steady_us is not None and now_us >= self._steady_us:
            self._be_steady()
        if now_us - self._looked_us >= (self.look_us if self._watched else LOOK_OWN_US):
            self._looked_us = now_us
            if self._looks_open and now_us - self._asked_us > SILENCE_US_MAX:
                self._lose(ChannelError(f"no answer for {SILENCE_US_MAX / 1e6:.0f} s"))
                return
            here = [node for node, address in sorted(self._watched.items()) if self._links.is_own(address)]
            names = [self._channels.peer(node) for node in here]
            if not self._looks_open:
                self._asked_us = now_us
            self._looks_open += 1
            try:
                self._channel.send([("look", ("PUBSUB", "NUMSUB", self._own, *names))])
            except ChannelError as error:
                self._lose(error)

    def _connect(self, now_us: int) -> None:
        try:
            self._greet()
            mailboxes = (self._own, self._channels.client(self._node), self._channels.discovery)
            self._channel.connect(mailboxes)
        except Exception as error:  # noqa: BLE001 - a node that can not listen is deaf, whatever keeps it from it
            self._back_off.failed(now_us)
            self._tell_deaf(error)
            return
        self._steady_us = now_us + STEADY_US
        self._forget("")
        self._looks_open = 0

    def _lose(self, error: ChannelError) -> None:
        """A count that falls because the connection did says nothing: what was seen on it is forgotten."""
        self._channel.close()
        self._is_news = True
        self._back_off.failed(self._now_us)
        self._steady_us = None
        self._forget("")
        self._silent = []
        self._tell_deaf(error)

    def _be_steady(self) -> None:
        self._steady_us = None
        self._back_off.succeeded()
        if self._loss.over():
            logger.warning("%s hears again", self._node)

    def _tell_deaf(self, error: Exception) -> None:
        reason = str(error) or repr(error)
        if self._loss.is_due(reason):
            logger.warning("%s is deaf: %s", self._node, reason)

    def wait(self, wake: int, timeout_us: int, *, is_settled: bool = False) -> bool:
        """Sleep until something comes, `wake` is readable, or the time is up; for `look_us` at the most, and in a
        conversation not at once (`yielding.py`). True where that is work for a turn, which an answer of Redis to what
        it was asked is not.

        `is_settled`: nobody waits for what peers say; then that alone is work only once nothing else came for
        PATIENCE_US."""
        if self._is_news:  # What was sent found it so: nothing that is polled for would tell it.
            self._is_news = False
            return True
        connections: list[Channel | Link] = [self._channel, *self._links.all()]
        polled = tuple(
            (one.fileno(), select.POLLIN | (select.POLLOUT if one.wants_write else 0))
            for one in connections
            if one.connected
        )
        if polled != self._polled:
            self._poll = select.poll()
            self._poll.register(wake, select.POLLIN)
            for descriptor, events in polled:
                self._poll.register(descriptor, events)
            self._polled = polled
        timeout_us = max(0, min(timeout_us, PATIENCE_US if self._inbox else self.look_us))
        ready = []
        if self._channel.is_local:
            ready = self._conversation.look(self._poll.poll, timeout_us)
        ready = ready or self._poll.poll(timeout_us / 1_000)
        if not ready:
            return bool(self._inbox)
        self._take_in()
        if self._inbox:
            self._conversation.came(len(self._inbox), self._inbox_bytes[True] + self._inbox_bytes[False])
        woken = any(found == wake for found, _ in ready)
        if woken:
            os.read(wake, 4_096)
        if woken or self._silent or self._is_news:
            self._is_news = False
            return True
        may_wait = is_settled and self._is_from_peers and self._inbox_bytes[True] < TURN_BYTES
        return bool(self._inbox) and not may_wait

    def _take_in(self) -> None:
        """Read whatever has come. A connection that is lost takes what was read of it along."""
        for link in self._links.all():
            link.take_in()
            if link.lost:
                link.lost = False
                self._forget(link.address)
            while link.counts:
                self._note_seen(link.counts.pop(0), link.address)
        received = self._receive()
        if received is None:
            return
        self._sort(received)
        channel = self._channel
        if channel.is_local and channel.is_amid_a_message and channel.connected:
            self._read_on(channel)

    def _read_on(self, channel: Channel) -> None:
        """A Unix socket holds some 200 kB, so that a read gives a part of a large message, and all else lies behind it,
        what peers say too. Were a turn to follow upon each, that would lie there for as long as many turns take."""
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        until_ns = time.monotonic_ns() + READ_ON_NS_MAX
        while channel.is_amid_a_message and sum(self._inbox_bytes.values()) < READ_ON_BYTES_MAX:
            if time.monotonic_ns() >= until_ns or not poll.poll(READ_ON_WAIT_MS):
                return
            received = self._receive()
            if received is None:
                return
            self._sort(received)

    def _sort(self, received: Received) -> None:
        for tag, reply in received.replies:
            if tag == "look":
                self._note_counts(reply)
        for channel, data in received.messages:
            from_peers = channel == self._peer_channel
            size = self._inbox_bytes[from_peers] + len(data)
            if size > INBOX_BYTES_MAX[from_peers]:
                self.drops["peer-flood" if from_peers else "client-flood"] += 1
                continue
            self._inbox_bytes[from_peers] = size
            self._inbox.append(Inbound(from_peers, data))
            if not from_peers:
                self._is_from_peers = False

    def _receive(self) -> Received | None:
        channel = self._channel
        if not channel.connected:
            return None
        self._read_ns = time.monotonic_ns()
        before = channel.received_bytes
        try:
            if channel.wants_write:
                channel.flush()
            received = channel.receive()
        except ChannelError as error:
            self._lose(error)
            return None
        if channel.received_bytes != before:
            self._asked_us = self._now_us
        return received

    # --- ports.Bus --------------------------------------------------------------------------------

    def drain(self) -> list[Inbound]:
        if time.monotonic_ns() - self._read_ns > READ_AGAIN_NS:
            self._take_in()  # Since `wait` read, the process may have slept (history 3).
        inbox, self._inbox = self._inbox, []
        self._inbox_bytes = {False: 0, True: 0}
        self._is_from_peers = True
        return inbox

    def publish(self, packets: list[Outbound]) -> None:
        here = [packet for packet in packets if self._links.is_own(packet.address)]
        if len(here) < len(packets):
            self._publish_elsewhere([packet for packet in packets if not self._links.is_own(packet.address)])
        if here:
            self._publish_here(here)

    def _publish_elsewhere(self, packets: list[Outbound]) -> None:
        by_address: dict[str, list[tuple[str, bytes]]] = {}
        for packet in packets:
            by_address.setdefault(packet.address, []).append((packet.channel, packet.data))
        for address, messages in by_address.items():
            link = self._links.to(address, self._now_us)
            if link is None:
                self.drops["peer-redis"] += len(messages)
            else:
                link.publish(messages, self._now_us)

    def _publish_here(self, packets: list[Outbound]) -> None:
        if not self._channel.connected:
            self.drops["not-connected"] += len(packets)
            return
        try:
            self._channel.publish([(packet.channel, packet.data) for packet in packets])
        except ChannelError as error:
            self.drops["not-connected"] += len(packets)
            self._lose(error)
        else:
            if self._channel.is_local:
                self._yielding.give_way()

    def watch(self, nodes: Mapping[str, str]) -> None:
        if nodes == self._watched:
            return
        # Of a node that has moved, what was seen where it was says nothing.
        self._seen = {node: count for node, count in self._seen.items() if nodes.get(node) == self._watched[node]}
        self._watched = dict(nodes)
        self._looked_us = 0  # Look at once: a leader that dies before it was seen alive leaves no hint.
        elsewhere: dict[str, list[str]] = {}
        for node, address in sorted(nodes.items()):
            if not self._links.is_own(address):
                elsewhere.setdefault(address, []).append(self._channels.peer(node))
        for link in self._links.all():
            link.watched = tuple(elsewhere.pop(link.address, ()))
        for address, mailboxes in elsewhere.items():
            new = self._links.to(address, self._now_us)
            if new is not None:
                new.watched = tuple(mailboxes)

    def take_silent(self) -> list[str]:
        silent, self._silent = self._silent, []
        return silent

    def _note_counts(self, reply: object) -> None:
        """Take an answer of NUMSUB, our own mailbox first."""
        self._looks_open = 0
        counts = counts_of(reply)
        if not counts:
            return
        if counts.pop(self._peer_channel, 1) > 1:
            self.drops["second-subscriber"] += 1
            if self.drops["second-subscriber"] == 1:
                logger.error("more than one process listens to the mailbox of %s", self._node)
        self._note_seen(counts, "")

    def _forget(self, address: str) -> None:
        """A count that falls because the connection did says nothing."""
        self._seen = {node: count for node, count in self._seen.items() if not self._is_at(node, address)}

    def _is_at(self, node: str, address: str) -> bool:
        where = self._watched.get(node, "")
        return where == address or (self._links.is_own(where) and self._links.is_own(address))

    def _note_seen(self, counts: dict[bytes, int], address: str) -> None:
        """How many listen to the watched mailboxes at this address: where nobody does any more, a node fell silent."""
        for node in self._watched:
            if not self._is_at(node, address):
                continue
            count = counts.get(self._channels.peer(node).encode(), 0)
            before = self._seen.get(node, 0)
            self._seen[node] = count
            if count == 0 and before == 1:
                self._silent.append(node)
