"""Double barriers: so many enter together, and leave together.

Guarantees. `enter` answers once as many members as were asked for have been in at one time, `leave` once all have left;
each waiter counts through the changes in their order from its own entry (its own leave) on, so that one that is slow
misses nothing though fast ones have gone on, or come again for the next round. A member that dies leaves when its
session ends. A waiter that is behind by more than the cluster keeps of its history counts who is there then.

Source: the double barrier of ZooKeeper's recipes (Hunt and others, "ZooKeeper", 2010, section 2.4), whose ready file
the history stands for here.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Asking, Part, S, asked
from coordinator.client.core import Core
from coordinator.client.errors import Compacted, InvalidRequest, LeaseLost, NotFound, refuse
from coordinator.client.flows import Flow
from coordinator.client.recipes import presence
from coordinator.client.session import Session
from coordinator.client.watches import at, next_changes
from coordinator.statemachine import files


class DoubleBarrier(Part[S]):
    """For `count` members, by the name of a directory. `member`: this one's name in it."""

    def __init__(
        self, client: Part[S], name: str, count: int, member: str, *, ttl: float = options.DEFAULT_TTL_S
    ) -> None:
        super().__init__(client._shell)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidRequest(f"a count is a whole number from 1 on, got {count!r}")
        self.name = options.name(name)
        self.count = count
        self._base = f"{self.name}/"
        self._path = options.name(self._base + options.member(member))
        self._ttl_ms = options.ttl_ms(ttl)
        self._member = member
        self._session: Session | None = None
        """By which it came in last, or tried to."""

    @asked
    def enter(self, *, wait: float | None = None) -> Ask[None]:
        """Come in, and wait until all are in. Raises Exists where the member is in, LeaseLost where its session ends
        meanwhile, TimeoutError after `wait` seconds: then it has left again, as it has where it is interrupted or
        cancelled. OutcomeUnknown: it may be in; `leave` says."""
        clock, timeout_us, wait_us = self._shell.clock, self._shell.timeout_us, options.wait_us(wait)
        until_us = None if wait_us is None else clock() + wait_us
        session: Session

        def flow(core: Core) -> Asking[None]:
            nonlocal session
            session = self._session = yield from flows.session(core, clock, self._ttl_ms, clock() + timeout_us)
            op = files.CreateFile(self._path, b"", ephemeral=True, parents=True)
            created = yield from presence.come_in(core, clock, session, op, clock() + timeout_us)
            try:
                yield from self._count(core, created.revision, until_us, lambda count: count >= self.count, is_in=True)
            except BaseException:
                presence.go(core, clock, session, self._path)
                raise

        return Ask(flow, lambda core, _: presence.go(core, clock, session, self._path))

    @asked
    def leave(self, *, wait: float | None = None) -> Ask[None]:
        """Go out, and wait until all are out. Raises NotFound where the member is not in (another of its name may
        be, which came in behind the end of this session), TimeoutError after `wait` seconds: others are in still."""
        clock, wait_us = self._shell.clock, options.wait_us(wait)
        until_us = None if wait_us is None else clock() + wait_us

        def flow(core: Core) -> Asking[None]:
            deadline_us = clock() + self._shell.timeout_us
            session = self._session or (yield from flows.session(core, clock, self._ttl_ms, deadline_us))
            revision = yield from presence.left_at(core, clock, session, self._path, deadline_us)
            if not revision:
                raise NotFound(f"double barrier {self.name!r}: {self._member!r} is not in, or it is another one")
            yield from self._count(core, revision, until_us, lambda count: count == 0, is_in=False)

        return Ask(flow)

    def _count(
        self, core: Core, revision: int, until_us: int | None, holds: Callable[[int], bool], *, is_in: bool
    ) -> Flow:
        """Wait until `holds` of the number of members, at `revision` or any later one."""
        clock, entered = self._shell.clock, revision
        while True:
            try:
                count = yield from self._members(core, revision)
                changes = files.ReadChanges(self._base, prefix=True, since=revision + 1, previous=True)
                while not holds(count):
                    page: files.ChangePage = yield from next_changes(core, clock, changes, until_us)
                    for change in page.changes:
                        count += presence.is_of(self._base, change.after) - presence.is_of(self._base, change.before)
                        if holds(count):
                            return
                        if is_in and change.key == self._path and change.after is None:
                            raise self._lost()
                    if not page.changes:
                        raise TimeoutError(f"double barrier {self.name!r}: {count} of {self.count} are in")
                    changes = at(changes, page.since, page.skip)
                return
            except Compacted:
                revision = (yield from self._now(core)).revision
                if is_in:  # Looked at behind that: the changes from there on tell when it goes.
                    yield from self._stay(core, entered)

    def _stay(self, core: Core, entered: int) -> Flow:
        """Raises LeaseLost where the member that came in at that revision is not in any more."""
        clock = self._shell.clock
        try:
            stat: files.Stat = refuse(
                (yield core.query(files.GetStat(self._path), clock(), clock() + self._shell.timeout_us))
            )
        except NotFound as gone:
            raise self._lost() from gone
        if stat.instance != entered:
            raise self._lost()

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"double barrier {self.name!r}: the session ended, and with it the member")

    def _members(self, core: Core, revision: int) -> Flow:
        """How many are in at that revision."""
        clock, after, count = self._shell.clock, "", 0
        while True:
            query = files.ReadRange(self._base, prefix=True, revision=revision, keys_only=True, after=after)
            view: files.RangeView = refuse((yield core.query(query, clock(), clock() + self._shell.timeout_us)))
            count += sum(presence.is_of(self._base, each) for each in view.keys)
            if not view.more:
                return count
            after = view.keys[-1].key

    def _now(self, core: Core) -> Flow:
        clock = self._shell.clock
        query = files.ReadRange(self._base, prefix=True, keys_only=True, count_only=True)
        return refuse((yield core.query(query, clock(), clock() + self._shell.timeout_us)))
