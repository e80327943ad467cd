"""Locks of all modes broken: who may hold what together, who is next, by which token, who waits for whom."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_LOCKING: Final = "coordinator.statemachine.locking"
_HANDING: Final = "coordinator.statemachine.handing"
_CHANGES: Final = "coordinator.statemachine.lock_changes"
_DEADLOCKS: Final = "coordinator.statemachine.deadlocks"
_LOCK: Final = "coordinator.statemachine.locks:Lock"
_LOADER: Final = "coordinator.statemachine.snapshot:Loader"

MUTANTS: Final = (
    # --- mutual exclusion by mode
    Mutant(
        "an-upgrade-beside-others",
        ("mutual-exclusion",),
        "Mutual exclusion: who is made exclusive is the only holder",
        (Edit(f"{_CHANGES}:_upgrade", "if len(lock.holders) == 1 and lock.delay is None:", "if lock.delay is None:"),),
    ),
    Mutant(
        "one-too-many-is-counted",
        ("mutual-exclusion",),
        "Mutual exclusion: a counting lock has no more holders than its limit",
        (Edit(f"{_LOCK}.admits", "< self.limit", "<= self.limit"),),
    ),
    Mutant(
        "shared-by-those-that-count",
        ("mutual-exclusion",),
        "Mutual exclusion: a name is held in one mode at a time",
        (Edit(f"{_LOCK}.admits", "return self.mode == SHARED", "return self.mode != EXCLUSIVE"),),
    ),
    Mutant(
        "mode-forgotten-by-the-snapshot",
        ("digests-equal", "state-machine-safety"),
        "Mutual exclusion: a replica that began with a snapshot knows how a name is held",
        (
            Edit(
                f"{_LOADER}._add_lock",
                "lock.hold_as(stored.mode, stored.limit)",
                "lock.hold_as('shared', stored.limit)",
            ),
        ),
    ),
    # --- first come, first served
    Mutant(
        "readers-overtake",
        ("first-come-first-served", "no-defect"),
        "First come, first served: nobody is let in past another",
        (Edit(f"{_LOCKING}:_is_free_for", "if lock.queue and not", "if False and not"),),
    ),
    Mutant(
        "one-reader-at-a-time",
        ("first-come-first-served",),
        "First come, first served: those at the head that can hold a name together are let in together",
        (Edit(f"{_HANDING}:hand_on", "while lock.queue:", "for _ in range(1 if lock.queue else 0):"),),
    ),
    Mutant(
        "a-downgrade-wakes-nobody",
        ("first-come-first-served",),
        "First come, first served: who can be let in by an entry is let in by it",
        (Edit(f"{_CHANGES}:_downgrade", "    handing.hand_on(state, index, (lock.name,))\n", ""),),
    ),
    Mutant(
        "an-upgrade-never-ends",
        ("first-come-first-served",),
        "First come, first served: an upgrade is done as soon as its holder is the only one",
        (Edit(f"{_HANDING}:_Handing.finish_upgrades", "if _finish_upgrade(state, index, lock):", "if False:"),),
    ),
    Mutant(
        "an-upgrade-lets-readers-in",
        ("deadlocks", "first-come-first-served"),
        "First come, first served: while an upgrade waits nobody is let in",
        (Edit(f"{_LOCK}.admits", "or self.upgrading is not None", ""),),
    ),
    Mutant(
        "an-upgrade-outlives-its-holder",
        ("no-defect",),
        "First come, first served: an upgrade that was given up keeps nobody out",
        (Edit(f"{_LOCKING}:let_go", "if lock.upgrading == key:", "if False:"),),
    ),
    Mutant(
        "some-of-several-names",
        ("mutual-exclusion",),
        "First come, first served: several names are taken all or none",
        (Edit(f"{_HANDING}:_is_next", "for name in waiter.names:", "for name in waiter.names[:1]:"),),
    ),
    Mutant(
        "a-cancel-of-one-name-alone",
        ("first-come-first-served",),
        "First come, first served: whoever leaves one of its lines leaves all",
        (Edit(f"{_LOCKING}:cancel", "names = has.names", "names = (op.name,)"),),
    ),
    Mutant(
        "a-leaver-wakes-nobody",
        ("first-come-first-served", "liveness"),
        "First come, first served: those behind one that leaves the line are let in",
        (
            Edit(
                f"{_LOCKING}:_release",
                "freed += leave_line(state, session, lock.queue[key])",
                "freed += leave_line(state, session, lock.queue[key])\n"
                "            if lock.queue and lock.holders:\n"
                "                return Done(index, existed=True)",
            ),
        ),
    ),
    Mutant(
        "force-wakes-nobody",
        ("first-come-first-served", "liveness"),
        "First come, first served: what is taken by force goes to the next in line",
        (Edit(f"{_CHANGES}:force_release", "    handing.hand_on(state, index, (op.name,))\n", ""),),
    ),
    Mutant(
        "an-heir-stays-in-line",
        ("first-come-first-served", "lock-events-complete"),
        "First come, first served: whoever was given a name waits for it no more",
        (Edit(f"{_CHANGES}:hand_over", "        locking.leave_line(state, heir, waiter)\n", "        pass\n"),),
    ),
    Mutant(
        "upgrade-forgotten-by-the-snapshot",
        ("digests-equal", "state-machine-safety"),
        "First come, first served: a replica that began with a snapshot knows whose upgrade waits",
        (Edit(f"{_LOADER}._add_lock", "= stored.upgrading, stored.delay,", "= None, None,"),),
    ),
    # --- lock-delays
    Mutant(
        "let-in-during-a-lock-delay",
        ("first-come-first-served",),
        "Chubby, section 2.4: a name whose holder died is given to nobody before its lock-delay has passed",
        (Edit(f"{_LOCK}.admits", "self.delay is not None or ", ""),),
    ),
    Mutant(
        "half-a-lock-delay",
        ("lock-delays",),
        "Chubby, section 2.4: a lock-delay takes as long as the holder asked for",
        (Edit("coordinator.replica.delays:Delays.begin", "delay_ms * 1_000", "delay_ms * 500"),),
    ),
    Mutant(
        "a-new-leader-counts-no-lock-delays",
        ("liveness",),
        "Chubby, section 2.4: a lock-delay ends, whoever leads",
        (Edit("coordinator.replica.tenure:Tenure.__init__", "in machine.delays():", "in machine.delays()[:0]:"),),
    ),
    Mutant(
        "a-lock-delay-of-one-that-let-go",
        ("first-come-first-served",),
        "Chubby, section 2.4: a holder that lets go leaves no lock-delay",
        (Edit(f"{_LOCKING}:let_go_of_all", "if died and grant.delay_ms:", "if grant.delay_ms:"),),
    ),
    # --- tokens
    Mutant(
        "an-upgrade-keeps-its-token",
        ("first-come-first-served",),
        "docs/design.md, rule 6: who is made the only holder has a higher token than those that shared it",
        (
            Edit(
                f"{_HANDING}:make_exclusive",
                "lock.token = fencing_token(state.epoch, index)",
                "lock.token = before.token",
            ),
        ),
    ),
    Mutant(
        "an-heir-has-the-token-of-its-giver",
        ("fencing-tokens",),
        "docs/design.md, rule 6: a hand-over is by a higher token",
        (
            Edit(
                f"{_CHANGES}:hand_over",
                "lock.token = fencing_token(state.epoch, index)",
                "lock.token = grant.token",
            ),
        ),
    ),
    # --- deadlocks
    Mutant(
        "a-cycle-is-not-looked-for",
        ("deadlocks",),
        "Deadlocks between sessions are found when one would wait",
        (Edit(f"{_LOCKING}:acquire_names", "if op.wait and op.refuse_deadlocks:", "if False:"),),
    ),
    Mutant(
        "who-holds-alone-is-not-waited-for",
        ("deadlocks",),
        "Deadlocks: whoever is in line waits for the holder",
        (
            Edit(f"{_DEADLOCKS}:_blocks", "and lock.mode != COUNTING and", "and lock.mode == SHARED and"),
            Edit(f"{_DEADLOCKS}:_hold", "if lock.mode == COUNTING:", "if lock.mode != SHARED:"),
        ),
    ),
    Mutant(
        "readers-wait-for-readers",
        ("deadlocks",),
        "Deadlocks: who can hold a name together waits for nobody",
        (Edit(f"{_DEADLOCKS}:_excludes", " and not one == other == SHARED", ""),),
    ),
    Mutant(
        "an-upgrade-in-no-cycle",
        ("deadlocks",),
        "Deadlocks: whoever waits to hold a name alone keeps those out that share it",
        (
            Edit(
                f"{_DEADLOCKS}:_mode",
                "return EXCLUSIVE if _is_upgrading(lock, session) else lock.mode",
                "return lock.mode",
            ),
            Edit(f"{_DEADLOCKS}:_hold", "if lock.upgrading is not None:", "if False:"),
        ),
    ),
)
