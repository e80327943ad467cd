"""Sessions and leases broken, at the leader and at the client (docs/design.md, histories 1, 3, 9 and 11)."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_LEASES: Final = "coordinator.replica.leases"
_REPLICA: Final = "coordinator.replica.replica"
_SESSION: Final = "coordinator.client.session"
_TENURE: Final = "coordinator.replica.tenure"
_CHECKPOINTS: Final = "coordinator.replica.checkpoints"

MUTANTS: Final = (
    Mutant(
        "expiry-left-lying",
        ("expiry-in-time",),
        "Expiry goes through the log within 100 ms of the deadline",
        (
            Edit(
                f"{_LEASES}:Leases.take_expired",
                "if confirmed_at_us >= since_us",
                "if confirmed_at_us >= since_us + 150_000",
            ),
        ),
    ),
    Mutant(
        "keep-alive-by-an-unconfirmed-leader",
        ("lease-exclusion", "stalls-spare-sessions"),
        "History 1: a keep-alive is answered after a majority has confirmed the leader",
        (
            Edit(
                f"{_REPLICA}:Replica.ask",
                "return self.reading.ask(Read(caller, request, stamp, now_us, 0), answers)",
                "read = Read(caller, request, stamp, now_us)\n"
                "        if isinstance(request, wire.KeepAliveRequest) and self._tenure is not None:\n"
                "            return self.reading.keep_alive(read, request, self._tenure, answers)\n"
                "        return self.reading.ask(read, answers)",
            ),
        ),
    ),
    Mutant(
        "keep-alive-while-its-expiry-is-proposed",
        ("session-leases",),
        "History 11: from the proposal of an expiry on, the session's keep-alives are not answered",
        (
            Edit(f"{_LEASES}:Leases.renew", "if session in self._expiring:", "if False:"),
            # Before its expiry it was written down, and its keep-alives held for that: the rule must stand without it.
            Edit(
                "coordinator.replica.tenure:Tenure.keep_alive",
                "if self.checkpoints.may_answer(session):",
                "if self.checkpoints.may_answer(session) or session in self.leases._expiring:",
            ),
        ),
    ),
    Mutant(
        "keep-alive-before-its-checkpoint-is-reset",
        ("session-leases",),
        "History 10: from the proposal of a checkpoint on, keep-alives are answered behind an applied reset only",
        (Edit(f"{_CHECKPOINTS}:Checkpoints.may_answer", "return session not in self._shorter", "return True"),),
    ),
    Mutant(
        "keep-alive-while-its-checkpoint-is-proposed",
        ("session-leases",),
        "History 10: applied or not, a checkpoint holds keep-alives back from its proposal on",
        (
            Edit(
                f"{_TENURE}:Tenure.keep_alive",
                "if self.checkpoints.may_answer(session):",
                "if self._machine.sessions[session].remaining_ms is None or self.checkpoints.may_answer(session):",
            ),
        ),
    ),
    Mutant(
        "keep-alive-before-the-own-term-is-applied",
        ("session-leases",),
        "History 11: a new leader answers no keep-alive before it has applied an entry of its own term",
        (
            Edit(
                "coordinator.consensus.raft.core:Raft.applied_own_term",
                "self.role is Role.LEADER and self.applied >= self.term_start_index",
                "self.role is Role.LEADER",
            ),
            Edit(
                f"{_REPLICA}:Replica.ask",
                "return self.reading.ask(Read(caller, request, stamp, now_us, 0), answers)",
                "read = Read(caller, request, stamp, now_us)\n"
                "        if isinstance(request, wire.KeepAliveRequest) and self._tenure is not None:\n"
                "            if not self.engine.may_answer:\n"
                "                return self.reading.keep_alive(read, request, self._tenure, answers)\n"
                "        return self.reading.ask(read, answers)",
            ),
        ),
    ),
    Mutant(
        "leases-expire-in-a-burst-after-a-stall",
        ("stalls-spare-sessions",),
        "History 3: the length of a stall is added to every lease",
        (Edit(f"{_LEASES}:Leases.advance", "min(step, STEP_US_MAX)", "step"),),
    ),
    Mutant(
        "expiry-by-the-local-clock",
        ("digests-equal", "first-come-first-served", "liveness", "no-defect", "revisions"),
        "docs/design.md, rule 1: what ends a session is an entry of the log, not a replica's clock",
        (
            Edit(
                f"{_TENURE}:Tenure.due",
                "if expired:",
                "if expired:\n"
                "        from coordinator.statemachine.sessions import end_sessions\n"
                "        end_sessions(self._machine.state, self._machine.applied, expired, died=True)\n"
                "        self._machine.events = []\n"
                "    elif expired:",
            ),
        ),
    ),
    Mutant(
        "new-leader-begins-with-short-leases",
        ("stalls-spare-sessions",),
        "Chubby, section 2.8: a new leader gives every session its full time to live, or what its checkpoint says",
        (
            Edit(
                f"{_TENURE}:Tenure.__init__",
                "session.lease_ms for",
                "session.lease_ms // 3 for",
            ),
        ),
    ),
    Mutant(
        "expiry-without-a-confirmed-leader",
        ("stalls-spare-sessions",),
        "History 3: only a leader confirmed since the lease ran out expires it",
        (Edit(f"{_LEASES}:Leases.take_expired", "if confirmed_at_us >= since_us", "if True"),),
    ),
    Mutant(
        "lease-without-a-margin-for-drift",
        ("lease-exclusion",),
        "History 1: a client's lease is shorter than its time to live, since clocks drift",
        (
            Edit(
                f"{_SESSION}:Session.confirmed",
                "sent_us + ttl_us - ttl_us // DRIFT_SHARE - DRIFT_US",
                "sent_us + ttl_us",
            ),
        ),
    ),
    Mutant(
        "lease-counted-from-its-last-sending",
        ("lease-exclusion",),
        "History 1: a lease counts from the sending of the very keep-alive that was answered",
        (
            Edit(
                "coordinator.client.session_keeper:SessionKeeper.kept_alive",
                "own.confirmed(sent_us)",
                "own.confirmed(max(sent for _, sent in [kept, *self._keep_alives.values()]))",
            ),
        ),
    ),
    Mutant(
        "clients-clock-stands-still-in-sleep",
        ("lease-exclusion",),
        "History 1: a client's clock counts the time that its machine was suspended",
        (
            Edit(
                "tests.simulation.clients:Client.pause",
                "self.paused = True",
                "self.paused = True\n    self.clock.freeze()",
            ),
            Edit(
                "tests.simulation.clients:Client.resume",
                "self.paused = False",
                "self.paused = False\n        self.clock.thaw()",
            ),
        ),
    ),
    Mutant(
        "waiter-leaves-without-a-word",
        ("liveness",),
        "History 9: a waiter that gives up leaves the queue, and gives back a grant under way",
        (
            Edit(
                "coordinator.client.core:Core.withdraw",
                "if not session.gone:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "leases-forgotten-at-a-keep-alive",
        ("stalls-spare-sessions",),
        "A keep-alive gives a session its full time to live",
        (
            Edit(
                f"{_LEASES}:Leases.renew",
                "self._set_deadline(session, self._lease_us + ttl_ms * 1_000)",
                "self._set_deadline(session, self._deadlines.get(session, self._lease_us + ttl_ms * 1_000))",
            ),
        ),
    ),
)
