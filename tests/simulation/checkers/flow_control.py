"""Flow control: what a leader has under way to a follower, and what it takes in before that is committed, is bounded.

Messages with entries and their bytes stay within the window (`Options.inflight_messages_max`, `inflight_bytes_max`; the
pipelining of the thesis, section 10.2.1), parts of a snapshot within theirs (`snapshot_window_bytes`), and payload that
is not committed within `uncommitted_bytes_max`, but for what came when nothing else waited. Counted here from what is
sent and from the answers that arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from coordinator.consensus.engine import Outgoing
from coordinator.consensus.entries import CONFIGURATION, payload_bytes
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    Message,
    SnapshotResponse,
)
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.consensus.raft.options import Options
    from tests.simulation.node import Node
    from tests.simulation.world import World

_LARGE: Final = 100_000
"""A bound in bytes that no run comes near."""


class _UnderWay:
    """What one leader has under way to one follower."""

    __slots__ = ("acked_bytes", "messages", "size")

    def __init__(self) -> None:
        self.messages: deque[tuple[int, int]] = deque()
        """The last index and the size of each message with entries that is not answered."""
        self.size = 0
        self.acked_bytes: dict[tuple[int, int], int] = {}
        """Of each snapshot, by its last index and size, what the follower has."""

    def clear(self) -> None:
        self.messages.clear()
        self.size = 0


class FlowControl(Checker):
    name = "flow-control"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._under_way: dict[tuple[int, int, int], _UnderWay] = {}
        """By leader, term and follower."""
        self._members: dict[str, Configuration] = {}
        """By node the configuration that it went by when it last led."""
        self._waiting: dict[tuple[int, int], tuple[int, int]] = {}
        """By leader and term: how much payload was not committed at the end of its last turn, and the last index."""

    def took(self, node: Node, sender: int, message: Message) -> None:
        if not isinstance(message, (AppendResponse, SnapshotResponse)):
            return
        at = self._under_way.get((node.disk.replica, message.term, sender))
        if at is None:
            return
        if isinstance(message, SnapshotResponse):
            known = at.acked_bytes.get((message.last_index, message.size), 0)
            at.acked_bytes[message.last_index, message.size] = max(known, message.offset)
        elif message.success:
            while at.messages and at.messages[0][0] <= message.match:
                at.size -= at.messages.popleft()[1]
        else:
            at.clear()  # It asks anew where the logs agree.

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        options = node.engine.options
        for receiver, message in outgoing:
            if isinstance(message, AppendEntries):
                self._entries(node, receiver, message, options)
            elif isinstance(message, InstallSnapshot):
                self._part(node, receiver, message, options)

    def _to(self, follower: int, leader: int, term: int) -> _UnderWay:
        at = self._under_way.get((leader, term, follower))
        if at is None:
            at = self._under_way[leader, term, follower] = _UnderWay()
        return at

    def _entries(self, node: Node, follower: int, message: AppendEntries, options: Options) -> None:
        at = self._to(follower, node.disk.replica, message.term)
        while at.messages and at.messages[-1][0] > message.prev_index:
            at.size -= at.messages.pop()[1]  # It goes on from an earlier place: what was sent behind that is given up.
        if not message.entries:
            return
        self.checks += 1
        if len(at.messages) >= options.inflight_messages_max or at.size >= options.inflight_bytes_max:
            self.violated(
                f"{node.name} sends more while {len(at.messages)} messages with {at.size} bytes are under way; at most "
                f"{options.inflight_messages_max} may be, or {options.inflight_bytes_max} bytes"
            )
        size = sum(map(len, message.entries))
        at.messages.append((message.prev_index + len(message.entries), size))
        at.size += size

    def _part(self, node: Node, follower: int, part: InstallSnapshot, options: Options) -> None:
        at = self._to(follower, node.disk.replica, part.term)
        at.clear()
        if not part.data:
            return
        self.checks += 1
        ahead = part.offset - at.acked_bytes.get((part.last_index, part.size), 0)
        if ahead >= options.snapshot_window_bytes:
            self.violated(
                f"{node.name} sends a part of a snapshot {ahead} bytes ahead of what was acknowledged; "
                f"its window is {options.snapshot_window_bytes}"
            )

    def led(self, node: Node) -> None:
        engine = node.engine
        if self._members.get(node.name) is not engine.configuration:
            self._members[node.name] = engine.configuration
            members = {member.replica for member in engine.configuration.members}
            for key in [key for key in self._under_way if key[0] == engine.replica and key[2] not in members]:
                del self._under_way[key]  # Who comes back is begun with anew.
        most = engine.options.uncommitted_bytes_max
        if most > _LARGE:
            return  # Never reached.
        log = engine.log
        own = (engine.replica, engine.term)
        now = payload_bytes(log.entries[log.commit - log.offset :])
        before, last_index = self._waiting.get(own, (None, log.last_index))
        self._waiting[own] = (now, log.last_index)
        if before is None:
            return
        came = log.entries[max(log.commit, last_index) - log.offset :]
        # A change of membership waits as all else does, but is never refused.
        new = payload_bytes([entry for entry in came if entry[0] != CONFIGURATION])
        waited = now - payload_bytes(came)
        self.checks += 1
        if new and waited and waited + new > most:
            self.violated(f"{node.name} takes {new} bytes more while {waited} are not committed; at most {most} may be")
