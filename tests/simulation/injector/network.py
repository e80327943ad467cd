"""What befalls the network: ways that are cut, connections that break, a Redis that ends."""

from __future__ import annotations

from random import Random

from tests.simulation.faults import Fault
from tests.simulation.injector.harm import Harm


class Network(Harm):
    def _cut(self, fault: Fault, ways: list[tuple[str, str]]) -> bool:
        network = self.world.network
        network.cut(ways)
        self._later(fault, lambda: network.mend(ways) if network.cuts else None)
        return True

    def _sides(self, fault: Fault, one: list[str], other: list[str]) -> list[tuple[str, str]]:
        """Both ways between two sides. Clients are on one of them, or see both."""
        random = Random(fault.salt)
        ways = [(a, b) for a in one for b in other] + [(b, a) for a in one for b in other]
        for client in self.world.clients:
            side = random.choice((one, other, None, None))
            if side is not None:
                ways += [(client.name, name) for name in side] + [(name, client.name) for name in side]
        return ways

    def _partition(self, fault: Fault) -> bool:
        """Two sides, drawn; of the leader: a minority with it in."""
        random = Random(fault.salt)
        names = [node.name for node in self.world.nodes]
        random.shuffle(names)
        size = random.randint(1, max(1, len(names) // 2))
        leader = self._node(fault) if fault.who == "leader" else None
        if leader is not None:
            names.remove(leader.name)
            names.insert(0, leader.name)
            size = random.randint(1, max(1, (len(names) - 1) // 2))
        return self._cut(fault, self._sides(fault, names[:size], names[size:]))

    def _one_way_partition(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        others = [other.name for other in self.world.nodes if other is not node]
        if not others:
            return False
        if fault.level < 0.5:
            others = others[: 1 + fault.salt % len(others)]
        if fault.salt & 1:
            return self._cut(fault, [(node.name, other) for other in others])
        return self._cut(fault, [(other, node.name) for other in others])

    def _isolated_leader(self, fault: Fault) -> bool:
        """From its peers; clients still reach it, or some of them do."""
        node = self._node(fault)
        if node is None:
            return False
        others = [other.name for other in self.world.nodes if other is not node]
        return self._cut(fault, self._sides(fault, [node.name], others))

    def _redis_restart(self, fault: Fault) -> bool:
        world = self.world
        if not world.network.up:
            return False
        world.network.go_down()
        for node in world.nodes:
            if node.is_up:
                node.bus.notice_loss()
        for client in world.clients:
            if client.is_up:
                client.channel.lose()
        self._later(fault, world.network.come_up)
        return True

    def _lost_connection(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not node.bus.connected:
            return False
        node.bus.notice_loss()
        return True

    def _deaf(self, fault: Fault) -> bool:
        """Redis dropped the node's subscription, and the node does not know it."""
        node = self._node(fault)
        if node is None or not node.bus.hears:
            return False
        bus = node.bus
        bus.lose_subscription()
        self._later(fault, bus.notice_loss)
        return True
