"""How long other nodes take to answer a leader here: a sample of the rounds, ten a second of each at the most.

From the turn that sends a round to the turn that takes in its answer. So a follower's turn is in it, and, where the
message carried entries, its disk: what a commit waits for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coordinator.consensus.engine import Outgoing
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse
from coordinator.replica.meters import ROUND_TRIP_BOUNDS_US, Histogram
from coordinator.wire import PeerMessage

SAMPLE_US: Final = 100_000
"""Between two rounds that are looked at of one follower, where that one answers the first within this time."""
KEPT_US: Final = ROUND_TRIP_BOUNDS_US[-1]
"""How long an answer is waited for, and no other round of that follower is looked at: slow ones count too, and would
never, if each sample took the place of the last. Then it may be lost, or of a node that is gone."""
NODES_MAX: Final = 64
"""Nodes that are told apart; any more are not counted."""


class RoundTrips:
    def __init__(self) -> None:
        self.by_node: dict[str, Histogram] = {}
        self.open: dict[tuple[int, int], tuple[int, int, int]] = {}
        """Cluster and follower to term, round and time of sending of the message whose answer is waited for."""
        self.due_us = 0
        """When the next round is to be looked at; before that `sent` need not be called."""

    def sent(self, batches: Iterable[tuple[int, list[Outgoing]]], now_us: int) -> None:
        """Of each cluster, what is being sent. To be called once `due_us` has come."""
        sample = {
            (cluster, receiver): (message.term, message.round, now_us)
            for cluster, outgoing in batches
            for receiver, message in outgoing
            if type(message) is AppendEntries
        }
        if sample:
            waits = {key: asked for key, asked in self.open.items() if now_us - asked[2] < KEPT_US}
            self.open = sample | waits
            self.due_us = now_us + SAMPLE_US

    def answered(self, node: str, message: PeerMessage, now_us: int) -> None:
        """A message of `node` came while `open` is not empty."""
        response = message.message
        if type(response) is not AppendResponse:
            return
        key = message.cluster, message.sender
        asked = self.open.get(key)
        if asked is None:
            return
        said = response.term, response.round
        if said >= asked[:2]:
            del self.open[key]  # One to a later round says that this one, or its answer, was lost.
        if said != asked[:2]:
            return
        histogram = self.by_node.get(node)
        if histogram is None:
            if len(self.by_node) >= NODES_MAX:
                return
            histogram = self.by_node[node] = Histogram(ROUND_TRIP_BOUNDS_US)
        histogram.observe(now_us - asked[2])
