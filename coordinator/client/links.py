"""The connections of one client: to the Redis of its URL, and to those that the nodes' addresses name.

They move packets between the core and Redis, and tell the core what became of them. Who waits for the sockets is the
shell's affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any, Final

from coordinator.channel import BackOff, Channel, ChannelError, with_credentials
from coordinator.client.core import Core
from coordinator.client.packets import Packet

IDLE_PING_US: Final = 10_000_000
"""A connection that was silent for so long is asked whether it still stands."""
PONG_US_MAX: Final = 3_000_000
FULL_US: Final = 5_000
"""Where a connection takes nothing for now, it is looked at again after this, unless it says before that it does."""
HOME: Final = ""
"""The address of the Redis in the client's URL."""


_Due = tuple[list[tuple[str, bytes]], list[tuple[Packet | None, tuple[str | bytes, ...]]]]
"""For one link: what is published, and what Redis answers, each with whose answer that is."""

new_channel: Callable[[str], Any] = Channel
"""Looked up at each connection, also where this is compiled: tests connect to no Redis."""


class Link:
    """One connection, with its back-off."""

    def __init__(self, url: str, back_off: BackOff) -> None:
        self.url = url
        self.channel: Any = new_channel(url)
        self.back_off = back_off
        self.connecting = False
        """Somebody tries to connect it, perhaps on another thread: the channel is that one's alone."""
        self.wanted = False
        """Something was to be sent over it since it was last tried."""
        self.heard_us = 0
        self.pinged_us = 0

    @property
    def connected(self) -> bool:
        return not self.connecting and self.channel.connected


