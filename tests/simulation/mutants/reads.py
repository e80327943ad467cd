"""Linearizable reads broken (thesis, section 6.4; Raft, section 8)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CORE: Final = "coordinator.consensus.raft.core"

MUTANTS: Final = (
    Mutant(
        "stale-leader-serves-reads",
        "Thesis, section 6.4: a leader asks a majority whether it still leads before it answers",
        (
            Edit(
                f"{_CORE}:Raft.persisted",
                "self.reads.take(self.rounds.confirmed, self.log.commit)",
                "self.reads.take(1 << 60, self.log.commit)",
            ),
        ),
    ),
    Mutant(
        "read-confirmed-by-an-earlier-round",
        "Thesis, section 6.4: the round that confirms a read is sent after the read came (history 5)",
        (
            Edit(
                "coordinator.consensus.raft.reads:Reads.add",
                "self._waiting.append((self._last_ticket, current_round + 1))",
                "self._waiting.append((self._last_ticket, current_round))",
            ),
        ),
    ),
    Mutant(
        "read-before-the-own-term",
        "Raft, section 8: a leader knows what is committed once an entry of its own term is",
        (
            Edit(
                f"{_CORE}:Raft.may_answer",
                "self.role is Role.LEADER and self.log.commit >= self.term_start_index",
                "self.role is Role.LEADER",
            ),
            Edit(
                f"{_CORE}:Raft.applied_own_term",
                "self.role is Role.LEADER and self.applied >= self.term_start_index",
                "self.role is Role.LEADER",
            ),
        ),
    ),
    Mutant(
        "read-before-it-is-applied",
        "Thesis, section 6.4: the state machine has applied the read index before the answer",
        (
            Edit(
                "coordinator.replica.replica:Replica.finish",
                "while self._confirmed and self._confirmed[0][0] <= engine.applied_index:",
                "while self._confirmed and self.leases is not None:",
            ),
            Edit(
                "coordinator.replica.replica:Replica.finish",
                "elif self.leases is None and engine.applied_own_term:",
                "elif self.leases is None and engine.may_answer:",
            ),
        ),
    ),
    Mutant(
        "read-context-reused-after-a-restart",
        "History 5: an acknowledgement of an earlier leadership confirms nothing in a later one",
        (
            Edit(
                "coordinator.consensus.raft.replication:on_append_response",
                "if response.term < raft.term or raft.role is not Role.LEADER:\n        return\n"
                "    progress = raft.progress.get(sender)\n",
                "if raft.role is not Role.LEADER:\n        return\n"
                "    progress = raft.progress.get(sender)\n"
                "    if response.term < raft.term and progress is not None:\n"
                "        progress.acked_round = max(progress.acked_round, response.round)\n"
                "        raft.rounds.confirm(confirmed_round(raft))\n"
                "        return\n",
            ),
        ),
    ),
)
