"""A node's mailboxes in a simulation (`ports.Bus`): what `coordinator/replica/mailbox.py` is on a real Redis.

The same rules: nothing blocks, what can not be sent is lost, a connection that is gone is noticed late and made again
after a while, and a watched node's mailbox is looked at every 20 ms on one unbroken connection. A real bus looks all
the time; here a look happens only where it could see another count than the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Final

from coordinator.replica import ports
from coordinator.replica.mailbox import LOOK_US
from coordinator.replica.ports import Inbound, Outbound
from coordinator.wire import Channels
from tests.simulation.disk import ProcessDied
from tests.simulation.network import Network
from tests.simulation.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable

RECONNECT_US_MIN: Final = 5_000
RECONNECT_US_MAX: Final = 250_000
INBOX_MAX: Final = 20_000
"""Unread messages at which Redis gives up a subscriber (its 32 MB)."""


class Bus(ports.Bus):
    connected = False

    def __init__(
        self,
        place: str,
        network: Network,
        scheduler: Scheduler,
        random: Random,
        channels: Channels,
        *,
        wake: Callable[[], None],
        ahead_us: Callable[[], int],
        passes: Callable[[int], None],
        listens: Callable[[str], None],
    ) -> None:
        """`wake` says that something is to be drained; `ahead_us` how far the turn that publishes has come; `passes`
        lets time pass within it; `listens` is told a node whose number of listeners is another one now."""
        self.place = place
        self._network = network
        self._scheduler = scheduler
        self._random = random
        self._channels = channels
        self._wake = wake
        self._ahead_us = ahead_us
        self._passes = passes
        self._listens = listens
        self._own = channels.peer(place)
        self._mailboxes = (self._own, channels.client(place), channels.discovery)
        self._inbox: list[Inbound] = []
        self._watched: frozenset[str] = frozenset()
        self._seen: dict[str, int] = {}
        self._silent: list[str] = []
        self._connection = 0
        self._alive = True
        self.connected = False
        self.hears = False
        """Does Redis still know the subscription? A bus that was cut off may believe itself connected."""
        self.has_sent = False
        """Has anything left since the last drain, which begins a turn?"""
        self.sends_left: int | None = None
        """How many packets leave before the process dies; None: it does not."""
        self.died_sending: Callable[[], None]
        """Is told when it does."""
        self.kept_as = ""
        """Under which kind whoever copies the traffic keeps what it publishes next; "" among all others."""
        self.stumbles: dict[str, tuple[int, Callable[[], None]]] = {}
        """"drain" or "publish" to how long the process stands still right behind that, once, and who is told then."""

    # --- the connection ---------------------------------------------------------------------------

    def connect(self) -> None:
        if not self._alive or self.connected:
            return
        if not self._network.up:
            self._scheduler.after(self._back_off_us(), self.connect)
            return
        self.connected = self.hears = True
        self._connection += 1
        self._seen = {}
        for mailbox in self._mailboxes:
            self._network.subscribe(mailbox, self)
        self._listens(self.place)
        self._look_soon(self._watched)
        self._wake()

    def lose_subscription(self) -> None:
        """Redis takes this connection for dead, and the bus does not know it yet."""
        self.hears = False
        for mailbox in self._mailboxes:
            self._network.unsubscribe(mailbox, self)
        self._listens(self.place)

    def notice_loss(self) -> None:
        """The connection is known to be lost; what was seen on it is forgotten."""
        if not self.connected:
            return
        self.lose_subscription()
        self.connected = False
        self._connection += 1
        self._seen = {}
        self._silent = []
        self._inbox = []
        self._scheduler.after(self._back_off_us(), self.connect)
        self._wake()

    def _back_off_us(self) -> int:
        return self._random.randrange(RECONNECT_US_MIN, RECONNECT_US_MAX)

    def die(self, *, silently: bool) -> None:
        """The process is gone. `silently`: with its machine, so that Redis still counts its subscription."""
        self._alive = False
        self.connected = False
        self._inbox = []
        if not silently:
            self.lose_subscription()

    # --- what comes -------------------------------------------------------------------------------

    def take(self, channel: str, data: bytes) -> None:
        if not self._alive:
            return  # A machine that died silently: its Redis goes on writing to a socket that nobody reads.
        self._inbox.append(Inbound(channel == self._own, data))
        if len(self._inbox) > INBOX_MAX:
            self.notice_loss()
        self._wake()

    @property
    def waiting(self) -> bool:
        return bool(self._inbox or self._silent)

    # --- ports.Bus --------------------------------------------------------------------------------

    def drain(self) -> list[Inbound]:
        inbox, self._inbox = self._inbox, []
        self.has_sent = False
        if self.stumbles:
            self._stumble("drain")
        return inbox

    def publish(self, packets: list[Outbound]) -> None:
        ahead_us = self._ahead_us()
        for _, channel, data in packets:
            if self.sends_left is not None:
                if self.sends_left == 0:
                    self.died_sending()
                    raise ProcessDied("while sending")
                self.sends_left -= 1
            if self.connected:
                self.has_sent = True
                self._network.publish(self.place, channel, data, ahead_us)
                if self.kept_as:
                    self._network.keep(self.kept_as, self.place, channel, data)
        self.kept_as = ""
        if self.stumbles:
            self._stumble("publish")

    def _stumble(self, where: str) -> None:
        if where in self.stumbles:
            us, befell = self.stumbles.pop(where)
            befell()
            self._passes(us)

    def watch(self, where: Mapping[str, str]) -> None:
        nodes = frozenset(where)  # All share one Redis here.
        if nodes != self._watched:
            self._watched = nodes
            self._seen = {node: count for node, count in self._seen.items() if node in nodes}
            self._look_soon(nodes)

    def take_silent(self) -> list[str]:
        silent, self._silent = self._silent, []
        return silent

    # --- the crash hint ---------------------------------------------------------------------------

    def counts_changed(self, node: str) -> None:
        """The number of listeners at `node` is another one: the next look will see it."""
        if node in self._watched and self.connected:
            self._scheduler.after(int(self._random.random() * LOOK_US), self._look, node, self._connection)

    def _look_soon(self, nodes: Iterable[str]) -> None:
        for node in sorted(nodes):
            self._scheduler.after(500, self._look, node, self._connection)

    def _look(self, node: str, connection: int) -> None:
        if connection != self._connection or not self.connected or not self.hears or node not in self._watched:
            self._scheduler.nothing_happened()
            return
        count = self._network.count(self._channels.peer(node))
        before, self._seen[node] = self._seen.get(node, 0), count
        if count == 0 and before == 1:
            self._silent.append(node)
            self._wake()
        else:
            self._scheduler.nothing_happened()
