"""Who asked, and the answers that go back to them: for each caller few packets a turn, each of a bounded size."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.replica.ports import Outbound
from coordinator.statemachine.lock_commands import Break

READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Answered in one turn to reads, and as much to those that wait for changes; the rest, confirmed already, waits for the
next: 20 bytes may ask for 1 MiB."""
RETRY_MS: Final = 250
"""After so long whoever found no room may ask again. What is in the way goes within that, where the node works at all:
the 16 MiB of entries that may be uncommitted by one disk that writes 64 MiB/s, the 8,192 reads of one channel at the
rate at which a leader answers them."""


class TurnBounds(NamedTuple):
    """How much of one replica's work is one turn's; what is more waits for the next, so that nothing holds the loop."""

    apply_bytes: int = 128 * 1024
    """Of entries applied: four times as much, in transactions of a hundred keys, took 40 ms."""
    apply_rows: int = 20_000
    """Work of the entries applied, in rows (`work.py`), but for the last one: 100 bytes may delete 4,096 keys, or end
    a session with 10,000 locks."""
    read_rows: int = 20_000
    """Gone over for reads, and as many for those that wait for changes, and by the last one: a count at an earlier
    revision may go over 100,000 changes and answers with 20 bytes. 20,000 take 25 ms at most."""


class Caller(NamedTuple):
    """A verified client: its own channel, its token, and the key that signs what goes back."""

    channel: str
    token_id: str
    key: bytes

    def __repr__(self) -> str:
        return f"Caller({self.channel!r}, {self.token_id!r})"


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Answers:
    """Answers gathered over a turn."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._by_caller: dict[Caller, list[msgspec.Raw]] = {}
        self._apart: dict[Caller, list[msgspec.Raw]] = {}
        """What goes in packets of its own."""
        self._last: tuple[Caller | None, list[msgspec.Raw]] = (None, [])
        """Of whom the last answer was, and theirs: mostly the next one is theirs too."""
        self.size = 0
        """Bytes gathered since the last `take`."""

    def add(self, caller: Caller, reply: wire.Reply) -> None:
        data = wire.encode(reply)
        self.size += len(data)
        last, answers = self._last
        if last is not caller:
            answers = self._by_caller.setdefault(caller, [])
            self._last = caller, answers
        answers.append(msgspec.Raw(data))

    def overloaded(self, caller: Caller, request_id: int, message: str) -> None:
        """There is no room for this copy of a request; `message` says which."""
        data = wire.encode(wire.Overloaded(request_id, message, RETRY_MS))
        self.size += len(data)
        self._apart.setdefault(caller, []).append(msgspec.Raw(data))

    def broken(self, caller: Caller, cluster: int, broken: Break) -> None:
        """A hold of the caller's was taken away by force."""
        data = wire.encode(wire.HoldBroken(cluster, broken))
        self.size += len(data)
        self._apart.setdefault(caller, []).append(msgspec.Raw(data))

    def take(self) -> list[Outbound]:
        """Signed packets, for the Redis on which the questions came."""
        if not (self._by_caller or self._apart):
            return []
        packets = [
            Outbound("", caller.channel, wire.seal(caller.key, wire.REPLY, self._node, caller.channel, part))
            for gathered in (self._by_caller, self._apart)
            for caller, replies in gathered.items()
            for part in _parts(replies)
        ]
        self._by_caller = {}
        self._apart = {}
        self._last = (None, [])
        self.size = 0
        return packets


def _parts(replies: list[msgspec.Raw]) -> list[list[msgspec.Raw]]:
    parts: list[list[msgspec.Raw]] = [[]]
    size = 0
    for reply in replies:
        if size > wire.PACKET_BYTES_TARGET:
            parts.append([])
            size = 0
        parts[-1].append(reply)
        size += len(reply)
    return parts
