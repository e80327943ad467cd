"""Terms never fall and a vote is never changed within its term, over any crash (Raft, figure 2, and section 5.2).

And who is told of a higher term by a leader, or by an answer, is in it at the end of that turn (section 5.1). A loyal
follower does not hear a request for votes (thesis, section 4.2.3), and a pre-vote is about a term to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    Message,
    SnapshotResponse,
    VoteResponse,
)
from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

_TELL_OF_TERMS: Final = (AppendEntries, AppendResponse, InstallSnapshot, SnapshotResponse, VoteResponse)


class TermsAndVotes(Checker):
    name = "terms-and-votes"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._terms: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}

    def journaled(self, node: Node, write: Write) -> None:
        term, vote, _ = write.hard_state
        self._note(node, write.replica, term)
        if vote:
            known = self._votes.setdefault((write.replica, term), vote)
            if known != vote:
                self.violated(f"{node.name} voted for {known:x} in term {term} and now votes for {vote:x}")

    def took(self, node: Node, sender: int, message: Message) -> None:
        tells = isinstance(message, _TELL_OF_TERMS)
        if isinstance(message, VoteResponse) and message.pre and message.granted:
            tells = False
        if tells:
            node.highest_heard = max(node.highest_heard, message.term)

    def turned(self, node: Node) -> None:
        self.checks += 1
        if node.engine.term < node.highest_heard:
            self.violated(f"{node.name} heard of term {node.highest_heard} and stays in term {node.engine.term}")

    def changed(self, node: Node, before: View, after: View) -> None:
        if after.commit < before.commit:
            self.violated(f"the commit index of {node.name} falls from {before.commit} to {after.commit}")
        self._note(node, node.disk.replica, after.term)

    def _note(self, node: Node, replica: int, term: int) -> None:
        self.checks += 1
        known = self._terms.get(replica, 0)
        if term < known:
            self.violated(f"{node.name} was in term {known} and is in term {term}")
        self._terms[replica] = term
