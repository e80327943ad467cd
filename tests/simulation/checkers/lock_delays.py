"""Lock-delays last (Chubby, section 2.4): a name whose holder died is given to nobody before the time has passed that
the holder asked for, by any clock, and over changes of leader. (That nobody is let in meanwhile is for
`first_come_first_served` to say.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.replica.leases import STEP_US_MAX
from coordinator.statemachine.commands import Result
from coordinator.statemachine.lock_commands import EndLockDelays
from tests.simulation.checkers.stalls_spare_sessions import TOLERANCE
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node
    from tests.simulation.world import World

LATE_US: Final = STEP_US_MAX
"""What a slow turn takes between the look at its clock and the apply is counted, up to this."""


class LockDelays(Checker):
    name = "lock-delays"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._begun: dict[int, tuple[int, dict[str, int]]] = {}
        """The index that delays are since, to when it was applied first, and by name for how many milliseconds. A turn
        on a slow disk applies at a time that others, whose turns are run behind it, may have applied before."""

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        now_us = self.world.scheduler.now_us + node.clock.ahead_us
        begun = self._begun.get(index)
        if begun is not None:
            self._begun[index] = (min(begun[0], now_us), begun[1])
        if not is_first:
            return
        watch = self.world.watch
        expected = watch.truth.expected
        if expected.ended:
            delays = {
                name: held.delay[1]
                for name, held in watch.truth.locks.names.items()
                if held.delay is not None and held.delay[0] == index
            }
            self._begun[index] = (now_us, delays)
        elif isinstance(expected.command.op, EndLockDelays):
            for name, since in expected.command.op.delays:
                self.checks += 1
                begun_us, delays = self._begun[since]
                delay_ms = delays[name]
                passed_ms = (now_us - begun_us + LATE_US) / 1_000
                if passed_ms < delay_ms * TOLERANCE:
                    self.violated(
                        f"entry {index} ends the lock-delay of {name!r} since {since}, of {delay_ms} ms, "
                        f"{(now_us - begun_us) / 1_000:.0f} ms after it began"
                    )
