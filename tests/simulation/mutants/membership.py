"""Changes of membership and transfers broken (Raft, section 6; thesis, chapters 3.10 and 4)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CORE: Final = "coordinator.consensus.raft.core"
_CHANGES: Final = "coordinator.consensus.raft.changes"
_MEMBERSHIP: Final = "coordinator.consensus.membership"

MUTANTS: Final = (
    Mutant(
        "membership-counted-from-the-old-configuration",
        ("configuration-safety",),
        "Raft, section 6: a server goes by the last configuration in its log, committed or not",
        (
            Edit(
                f"{_CORE}:Raft.note_configurations",
                "self.configuration = self.configurations[-1][1]",
                "committed = [c for index, c in self.configurations if index <= self.log.commit]\n"
                "    self.configuration = committed[-1] if committed else self.configurations[0][1]",
            ),
        ),
    ),
    Mutant(
        "one-step-change-of-two-members",
        ("configuration-safety",),
        "Raft, section 6: a change of several voters goes through a joint configuration",
        (Edit(f"{_MEMBERSHIP}:next_configuration", "now.voters if len(changed) > 1 else ()", "()"),),
    ),
    Mutant(
        "joint-agreement-on-one-side",
        ("persistence-order", "round-confirmation"),
        "Raft, section 6: in a joint configuration majorities of both sides agree",
        (
            Edit(
                f"{_MEMBERSHIP}:Configuration.reached",
                "for side in self._side_ids)",
                "for side in self._side_ids[:1])",
            ),
        ),
    ),
    Mutant(
        "joint-election-on-one-side",
        ("pre-vote",),
        "Raft, section 6: in a joint configuration a leader needs the votes of both sides",
        (
            Edit(
                f"{_MEMBERSHIP}:Configuration.tally",
                "for side in self._side_ids]",
                "for side in self._side_ids[:1]]",
            ),
        ),
    ),
    Mutant(
        "learner-counted-as-a-voter",
        ("commit-durability", "persistence-order", "round-confirmation"),
        "Thesis, section 4.2.1: a learner counts for nothing until it is made a voter",
        (
            Edit(
                f"{_MEMBERSHIP}:Configuration.reached",
                "self._side_ids[0]])",
                "_ids(self.voters + self.learners)])",
            ),
            Edit(
                f"{_MEMBERSHIP}:Configuration.reached",
                "for side in self._side_ids)",
                "for side in (_ids(self.voters + self.learners), *self._side_ids[1:]))",
            ),
            Edit(
                "coordinator.consensus.raft.replication:confirmed_round",
                "raft.configuration.voter_ids",
                "raft.configuration._by_replica",
            ),
            Edit(
                "coordinator.consensus.raft.replication:advance_commit",
                "configuration.voter_ids",
                "configuration._by_replica",
            ),
        ),
    ),
    Mutant(
        "change-before-the-last-is-committed",
        ("configuration-safety",),
        "Thesis, section 4.1: one change at a time",
        (
            Edit(
                f"{_CHANGES}:begin",
                "if not is_committed(raft):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "change-before-the-own-term-is-committed",
        ("configuration-safety",),
        "Thesis, section 4.1, erratum: a leader changes nothing before it has committed an entry of its own term",
        (Edit(f"{_CHANGES}:begin", "if not raft.may_answer:", "if False:"),),
    ),
    Mutant(
        "configuration-survives-its-truncation",
        ("configuration-safety",),
        "Raft, section 6: a configuration that is cut off is in force no longer",
        (
            Edit(
                f"{_CORE}:Raft.truncate",
                "while self.configurations[-1][0] >= first_index:",
                "while False:",
            ),
        ),
    ),
    Mutant(
        "joint-configuration-never-left",
        ("liveness",),
        "Raft, section 6: the leader leaves a joint configuration by itself",
        (Edit(f"{_CHANGES}:go_on", "if raft.configuration.is_joint:", "if False:"),),
    ),
    Mutant(
        "removed-leader-leads-on",
        ("liveness",),
        "Raft, section 6: a leader that is no voter any more steps down once that is committed",
        (Edit(f"{_CHANGES}:go_on", "return not raft.is_voter", "return False"),),
    ),
    Mutant(
        "heir-told-before-it-has-everything",
        ("leadership-transfer",),
        "Thesis, section 3.10: the leader brings the target's log up to date before it tells it to campaign",
        (Edit("coordinator.consensus.raft.transfer:tell", "progress.match == raft.log.last_index", "True"),),
    ),
    Mutant(
        "transfer-that-never-ends",
        ("leadership-transfer", "liveness"),
        "Thesis, section 3.10: a transfer that came to nothing within an election time-out is given up",
        (
            Edit(
                "coordinator.consensus.raft.transfer:tick",
                "if now_us < raft.transferring.until_us:",
                "if True:",
            ),
        ),
    ),
)
