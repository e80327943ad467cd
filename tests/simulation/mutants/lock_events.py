"""Events of locks, and of who leads, broken: `lock_events.py` of the state machine, and `events.py` of the client."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_EVENTS: Final = "coordinator.statemachine.lock_events"
_LOCKING: Final = "coordinator.statemachine.locking"
_HANDING: Final = "coordinator.statemachine.handing"
_CLIENT: Final = "coordinator.client.events"

MUTANTS: Final = (
    Mutant(
        "one-that-is-refused-is-nobodys-business",
        ("lock-events-complete",),
        "Chubby, section 2.5: a holder learns of each conflicting request, refused or in line",
        (Edit(f"{_LOCKING}:_take_or_wait", "if not isinstance(result, Failure):", "if wait:"),),
    ),
    Mutant(
        "the-next-holder-is-not-told-who-waits",
        ("lock-events-complete",),
        "lock events: whoever comes to hold a name is told who is first in line behind it",
        (Edit(f"{_HANDING}:hand_on", "for name in handing.passed:", "for name in ():"),),
    ),
    Mutant(
        "events-of-one-entry-told-in-part",
        ("lock-events-complete",),
        "lock events: what a page had no room for comes with the next",
        (Edit(f"{_EVENTS}:read_lock_events", "position = (revision, place)", "position = (revision + 1, 0)"),),
    ),
    Mutant(
        "an-upgrade-is-nobodys-business",
        ("lock-events-complete",),
        "lock events: those that share a name learn who wants to have it alone",
        (
            Edit(
                "coordinator.statemachine.lock_changes:_asked_to_be_alone",
                "if len(lock.holders) > 1:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "who-died-is-told-to-have-let-go",
        ("lock-events-complete",),
        "lock events: whoever watches learns how a hold ended",
        (Edit(f"{_LOCKING}:let_go_of_all", "EXPIRED if died else RELEASED", "RELEASED"),),
    ),
    Mutant(
        "whose-hold-was-taken-is-nobodys-business",
        ("lock-events-complete",),
        "lock events: whoever watches learns of each hold that ended",
        (Edit(f"{_EVENTS}:ended", "if state.level >=", 'if how != "forced" and state.level >='),),
    ),
    Mutant(
        "lock-events-forgotten-by-the-snapshot",
        ("digests-equal", "lock-events-complete", "snapshot-safety", "state-machine-safety"),
        "lock events: a replica that began with a snapshot knows what came before it",
        (
            Edit(f"{_EVENTS}:LockEvents.prepend", "self.order.first -= 1", "pass"),
            Edit(f"{_EVENTS}:LockEvents.prepend", "self.rows[self.order.first] = event", "pass"),
        ),
    ),
    Mutant(
        "a-fail-over-told-again",
        ("lock-events-complete",),
        "Chubby, section 2.5: a change of leader is told once",
        (
            Edit(
                f"{_CLIENT}:EventWatch._hear",
                "self._term = said.term",
                "self._term = self._term or said.term",
            ),
        ),
    ),
)
