"""Snapshots and compaction broken (Raft, section 7)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_SNAPSHOTS: Final = "coordinator.consensus.raft.snapshots"
_INSTALL: Final = "coordinator.consensus.raft.log:Log.install"
_LOADER: Final = "coordinator.statemachine.snapshot:Loader"

MUTANTS: Final = (
    Mutant(
        "damaged-snapshot-not-asked-for-again",
        ("liveness",),
        "Raft.refuse: what has arrived and can not be used must come again, all of it",
        (
            Edit(
                "coordinator.replica.states:States._go_on_loading",
                "self._loading = None\n            self._engine.refuse()",
                "self._loading = None",
            ),
        ),
    ),
    Mutant(
        "damaged-snapshot-loaded",
        ("digests-equal", "no-defect", "snapshot-safety", "state-machine-safety"),
        "A snapshot says at its end how many items it has, and the hash of them",
        (
            Edit(
                "coordinator.statemachine.snapshot:Loader._end",
                "if end.items != self._items or end.hash != self._hash.digest():",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "snapshot-drops-the-configuration",
        ("configuration-safety",),
        "Raft, section 7: a snapshot holds the configuration as of its last entry",
        (
            Edit(
                f"{_SNAPSHOTS}:_install",
                "raft.configurations = [(snapshot.last_index, snapshot.configuration)]",
                "raft.configurations = [(snapshot.last_index, raft.configurations[0][1])]",
            ),
        ),
    ),
    Mutant(
        "snapshot-parts-out-of-order",
        ("snapshot-safety",),
        "Raft, section 7: the parts of a snapshot are put together by their offsets",
        (Edit(f"{_SNAPSHOTS}:on_install", "if part.offset == len(data):", "if part.offset <= len(data):"),),
    ),
    Mutant(
        "snapshot-answered-before-its-journal",
        ("persistence-order",),
        "docs/design.md, rule 3: that a snapshot is there is said when it is on disk",
        (Edit(f"{_SNAPSHOTS}:_answer", "raft.late.append", "raft.early.append"),),
    ),
    Mutant(
        "snapshot-over-a-longer-log",
        ("liveness", "log-matching", "snapshot-safety"),
        "Raft, section 7: a snapshot of what is committed already changes nothing",
        (Edit(f"{_SNAPSHOTS}:on_install", "if part.last_index <= raft.log.commit:", "if False:"),),
    ),
    Mutant(
        "snapshot-keeps-a-tail-that-conflicts",
        ("log-matching",),
        "Raft, section 7: what does not match the snapshot's last entry is discarded",
        (
            Edit(
                _INSTALL, "keep_on_disk = self.matches(index, term)", "keep_on_disk = self.term_at(index) is not None"
            ),
            Edit(_INSTALL, "if self.matches(index, term):", "if self.term_at(index) is not None:"),
        ),
    ),
    Mutant(
        "cut-off-tail-comes-back-from-disk",
        ("log-matching", "no-defect", "witness-retention"),
        "Raft, section 7: what the journal keeps behind a snapshot is what memory keeps",
        (Edit(_INSTALL, "return keep_on_disk", "return True"),),
    ),
    Mutant(
        "compaction-past-the-snapshot",
        ("no-defect", "snapshot-safety"),
        "Raft, section 7: the log is cut no further than the snapshot reaches",
        (
            Edit(
                "coordinator.consensus.raft.core:Raft.compact",
                "self.log.compact(min(keep_from - 1, snapshot.last_index, *being_sent))",
                "self.log.compact(min(self.log.commit, self.log.unwritten - 1))",
            ),
        ),
    ),
    Mutant(
        "token-forgotten-by-the-snapshot",
        ("digests-equal", "snapshot-safety", "state-machine-safety"),
        "docs/design.md, rule 6: tokens grow over a snapshot too",
        (Edit(f"{_LOADER}._add_lock", "stored.delay, stored.token", "stored.delay, 1"),),
    ),
    Mutant(
        "results-forgotten-by-the-snapshot",
        ("digests-equal",),
        "docs/design.md, rule 7: what makes a retry harmless is in the snapshot",
        (Edit(f"{_LOADER}._add_results", "self._session.keep(number, result)", "pass"),),
    ),
    Mutant(
        "openings-forgotten-by-the-snapshot",
        ("digests-equal",),
        "docs/design.md, rule 7: an opening that comes again finds its session, over a snapshot too",
        (
            Edit(
                f"{_LOADER}._add_session",
                "self._state.nonces[stored.principal, stored.nonce] = stored.session",
                "pass",
            ),
        ),
    ),
    Mutant(
        "queue-turned-round-by-the-snapshot",
        ("digests-equal", "snapshot-safety", "state-machine-safety"),
        "docs/design.md, rule 5: the same state after a snapshot, and the same order in line",
        (Edit(f"{_LOADER}._add_waiters", "in stored.waiters:", "in reversed(stored.waiters):"),),
    ),
)
