"""What a leader knows of one follower's log (etcd's "progress"), and how much it has under way to it.

Invariant: `match < next`. In PROBE the leader does not know where the logs agree and has one message under way; in
REPLICATE it sends ahead of the acknowledgements, up to the window; in SNAPSHOT the follower lacks what the log no
longer holds and is sent a snapshot, no entries.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from coordinator.consensus.engine import Snapshot


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class SnapshotProgress:
    """The snapshot that a follower is being sent, and how much of it was sent and acknowledged, in bytes. It is sent to
    its end, though newer ones are made meanwhile: a large one would never arrive otherwise."""

    __slots__ = ("acked", "sent", "source")

    def __init__(self, source: Snapshot) -> None:
        self.source = source
        self.sent = 0
        self.acked = 0


class Progress:
    __slots__ = (
        "acked_round",
        "heard_at_us",
        "inflight",
        "inflight_bytes",
        "match",
        "next",
        "probe_sent",
        "snapshot",
        "state",
    )

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.acked_round = 0
        self.heard_at_us: int | None = None
        self.state = ProgressState.PROBE
        self.probe_sent = False
        self.inflight: deque[tuple[int, int]] = deque()
        self.inflight_bytes = 0
        self.snapshot: SnapshotProgress | None = None

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """May entries be sent now? Heartbeats may always."""
        if self.state is ProgressState.PROBE:
            return not self.probe_sent
        if self.state is ProgressState.SNAPSHOT:
            return False
        return len(self.inflight) < messages_max and self.inflight_bytes < bytes_max

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to `last_index`, `size` bytes of them, were sent."""
        if self.state is ProgressState.PROBE:
            self.probe_sent = True
            return
        self.next = last_index + 1
        self.inflight.append((last_index, size))
        self.inflight_bytes += size

    def acknowledged(self, match: int) -> bool:
        """The follower has everything up to `match` on disk. True where that is news."""
        while self.inflight and self.inflight[0][0] <= match:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if match < self.match:
            return False
        news = match > self.match
        self.match = match
        self.next = max(self.next, match + 1)
        installed = self.snapshot is not None and match >= self.snapshot.source.last_index
        if self.state is ProgressState.PROBE or installed:
            self.state = ProgressState.REPLICATE
            self.snapshot = None
            self.next = match + 1
        self.probe_sent = False
        return news

    def refused(self, prev_index: int, agree_index: int) -> None:
        """The follower does not have the entry at `prev_index`; the logs may agree at `agree_index`."""
        if prev_index <= self.match or self.state is ProgressState.SNAPSHOT:
            return  # Older than what it acknowledged since: out of order on the way.
        if self.state is ProgressState.PROBE and prev_index != self.next - 1:
            return  # The answer to an earlier probe.
        self.next = max(self.match + 1, min(agree_index + 1, prev_index))
        self.probe()

    def send_snapshot(self, source: Snapshot) -> None:
        """The follower lacks what the log no longer holds."""
        self.probe()
        self.state = ProgressState.SNAPSHOT
        self.snapshot = SnapshotProgress(source)

    def probe(self) -> None:
        self.state = ProgressState.PROBE
        self.snapshot = None
        self.probe_sent = False
        self.inflight.clear()
        self.inflight_bytes = 0
