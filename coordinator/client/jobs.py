"""What a caller hands over to be run: a flow, and how it waits for its end. `work.py` runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from coordinator.client.calls import Call
from coordinator.client.core import Core
from coordinator.client.errors import Unavailable
from coordinator.client.flows import Flow
from coordinator.client.parker import NO_BELL, Parker

if TYPE_CHECKING:
    from coordinator.client.loop import Loop
    from coordinator.client.work import Work

WAKE_LOST_S: Final = 2.0
"""A caller looks by itself after this whether it was answered: an error thrown into the one that was to wake it may
have come in between."""

Undo = Callable[[Core, Any], None]


class Left(BaseException):
    """The caller of a flow has left it: interrupted, cancelled. Thrown into the flow, and seen by nobody else."""


class Job:
    """A flow on its way, and the caller that waits until it has ended."""

    __slots__ = ("call", "error", "flow", "has_left", "is_over", "loop", "parker", "thread", "undo", "value", "work")

    def __init__(self, loop: Loop, flow: Flow, undo: Undo | None) -> None:
        """`undo`: what is to be done with the flow's value where its caller has left before it could take it."""
        self.loop = loop
        self.work: Work = loop.work
        self.flow = flow
        self.undo = undo
        self.call: Call | None = None
        """What the flow waits for."""
        self.is_over = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.parker = Parker()
        """Of the caller; it is woken when it is over."""
        self.thread = threading.get_ident()
        """The caller's."""
        self.has_left = False
        """Its caller, with an error: from then on it puts down no baton."""

    def answered(self, call: Call) -> None:
        """Its call is done: it goes on when all that came was taken in."""
        self.work.going_on.append(self)

    def wait(self, bell: int = NO_BELL) -> None:
        """Until the flow has ended. On the caller's thread. Raises Unavailable where nobody runs it any more. `bell`: a
        descriptor to write to as it goes to sleep."""
        park, next_one = self.parker.park, self.work.crowd.next_to_wake()
        while not (park(WAKE_LOST_S, next_one, bell) or self.is_over):
            next_one, bell = None, NO_BELL
            if not self.loop.is_alive() and not self.is_over:
                raise Unavailable("the client's thread has ended; close this client, and make another")

    def outcome(self) -> Any:
        """The flow's value, or what it raised, now that it is over."""
        if self.error is not None:
            raise self.error
        return self.value
