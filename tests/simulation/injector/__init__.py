"""What each kind of fault does to a running cluster, and how it is undone.

A fault names its victim by what it is at that moment ("leader"), since who that will be is not known when it is drawn.
Every fault that took effect is counted by its kind; one that waits for a commit or a send, when that comes. What the
kinds do is in the modules here, by whom they befall; what they stand on, in `harm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.simulation.clients import Client
from tests.simulation.faults import Fault
from tests.simulation.injector.clients import Clients
from tests.simulation.injector.disks_and_clocks import DisksAndClocks
from tests.simulation.injector.operators import Operators
from tests.simulation.injector.processes import Processes
from tests.simulation.node import Node

_REPLAYED: Final = {
    "replayed-votes": "vote",
    "replayed-acknowledgements": "acknowledgement",
}
"""Faults that are of whoever the moment is of, to the kind of messages that come again."""


class Injector(Processes, DisksAndClocks, Operators, Clients):
    def begin(self) -> None:
        for fault in self.plan:
            self.world.scheduler.at(self.world.settings.late_us // 2 + fault.at_us, self._due, fault)

    def _due(self, fault: Fault) -> None:
        if self.stopped:
            self.world.scheduler.nothing_happened()
        elif fault.moment:
            self._armed.setdefault(fault.moment, []).append(fault)
        else:
            self._inject(fault)

    def moment(self, name: str, whose: Node | Client) -> None:
        """Something happened that faults may wait for."""
        if name == "elected" and self._deposing:
            self._deposed(whose)
        if name == "sent" and whose.name in self._leaving:
            assert isinstance(whose, Node)
            self._left(whose)
        if name == "expiring" and self._away:
            assert isinstance(whose, Node)
            away, self._away = self._away, {}
            for number, fault in away.items():
                self.world.scheduler.after(0, self._come_back_late, fault, whose, number)
        if self._armed and self._armed.get(name):
            armed = self._armed.pop(name)
            for fault in armed:
                # Not within what is happening now, but right behind it.
                self.world.scheduler.after(0, self._inject, fault, whose)

    def _inject(self, fault: Fault, whose: Node | Client | None = None) -> None:
        """`whose`: who the moment that it waited for was of."""
        if self.stopped:
            return
        self.happened.append(fault)
        self._whose = whose
        if fault.kind in _REPLAYED:
            done = whose is not None and self._replayed(_REPLAYED[fault.kind], whose.name)
        else:
            do: Callable[[Fault], bool] = getattr(self, "_" + fault.kind.replace("-", "_"))
            done = do(fault)
        if done:
            self._befell(fault)

    def heal(self) -> None:
        """No more faults; everything that can be mended is."""
        self.stopped = True
        self._armed = {}
        self._leaving = {}
        for number in [*self._undo]:
            self._undo_now(number)
        world = self.world
        world.network.weather = []
        world.network.cuts.clear()
        for node in world.nodes:
            node.disk.full = False
            node.flips_parts = 0.0
            if node.is_up:
                node.resume()
                node.journal.spare()
                node.journal.slow_us = 0
                node.bus.sends_left = None
                if node.bus.connected and not node.bus.hears:
                    node.bus.notice_loss()
            else:
                node.start()
        for client in world.clients:
            client.resume()
            client.start()
