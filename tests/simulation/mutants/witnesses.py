"""Witnesses broken: voters without a state machine, which must keep what others may still need, and never serve."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_RAFT: Final = "coordinator.consensus.raft"
_STATES: Final = "coordinator.replica.states:States"

MUTANTS: Final = (
    Mutant(
        "witness-drops-what-a-full-voter-lacks",
        ("witness-retention",),
        "a witness keeps what it acknowledged until every full voter has it",
        (
            Edit(
                f"{_STATES}.advance",
                "min(engine.applied_index, engine.settled)",
                "engine.applied_index",
            ),
        ),
    ),
    Mutant(
        "settled-by-a-majority",
        ("witness-retention",),
        "what a witness may drop, every full voter has on disk, and not only most of them",
        (
            Edit(
                f"{_RAFT}.replication:_settled",
                "return min(log.commit, *(on_disk(raft, replica) for replica in waited_for))",
                "return log.commit",
            ),
        ),
    ),
    Mutant(
        "settled-by-a-configuration-not-yet-committed",
        ("witness-retention",),
        "a full voter counts for what a witness may drop until its removal is committed",
        (
            Edit(
                f"{_RAFT}.replication:_settled",
                "configurations = [raft.configuration_at(log.commit)]",
                "configurations = [raft.configuration]",
            ),
        ),
    ),
    Mutant(
        "state-withheld-from-a-witness",
        ("witness-retention",),
        "a witness that is sent a snapshot keeps the state in it while a full voter lacks it",
        (Edit(f"{_RAFT}.snapshots:send", "raft.settled >= source.last_index", "True"),),
    ),
    Mutant(
        "promotion-that-forgets-the-witnesses",
        ("witness-retention",),
        "a new full voter has what witnesses may have dropped",
        (Edit(f"{_RAFT}.changes:_check_promotions", "(raft.settled or raft.configuration.has_witness)", "False"),),
    ),
    Mutant(
        "witness-gives-what-it-does-not-have",
        ("snapshot-safety",),
        "a witness gives nobody a state: it has none",
        (Edit(f"{_RAFT}.snapshots:can_bring_up", "bool(raft.snapshot.data) and", ""),),
    ),
    Mutant(
        "witness-serves",
        ("witness-retention",),
        "a witness leads only to bring others up to date",
        (Edit(f"{_RAFT}.core:Raft.is_fit", "and not self.is_witness", ""),),
    ),
    Mutant(
        "witness-leads-on",
        ("liveness", "witness-retention"),
        "a witness that leads hands over as soon as somebody else can lead",
        (Edit(f"{_RAFT}.transfer:tick", "if raft.may_answer and (raft.is_witness or", "if raft.may_answer and ("),),
    ),
)
