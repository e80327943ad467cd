"""The state machine broken: exactly once, locks, tokens, determinism (docs/design.md, rules 5, 6 and 7; history 12)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_MACHINE: Final = "coordinator.statemachine.machine:Machine"
_SESSIONS: Final = "coordinator.statemachine.sessions"
_LOCKING: Final = "coordinator.statemachine.locking"
_HANDING: Final = "coordinator.statemachine.handing"

MUTANTS: Final = (
    Mutant(
        "what-a-turn-gives-back-is-forgotten",
        ("state-machine-safety", "digests-equal", "no-defect"),
        "Raft, section 3: every replica applies every entry",
        (
            Edit(
                "coordinator.replica.replica:Replica._apply",
                "self.engine.give_back(len(committed.entries) - count)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "retry-applied-twice",
        ("exactly-once",),
        "docs/design.md, rule 7: a request is applied once by its session and number",
        (Edit(f"{_MACHINE}._apply_request", "    if known is not None:\n        return known\n", ""),),
    ),
    Mutant(
        "only-the-last-number-remembered",
        ("exactly-once",),
        "History 12: numbers come out of order; a table of the last one alone repeats requests",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "return session.keep(number, result)",
                "session.results.clear()\n    return session.keep(number, result)",
            ),
        ),
    ),
    Mutant(
        "request-applied-after-its-own-cancel",
        ("exactly-once",),
        "History 12: a request that arrives after its own cancel is refused",
        (
            Edit(
                f"{_MACHINE}._do",
                "if in_window and op.number not in session.results:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "retry-under-a-new-session",
        ("exactly-once",),
        "History 4: a retry whose session is gone is refused, never applied",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "    if session is None or session.principal != (entry.actor or entry.principal):\n",
                "    if session is None:\n"
                "        share = state.kept.begin(entry.principal)\n"
                "        session = Session(command.session, entry.principal, 500, b'', share)\n"
                "        self.state.sessions.add(command.session, session)\n"
                "    if session.principal != (entry.actor or entry.principal):\n",
            ),
        ),
    ),
    Mutant(
        "no-room-for-what-was-proposed",
        ("no-room",),
        "Busy says that nothing is applied: what a fallen leader has proposed may be, by the next",
        (
            Edit(
                "coordinator.replica.replica:Replica._abdicate",
                "answers.add(proposal.caller, wire.NotLeader(proposal.request_id, elsewhere))",
                "answers.overloaded(proposal.caller, proposal.request_id, 'it fell')",
            ),
        ),
    ),
    Mutant(
        "session-opened-twice",
        ("exactly-once",),
        "docs/design.md, rule 7: a retry of an opening finds the first one",
        (Edit(f"{_SESSIONS}:open_session", "if known is not None:", "if False:"),),
    ),
    Mutant(
        "grant-before-all-have-ended",
        ("first-come-first-served", "no-defect"),
        "docs/design.md, rule 6: an expiry of several sessions removes all of them before it grants",
        (
            Edit(
                f"{_SESSIONS}:end_sessions",
                "        freed += locking.let_go_of_all(state, index, session, died=died)\n",
                "        handing.hand_on(state, index, locking.let_go_of_all(state, index, session, died=died))\n",
            ),
            # And by a leader that takes them as they come, as one of before did: nothing may hang on its order.
            Edit(
                "coordinator.replica.tenure:Tenure._in_parts",
                "sorted(expired, key=lambda one: one not in sessions or not sessions[one].waiting)",
                "sorted(expired)",
            ),
        ),
    ),
    Mutant(
        "token-counted-by-the-lock",
        ("fencing-tokens",),
        "docs/design.md, rule 6: a lock deleted and created again goes on with higher tokens",
        (Edit(f"{_HANDING}:let_in", "fencing_token(state.epoch, index)", "lock.token + 1"),),
    ),
    Mutant(
        "token-of-the-request-for-a-later-grant",
        ("fencing-tokens",),
        "docs/design.md, rule 6: the token of a grant is the index of the entry that granted",
        (
            Edit(
                f"{_HANDING}:_admit",
                "let_in(state, index, session, lock, waiter)",
                "let_in(state, max(index - 1, lock.token + 1), session, lock, waiter)",
            ),
        ),
    ),
    Mutant(
        "two-holders-of-one-lock",
        ("lease-exclusion", "mutual-exclusion"),
        "An exclusive lock has one holder",
        (
            Edit(
                f"{_LOCKING}:_take_or_wait",
                "result = _wait(state, session, waiter) if wait else",
                "if not wait and not state.locks.rows[name].queue:\n"
                "                return Granted(handing.fencing_token(state.epoch, index))\n"
                "            result = _wait(state, session, waiter) if wait else",
            ),
        ),
    ),
    Mutant(
        "additions-are-not-remembered",
        ("exactly-once",),
        "docs/design.md, rule 7: any command is applied once, one that adds above all",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "    return session.keep(number, result)\n",
                "    return result if type(result).__name__ == 'Counted' else session.keep(number, result)\n",
            ),
        ),
    ),
    Mutant(
        "refusals-are-not-remembered",
        ("exactly-once",),
        "docs/design.md, rule 7: what was refused once is not done when it comes again",
        (
            Edit(
                f"{_MACHINE}._apply_request",
                "    return session.keep(number, result)\n",
                "    is_refusal = type(result).__name__ in ('Failure', 'Held', 'Mismatch', 'Aborted')\n"
                "    return result if is_refusal else session.keep(number, result)\n",
            ),
        ),
    ),
    Mutant(
        "a-retry-under-a-new-number",
        ("counters", "linearizability"),
        "docs/design.md, rule 7: a client asks again under the number that it asked by",
        (
            Edit(
                "coordinator.client.core:Core.command",
                "command = Command(session.session, number, session.acked, op)",
                "command = Command(session.session, session.next_number() if call.sends else number, 1, op)",
            ),
        ),
    ),
)
