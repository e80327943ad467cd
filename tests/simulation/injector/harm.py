"""What every kind of fault stands on: its victims, and how what was done is undone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation.clients import Client
from tests.simulation.faults import Fault
from tests.simulation.node import Node
from tests.simulation.quorums import is_full_quorum, is_quorum

if TYPE_CHECKING:
    from tests.simulation.world import World

RESTART_US_MIN: Final = 30_000
RESTART_US_MAX: Final = 700_000


class Harm(ABC):
    def __init__(self, world: World, random: Random, plan: list[Fault], faults: Counter[str]) -> None:
        self.world = world
        self.plan = plan
        self.happened: list[Fault] = []
        """Those of the plan that were begun so far."""
        self._random = random
        self._faults = faults
        self._armed: dict[str, list[Fault]] = {}
        self._whose: object = None
        """Who the moment is of that the fault in hand waited for."""
        self._undo: dict[int, Callable[[], None]] = {}
        self._undo_number = 0
        self._deposing: dict[str, Fault] = {}
        """Leaders that are cut off until another one is elected."""
        self._returns: dict[str, int] = {}
        """Who was cut off so to what mends it."""
        self._away: dict[int, Fault] = {}
        """What brings back a client that is cut off until its session is ended."""
        self._leaving: dict[str, Fault] = {}
        """What befalls a leader that has written a configuration without a voter who lags."""
        self.wanted: set[int] = set()
        """Learners that operators want to vote, as soon as a leader agrees."""
        self.stopped = False

    @abstractmethod
    def moment(self, name: str, whose: Node | Client) -> None:
        """Something happened that faults may wait for."""

    def _befell(self, fault: Fault) -> None:
        """It happens, or has just happened."""
        self._faults[fault.kind] += 1
        self.world.note("fault", str(fault))

    # --- undoing ----------------------------------------------------------------------------------

    def _later(self, fault: Fault, undo: Callable[[], None]) -> int:
        """Undo it when its time is over, or when all is healed, whichever comes first. The number says which it is."""
        self._undo_number += 1
        number = self._undo_number
        self._undo[number] = undo
        self.world.scheduler.after(fault.duration_us, self._undo_now, number)
        return number

    def _undo_now(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def restart_later(self, node: Node) -> None:
        """A process that ended by itself is started again by whoever looks after it."""
        self.world.scheduler.after(self._random.randrange(RESTART_US_MIN, RESTART_US_MAX), node.start)

    # --- whom it hits -----------------------------------------------------------------------------

    def _node(self, fault: Fault) -> Node | None:
        """The victim; None where there is none of the kind now."""
        up = [node for node in self.world.nodes if node.is_up]
        leaders = [node for node in up if node.leads]
        if fault.who == "whose":
            return next((node for node in up if node is self._whose), None)
        if fault.who == "leader":
            up = leaders
        elif fault.who == "follower":
            up = [node for node in up if node not in leaders]
        return up[fault.salt % len(up)] if up else None

    def _client(self, fault: Fault) -> Client | None:
        up = [client for client in self.world.clients if client.is_up]
        holding = [client for client in up if client.leases]
        if fault.level < 0.6 and holding:
            up = holding
        return up[fault.salt % len(up)] if up else None

    def _client_with_session(self, fault: Fault) -> Client | None:
        alive = [client for client in self.world.clients if client.is_up and client.has_session]
        return alive[fault.salt % len(alive)] if alive else None

    def _may_lose(self, lost: Node, *, flips: bool = False) -> bool:
        """A cluster of 2f + 1 survives the loss of f disks for good; more than that nobody survives. And where states
        differ, most of those that have one must be right."""
        world = self.world
        gone = {node.disk.replica for node in world.nodes if node is lost or node.is_lost}
        kept = {node.disk.replica for node in world.nodes} - gone
        differ = flips or bool(world.flipped)
        right = kept - world.flipped
        configurations = world.configurations_in_use()
        for node in world.nodes:
            if node.engine is not None:
                configurations += [configuration for _, configuration in node.engine.configurations]
        return all(
            is_quorum(configuration, kept) and (not differ or is_full_quorum(configuration, right))
            for configuration in configurations
            if configuration.voters
        )
