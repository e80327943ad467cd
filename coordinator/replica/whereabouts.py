"""On which node a replica is, and on which Redis that node's mailbox: as the log says, else as nodes say it themselves.

The log of whoever is new here, or behind, does not say it yet, and a node may have moved. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator import wire
from coordinator.replica.ports import Clock
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.wire import PeerMessage

ROUTES_MAX: Final = 1_024
WHEREABOUTS_US: Final = 500_000
"""A node with a Redis of its own says where that is this often, to those that it speaks to."""
WHEREABOUTS_OLD_US: Final = 10 * WHEREABOUTS_US
"""A node that speaks, and has not said it for so long, has none of its own any more; a silent one may have moved."""


class _Said(NamedTuple):
    address: str
    at_us: int


class Whereabouts:
    """Of the other nodes, as one node knows them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.has_moved = False
        """Whether this node is, or was since it began, elsewhere than a log says. It tells its peers then, also where
        it is on the Redis that all share."""
        self._said: dict[str, _Said] = {}
        """What each node said last of the Redis of its mailbox."""
        self._told_us: dict[str, int] = {}
        """When each node was last told of this one's."""
        self._routes: dict[tuple[int, int], str] = {}
        """Cluster and replica to the node that last spoke for it: a replica that is new here, or whose log is behind,
        knows its leader or candidate by nothing else."""

    def heard(self, node: str, now_us: int) -> None:
        """A packet of `node` came."""
        said = self._said.get(node)
        if said is not None and now_us - said.at_us > WHEREABOUTS_OLD_US:
            del self._said[node]

    def said(self, node: str, word: wire.Whereabouts, now_us: int) -> None:
        self._said[node] = _Said(word.address, now_us)

    def spoke(self, cluster: int, sender: int, node: str) -> None:
        """`node` speaks for a replica that the log here does not know."""
        self._routes[cluster, sender] = node
        while len(self._routes) > ROUTES_MAX:
            del self._routes[next(iter(self._routes))]

    def route(self, identity: Identity, replica: Replica, receiver: int) -> tuple[str, str] | None:
        """Node and address of another replica of the same cluster; None where nobody knows it."""
        member = replica.configuration.member(receiver)
        if member is not None:
            if member.address != identity.address and self._looks_here(identity, replica, member.node):
                return member.node, identity.address
            return member.node, self.address_of(identity, member.node, member.address)
        node = self._routes.get((replica.cluster, receiver))
        return None if node is None else (node, self.address_of(identity, node, ""))

    def _looks_here(self, identity: Identity, replica: Replica, node: str) -> bool:
        """Whether to look for `node` on this node's own Redis: all may have moved there at once, and then none is where
        the log says, to be told. Who is where the log says, hears a leader or has heard of that node does not look;
        else each place has its turn."""
        own = replica.configuration.member(replica.replica)
        if own is None or (own.address or identity.shared_redis) == identity.address:
            return False
        self.has_moved = True
        is_lost = node not in self._said and not replica.leader_node
        return is_lost and self._clock.now_us() // WHEREABOUTS_OLD_US & 1 == 1

    def address_of(self, identity: Identity, node: str, in_log: str) -> str:
        """Where a node's mailbox is: as it says, else as the log says, else where all are that have no own. Who has
        not said so for long may have moved since, and say nothing before it hears something: each in its turn."""
        said, known = self._said.get(node), in_log or identity.shared_redis
        if said is None:
            return known
        spans = (self._clock.now_us() - said.at_us) // WHEREABOUTS_OLD_US
        return known if spans & 1 else said.address or identity.shared_redis

    def for_clients(self, identity: Identity, node: str, in_log: str) -> str:
        """Where clients find a node. The log gets the address of one that has moved from a client: that one must find
        the leader first."""
        if node == identity.node:
            return identity.address if self.has_moved else in_log
        said = self._said.get(node)
        if said is None or self._clock.now_us() - said.at_us > WHEREABOUTS_OLD_US:
            return in_log
        return said.address

    def tell(self, identity: Identity, by_node: dict[tuple[str, str], list[PeerMessage]]) -> None:
        """With what else goes to each node, where this one's own mailbox is, now and then."""
        now_us = self._clock.now_us()
        for (node, _), messages in by_node.items():
            if now_us - self._told_us.get(node, -WHEREABOUTS_US) >= WHEREABOUTS_US:
                self._told_us[node] = now_us
                messages.insert(0, PeerMessage(0, 0, 0, wire.Whereabouts(identity.address)))
