"""Election safety: at most one leader can be elected in a given term (Raft, figure 3), and it leads that term once.

And whoever leads has the votes of a majority, on their disks (Raft, section 5.2), where a later term does as well: who
voted and campaigned itself in one turn will vote for nobody else in the term before. Whoever follows a leader in a
term, follows that one (section 5.1: a message of an older term is refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.raft.messages import Message, VoteResponse
from coordinator.replica.ports import Write
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class ElectionSafety(Checker):
    name = "election-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leaders: dict[int, tuple[str, int]] = {}
        self._elected: dict[int, int] = {}
        """Term to the replica that leads it."""
        self._votes: dict[int, dict[int, int]] = {}
        """Term to who voted, and for whom, by what is on disk."""
        self._terms: dict[int, int] = {}
        """Replica to the term on its disk."""
        self._granted: dict[tuple[int, int], set[int]] = {}
        """Term and candidate to who told it that it has their vote."""

    def journaled(self, node: Node, write: Write) -> None:
        term, vote, _ = write.hard_state
        self._terms[write.replica] = term
        if vote:
            self._votes.setdefault(term, {})[write.replica] = vote

    def took(self, node: Node, sender: int, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._granted.setdefault((message.term, node.disk.replica), set()).add(sender)

    def turned(self, node: Node) -> None:
        engine = node.engine
        if engine.leader and self._elected.get(engine.term, engine.leader) != engine.leader:
            self.violated(f"{node.name} follows {engine.leader:x} in term {engine.term}, which another one leads")

    def elected(self, node: Node) -> None:
        self.checks += 1
        term = node.engine.term
        known = self._leaders.setdefault(term, (node.name, node.boots))
        if known != (node.name, node.boots):
            self.violated(
                f"term {term} was led by {known[0]} (start {known[1]}) and by {node.name} (start {node.boots})"
            )
        own = self._elected[term] = node.disk.replica
        votes = self._votes.get(term, {})
        voters = {voter for voter, vote in votes.items() if vote == own}
        voters |= {
            voter for voter in self._granted.get((term, own), ()) if self._terms[voter] > term and voter not in votes
        }
        if not is_quorum(node.engine.configuration, voters):
            self.violated(f"{node.name} leads term {term} with the votes of {len(voters)} disks")
