"""A cluster in memory for tests of the web tier: the real state machine, with no consensus, no network and one lease
clock that a test moves. `FakeClient` is what `coordinator.access` and the token command take for a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any, Self

import msgspec

from coordinator import wire
from coordinator.client import errors
from coordinator.client.aio import Figures
from coordinator.client.events import Heard
from coordinator.statemachine import commands
from coordinator.statemachine.machine import (
    GrantMade,
    Machine,
    SessionBegan,
    SessionEnded,
    encode_entry,
    encode_node_entry,
)

CLUSTER_ID = 0xC0FFEE
_encode = msgspec.msgpack.Encoder().encode


class FakeCluster:
    """`has_leader`, `hold_commands` and `reports` are a test's to change."""

    def __init__(self, web_token: wire.Token, nodes: tuple[str, ...] = ("node1", "node2", "node3")) -> None:
        self.machine = Machine()
        self.index = itertools.count(1)
        self.nodes = nodes
        self.has_leader = True
        self.term = 4
        self.silent_nodes: set[str] = set()
        self.waiting_nodes: dict[str, str] = {}
        self.crashed: list[tuple[str, str]] = []
        self.kept_alive: list[int] = []
        self.web_session = 0
        """The session of the web process's own client."""
        self.commands: list[Any] = []
        self.by_its_own_right: set[type] = set()
        """What the web process asked as it served its callers, and for none of them: of itself it may do anything."""
        self.last: commands.Result | None = None
        """Of the last command."""
        self.gate = asyncio.Event()
        self.gate.set()
        """Cleared by a test that wants commands to be under way for as long as it likes."""
        self.changed = asyncio.Event()
        self._deadline_ms: dict[int, float] = {}
        self._ahead_ms = 0.0
        web = commands.SetPrincipal("web", commands.RIGHTS, (), True)
        token = commands.AddToken(web_token.token_id, "web", web_token.key)
        self.machine.apply(
            next(self.index),
            encode_node_entry(commands.Genesis(CLUSTER_ID, "default", 0, (web,), (token,), commands.LEVEL)),
        )

    # --- time ---------------------------------------------------------------------------------------

    def _now_ms(self) -> float:
        return time.monotonic() * 1000 + self._ahead_ms

    def pass_time(self, milliseconds: float) -> None:
        """Let leases run down, and what has run out expire, as a leader would have it."""
        self._ahead_ms += milliseconds
        expired = tuple(session for session, at in self._deadline_ms.items() if at <= self._now_ms())
        if expired:
            self.machine.apply(next(self.index), encode_node_entry(commands.ExpireSessions(expired)))
            self._take_events()

    def left_ms(self, session: int) -> int:
        return max(0, int(self._deadline_ms.get(session, 0) - self._now_ms()))

    # --- commands -----------------------------------------------------------------------------------

    def apply(self, principal: str, actor: str, command: commands.Command, for_token: str = "") -> commands.Result:
        self.commands.append(command.op)
        result = self.machine.apply(next(self.index), encode_entry(principal, actor, _encode(command), "", for_token))
        self.last = result
        self._take_events()
        return result

    def _take_events(self) -> None:
        for event in self.machine.events:
            match event:
                case SessionBegan():
                    self._deadline_ms[event.session] = self._now_ms() + event.ttl_ms
                case SessionEnded():
                    self._deadline_ms.pop(event.session, None)
                case GrantMade():
                    pass
        self.machine.events.clear()
        self.changed.set()
        self.changed = asyncio.Event()

    def keep_alive(self, session: int) -> int:
        ttl_ms = self.machine.sessions[session].ttl_ms
        self._deadline_ms[session] = self._now_ms() + ttl_ms
        self.kept_alive.append(session)
        return ttl_ms

    def fail_over(self) -> None:
        """Another leadership begins."""
        self.term += 1
        self.changed.set()
        self.changed = asyncio.Event()

    # --- reports ------------------------------------------------------------------------------------

    def report(self, node: str) -> wire.ReplicaReport | None:
        if node in self.silent_nodes:
            return None
        waits = self.waiting_nodes.get(node, "")
        leads = self.has_leader and node == self.nodes[1]
        role = "waiting" if waits else "leader" if leads else "follower"
        applied = 0 if waits else self.machine.applied
        return wire.ReplicaReport(
            node=node,
            cluster=CLUSTER_ID,
            cluster_name="default",
            replica=0 if waits else 0xA0 + self.nodes.index(node),
            pid=1000 + self.nodes.index(node),
            role=role,
            leader=self.nodes[1] if self.has_leader and not waits else "",
            term=0 if waits else self.term,
            vote="" if waits else self.nodes[1],
            last_index=applied,
            commit_index=applied,
            applied_index=applied,
            digest="" if waits else self.machine.digest(),
            waiting_for=waits,
            voters=() if waits else self.nodes,
            drops={"malformed": 2},
            faults_allowed=True,
        )


