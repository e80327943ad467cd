"""A state machine and somebody who asks it, as the log would: entries in, results out."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.statemachine import commands
from coordinator.statemachine.commands import RIGHTS, AddToken, Command, Genesis, SetPrincipal
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

encode = msgspec.msgpack.encode


class Asking:
    """`ask` as a principal, each request under the next number of its session."""

    def __init__(self, level: int = commands.LEVEL, epoch: int = 1) -> None:
        self.machine = Machine()
        self.index = 0
        self.numbers: dict[int, int] = {}
        self.log: list[bytes] = []
        self.node(
            Genesis(
                7,
                "default",
                epoch,
                (
                    SetPrincipal("web", RIGHTS, act_for=True),
                    SetPrincipal("ci", ("read", "write", "lock")),
                    SetPrincipal("narrow", ("read", "write", "lock"), prefixes=("build/",)),
                ),
                (AddToken("aa", "web", b"w" * 32), AddToken("bb", "ci", b"c" * 32)),
                level,
            )
        )

    def apply(self, entry: bytes) -> Any:
        self.index += 1
        self.log.append(entry)
        return self.machine.apply(self.index, entry)

    def node(self, op: commands.NodeOp) -> Any:
        return self.apply(encode_node_entry(op))

    def send(
        self,
        session: int,
        number: int,
        op: commands.ClientOp,
        principal: str = "ci",
        actor: str = "",
        acked: int = 0,
        token: str = "",
        for_token: str = "",
    ) -> Any:
        """One copy of a request, exactly as given."""
        command = encode(Command(session, number, acked, op))
        return self.apply(encode_entry(principal, actor, command, token, for_token))

    def open(self, principal: str = "ci", ttl_ms: int = 15_000) -> int:
        opened = self.send(0, 0, commands.OpenSession(ttl_ms, b""), principal)
        assert isinstance(opened, commands.SessionOpened), opened
        return opened.session

    def ask(
        self,
        session: int,
        op: commands.ClientOp,
        principal: str = "ci",
        actor: str = "",
        token: str = "",
        for_token: str = "",
    ) -> Any:
        number = self.numbers[session] = self.numbers.get(session, 0) + 1
        return self.send(session, number, op, principal, actor, self.acked_by(number), token, for_token)

    def acked_by(self, number: int) -> int:
        """Which results this request acknowledges: those below."""
        return 0

    def query(
        self, query: commands.Query, principal: str = "ci", actor: str = "", token: str = "", for_token: str = ""
    ) -> Any:
        return self.machine.query(query, principal, lambda session: 1_000, actor, token, for_token)

    def acquire(self, session: int, name: str = "deploy", acquisition: int = 1, *, wait: bool = True) -> Any:
        return self.ask(session, commands.AcquireLock(name, acquisition, wait))

    def release(self, session: int, name: str = "deploy", acquisition: int = 1) -> Any:
        return self.ask(session, commands.ReleaseLock(name, acquisition))

    def holder(self, name: str = "deploy") -> tuple[int, int] | None:
        view = self.query(commands.GetLock(name))
        return None if view.holder is None else (view.holder.session, view.holder.acquisition)
