"""Groups: who is there, with data of each member's own.

Guarantees. A member is a file that lives as long as its session: it is there from `join` on, and gone when it leaves or
its session ends, which is no earlier than its time to live after its last word. `members` is the group at one revision;
`follow` tells every change behind that, each once and in order, or that some were missed and what the group is now.

Source: the group membership of ZooKeeper's recipes (Hunt and others, "ZooKeeper", 2010, section 2.4), over Chubby's
ephemeral files.
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Asking, Part, S, asked
from coordinator.client.core import Core
from coordinator.client.errors import LeaseLost, refuse
from coordinator.client.session import Session
from coordinator.client.watches import Follow, Mapped, Snapshot, read_all
from coordinator.statemachine import files


class Members(NamedTuple):
    """The whole group, at a revision. `after_gap`: changes before it were missed."""

    members: dict[str, bytes]
    revision: int
    after_gap: bool


class Change(NamedTuple):
    """A member came or changed its data (`data`), or went (None)."""

    name: str
    data: bytes | None
    revision: int


class Membership(Part[S]):
    """One is a member."""

    def __init__(self, shell: S, path: str, name: str, session: Session, ttl: float) -> None:
        super().__init__(shell)
        self.name = name
        self.session = session.session
        self._path = path
        self._ttl = ttl
        self._session = session

    @property
    def held(self) -> bool:
        """Can it be proven that the session lives, and with it the membership?"""
        return self._session.valid(self._shell.clock())

    @asked
    def update(self, data: bytes, *, timeout: float | None = None) -> Ask[int]:
        """Other data of this member; the revision. Raises NotFound where it is none any more."""
        op = files.WriteFile(self._path, options.key_value(data))
        return self._command(op, lambda done: int(done.index), ttl=self._ttl, timeout=timeout)

    @asked
    def leave(self, *, timeout: float | None = None) -> Ask[bool]:
        """True where it was a member still. A fork of the process that joined can not leave for it."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[bool]:
            if self._session.gone:
                return False
            op = files.DetachFile(self._path)
            done = refuse((yield core.command(self._session, op, clock(), deadline_us)))
            return bool(done.existed)

        return Ask(flow)


class Group(Part[S]):
    """A group by the name of a directory."""

    def __init__(self, client: Part[S], name: str, *, ttl: float = options.DEFAULT_TTL_S) -> None:
        """`ttl`: seconds after the death of a member until it is no member any more."""
        super().__init__(client._shell)
        self.name = options.name(name)
        self._base = f"{self.name}/"
        self._ttl = ttl
        options.ttl_ms(ttl)

    @asked
    def join(self, member: str, data: bytes = b"", *, timeout: float | None = None) -> Ask[Membership[S]]:
        """Become a member of this name. Raises Exists where there is one, which a process that was killed and started
        anew meets until its former session has run out."""
        path = options.name(self._base + options.member(member))
        op = files.CreateFile(path, options.key_value(data), ephemeral=True, parents=True)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[Membership[S]]:
            session = yield from flows.session(core, clock, options.ttl_ms(self._ttl), deadline_us)
            refuse((yield core.command(session, op, clock(), deadline_us)))
            if session.gone:
                raise LeaseLost(f"the session of member {member!r} is gone")
            return Membership(self._shell, path, member, session, self._ttl)

        return Ask(flow, lambda core, found: _leave(core, found, clock()))

    @asked
    def members(self) -> Ask[dict[str, bytes]]:
        """All members with their data, at one revision, by name."""

        def flow(core: Core) -> Asking[dict[str, bytes]]:
            view = yield from read_all(core, self._shell.clock, self._base, "", prefix=True)
            return _members(view, self._base)

        return Ask(flow)

    def follow(self) -> Mapped[S, Members | Change]:
        """The group as it is, and then each change to it; the group anew where changes were missed."""
        return Mapped(Follow(self._shell, self._base, "", prefix=True), self._told)

    def _told(self, told: Snapshot | files.ChangeView) -> Members | Change:
        if isinstance(told, Snapshot):
            return Members(_members(told, self._base), told.revision, told.after_gap)
        return Change(told.key[len(self._base) :], None if told.after is None else told.after.value, told.revision)


def _members(view: files.RangeView | Snapshot, base: str) -> dict[str, bytes]:
    return {each.key[len(base) :]: each.value for each in view.keys if each.value is not None}


def _leave(core: Core, membership: Membership[S], now_us: int) -> None:
    """Its asker left before it knew."""
    if not membership._session.gone:
        op = files.DetachFile(membership._path)
        core.command(membership._session, op, now_us, now_us + flows.STATUS_US)
