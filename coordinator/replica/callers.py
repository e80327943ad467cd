"""Who asked, and the answers that go back to them: one packet for each caller's channel and turn."""

from __future__ import annotations

from typing import NamedTuple

from coordinator import wire
from coordinator.replica.ports import Outbound


class Caller(NamedTuple):
    """A verified client: its own channel, its token, and the key that signs what goes back."""

    channel: str
    token_id: str
    key: bytes


class Answers:
    """Answers gathered over a turn."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._by_caller: dict[Caller, list[wire.Reply]] = {}

    def add(self, caller: Caller, reply: wire.Reply) -> None:
        self._by_caller.setdefault(caller, []).append(reply)

    def take(self) -> list[Outbound]:
        """Signed packets, for the Redis on which the questions came."""
        packets = [
            Outbound("", caller.channel, wire.seal(caller.key, wire.REPLY, self._node, caller.channel, replies))
            for caller, replies in self._by_caller.items()
        ]
        self._by_caller = {}
        return packets
