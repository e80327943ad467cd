"""Promises broken: something leaves before it is on disk, or what was on disk is forgotten (docs/design.md, rules 3 and
4)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_TURN: Final = "coordinator.replica.turn:Turn.run"
_LATE: Final = "late = [(replica, ready.late) for replica, ready in readies if ready.late]"

MUTANTS: Final = (
    Mutant(
        "acknowledged-before-fsync",
        ("persistence-order",),
        "docs/design.md, rule 3: an acknowledgement is sent after its fsync",
        (
            Edit(
                _TURN,
                "early = [(replica, ready.early) for replica, ready in readies if ready.early]",
                "early = [(replica, ready.early + ready.late) for replica, ready in readies]",
            ),
            Edit(_TURN, _LATE, "late = []"),
        ),
    ),
    Mutant(
        "acknowledgement-before-its-journal",
        ("persistence-order",),
        "Raft, section 5.3: an entry that is acknowledged is on disk",
        (
            Edit(
                "coordinator.consensus.raft.replication:on_append_entries",
                "    _take_entries(raft, message)\n"
                "    log.commit = max(log.commit, min(message.commit, match))\n"
                "    raft.late.append(",
                "    _take_entries(raft, message)\n"
                "    log.commit = max(log.commit, min(message.commit, match))\n"
                "    raft.early.append(",
            ),
        ),
    ),
    Mutant(
        "result-before-its-journal",
        ("persistence-order", "stalled-disks"),
        "docs/design.md, rule 3: the leader counts itself, and answers, after its own fsync",
        (
            Edit("coordinator.replica.turn:Turn._write", "self._journal.commit(writes)", "self._unwritten = writes"),
            Edit(_TURN, "took_us = self._write(readies)", "self._unwritten = []\n    took_us = self._write(readies)"),
            Edit(_TURN, "if late and not has_spoken:", "if False:"),
            Edit(
                _TURN,
                "    self._publish(late, rest)",
                "    self._publish([], rest)\n"
                "    if self._unwritten:\n"
                "        self._journal.commit(self._unwritten)\n"
                "    self._publish(late, [])",
            ),
        ),
    ),
    Mutant(
        "failed-fsync-tried-again",
        ("log-matching", "persistence-order"),
        "docs/design.md, rule 3: a failed fsync is final, the process ends",
        (
            Edit(
                "coordinator.replica.turn:Turn._write",
                "self._journal.commit(writes)",
                "try:\n        self._journal.commit(writes)\n    except Exception:\n        pass",
            ),
        ),
    ),
    Mutant(
        "leader-with-a-stalled-disk-leads-on",
        ("stalled-disks",),
        "etcd#15247: a leader whose disk stalls gives way",
        (
            Edit(
                "coordinator.consensus.raft.core:Raft.disk_took",
                "if took_us >= self.options.disk_stall_us and",
                "if False and",
            ),
        ),
    ),
    Mutant(
        "wiped-node-under-its-old-identity",
        ("configuration-safety",),
        "docs/design.md, rule 4: a replica that lost its disk is a new replica",
        (
            Edit(
                "tests.simulation.disk:Disk.wipe",
                "self.put(NOTHING)",
                "self.put(Stored(self.replica, NOTHING.log))",
            ),
        ),
    ),
    Mutant(
        "candidate-asks-before-its-journal",
        ("persistence-order",),
        "Raft, section 5.2: a candidate votes for itself, on disk, before it asks others",
        (
            Edit(
                "coordinator.consensus.raft.elections:_campaign",
                "raft.late += [Outgoing(voter, request)",
                "raft.early += [Outgoing(voter, request)",
            ),
            Edit(
                "coordinator.consensus.raft.core:Raft.ready",
                "if hard_state.term != self.on_disk.term:",
                "if False:",
            ),
        ),
    ),
)
