"""Queues: items are taken in the order in which they came, and each is done at least once.

Guarantees. An item that was put is taken until somebody says that it is done. While one has it nobody else does: it is
locked by its taker's session, and is there for others again once that ends. So an item is taken twice only where its
taker died, lost its session, or left it without an answer, before it was done; then its `done` is refused, and never
removes what another has.
Items are handed out oldest first; one that comes back is the oldest again. `token` grows each time an item is taken.

Source: the queues of ZooKeeper's recipes, with a lock for each item in place of its deletion by whoever takes it; the
visibility time-outs of message queues, by session.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Asking, Async, Part, S, Sync, asked
from coordinator.client.core import Core
from coordinator.client.errors import Compacted, LeaseLost, LockNotAcquired, NotFound, refuse
from coordinator.client.flows import Flow, Grant
from coordinator.client.holding import Had, give_back, proven
from coordinator.client.recipes import presence
from coordinator.client.transactions import Transaction, delete, key
from coordinator.client.watches import next_changes
from coordinator.statemachine import commands, files

LOOK_US: Final = 1_000_000
"""An item that comes back since its taker died is no change of a file: it is looked for this often."""
PAGE: Final = 100
"""Items of one look."""


class Item(Had[S]):
    """An item that this client has. A context manager: done at the end, or given back where it is left by an error."""

    def __init__(self, shell: S, grant: Grant, value: bytes) -> None:
        super().__init__(shell, grant)
        self.value = value

    @asked
    def done(self, *, timeout: float | None = None) -> Ask[None]:
        """It is done, and goes. Raises LeaseLost where this client has it no more: another does it, or has done it."""
        clock, deadline_us, grant = self._shell.clock, self._shell.deadline_us(timeout), self._state.grant

        def flow(core: Core) -> Asking[None]:
            self._state.check()
            move = Transaction().when(key(self.name).token == self.token).then(delete(self.name))
            asked = core.command(grant.session, move.build(), clock(), deadline_us, persists=True)
            finished = yield from lock_flows.of_hold(core, clock, grant, asked)
            self._state.released = True
            lock_flows.give_back(core, clock, grant)
            if not finished.succeeded:
                raise LeaseLost(f"item {self.name!r} is another's by now; nothing was removed")

        return Ask(flow)

    @asked
    def give_back(self, *, timeout: float | None = None) -> Ask[bool]:
        """Let others have it, at once. True where this client still had it."""
        return self._let_go(timeout)

    def __exit__(
        self: Item[Sync], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._state.released:
            try:
                self.done()
            except BaseException:
                self._leave_to_others()
                raise
        else:
            super().__exit__(kind, error, trace)

    async def __aexit__(
        self: Item[Async], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._state.released:
            try:
                await self.done()
            except BaseException:
                self._leave_to_others()
                raise
        else:
            await super().__aexit__(kind, error, trace)

    def _leave_to_others(self) -> None:
        """No answer said that it is done: where it is not, others are to have it while this one lives."""
        if not self._state.released:
            self._let_go_later()


class Queue(Part[S]):
    """A queue by the name of a directory."""

    def __init__(self, client: Part[S], name: str, *, ttl: float = options.DEFAULT_TTL_S) -> None:
        """`ttl`: seconds after the death of a taker until others have its items."""
        super().__init__(client._shell)
        self.name = options.name(name)
        self._base = f"{self.name}/"
        self._ttl_ms = options.ttl_ms(ttl)

    @asked
    def put(self, value: bytes, *, timeout: float | None = None) -> Ask[str]:
        """Put an item at the end; its name. Where OutcomeUnknown is raised it may be in, or come in yet."""
        op = files.CreateFile(options.name(self._base), options.key_value(value), sequential=True, parents=True)
        return self._command(op, lambda created: str(created.path), timeout=timeout)

    @asked
    def size(self, *, timeout: float | None = None) -> Ask[int]:
        """How many items are not done, whoever has them. (Of queues below this one, each counts as one.)"""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            try:
                view = refuse((yield core.query(files.ListDirectory(self.name, limit=1), clock(), deadline_us)))
            except NotFound:
                return 0  # Nothing was ever put.
            return int(view.count)

        return Ask(flow)

    @asked
    def take(self, *, wait: float | None = None) -> Ask[Item[S] | None]:
        """Take the oldest item that nobody has; wait for one, `wait` seconds at the most. None where none came."""
        clock, wait_us = self._shell.clock, options.wait_us(wait)
        until_us = None if wait_us is None else clock() + wait_us
        place = hands.place(self._shell.asker())

        def flow(core: Core) -> Asking[Item[S] | None]:
            with place:
                item = yield from self._take(core, until_us)
                place.state = None if item is None else item._state
            return item

        return Ask(flow, give_back)

    def _take(self, core: Core, until_us: int | None) -> Asking[Item[S] | None]:
        clock = self._shell.clock
        while True:
            item: Item[S] | None
            item, revision = yield from self._first_free(core)
            if item is not None or (until_us is not None and clock() >= until_us):
                return item
            look_us = clock() + LOOK_US
            more = files.ReadChanges(self._base, prefix=True, since=revision + 1, deletes=False, limit=1)
            try:
                yield from next_changes(core, clock, more, look_us if until_us is None else min(look_us, until_us))
            except Compacted:
                continue

    def _first_free(self, core: Core) -> Flow:
        """The first item that could be locked (None: there is none), and the revision that was looked at."""
        clock, timeout_us, after, revision = self._shell.clock, self._shell.timeout_us, "", 0
        while True:
            query = files.ReadRange(self._base, prefix=True, limit=PAGE, keys_only=True, after=after)
            view: files.RangeView = refuse((yield core.query(query, clock(), clock() + timeout_us)))
            revision = revision or view.revision
            for each in view.keys:
                if presence.is_of(self._base, each):
                    item = yield from self._try(core, each.key)
                    if item is not None:
                        return item, revision
            if not view.more:
                return None, revision
            after = view.keys[-1].key

    def _try(self, core: Core, name: str) -> Flow:
        """The item, where nobody has it and it is there still."""
        clock, timeout_us = self._shell.clock, self._shell.timeout_us
        state = refuse((yield core.query(commands.GetLock(name), clock(), clock() + timeout_us)))
        if state.holder is not None:
            return None  # To look costs no entry.
        try:
            grant = yield from flows.acquire(core, clock, name, self._ttl_ms, 0, timeout_us)
        except LockNotAcquired:
            return None
        try:
            found = refuse((yield core.query(files.ReadFile(name), clock(), clock() + timeout_us)))
            yield from proven(core, clock, grant, timeout_us)
        except (NotFound, LeaseLost):
            lock_flows.give_back(core, clock, grant)  # It was done between the two looks; or it is another's.
            return None
        except BaseException:
            lock_flows.give_back(core, clock, grant)
            raise
        return Item(self._shell, grant, found.value)