class Links:
    def __init__(self, core: Core, url: str, random: Random) -> None:
        """Raises ValueError where the URL is none."""
        self._core = core
        self._random = random
        self._url = url
        self.links: dict[str, Link] = {HOME: Link(url, BackOff(random))}
        self.all_stand = False
        """Every connection stands, as far as it was heard, so that there is nothing to connect."""
        self.is_changed = True
        """Is there something else to be watched than when whoever watches the sockets last set this to False?"""
        self._some_are_full = False
        """Did one of them not take all that was sent, when it was last looked at?"""
        self._look_us = 0
        """Before this no connection was silent for too long."""

    @property
    def any_connected(self) -> bool:
        return self.all_stand or self.links[HOME].connected or any(link.connected for link in self.links.values())

    def to_connect(self, now_us: int) -> list[Link]:
        """Links that are down, of use, and whose back-off is over; whoever takes them connects each, and says what came
        of it by `connected`. Connecting blocks: the shell decides where."""
        if self.all_stand:
            return []
        if self.links[HOME].back_off.retry_us and not self.any_connected:
            self._reach_out()
        links = [link for link in self._of_use() if now_us >= link.back_off.retry_us]
        for address, link in [*self.links.items()]:
            if not (link.connected or link.connecting or link in links or self._is_known(address)):
                del self.links[address]
        for link in links:
            link.connecting, link.wanted = True, False
        self.all_stand = all(link.connected for link in self.links.values())
        return links

    def _is_lost(self, error: str, now_us: int) -> None:
        self.all_stand, self.is_changed = False, True
        self._core.link_lost(error, now_us)

    def _of_use(self) -> list[Link]:
        """Those that are down and that nobody connects, where something is to be sent over them, or the leader is there
        (what it pushes comes by no other way). Where nothing is connected all may help. A Redis that is gone for good
        is left alone."""
        down = [
            (address, link) for address, link in self.links.items() if not (link.channel.connected or link.connecting)
        ]
        if not down:
            return []
        routing = self._core.routing
        leaders = routing.addresses.get(routing.leader, HOME)
        anything = not self.any_connected
        return [link for address, link in down if anything or link.wanted or address in (HOME, leaders)]

    def _reach_out(self) -> None:
        """Where nothing is connected, and the Redis of the URL could not be, every one that a node listens on may help:
        that one may be gone for good, and nothing was ever to be sent to the others."""
        for address in self._core.routing.addresses.values():
            if address not in self.links:
                with contextlib.suppress(ValueError):  # It is no address, which is said where something is sent there.
                    self._new(address)

    def _is_known(self, address: str) -> bool:
        """Is a node there? One may have moved."""
        return address == HOME or address in self._core.routing.addresses.values()

    def connect(self, link: Link) -> ChannelError | None:
        """Try it; the error, for `connected`. May run on another thread than the core's."""
        try:
            link.channel.connect([self._core.reply_channel])
        except ChannelError as error:
            return error
        except Exception as defect:  # noqa: BLE001 - whatever it is, there is no connection, and the back-off holds
            return ChannelError(f"could not connect: {defect!r}")
        return None

    def connected(self, link: Link, error: ChannelError | None, now_us: int) -> None:
        """Take in what `connect` came to."""
        link.connecting = False
        if link not in self.links.values():
            link.channel.close()  # It came too late: another has its place.
        elif error is None:
            link.back_off.succeeded()
            link.heard_us = link.pinged_us = now_us
            self._look_us = min(self._look_us, now_us + IDLE_PING_US)
            self.is_changed = True
            self._core.link_up(now_us)
        else:
            link.back_off.failed(now_us)
            self._core.link_lost(str(error), now_us)

    def send(self, now_us: int) -> None:
        """Send what is due."""
        if not self.any_connected:
            self._core.give_up(now_us)
            return
        due: dict[str, _Due] = {}
        for packet in self._packets(now_us):
            of_one = due.get(packet.address)
            if of_one is None:
                of_one = due[packet.address] = ([], [])
            if packet.is_sure:
                of_one[0].append((packet.channel, packet.data))
            else:
                of_one[1].append((packet, ("PUBLISH", packet.channel, packet.data)))
        if now_us >= self._look_us:
            for address in self._quiet(now_us):
                due.setdefault(address, ([], []))[1].append((None, ("PING",)))
        for address, of_one in due.items():
            self._send(address, of_one, now_us)

    def _send(self, address: str, due: _Due, now_us: int) -> None:
        try:
            link = self.links.get(address) or self._new(address)
        except ValueError as error:  # What was to be sent is lost, as on any network.
            self._core.link_lost(f"a node's address can not be used: {error}", now_us)
            return
        if not (self.all_stand or link.connected):
            link.wanted = True
            return
        try:
            published, answered = due
            if published:
                link.channel.publish(published)
            if answered:
                link.channel.send(answered)
            if link.channel.wants_write:
                self.is_changed = self._some_are_full = True
        except ChannelError as lost:
            self._is_lost(str(lost), now_us)

    def _packets(self, now_us: int) -> list[Packet]:
        """What is due; nothing where the way to the leader takes nothing just now: it would only pile up here."""
        if self._is_full:
            self._core.give_up(now_us)
            return []
        return self._core.take_packets(now_us)

    @property
    def _is_full(self) -> bool:
        if not self._some_are_full:
            return False
        self._some_are_full = any(link.channel.wants_write for link in self.links.values())
        routing = self._core.routing
        link = self.links.get(routing.addresses.get(routing.leader, HOME))
        return link is not None and link.channel.wants_write and link.connected

    def _new(self, address: str) -> Link:
        """A link to where a node says that its mailbox is; who we are there, the URL of this client says. Raises
        ValueError where it is no address."""
        link = self.links[address] = Link(with_credentials(address, self._url), BackOff(self._random))
        self.all_stand = False
        return link

    def _quiet(self, now_us: int) -> list[str]:
        """The addresses of those of which it is time to ask whether they still stand."""
        quiet = [address for address, link in self.links.items() if link.connected and self._is_quiet(link, now_us)]
        self._look_us = now_us + IDLE_PING_US
        for link in self.links.values():
            if link.connected:
                waited_us = PONG_US_MAX if link.pinged_us > link.heard_us else IDLE_PING_US
                self._look_us = min(self._look_us, max(link.pinged_us, link.heard_us) + waited_us + 1)
        return quiet

    def _is_quiet(self, link: Link, now_us: int) -> bool:
        """Is it time to ask whether the connection still stands? One that did not answer that is given up."""
        if link.pinged_us > link.heard_us:
            # Where nobody asks anything nobody watches either, and the answer lies there unread.
            if now_us - link.pinged_us > PONG_US_MAX and not self.receive(link, now_us) and link.connected:
                link.channel.close()
                self._is_lost("Redis answers nothing", now_us)
            return False
        if now_us - link.heard_us <= IDLE_PING_US:
            return False
        link.pinged_us = now_us
        return True

    def receive(self, link: Link, now_us: int) -> bool:
        """Take in everything that came on `link`. True where something did."""
        try:
            if link.channel.wants_write:
                link.channel.flush()
                self.is_changed = True
            received = link.channel.receive()
        except ChannelError as error:
            link.channel.close()
            self._is_lost(str(error), now_us)
            return False
        if not link.channel.connected:
            self.all_stand, self.is_changed = False, True  # What came before the end is good.
        link.heard_us = now_us
        for message in received.messages:
            self._core.receive(message.data, now_us)
        for packet, reply in received.replies:
            if packet is None:
                continue
            if isinstance(reply, Exception):
                self._core.routing.trouble = f"Redis refused to publish: {reply}"
            elif reply == 0:
                self._core.undelivered(packet, now_us)
        return bool(received.messages or received.replies)

    def due_us(self, now_us: int) -> int:
        """When `send` or `to_connect` has something to do next."""
        due = self._core.due_us(now_us) if self.any_connected else self._core.deadline_us(now_us)
        if self._is_full:
            due = max(due, now_us + FULL_US)
        if not self.all_stand:
            for link in self._of_use():
                due = min(due, link.back_off.retry_us)
        return due

    def begin_anew(self, now_us: int) -> None:
        """After a defect: every connection is made again, after a pause. One that is being made is left to its own."""
        self.all_stand, self.is_changed = False, True
        for address, link in [*self.links.items()]:
            link.back_off.failed(now_us)
            if link.connecting:
                self.links[address] = Link(link.url, link.back_off)
            else:
                link.channel.close()

    def close(self) -> None:
        self.all_stand, self.is_changed = False, True
        for link in self.links.values():
            link.channel.close()
