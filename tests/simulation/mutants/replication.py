"""Replication and commitment broken (Raft, sections 5.3 and 5.4.2)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_REPLICATION: Final = "coordinator.consensus.raft.replication"
_PROGRESS: Final = "coordinator.consensus.raft.progress"

MUTANTS: Final = (
    Mutant(
        "old-term-committed-by-counting",
        ("commit-durability",),
        "Raft, section 5.4.2, figure 8: only entries of the own term commit by counting (PySyncObj#110, #169)",
        (
            Edit(
                f"{_REPLICATION}:advance_commit",
                "if index > log.commit and log.term_at(index) == raft.term:",
                "if index > log.commit:",
            ),
        ),
    ),
    Mutant(
        "log-check-skipped",
        ("log-matching", "state-machine-safety"),
        "Raft, section 5.3: AppendEntries fails where the log does not match at its previous entry",
        (
            Edit(
                f"{_REPLICATION}:on_append_entries",
                "not log.matches(message.prev_index, message.prev_term)",
                "message.prev_index > log.last_index",
            ),
        ),
    ),
    Mutant(
        "conflicting-suffix-not-truncated",
        ("commit-durability", "exactly-once", "log-matching", "state-machine-safety"),
        "Raft, section 5.3: a conflicting entry is deleted with all that follow it",
        (Edit(f"{_REPLICATION}:_take_entries", "raft.truncate(index + position)", "continue"),),
    ),
    Mutant(
        "truncating-what-matches",
        ("log-matching", "persistence-order"),
        "Raft, section 5.3: only a conflict deletes; an old message must not undo a newer one",
        (
            Edit(
                f"{_REPLICATION}:_take_entries",
                "    for position, term in enumerate(message.terms):",
                "    after = max(log.commit, message.prev_index + len(message.terms)) + 1\n"
                "    if log.last_index >= after:\n"
                "        raft.truncate(after)\n"
                "    for position, term in enumerate(message.terms):",
            ),
        ),
    ),
    Mutant(
        "commit-beyond-what-matches",
        ("exactly-once", "no-defect", "state-machine-safety"),
        "Raft, figure 2: commitIndex is at most the index of the last new entry",
        (
            Edit(
                f"{_REPLICATION}:on_append_entries",
                "min(message.commit, match)",
                "min(message.commit, log.last_index)",
            ),
        ),
    ),
    Mutant(
        "append-of-an-old-leader-taken",
        ("election-safety", "no-defect"),
        "Raft, section 5.1: a message of an old term is refused",
        (
            Edit(
                f"{_REPLICATION}:on_append_entries",
                "if message.term < raft.term:",
                "if message.term < raft.term and raft.role is not Role.FOLLOWER:",
            ),
            Edit(
                f"{_REPLICATION}:on_append_entries",
                "elections.follow(raft, message.term, message.round, sender, now_us)",
                "elections.follow(raft, max(raft.term, message.term), message.round, sender, now_us)",
            ),
        ),
    ),
    Mutant(
        "window-reset-skips-entries",
        ("liveness",),
        "etcd's flow control: back in PROBE the next entry is one that may match, not the one behind the window",
        (
            Edit(
                f"{_PROGRESS}:Progress.refused",
                "self.next = max(self.match + 1, min(agree_index + 1, prev_index))",
                "self.next = max(self.match + 1, prev_index + 1)",
            ),
        ),
    ),
    Mutant(
        "acknowledged-what-was-sent",
        ("commit-durability", "persistence-order"),
        "Raft, section 5.3: what a follower has is what it says, not what was sent to it",
        (
            Edit(
                f"{_PROGRESS}:Progress.acknowledged",
                "news = match > self.match",
                "match = max(match, self.next - 1)\n    news = match > self.match",
            ),
        ),
    ),
    Mutant(
        "refusal-counted-as-acknowledgement",
        ("commit-durability", "persistence-order", "witness-retention"),
        "Raft, figure 2: matchIndex moves on success alone",
        (Edit(f"{_REPLICATION}:on_append_response", "if not response.success:", "if False:"),),
        nodes=2,  # Each entry needs both: among more, a follower that is merely behind for ever may be seen before.
    ),
)
