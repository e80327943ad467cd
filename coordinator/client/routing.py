"""Whom to ask: the nodes, the cluster's identity, and who leads it, as far as this client has heard.

What it holds is a guess that saves time. A wrong one costs a redirect; the cluster alone decides.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from coordinator import wire

PROBE_US_MIN: Final = 15_000
PROBE_US_MAX: Final = 300_000
"""Between two questions for the leader; a quarter longer each time while nobody knows one, so that an election of 60 ms
is noticed within 80 and one that fails is not stormed."""
DOUBT_US: Final = 400_000
"""How long a leader whose mailbox nobody listens to is not believed in, though others still name it."""

STRANGERS_MAX: Final = 16

FORGET_US: Final = 60_000_000
"""A node that answers nothing, and is named by none that does, is asked no more once that has been so for this long: it
was removed for good. Should it come back, it says so itself."""


class Routing:
    def __init__(self, cluster_name: str) -> None:
        self._cluster_name = cluster_name
        self.cluster = 0
        """Identity of the cluster; 0 until a node has told it."""
        self.leader = ""
        self.term = 0
        self.addresses: dict[str, str] = {}
        self._members: tuple[str, ...] = ()
        """Nodes with a replica of the cluster, as last heard: these are never forgotten."""
        self._missed_us: dict[str, int] = {}
        """Since when each of them was not there, where it was not when nodes were last asked."""
        self.rumour = ""
        """Who is said to lead another cluster of this name, by others than itself: to be asked whether it does."""
        self.changes = 0
        """How often another leader was heard of: whoever waits for a push asks again when this moves."""
        self._doubted: tuple[str, int, int] = ("", 0, 0)
        self._probe_due_us = 0
        self._probed_us = -PROBE_US_MIN
        self._probe_us = PROBE_US_MIN
        self.known_absent = False
        """A node answered, and knows no cluster of this name."""
        self.trouble = ""
        """What last went wrong on the way, for the message of a time-out."""
        self._no_token: set[str] = set()
        """Nodes that say, unsigned, that they do not know the token; since one has answered last."""

    def learn(self, directory: wire.Directory, now_us: int) -> None:
        """Take what a node says of the cluster, or of another that has its name now."""
        self.addresses.update(directory.nodes)
        entry = next((entry for entry in directory.clusters if entry.name == self._cluster_name), None)
        if entry is None:
            self.known_absent = self.cluster == 0
            return
        self.known_absent = False
        if entry.cluster != self.cluster:
            if not self._succeeds(entry, directory.node):
                return
            self.cluster, self.leader, self.term = entry.cluster, "", 0
        if entry.term >= self.term:
            self._members = entry.nodes
        if entry.term >= self.term and entry.leader:
            self.believe(entry.leader, entry.term, now_us)

    def are_there(self, nodes: Container[str], now_us: int) -> None:
        """Nodes were asked just now: these answered, or are named by some that did."""
        for node in [*self.addresses]:
            if node in nodes or node in self._members:
                self._missed_us.pop(node, None)
            elif now_us - self._missed_us.setdefault(node, now_us) >= FORGET_US:
                del self.addresses[node], self._missed_us[node]

    def _succeeds(self, entry: wire.ClusterEntry, node: str) -> bool:
        """Is this other cluster, of which `node` tells, the one that has the name now? A replica may be left over of an
        earlier one, which nobody leads any more, or which thinks so of a leader that is gone: a cluster that was led is
        given up on the word of the other's own leader alone."""
        if not self.cluster:
            return True
        if not self.term:
            return bool(entry.leader)
        if entry.leader != node:
            self.rumour = entry.leader or self.rumour
            return False
        return True

    def take_rumour(self) -> str:
        """Whom to ask whether it leads another cluster of this name; "": nobody."""
        node, self.rumour = self.rumour, ""
        return node

    def believe(self, leader: str, term: int, now_us: int) -> None:
        node, doubted_term, until_us = self._doubted
        if leader == node and term <= doubted_term and now_us < until_us:
            return
        self.term = max(term, self.term)
        if leader != self.leader:
            self.leader = leader
            self.changes += 1

    def doubt(self, node: str, now_us: int) -> None:
        """Nobody listens to the mailbox of `node`: it is dead, or deaf."""
        if node == self.leader:
            self._doubted = (node, self.term, now_us + DOUBT_US)
            self.leader = ""
            self.probe_soon(now_us)

    def redirected(self, sent_to: str, leader: str, now_us: int) -> None:
        """`sent_to` says that it does not lead, and that `leader` does ("": it knows of none)."""
        if sent_to == self.leader or not self.leader:
            self.leader = ""
            self.probe_soon(now_us)
            if leader and leader != sent_to:
                self.believe(leader, self.term, now_us)

    def token_is_unknown(self, node: str) -> None:
        if node in self.addresses or len(self._no_token) < STRANGERS_MAX:  # Anybody may have said it.
            self._no_token.add(node)

    def served(self) -> None:
        """A result came: what went wrong before it has passed, and explains nothing that comes later."""
        self.trouble = ""

    def token_is_known(self) -> None:
        """A node has answered, which it signs with the token's key."""
        if self._no_token:
            self._no_token.clear()

    def wants_probe(self, now_us: int) -> bool:
        return not (self.leader and self.cluster) and now_us >= self._probe_due_us

    @property
    def asked_in_vain(self) -> bool:
        """Was it asked who leads, and has nobody said it so far?"""
        return self._probe_us > PROBE_US_MIN

    def probed(self, now_us: int) -> None:
        self._probed_us = now_us
        self._probe_due_us = now_us + self._probe_us
        self._probe_us = min(self._probe_us + self._probe_us // 4, PROBE_US_MAX)

    def probe_soon(self, now_us: int) -> None:
        """Begin to ask who leads, often at first; but never sooner after the last time than PROBE_US_MIN, however many
        questions are turned away meanwhile."""
        self._probe_us = PROBE_US_MIN
        self._probe_due_us = min(max(now_us, self._probed_us + PROBE_US_MIN), max(now_us, self._probe_due_us))

    def why(self) -> str:
        """Why no answer came, as far as it is known."""
        if self.known_absent:
            return f"no node here knows a cluster named {self._cluster_name!r}"
        if self._no_token:
            names = ", ".join(sorted(self._no_token))
            return (
                f"no such token is known to {names}: it was revoked, is of another installation or an earlier one, "
                "or so new that they have yet to hear of it"
            )
        leader = f"{self.leader} is thought to lead" if self.leader else "no leader is known"
        return f"{leader}; last trouble: {self.trouble}" if self.trouble else f"no answer in time; {leader}"

    @property
    def probe_due_us(self) -> int:
        return self._probe_due_us