class FakeClient:
    """The calls of `AsyncClient` that the web tier uses, as principal `web` or whoever's token it was given."""

    def __init__(self, cluster: FakeCluster, principal: str = "web", *, serves: bool = False) -> None:
        """`serves`: it is the one by which the web process serves its callers."""
        self._serves = serves
        self._cluster = cluster
        self._principal = principal
        self._numbers = itertools.count(1)
        self._session = 0
        self.is_closed = False
        self.calls_pending = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.is_closed = True

    def _need_leader(self) -> None:
        if not self._cluster.has_leader:
            raise errors.Unavailable("no leader answered within 5 s; node1 at 127.0.0.1:7000 said so")

    def _who(self, act_for: str) -> tuple[str, str, str]:
        """Principal, actor and the token acted for."""
        if not act_for.startswith(wire.FOR_TOKEN):
            return (act_for, self._principal, "") if act_for else (self._principal, "", "")
        token_id = act_for.removeprefix(wire.FOR_TOKEN)
        known = self._cluster.machine.key_of(token_id)
        if known is None:
            raise errors.Forbidden("act_for is no token of this cluster")
        return known[0], self._principal, token_id

    def _note(self, what: Any, act_for: str) -> None:
        if self._serves and not act_for:
            self._cluster.by_its_own_right.add(type(what))

    async def command(self, op: Any, *, act_for: str = "", timeout: float | None = None) -> Any:
        self._note(op, act_for)
        await self._cluster.gate.wait()
        self._need_leader()
        if not self._session:
            opened = self._cluster.apply(
                self._principal, "", commands.Command(0, 0, 0, commands.OpenSession(commands.TTL_MS_MAX, b""))
            )
            assert isinstance(opened, commands.SessionOpened)
            self._session = self._cluster.web_session = opened.session
        number = next(self._numbers)
        principal, actor, token = self._who(act_for)
        command = commands.Command(self._session, number, number, op)
        return _result(self._cluster.apply(principal, actor, command, token))

    async def query(self, query: Any, *, act_for: str = "", timeout: float | None = None) -> Any:
        self._note(query, act_for)
        await asyncio.sleep(0)
        self._need_leader()
        principal, actor, token = self._who(act_for)
        machine = self._cluster.machine
        return _result(machine.query(query, principal, self._cluster.left_ms, actor, for_token=token))

    async def keep_alive(self, session: int, *, act_for: str = "", timeout: float | None = None) -> wire.KeptAlive:
        self._need_leader()
        principal, _, _ = self._who(act_for)
        known = self._cluster.machine.sessions.get(session)
        if known is None or known.principal != principal:
            raise errors.SessionGone(f"session {session} is gone, or another's")
        return wire.KeptAlive(0, session, self._cluster.keep_alive(session))

    async def wait_for_grant(
        self, name: str, owner: int, acquisition: int, *, wait: float, act_for: str = ""
    ) -> commands.Granted | None:
        deadline = time.monotonic() + wait
        while True:
            changed = self._cluster.changed
            place = await self.query(commands.AwaitGrant(name, acquisition, owner), act_for=act_for)
            if isinstance(place, commands.Granted):
                return place
            if isinstance(place, commands.NotHeld):
                return None
            try:
                await asyncio.wait_for(changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                return None

    async def wait_for_lock_events(self, query: Any, *, wait: float, term: int = 0, act_for: str = "") -> Heard:
        page = await self.wait_for_changes(query, wait=wait, act_for=act_for, term=term)
        return Heard(page, self._cluster.nodes[1], self._cluster.term)

    async def wait_for_changes(self, query: Any, *, wait: float, act_for: str = "", term: int = 0) -> Any:
        deadline = time.monotonic() + wait
        while True:
            changed = self._cluster.changed
            page = errors.refuse(await self.query(query, act_for=act_for))
            told = getattr(page, "changes", ()) or getattr(page, "events", ())
            if told or time.monotonic() >= deadline or (term and term != self._cluster.term):
                return page
            query = msgspec.structs.replace(query, since=page.since, skip=page.skip)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), deadline - time.monotonic())

    @property
    def cluster_id(self) -> int:
        return CLUSTER_ID

    async def directory(self) -> wire.Directory:
        if set(self._cluster.nodes) <= self._cluster.silent_nodes:
            raise errors.Unavailable("no node answers")
        entry = wire.ClusterEntry("default", CLUSTER_ID, self._cluster.nodes[1], 4, self._cluster.nodes)
        return wire.Directory(0, self._cluster.nodes[0], tuple((node, "") for node in self._cluster.nodes), (entry,))

    async def status(self) -> dict[str, wire.ReplicaReport | None]:
        if set(self._cluster.nodes) <= self._cluster.silent_nodes:
            return {}
        return {node: self._cluster.report(node) for node in self._cluster.nodes}

    async def confirm(self, timeout: float | None = None) -> tuple[str, int]:
        self._need_leader()
        return self._cluster.nodes[1], 4

    def figures(self) -> Figures:
        return Figures(True, self._cluster.has_leader, self.calls_pending, int(self._session > 0), 2)

    async def crash(self, node: str, *, act_for: str = "") -> None:
        principal, actor, token = self._who(act_for)
        access = self._cluster.machine.access(principal, actor, for_token=token)
        if isinstance(access, commands.Failure) or not access.may(commands.ADMINISTER):
            raise errors.Forbidden(f"{principal!r} lacks the right to administer")
        self._cluster.crashed.append((node, principal))


class FakeSyncClient:
    """The calls of `Client` that the token command uses."""

    def __init__(self, client: FakeClient) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def command(self, op: Any) -> Any:
        return asyncio.run(self._client.command(op))

    def query(self, query: Any) -> Any:
        return asyncio.run(self._client.query(query))


def _result(result: commands.Result) -> commands.Result:
    if isinstance(result, commands.Failure):
        raise errors.from_failure(result)
    return result


Make = Callable[[str], FakeClient]
