"""How much the replicas of a node may have on its way to another node, all together.

What a node has not read lies in its Redis, which cuts a subscriber with 32 MB unread (an operator's own at its default;
the embedded one later): all of it is lost then, and sent again. The engines bound what each sends; a node that stands
still with a thousand replicas would have a thousand times as much before it. So each cluster has its share of a bound,
by the number of replicas that its leader's node hosts. A cluster has one leader: where nodes host the same clusters,
the bound is that of all leaders together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.options import Options
from coordinator.replica.replica import Replica

NODE_BYTES: Final = 16 * 1024 * 1024
"""Sent to one node and not acknowledged yet, by the leaders of all clusters. A single larger entry still goes alone."""


def shared(options: Options, replicas: int) -> Options:
    """The options of each of so many replicas. A window is exceeded by the last message that begins within it."""
    share = NODE_BYTES // max(1, replicas)
    message = min(options.message_bytes_max, share // 4)
    chunk = min(options.snapshot_chunk_bytes, share // 4)
    return options._replace(
        message_bytes_max=message,
        inflight_bytes_max=min(options.inflight_bytes_max, share - message),
        snapshot_chunk_bytes=chunk,
        snapshot_window_bytes=min(options.snapshot_window_bytes, share - chunk),
    )


class Windows:
    def __init__(self, options: Options) -> None:
        """`options`: of a replica that is alone on its node."""
        self._alone = options
        self._sharers = 1
        self.options = shared(options, 1)
        """Of each replica now."""

    def share(self, replicas: Collection[Replica]) -> None:
        """Give each its share, where their number has changed."""
        if len(replicas) == self._sharers:
            return
        self._sharers = len(replicas)
        self.options = shared(self._alone, self._sharers)
        for replica in replicas:
            assert isinstance(replica.engine, Raft), "a node makes its engines itself"
            replica.engine.options = self.options
