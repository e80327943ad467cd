"""Bounds and courtesies of a leader left out: what it has under way, what it takes in, whom it gives way to."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_RAFT: Final = "coordinator.consensus.raft"

MUTANTS: Final = (
    Mutant(
        "in-flight-window-left-out",
        ("flow-control",),
        "Thesis, section 10.2.1: what is sent ahead of the acknowledgements has a window",
        (
            Edit(
                f"{_RAFT}.progress:Progress.may_send",
                "return len(self.inflight) < messages_max and self.inflight_bytes < bytes_max",
                "return True",
            ),
        ),
    ),
    Mutant(
        "in-flight-bytes-not-counted",
        ("flow-control",),
        "Thesis, section 10.2.1: the window is one of bytes, too",
        (Edit(f"{_RAFT}.progress:Progress.may_send", " and self.inflight_bytes < bytes_max", ""),),
    ),
    Mutant(
        "snapshot-window-left-out",
        ("flow-control",),
        "Raft, section 7: a snapshot is sent in parts; how many are under way is bounded",
        (
            Edit(
                f"{_RAFT}.snapshots:send",
                "while at.sent - at.acked < raft.options.snapshot_window_bytes and (",
                "while (",
            ),
        ),
    ),
    Mutant(
        "uncommitted-without-bound",
        ("flow-control",),
        "A leader refuses proposals past its bound of uncommitted bytes",
        (
            Edit(
                f"{_RAFT}.core:Raft.propose",
                "if size and self.uncommitted_bytes and self.uncommitted_bytes + size > "
                "self.options.uncommitted_bytes_max:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "proposals-taken-while-handing-over",
        ("leadership-transfer",),
        "Thesis, section 3.10: a leader that hands over takes no proposals",
        (Edit(f"{_RAFT}.core:Raft.propose", " or self.transferring is not None", ""),),
    ),
    Mutant(
        "change-that-leaves-no-quorum",
        ("configuration-safety",),
        "A change whose voters do not answer could not be undone, and is refused",
        (Edit(f"{_RAFT}.changes:begin", "    _check_quorum_is_left(raft, change, now_us)\n", ""),),
    ),
    Mutant(
        "promoted-before-it-is-caught-up",
        ("configuration-safety",),
        "Thesis, section 4.2.1: a learner votes once it has caught up",
        (Edit(f"{_RAFT}.changes:_check_promotions", "if lag > raft.options.promote_lag_entries_max:", "if False:"),),
    ),
    Mutant(
        "preferred-leader-passed-over",
        ("liveness",),
        "Priorities: a leader hands over to whoever is preferred and caught up",
        (Edit(f"{_RAFT}.transfer:tick", "    if preferred:", "    if False:"),),
    ),
    Mutant(
        "loyalty-left-out",
        ("leader-stickiness",),
        "Thesis, section 4.2.3: who hears a leader helps nobody to depose it",
        (
            Edit(
                f"{_RAFT}.elections:_is_loyal",
                "return raft.heard_at_us is not None and now_us - raft.heard_at_us < "
                "raft.options.election_timeout_us_min",
                "return False",
            ),
        ),
    ),
)
