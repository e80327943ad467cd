"""What befalls clients: they die, stand still, and are not heard."""

from __future__ import annotations

from typing import Final

from tests.simulation.clients import Client
from tests.simulation.faults import Fault
from tests.simulation.injector.network import Network
from tests.simulation.network import Weather
from tests.simulation.node import Node

TOGETHER: Final = 0.75
"""A crash of a higher level is that of a whole machine."""


class Clients(Network):
    def _client_crash(self, fault: Fault) -> bool:
        """Or the machine on which all clients are, at times with a leader: the next one counts the leases of all their
        sessions from the same moment."""
        client = self._client(fault)
        if client is None:
            return False
        together = [one for one in self.world.clients if one.is_up] if fault.level > TOGETHER else [client]
        for one in together:
            one.die()
            self.world.note(one.name, "dies")
            self._later(fault, one.start)
        leader = self.world.watch.leader
        if fault.level > TOGETHER and fault.salt & 1 and leader is not None and leader.is_up:
            leader.die("with its clients")
            self._later(fault, leader.start)
        self.moment("client-gone", client)
        return True

    def _client_pause(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None or client.paused:
            return False
        client.pause()
        self._later(fault, client.resume)
        self.moment("client-gone", client)
        return True

    def _client_cut(self, fault: Fault) -> bool:
        """A client that reaches no node, or one alone."""
        client = self._client(fault)
        if client is None:
            return False
        names = [node.name for node in self.world.nodes]
        if fault.salt & 1:
            names.pop(fault.salt // 2 % len(names))
        self._cut(fault, [way for name in names for way in ((client.name, name), (name, client.name))])
        self.moment("client-gone", client)
        return True

    def _client_unheard(self, fault: Fault) -> bool:
        """What a client is told comes late, and soon nothing of what it sends comes at all: an answer to what it asked
        first comes behind the sending of what is lost."""
        client = self._client_with_session(fault)
        if client is None:
            return False
        late_us = (300_000, 500_000, 800_000, 1_200_000)[fault.salt % 4]
        weather = Weather("late-answer", 1.0, late_us, frozenset((client.name,)))
        network = self.world.network
        network.weather.append(weather)

        def clear() -> None:
            if weather in network.weather:
                network.weather.remove(weather)

        self._later(fault, clear)
        self.world.scheduler.after(200_000 + int(400_000 * fault.level), self._mute, fault, client)
        return True

    def _mute(self, fault: Fault, client: Client) -> None:
        if self.stopped or not client.is_up:
            return
        self._cut(fault, [(client.name, node.name) for node in self.world.nodes])
        self.moment("client-gone", client)

    def _late_keep_alive(self, fault: Fault) -> bool:
        """A client is cut off until a leader has begun to end its session, or another's, and is back at that very
        moment."""
        client = self._client_with_session(fault)
        if client is None:
            return False
        ways = [way for node in self.world.nodes for way in ((client.name, node.name), (node.name, client.name))]
        self.world.network.cut(ways)
        self._away[self._later(fault, lambda: self.world.network.mend(ways))] = fault
        self.moment("client-gone", client)
        return True

    def _come_back_late(self, fault: Fault, leader: Node, number: int) -> None:
        """What the leader sends to the others is lost: for a while the end of the session is not committed."""
        if self.stopped or number not in self._undo:
            return
        self._undo_now(number)
        others = [node.name for node in self.world.nodes if node is not leader]
        lost_us = (60_000, 150_000, 250_000, 400_000)[fault.salt % 4]
        self._cut(fault._replace(duration_us=lost_us), [(leader.name, other) for other in others])

    def _client_clock_jump(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None:
            return False
        client.clock.jump(fault.duration_us)
        return True

    def _client_lost_connection(self, fault: Fault) -> bool:
        client = self._client(fault)
        if client is None or not client.channel.connected:
            return False
        client.channel.lose()
        return True
