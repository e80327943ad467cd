"""Linearizable reads broken (thesis, section 6.4; Raft, section 8)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CORE: Final = "coordinator.consensus.raft.core"
_DELEGATION: Final = "coordinator.replica.delegation"
_READS: Final = "coordinator.consensus.raft.reads"

MUTANTS: Final = (
    Mutant(
        "stale-leader-serves-reads",
        ("round-confirmation",),
        "Thesis, section 6.4: a leader asks a majority whether it still leads before it answers",
        (
            Edit(
                f"{_READS}:confirm",
                "raft.reads.take(raft.rounds.confirmed)",
                "raft.reads.take(1 << 60)",
            ),
        ),
    ),
    Mutant(
        "read-confirmed-by-an-earlier-round",
        ("round-confirmation",),
        "Thesis, section 6.4: the round that confirms a read is sent after the read came (history 5)",
        (
            Edit(
                f"{_READS}:Reads.add",
                "_Waiting(current_round + 1,",
                "_Waiting(current_round,",
            ),
        ),
    ),
    Mutant(
        "read-before-the-own-term",
        ("reads-never-stale", "session-leases"),
        "Raft, section 8: a leader knows what is committed once an entry of its own term is",
        (
            Edit(
                f"{_CORE}:Raft.ready",
                "transfer.tell(self)\n        if self.may_answer:",
                "transfer.tell(self)\n        if True:",
            ),
            Edit(f"{_CORE}:Raft.persisted", "if self.may_answer:", "if True:"),
            # The replica's own guard would stop most of them.
            Edit(
                "coordinator.replica.reading:Reading.answer",
                "while self._confirmed and",
                "while tenure is not None and self._confirmed and",
            ),
        ),
    ),
    Mutant(
        "read-before-it-is-applied",
        ("reads-never-stale",),
        "Thesis, section 6.4: the state machine has applied the read index before the answer",
        (
            Edit(
                "coordinator.replica.reading:Reading.answer",
                "while self._confirmed and self._confirmed[0][0] <= self._engine.applied_index:",
                "while self._confirmed and tenure is not None:",
            ),
            Edit(
                "coordinator.replica.replica:Replica.finish",
                "elif self.leases is None and engine.applied_own_term:",
                "elif self.leases is None and engine.may_answer:",
            ),
        ),
    ),
    Mutant(
        "acknowledgement-of-an-old-term-confirms-a-round",
        ("round-confirmation",),
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
    Mutant(
        "read-context-reused-after-a-restart",
        ("reads-never-stale",),
        "History 5: read contexts never repeat, not even over a restart",
        (Edit(f"{_READS}:Reads.take_answer", "response.boot != self.boot or ", ""),),
    ),
    Mutant(
        "lease-read-after-a-pause",
        ("check-quorum", "round-confirmation"),
        "Options.lease_reads: a lease ends an election time-out after the sending of the last confirmed round",
        (
            Edit(f"{_READS}:holds_lease", "and now_us - raft.rounds.confirmed_at_us < lease_us", ""),
            # A leader that sleeps finds out at its next look; so that it reads before that, as a paused process would.
            Edit(
                "coordinator.consensus.raft.elections:_check_quorum",
                "if now_us >= quorum_due_us(raft)",
                "if False and now_us",
            ),
        ),
    ),
    Mutant(
        "crash-hint-overrides-a-lease-read",
        ("leader-stickiness",),
        "History 2: where lease reads are on, the crash hint waits for the lease",
        (
            Edit(
                "coordinator.consensus.raft.elections:suspect",
                "if raft.options.lease_reads and raft.heard_at_us is not None:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "lease-survives-a-transfer",
        ("round-confirmation",),
        "History 2: lease reads end for good in a term once anyone was told to campaign",
        (Edit(f"{_READS}:holds_lease", "and not raft.lease_given_up", ""),),
    ),
    Mutant(
        "loyalty-forgotten-by-a-restart",
        ("leader-stickiness",),
        "Options.lease_reads: a member that restarts keeps still for an election time-out",
        (Edit(f"{_CORE}:Raft.__init__", "if options.lease_reads:", "if False:"),),
    ),
    Mutant(
        "lease-counted-from-the-answer",
        ("round-confirmation",),
        "docs/design.md, a deaf leader steps down: leases count from the sending of a confirmed round",
        (
            Edit(
                "coordinator.consensus.raft.replication:on_append_response",
                "raft.note_contact(progress, response.round, now_us)",
                "raft.note_contact(progress, response.round, now_us)\n    raft.rounds.confirmed_at_us = now_us",
            ),
        ),
    ),
    Mutant(
        "delegate-answers-in-another-term",
        ("round-confirmation",),
        "reads.py: a delegate that is still in the leader's term is what a majority's word is",
        (
            Edit(
                f"{_READS}:stands_in",
                "raft.role is not Role.FOLLOWER or raft.leader != leader or raft.term != term or not raft.is_fit",
                "not raft.is_fit",
            ),
            Edit(f"{_DELEGATION}:Delegate.judge", "if said.term < engine.term:", "if False:"),
        ),
        nodes=3,
    ),
    Mutant(
        "delegate-answers-before-it-has-applied",
        ("reads-never-stale",),
        "Thesis, section 6.4: the state machine has applied the read index before the answer",
        (
            Edit(
                f"{_DELEGATION}:Delegate.judge", "may_answer and engine.applied_index >= said.read_index", "may_answer"
            ),
            # Who has learnt what is committed has mostly applied it, too.
            Edit(f"{_READS}:stands_in", "return raft.log.commit >= read_index", "return True"),
        ),
        nodes=3,
    ),
    Mutant(
        "left-to-one-of-many",
        ("round-confirmation",),
        "reads.py: a leader and its delegate are a majority",
        (Edit(f"{_READS}:delegate", "len(spares.chosen) != 1", "not spares.chosen"),),
        nodes=5,
    ),
)
