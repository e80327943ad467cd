"""Waiting for grants: a waiter in a line is told by a push, and asks where it stands besides.

A push may be lost, may come before its waiter, and may be an old one (history 8). Part of `core.py`, which hands in
how it asks and what it knows of leaders.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple, Protocol

from coordinator.client.calls import NEVER_US, Call, resolved
from coordinator.client.errors import ConclaveError, Unavailable
from coordinator.client.routing import Routing
from coordinator.statemachine import commands, lock_commands

ASK_US: Final = 1_000_000
"""How often a waiter asks where it stands, besides being told (history 8)."""
EARLY_GRANTS_MAX: Final = 1_024


class Acquisition(NamedTuple):
    """What a grant is of."""

    session: int
    name: str
    number: int


class Query(Protocol):
    """See `Core.query`."""

    def __call__(self, query: commands.Query, now_us: int, deadline_us: int, act_for: str) -> Call: ...


class _Wait:
    """A waiter for a grant: resolved by the push, by an answer to what it asks, or by its deadline."""

    __slots__ = ("act_for", "ask_due_us", "asking", "call", "changes", "own")

    def __init__(self, call: Call, act_for: str, ask_due_us: int, changes: int, *, own: bool) -> None:
        self.own = own
        """An acquisition of this client's own, whose number never comes again: a push can only mean this one."""
        self.call = call
        self.act_for = act_for
        self.ask_due_us = ask_due_us
        self.asking: Call | None = None
        self.changes = changes


class Grants:
    def __init__(
        self,
        routing: Routing,
        random: Random,
        *,
        pause: Callable[[int | None], Call],
        query: Query,
        finish: Callable[[Call, object], None],
    ) -> None:
        self._routing = routing
        self._random = random
        self._pause = pause
        self._query = query
        self._finish = finish
        self._waits: dict[Acquisition, list[_Wait]] = {}
        """Several may wait for the same: each is told."""
        self._early: dict[Acquisition, int] = {}
        self._ask_due_us = NEVER_US
        """Before this no waiter asks for its grant, unless another leader was heard of. As the bounds of `Core`: it may
        be too early, never too late."""
        self._asked_of = 0
        """`routing.changes` when the waiters last asked."""

    def wait(self, acquisition: Acquisition, now_us: int, deadline_us: int | None, act_for: str, *, ask: bool) -> Call:
        """See `Core.grant`."""
        token = self._early.pop(acquisition, None)
        if token is not None and not ask:
            return resolved(commands.Granted(token))
        call = self._pause(deadline_us)
        ask_due_us = now_us if ask else now_us + ASK_US
        wait = _Wait(call, act_for, ask_due_us, self._routing.changes, own=not ask)
        self._waits.setdefault(acquisition, []).append(wait)
        self._ask_due_us = min(self._ask_due_us, ask_due_us)
        call.when_done(lambda _: self._end(acquisition, wait))
        return call

    def _end(self, acquisition: Acquisition, wait: _Wait) -> None:
        waits = self._waits[acquisition]
        waits.remove(wait)
        if not waits:
            del self._waits[acquisition]
        if wait.asking is not None:
            self._finish(wait.asking, None)

    def forget(self, acquisition: Acquisition) -> None:
        """Nobody will wait for it: a push that came is of no use."""
        self._early.pop(acquisition, None)

    def pushed(self, acquisition: Acquisition, token: int, now_us: int) -> None:
        waits = self._waits.get(acquisition)
        if waits is not None:
            for wait in [*waits]:
                if wait.own:
                    self._finish(wait.call, commands.Granted(token))
                else:
                    # It may be an old one: what is true, the log says (history 8).
                    self._ask_due_us = wait.ask_due_us = now_us
            return
        self._early[acquisition] = token
        while len(self._early) > EARLY_GRANTS_MAX:
            del self._early[next(iter(self._early))]

    def due_us(self, now_us: int) -> int:
        """When `ask` has something to do next."""
        return now_us if self._waits and self._asked_of != self._routing.changes else self._ask_due_us

    def ask(self, now_us: int) -> None:
        """Have those ask that are to ask now."""
        changes = self._routing.changes
        if now_us < self._ask_due_us and self._asked_of == changes:
            return
        self._asked_of = changes
        self._ask_due_us = NEVER_US
        for acquisition, wait in [(each, wait) for each, waits in self._waits.items() for wait in waits]:
            if wait.asking is not None:
                continue
            if wait.changes == changes and now_us < wait.ask_due_us:
                self._ask_due_us = min(self._ask_due_us, wait.ask_due_us)
                continue
            wait.changes = changes
            wait.ask_due_us = now_us + ASK_US + self._random.randrange(ASK_US // 4)
            query = commands.AwaitGrant(acquisition.name, acquisition.number, acquisition.session)
            try:
                wait.asking = self._query(query, now_us, now_us + 10 * ASK_US, wait.act_for)
            except ConclaveError as error:
                self._finish(wait.call, error)  # It can not be encoded: that is its own asker's trouble alone.
                continue
            wait.asking.when_done(lambda asked, wait=wait: self._answered(wait, asked))  # type: ignore[misc]

    def _answered(self, wait: _Wait, asked: Call) -> None:
        wait.asking = None
        self._ask_due_us = min(self._ask_due_us, 0 if wait.changes != self._routing.changes else wait.ask_due_us)
        outcome = asked.outcome
        refused = isinstance(outcome, ConclaveError) and not isinstance(outcome, Unavailable)
        if refused or isinstance(outcome, (commands.Granted, commands.NotHeld, lock_commands.Broken)):
            self._finish(wait.call, outcome)
