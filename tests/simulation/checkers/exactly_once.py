"""Applied exactly once: a request takes effect in one entry, however often it was sent (DESIGN.md, rule 7).

An entry took effect if its result names its own index; a repetition is answered with the result of the first. And a
request that was refused, or cancelled before it came, never takes effect (history 12).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Result
from coordinator.statemachine.locks import INDEX_BITS
from coordinator.statemachine.machine import Event
from tests.simulation.checkers.commands import decode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

_INDEX_MASK = (1 << INDEX_BITS) - 1


class ExactlyOnce(Checker):
    name = "exactly-once"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._effects: dict[tuple[int, int], int] = {}
        self._nonces: dict[bytes, int] = {}
        self._sessions: dict[int, int] = {}
        self._cancelled: dict[tuple[int, int], int] = {}

    def applied(self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool) -> None:
        if not is_first:
            return
        command = decode(entry).command
        self.checks += 1
        if isinstance(command.op, commands.OpenSession):
            self._opened(index, command.op.nonce, result)
            return
        if command.session == 0:
            return
        request = (command.session, command.number)
        if _took_effect(index, result):
            known = self._effects.setdefault(request, index)
            if known != index:
                self.violated(f"request {request[1]} of session {request[0]} took effect at {known} and at {index}")
            cancelled = self._cancelled.get(request)
            if cancelled is not None:
                self.violated(
                    f"request {request[1]} of session {request[0]} took effect at {index}, and was cancelled at {cancelled}"
                )
        elif (
            request in self._effects
            and not isinstance(result, commands.Failure)
            and result != self.world.watch.results[self._effects[request]][1]
        ):
            self.violated(f"request {request[1]} of session {request[0]} was answered {result} when it came again")
        if isinstance(command.op, commands.CancelAcquire) and not isinstance(result, commands.Failure):
            self._cancelled.setdefault((command.op.owner or command.session, command.op.number), index)

    def _opened(self, index: int, nonce: bytes, result: Result) -> None:
        """A session that was opened twice by one request would leave one that nobody keeps alive or closes."""
        if not isinstance(result, commands.SessionOpened):
            return
        known = self._nonces.get(nonce)
        if result.session == index:
            if known is not None and known in self._live():
                self.violated(f"one request opened session {known} and session {index}")
            self._nonces[nonce] = index
        elif known != result.session:
            self.violated(f"a repeated request was answered with session {result.session}, it had opened {known}")

    def _live(self) -> dict[int, object]:
        """Sessions of the replica that is being told of, which has applied this very entry."""
        leader = max((n for n in self.world.nodes if n.replica is not None), key=lambda n: n.replica.machine.applied)  # type: ignore[union-attr]
        assert leader.replica is not None
        return leader.replica.machine.sessions  # type: ignore[return-value]


def _took_effect(index: int, result: Result) -> bool:
    if isinstance(result, commands.Done):
        return result.index == index
    return isinstance(result, commands.Granted) and result.token & _INDEX_MASK == index
