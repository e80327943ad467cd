"""A question on its way: who is to answer it, when it is sent again, when its asker gives up."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Any, Final

import msgspec

from coordinator import wire
from coordinator.client.errors import ConclaveError
from coordinator.client.session import Session

RESEND_US_MIN: Final = 120_000
RESEND_US_MAX: Final = 1_000_000
"""Between two sends of one question, doubled each time and jittered. A retry is harmless."""
RESEND_LARGE_BYTES: Final = 65_536
RESEND_LARGE_US: Final = 65_000
"""For each so many bytes of a request an answer may take so much longer: it is carried to all nodes and written to
disk by each, behind those of others. A copy that is sent meanwhile is as much work once more, for all of them."""
REDIRECT_US_MIN: Final = 8_000
"""Between two sends of one question, whatever is heard of leaders: nodes that name each other must not make it spin."""

NEVER_US: Final = 1 << 62
"""When what nothing makes due is due."""

Batch = list[tuple[int, wire.Request | msgspec.Raw]]
"""Requests for one node, each with its number."""


class Target(Enum):
    LEADER = "leader"
    NODE = "node"


class Call:
    """One question. `build` makes the request anew for each further send, so that it carries what is true then.

    Resolved exactly once, with an outcome: a value, or a ConclaveError to raise.
    """

    __slots__ = (
        "_callbacks",
        "background",
        "build",
        "counts",
        "deadline_us",
        "done",
        "due_us",
        "first",
        "first_for",
        "first_sent_us",
        "last_sent_us",
        "node",
        "number",
        "outcome",
        "patience_us",
        "persists",
        "request_id",
        "sends",
        "sent_to",
        "size",
        "target",
        "timed_out",
    )

    def __init__(
        self,
        build: Callable[[int], wire.Request],
        *,
        target: Target = Target.LEADER,
        node: str = "",
        deadline_us: int | None,
        timed_out: Callable[[Call], ConclaveError | None],
        patience_us: int = 0,
        persists: bool = False,
        counts: bool = True,
    ) -> None:
        self.build = build
        self.target = target
        self.node = node
        self.deadline_us = deadline_us
        self.timed_out = timed_out
        """What the asker is told at the deadline."""
        self.patience_us = patience_us
        """For so long an answer may take, of a leader that is well: it is not sent again before."""
        self.persists = persists
        """It is not given up for want of room, here or at the leader: it is asked again up to its deadline."""
        self.counts = counts
        """Among those that a client may have. What the core asks by itself does not: it hangs on a call that does."""
        self.size = 0
        """Bytes of its request."""
        self.request_id = 0
        self.first: msgspec.Raw | None = None
        """The request as it was encoded when it was submitted, for the cluster `first_for`; until it is sent."""
        self.first_for = 0
        self.number = 0
        """Of a command: its number in its session."""
        self.background: Session | None = None
        """Set where nobody waits for it, and it is to be done all the same: the session whose command it is."""
        self.due_us = 0
        self.first_sent_us: int | None = None
        self.last_sent_us = 0
        self.sent_to = ""
        self.sends = 0
        self.done = False
        self.outcome: Any = None
        self._callbacks: list[Callable[[Call], None]] = []

    def sent(self, node: str, now_us: int, random: Random) -> None:
        if self.first_sent_us is None:
            self.first_sent_us = now_us
        self.last_sent_us = now_us
        self.sent_to = node
        delay_us = self.patience_us + min(RESEND_US_MIN << min(self.sends, 4), RESEND_US_MAX)
        delay_us += self.size // RESEND_LARGE_BYTES * RESEND_LARGE_US
        self.due_us = now_us + delay_us + int(random.random() * (delay_us // 4))
        self.sends += 1

    def request(self, cluster: int) -> wire.Request | msgspec.Raw:
        """What is to be sent to a node of `cluster` now."""
        first, self.first = self.first, None
        return first if first is not None and self.first_for == cluster else self.build(self.request_id)

    def hurried_us(self, now_us: int) -> int:
        """When it is sent if somebody new can be asked: soon, and no later than it is due in any case."""
        return min(self.due_us, max(now_us, self.last_sent_us + REDIRECT_US_MIN))

    def resolve(self, outcome: Any) -> None:
        """Idempotent: the first outcome holds."""
        if self.done:
            return
        self.done = True
        self.outcome = outcome
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def when_done(self, callback: Callable[[Call], None]) -> None:
        """Call back once it is resolved; at once where it is."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def result(self) -> Any:
        """The value, or raise what it was refused with."""
        assert self.done, "a result is asked for once the call is done"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def resolved(value: Any) -> Call:
    """A call that needs no question."""
    call = Call(_never, deadline_us=None, timed_out=_unreachable)
    call.resolve(value)
    return call


def _never(request_id: int) -> wire.Request:
    raise AssertionError("a call that was resolved at birth is never sent")


def _unreachable(call: Call) -> ConclaveError:
    raise AssertionError("a call that was resolved at birth never times out")
