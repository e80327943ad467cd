"""What befalls messages: lost, doubled, late, and sent again by whoever has a copy."""

from __future__ import annotations

from typing import Final

from tests.simulation.faults import Fault
from tests.simulation.injector.harm import Harm
from tests.simulation.network import Weather

DOUBLED_US: Final = 3_000_000


class Messages(Harm):
    def _weather(self, fault: Fault, kind: str, share: float, delay_us: int) -> bool:
        places: frozenset[str] = frozenset()
        if fault.who != "all":
            node = self._node(fault)
            if node is None:
                return False
            places = frozenset((node.name,))
        weather = Weather(kind, share, delay_us, places)
        network = self.world.network
        network.weather.append(weather)

        def clear() -> None:
            if weather in network.weather:
                network.weather.remove(weather)

        self._later(fault, clear)
        return True

    def _loss(self, fault: Fault) -> bool:
        return self._weather(fault, "loss", 0.02 + 0.6 * fault.level**2, 0)

    def _duplication(self, fault: Fault) -> bool:
        """Copies come at once, or when everybody has forgotten the first."""
        late_us = (2_000, 50_000, 500_000, 4_000_000)[fault.salt % 4]
        return self._weather(fault, "duplication", 0.05 + 0.4 * fault.level, late_us)

    def _reordering(self, fault: Fault) -> bool:
        return self._weather(fault, "reordering", 0.1 + 0.6 * fault.level, (3_000, 30_000)[fault.salt % 2])

    def _delay(self, fault: Fault) -> bool:
        return self._weather(fault, "delay", 0.05 + 0.5 * fault.level, (20_000, 200_000, 1_500_000)[fault.salt % 3])

    def _flip_in_message(self, fault: Fault) -> bool:
        """A byte of a message is another one when it arrives, which its keyed hash tells."""
        return self._weather(fault, "flip-in-message", 0.02 + 0.5 * fault.level**2, 0)

    def _slow_link(self, fault: Fault) -> bool:
        return self._weather(fault, "slow-link", 1.0, (5_000, 40_000, 150_000, 350_000)[fault.salt % 4])

    def _replay(self, fault: Fault) -> bool:
        return self.world.network.replay(3 + int(60 * fault.level))

    def _replayed(self, kind: str, name: str) -> bool:
        """What node `name` was told of that kind in the past comes again: words of elections to who campaigns,
        acknowledgements of an earlier leadership to who leads again."""
        return self.world.network.replay_kept(kind, self.world.channels.peer(name))

    def _replayed_snapshot(self, fault: Fault) -> bool:
        """Snapshots come again, whole or in parts; and for a while each part that is sent comes twice."""
        network = self.world.network
        network.doubled = "snapshot"
        self._later(fault._replace(duration_us=DOUBLED_US), lambda: setattr(network, "doubled", ""))
        replayed = [self._replayed("snapshot", node.name) for node in self.world.nodes]
        return any(replayed)
