"""Groups: who is there, with what each member can do and data of its own.

Guarantees. A member is a file that lives as long as its session: it is there from `join` on, and gone when it leaves or
its session ends, which is no earlier than its time to live after its last word. `members` is the group at one revision;
`follow` tells every change behind that, each once and in order, or that some were missed and what the group is now.
A member's capabilities are a set of words, kept in its content with its data (`capabilities.py`): both change at once.

Source: the group membership of ZooKeeper's recipes (Hunt and others, "ZooKeeper", 2010, section 2.4), over Chubby's
ephemeral files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Asking, Part, S, asked
from coordinator.client.core import Core
from coordinator.client.errors import Changed, LeaseLost, NotFound, refuse
from coordinator.client.recipes import presence
from coordinator.client.recipes.capabilities import checked, joined, parted
from coordinator.client.session import Session
from coordinator.client.watches import Follow, Mapped, Snapshot, read_all
from coordinator.statemachine import files


class Member(NamedTuple):
    data: bytes
    capabilities: frozenset[str]


class Members(NamedTuple):
    """The whole group, at a revision. `after_gap`: changes before it were missed. `capabilities`: of those members that
    say any."""

    members: dict[str, bytes]
    revision: int
    after_gap: bool
    capabilities: Mapping[str, frozenset[str]] = MappingProxyType({})


class Change(NamedTuple):
    """A member came or changed its data and capabilities (`data`), or went (None)."""

    name: str
    data: bytes | None
    revision: int
    capabilities: frozenset[str] = frozenset()


class Membership(Part[S]):
    """One is a member."""

    def __init__(
        self,
        shell: S,
        path: str,
        name: str,
        session: Session,
        ttl: float,
        capabilities: frozenset[str],
        instance: int,
    ) -> None:
        """`instance`: of its file, so that it is not taken for that of another member of this name."""
        super().__init__(shell)
        self.name = name
        self.capabilities = capabilities
        self.session = session.session
        self._path = path
        self._ttl = ttl
        self._session = session
        self._instance = instance

    @property
    def held(self) -> bool:
        """Can it be proven that the session lives, and with it the membership?"""
        return self._session.valid(self._shell.clock())

    @property
    def expires_in(self) -> float:
        """Seconds for which that can be proven if no leader confirms the session again; 0.0 where it can not."""
        if self._session.gone:
            return 0.0
        return max(0, self._session.valid_until_us - self._shell.clock()) / 1e6

    @asked
    def update(
        self, data: bytes, *, capabilities: Iterable[str] | None = None, timeout: float | None = None
    ) -> Ask[int]:
        """Other data of this member; the revision. `capabilities`: what it can do from here on; None: what it could.
        Raises NotFound where it is none any more, though another may be one by this name."""
        now = self.capabilities if capabilities is None else checked(capabilities)
        op = files.WriteFile(self._path, _content(now, data), instance=self._instance)
        clock, deadline_us, ttl_ms = self._shell.clock, self._shell.deadline_us(timeout), options.ttl_ms(self._ttl)

        def flow(core: Core) -> Asking[int]:
            try:
                done = refuse((yield from flows.command(core, clock, op, ttl_ms, deadline_us, "")))
            except Changed as changed:
                raise NotFound(f"this is no member any more; {self.name!r} is another by now") from changed
            self.capabilities = now
            return int(done.index)

        return Ask(flow)

    @asked
    def leave(self, *, timeout: float | None = None) -> Ask[bool]:
        """True where it was a member still. A fork of the process that joined can not leave for it."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: presence.leave(core, clock, self._session, self._path, deadline_us))


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
    def join(
        self, member: str, data: bytes = b"", *, capabilities: Iterable[str] = (), timeout: float | None = None
    ) -> Ask[Membership[S]]:
        """Become a member of this name. `capabilities`: what it can do, a set of words. Raises Exists where there is
        one, which a process that was killed and started anew meets until its former session has run out."""
        path = options.name(self._base + options.member(member))
        able = checked(capabilities)
        op = files.CreateFile(path, _content(able, data), ephemeral=True, parents=True)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[Membership[S]]:
            session = yield from flows.session(core, clock, options.ttl_ms(self._ttl), deadline_us)
            created: files.Created = yield from presence.come_in(core, clock, session, op, deadline_us)
            if session.gone:
                raise LeaseLost(f"the session of member {member!r} is gone")
            return Membership(self._shell, path, member, session, self._ttl, able, created.revision)

        # Its asker may leave before it has this.
        return Ask(flow, lambda core, found: presence.go(core, clock, found._session, path))

    @asked
    def members(self, *, capabilities: Iterable[str] = ()) -> Ask[dict[str, bytes]]:
        """All members with their data, at one revision, by name; only those that can do all of `capabilities`."""
        wanted = checked(capabilities)

        def flow(core: Core) -> Asking[dict[str, bytes]]:
            found = yield from self._read(core, wanted)
            return {name: member.data for name, member in found.items()}

        return Ask(flow)

    @asked
    def look(self, *, capabilities: Iterable[str] = ()) -> Ask[dict[str, Member]]:
        """The same, with what each can do."""
        wanted = checked(capabilities)
        return Ask(lambda core: self._read(core, wanted))

    def _read(self, core: Core, wanted: frozenset[str]) -> Asking[dict[str, Member]]:
        clock, timeout_us = self._shell.clock, self._shell.timeout_us
        view = yield from read_all(
            core, clock, self._base, "", prefix=True, until_us=clock() + timeout_us, question_us=timeout_us
        )
        return {name: member for name, member in _members(view, self._base).items() if wanted <= member.capabilities}

    def follow(self) -> Mapped[S, Members | Change]:
        """The group as it is, and then each change to it; the group anew where changes were missed."""
        return Mapped(Follow(self._shell, self._base, "", prefix=True, previous=True), self._told)

    def _told(self, told: Snapshot | files.ChangeView) -> Members | Change | None:
        if isinstance(told, Snapshot):
            found = _members(told, self._base)
            able = {name: member.capabilities for name, member in found.items() if member.capabilities}
            data = {name: member.data for name, member in found.items()}
            return Members(data, told.revision, told.after_gap, able)
        name = told.key[len(self._base) :]
        if "/" in name or any(view is not None and view.directory for view in (told.before, told.after)):
            return None  # Of another group, below this one.
        if told.after is None or told.after.value is None:
            return Change(name, None, told.revision)
        capabilities, now = parted(told.after.value)
        return Change(name, now, told.revision, capabilities)


def _content(capabilities: frozenset[str], data: bytes) -> bytes:
    return options.key_value(joined(capabilities, options.key_value(data)))


def _members(view: files.RangeView | Snapshot, base: str) -> dict[str, Member]:
    found = {}
    for each in view.keys:
        if each.value is not None and presence.is_of(base, each):
            capabilities, data = parted(each.value)
            found[each.key[len(base) :]] = Member(data, capabilities)
    return found
