"""Connections to the Redis servers of other nodes, where each node has its own: to publish into their mailboxes, and to
look whether somebody listens there. What a node hears comes on its own Redis alone (`mailbox.py`).

Nothing here waits: a connection is made by a thread of its own, and tried again after a jittered pause that doubles.
What can not be sent meanwhile is lost and counted, as on any network. A Redis that is gone costs its node alone.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Final

from coordinator.channel import BackOff, Channel, ChannelError, with_credentials, without_credentials
from coordinator.seldom import Seldom

SILENCE_US_MAX: Final = 5_000_000
"""A Redis that answers nothing for so long is given up, though its connection stands."""
LOOK_IDLE_US: Final = 500_000
"""How often it is asked whether it is there, where nobody's mailbox is looked at."""
UNUSED_US_MAX: Final = 60_000_000
"""A link over which nothing went for so long is closed: its node has moved, or is no member any more."""

STEADY_US: Final = 3_000_000
"""A connection that has lived so long is a good one. Before that, one that is made and lost at once (a server that is
full, or is starting) counts as a failed try: else it would be made anew in every round of the loop."""

logger = logging.getLogger(__name__)


def counts_of(reply: object) -> dict[bytes, int] | None:
    """What NUMSUB answered: channel, count, channel, count, … None where it is no such answer, as an error is none, or
    as of a server that is no Redis."""
    if not isinstance(reply, list):
        return None
    counts = {}
    for channel, count in zip(reply[::2], reply[1::2], strict=False):
        if type(channel) is not bytes or type(count) is not int:
            return None
        counts[channel] = count
    return counts


class Link:
    """To one address. `watched`: mailboxes (channels) there to look at; what was seen of them is told by `counts`."""

    def __init__(self, address: str, url: str, random: Random, drops: Counter[str], now_us: int) -> None:
        self.address = address
        self.watched: tuple[str, ...] = ()
        self.counts: list[dict[bytes, int]] = []
        """Answers to looks that nobody has taken yet."""
        self.lost = False
        """The connection was lost since somebody last asked: what was seen on it says nothing any more."""
        self.used_us = now_us
        self._channel = Channel(url)
        self._back_off = BackOff(random)
        self._drops = drops
        self._connecting: threading.Thread | None = None
        self._made = False
        self._error = ""
        self._loss = Seldom()
        self._now_us = now_us
        self._steady_us: int | None = None
        """When the connection will have lived long enough; None: it has, or there is none."""
        self._looked_us = 0
        self._asked_us = 0
        """When the first of the looks was sent that are open."""
        self._looks_open = 0

    @property
    def connected(self) -> bool:
        return self._connecting is None and self._channel.connected

    @property
    def wants_write(self) -> bool:
        return self._channel.wants_write

    def fileno(self) -> int:
        return self._channel.fileno()

    def publish(self, packets: list[tuple[str, bytes]], now_us: int) -> None:
        self.used_us = self._now_us = now_us
        if not self.connected:
            self._drops["peer-redis"] += len(packets)
            return
        try:
            self._channel.publish(packets)
        except ChannelError as error:
            self._drops["peer-redis"] += len(packets)
            self._lose(str(error))

    def keep(self, now_us: int, look_us: int) -> None:
        """Connect where it is not, and the back-off is over; look at what is watched, every `look_us`."""
        self._now_us = now_us
        if self._connecting is not None:
            self._finish_connecting(now_us)
        if not self._channel.connected:
            if self._connecting is None and now_us >= self._back_off.retry_us:
                self._begin_connecting()
            return
        if self._steady_us is not None and now_us >= self._steady_us:
            self._be_steady()
        if self._connecting is None and now_us - self._looked_us >= (look_us if self.watched else LOOK_IDLE_US):
            self._look(now_us)

    def _look(self, now_us: int) -> None:
        self._looked_us = now_us
        if self._looks_open and now_us - self._asked_us > SILENCE_US_MAX:
            self._lose(f"no answer for {SILENCE_US_MAX / 1e6:.0f} s")
            return
        if not self._looks_open:
            self._asked_us = now_us
        self._looks_open += 1
        try:
            self._channel.send([("look", ("PUBSUB", "NUMSUB", *self.watched))])
        except ChannelError as error:
            self._lose(str(error))

    def take_in(self) -> None:
        """Send what waits, and read what has come: answers to looks, or the end of the connection."""
        if not self.connected:
            return
        try:
            if self._channel.wants_write:
                self._channel.flush()
            received = self._channel.receive()
        except ChannelError as error:
            self._lose(str(error))
            return
        for _, reply in received.replies:
            self._looks_open = 0
            counts = counts_of(reply)
            if counts is not None:
                self.counts.append(counts)

    def close(self) -> None:
        if self._connecting is None:
            self._channel.close()

    # --- connecting -------------------------------------------------------------------------------

    def _begin_connecting(self) -> None:
        self._made, self._error = False, ""
        self._connecting = threading.Thread(target=self._connect, name="conclave-link", daemon=True)
        self._connecting.start()

    def _connect(self) -> None:
        """Of the connecting thread: it may take a second."""
        try:
            self._channel.connect(())
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop is told: else it would wait for ever
            self._error = str(error) or repr(error)
        self._made = True

    def _finish_connecting(self, now_us: int) -> None:
        if not self._made:
            return
        self._connecting = None
        if self._error:
            self._back_off.failed(now_us)
            if self._loss.is_due(self._error):
                logger.warning("can not publish: %s", self._error)
            return
        self._steady_us = now_us + STEADY_US
        self._looks_open = 0
        self._looked_us = 0

    def _be_steady(self) -> None:
        self._steady_us = None
        self._back_off.succeeded()
        if self._loss.over():
            logger.warning("can publish at %s again", without_credentials(self.address))

    def _lose(self, error: str) -> None:
        self._channel.close()
        self._back_off.failed(self._now_us)
        self._steady_us = None
        self.lost = True
        self.counts = []
        if self._loss.is_due(error):
            logger.warning("can not publish at %s: %s", without_credentials(self.address), error)


class Links:
    """To all addresses that are in use."""

    def __init__(self, own_url: str, own_address: str, random: Random, drops: Counter[str]) -> None:
        self._own_url = own_url
        self._own = {"", own_address}
        self._random = random
        self._drops = drops
        self._links: dict[str, Link] = {}
        self._bad: set[str] = set()
        """Addresses that are none."""

    def is_own(self, address: str) -> bool:
        """Is this the Redis that the node listens on?"""
        return address in self._own

    def to(self, address: str, now_us: int) -> Link | None:
        """The link to an address; None where it is none: that is told once."""
        link = self._links.get(address)
        if link is None and address not in self._bad:
            try:
                url = with_credentials(address, self._own_url)
                link = self._links[address] = Link(address, url, self._random, self._drops, now_us)
            except ValueError as error:
                self._bad.add(address)
                logger.error("a member's address can not be used: %s", error)
                return None
            link.keep(now_us, LOOK_IDLE_US)
        return link

    def all(self) -> Iterable[Link]:
        return self._links.values()

    def keep(self, now_us: int, look_us: int) -> None:
        for link in [*self._links.values()]:
            if not link.watched and now_us - link.used_us > UNUSED_US_MAX:
                link.close()
                del self._links[link.address]
            else:
                link.keep(now_us, look_us)
