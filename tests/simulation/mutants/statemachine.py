"""The state machine broken: exactly once, locks, tokens, determinism (DESIGN.md, rules 5, 6 and 7; history 12)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_MACHINE: Final = "coordinator.statemachine.machine:Machine"
_SESSIONS: Final = "coordinator.statemachine.sessions"
_LOCKS: Final = "coordinator.statemachine.locks"

MUTANTS: Final = (
    Mutant(
        "retry-applied-twice",
        "DESIGN.md, rule 7: a request is applied once by its session and number",
        (Edit(f"{_MACHINE}._apply_request", "    if known is not None:\n        return known\n", ""),),
    ),
    Mutant(
        "only-the-last-number-remembered",
        "History 12: numbers come out of order; a table of the last one alone repeats requests",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "session.results[command.number] = result",
                "session.results.clear()\n    session.results[command.number] = result",
            ),
        ),
    ),
    Mutant(
        "request-applied-after-its-own-cancel",
        "History 12: a request that arrives after its own cancel is refused",
        (
            Edit(
                f"{_MACHINE}._lock",
                "if in_window and op.number not in session.results:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "retry-under-a-new-session",
        "History 4: a retry whose session is gone is refused, never applied",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "    if session is None or session.principal != signer:\n",
                "    if session is None:\n"
                "        session = Session(command.session, signer, 500, b'')\n"
                "        self.state.sessions.add(command.session, session)\n"
                "    if session.principal != signer:\n",
            ),
        ),
    ),
    Mutant(
        "session-opened-twice",
        "DESIGN.md, rule 7: a retry of an opening finds the first one",
        (Edit(f"{_SESSIONS}:open_session", "if known is not None:", "if False:"),),
    ),
    Mutant(
        "grant-before-all-have-ended",
        "DESIGN.md, rule 6: an expiry of several sessions removes all of them before it grants",
        (
            Edit(
                f"{_SESSIONS}:end_sessions",
                "            freed[name] = None\n",
                "            locks.hand_on(state, index, state.locks.rows[name])\n",
            ),
        ),
    ),
    Mutant(
        "token-counted-by-the-lock",
        "DESIGN.md, rule 6: a lock deleted and created again goes on with higher tokens",
        (Edit(f"{_LOCKS}:_grant", "fencing_token(state.epoch, index)", "lock.token + 1"),),
    ),
    Mutant(
        "token-of-the-request-for-a-later-grant",
        "DESIGN.md, rule 6: the token of a grant is the index of the entry that granted",
        (
            Edit(
                f"{_LOCKS}:hand_on",
                "_grant(state, index, lock, holder)",
                "lock.holder, lock.token = holder, max(lock.token, index - 1)\n"
                "    state.sessions.rows[holder.session].locks.add(lock.name)",
            ),
        ),
    ),
    Mutant(
        "two-holders-of-one-lock",
        "An exclusive lock has one holder",
        (
            Edit(
                f"{_LOCKS}:acquire",
                "if not op.wait:",
                "if not op.wait and not lock.queue:\n"
                "        lock.holder = None\n"
                "        _grant(state, index, lock, holder)\n"
                "        return Granted(lock.token)\n"
                "    if not op.wait:",
            ),
        ),
    ),
)
