"""How a replica reads: what it was asked, who confirms that, and what is answered from the state machine.

A leader asks a majority once a turn for all that came (`consensus/raft/reads.py`), or leaves what may be left to its
delegate (`delegation.py`); a delegate answers from its own state. Which of the confirmed ones are answered in a turn,
and in which order, is in `reads.py`. Called by the one turn, by way of `replica.py`; nothing here does input or output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.consensus.engine import ConfirmedRead, Engine, Role
from coordinator.replica import cached_reads, watching
from coordinator.replica.callers import READ_BYTES_MAX, Answers, TurnBounds
from coordinator.replica.delegation import Delegate, Leaving, Left, sort_out
from coordinator.replica.grants import GrantWaiters
from coordinator.replica.reads import NO_ROOM, Read, Waiting
from coordinator.replica.stamps import Stamps
from coordinator.replica.tenure import Tenure
from coordinator.statemachine import commands
from coordinator.statemachine.machine import Machine

READS_OF_TURN_MAX: Final = 2_048
"""Reads answered in one turn, however few bytes each takes."""

_LEASED: Final = (wire.QueryRequest, wire.WatchRequest, wire.EventsRequest)
"""What the lease of a leader may answer, where that is on."""


def whom_to_ask(engine: Engine) -> str:
    """The node to ask instead of one that does not lead; "" where nobody is known."""
    return "" if engine.role is Role.LEADER else engine.configuration.node_of(engine.leader)


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Reading:
    def __init__(
        self, replica: int, engine: Engine, machine: Machine, stamps: Stamps, waiters: GrantWaiters, bounds: TurnBounds
    ) -> None:
        self._replica = replica
        self._engine = engine
        self._machine = machine
        self._stamps = stamps
        self._waiters = waiters
        self.bounds = bounds
        self._asked: list[Read] = []
        self._by_ticket: dict[int, list[Read]] = {}
        self._confirmed: deque[tuple[int, list[Read]]] = deque()
        """Reads that wait for the entry at an index to be applied."""
        self._waiting = Waiting()
        """All of these are counted here, and those that nothing is in the way of but others before them are kept."""
        self.address: str | None = None
        """Of the Redis of this node's own mailbox ("": the one that all share); None where it is not known yet."""
        self.left = Left()
        """Of these, what a delegate is to answer."""
        self.delegate = Delegate()

    @property
    def count(self) -> int:
        """How many wait here for a majority's word, for that of a delegate to which they were left, or for their turn.
        May be asked from another thread."""
        return self._waiting.count + self.delegate.waiting.count

    @property
    def is_waited_for(self) -> bool:
        """Does anybody wait for what only a leader answers, and was taken in before this turn?"""
        return bool(self.awaits_others or self._waiting.has_ready or self.left.is_open)

    @property
    def awaits_others(self) -> bool:
        """Are there reads that a majority has not confirmed yet, or that are ahead of what is applied?"""
        return bool(self._by_ticket or self._confirmed)

    @property
    def has_confirmed(self) -> bool:
        """Are there confirmed reads that are ahead of what is applied?"""
        return bool(self._confirmed)

    @property
    def owes(self) -> bool:
        """Is there work for a next turn at once?"""
        ready = bool(self._confirmed) and self._confirmed[0][0] <= self._engine.applied_index
        return ready or self._waiting.has_ready or self.delegate.has_ready

    @property
    def due_us(self) -> int:
        return min(self.left.due_us, self.delegate.due_us)

    # --- what comes in ----------------------------------------------------------------------------

    def ask(self, read: Read, answers: Answers) -> None:
        if self._waiting.takes(read):
            self._asked.append(read)
        else:
            answers.overloaded(read.caller, read.request.id, NO_ROOM)

    def hear_taken(self, sender: int, said: wire.ReadsTaken, now_us: int) -> None:
        """A delegate says what it answers of what this leader left to it."""
        if said.term == self._engine.term:
            for read in self.left.hear(sender, said, now_us):
                self._waiting.over(read)

    def begin(self, answers: Answers, now_us: int) -> None:
        """Leave to a delegate what may be left to it; of the rest one question for all reads of the turn, and one for
        all keep-alives, which no lease answers (history 1)."""
        if self.left.is_open:
            self.left.look(now_us)
        if not (self._asked or self.left.has_back):
            return
        taken, self._asked = self._asked, []
        if self._engine.role is not Role.LEADER:
            self._turn_away(taken, self._waiting, answers)
            return
        taken = self._leave_some(taken, now_us) + self.left.take_back()
        for lease_ok in (True, False):
            reads = [read for read in taken if isinstance(read.request, _LEASED) is lease_ok]
            ticket = self.begin_round(lease_ok=lease_ok) if reads else None
            if ticket is not None:
                self._by_ticket[ticket] = reads
            else:
                for read in reads:
                    self._waiting.over(read)

    def begin_round(self, *, lease_ok: bool) -> int | None:
        return self._engine.read(lease_ok=lease_ok)

    def _leave_some(self, taken: list[Read], now_us: int) -> list[Read]:
        """Those that are not left to a delegate."""
        delegate = self._engine.delegate(now_us) if taken and self.left.trusts(now_us) else 0
        if not (delegate and self._shares_its_redis(delegate)):
            return taken
        leaving = sort_out(taken)
        if leaving.reads:
            self.leave(delegate, leaving, now_us)
        return leaving.kept

    def leave(self, delegate: int, leaving: Leaving, now_us: int) -> None:
        self.left.leave(delegate, self._engine.term, self._engine.commit_index, leaving, now_us)

    def _shares_its_redis(self, other: int) -> bool:
        """Do the callers of this replica hear what `other` says, as the log tells? It looks for itself whether it is
        still there."""
        its = self._engine.configuration.member(other)
        return its is not None and its.address == self.address

    @property
    def _is_where_it_should_be(self) -> bool:
        """Is this node's mailbox on the Redis that the log names?"""
        own = self._engine.configuration.member(self._replica)
        return own is not None and own.address == self.address

    # --- what goes out ----------------------------------------------------------------------------

    def learn(self) -> None:
        """As a delegate, learn what is committed. Before anything is applied."""
        self.delegate.learn(self._engine)

    def judge(self, now_us: int, *, serves: bool) -> None:
        """As a delegate, take what was left to this replica in this turn, or decline it. Behind what is applied."""
        serves = serves and self._is_where_it_should_be
        self.delegate.judge(self._engine, self._machine, self._stamps, now_us, serves=serves)

    def confirm(self) -> None:
        """Take note of what the engine says may be answered."""
        for read in self.confirmed_reads():
            waiting = self._by_ticket.pop(read.ticket, None)
            if waiting is not None:
                index = read.read_index
                confirmed = [Read(one.caller, one.request, one.stamp, one.since_us, index) for one in waiting]
                self._confirmed.append((index, confirmed))

    def confirmed_reads(self) -> list[ConfirmedRead]:
        return self._engine.take_reads()

    def answer(self, tenure: Tenure | None, answers: Answers, now_us: int) -> None:
        """Answer what may be answered, what this replica was asked as the leader and what was left to it: all that is
        prompt, then others as far as the turn's bounds go."""
        while self._confirmed and self._confirmed[0][0] <= self._engine.applied_index:
            reads = self._confirmed.popleft()[1]
            for read in reads:
                if read.is_prompt:
                    self._waiting.over(read)
                    self.answer_one(read, tenure, answers, now_us)
            self._waiting.add_ready([read for read in reads if not read.is_prompt])
        if self._waiting.has_ready:
            self._answer_ready(self._waiting, tenure, answers, now_us)
        if self.delegate.has_ready:
            self._answer_ready(self.delegate.waiting, tenure, answers, now_us)

    def turn_away(self, answers: Answers) -> None:
        """All that wait here ask somebody else."""
        for reads in self._by_ticket.values():
            self._turn_away(reads, self._waiting, answers)
        self._by_ticket = {}
        for _, confirmed in self._confirmed:
            self._turn_away(confirmed, self._waiting, answers)
        self._confirmed.clear()
        self._turn_away(self._waiting.take_all_ready() + self.left.take_all(), self._waiting, answers)
        self._turn_away(self.delegate.take_all(), self.delegate.waiting, answers)

    def _turn_away(self, reads: Iterable[Read], counted: Waiting, answers: Answers) -> None:
        node = whom_to_ask(self._engine)
        for read in reads:
            counted.over(read)
            answers.add(read.caller, wire.NotLeader(read.request.id, node))

    def _answer_ready(self, waiting: Waiting, tenure: Tenure | None, answers: Answers, now_us: int) -> None:
        work = self._machine.state.work
        size, rows = answers.size, work.rows
        for count, read in enumerate(waiting.take_ready(now_us), 1):
            self.answer_one(read, tenure, answers, now_us)
            if (
                answers.size - size > READ_BYTES_MAX
                or work.rows - rows > self.bounds.read_rows
                or count >= READS_OF_TURN_MAX
            ):
                return

    def answer_one(self, read: Read, tenure: Tenure | None, answers: Answers, now_us: int) -> None:
        """`tenure`: of a leader; a delegate has none, and is asked nothing that takes one."""
        stamp = read.stamp
        if stamp.actor and (not self._machine.may_act_for(stamp.actor) or stamp.for_token):
            access = self._machine.access(*stamp)
            if isinstance(access, commands.Failure):
                return answers.add(read.caller, wire.Answer(read.request.id, access))
        if type(read.request) is wire.QueryRequest:
            return self._answer_query(read, read.request, tenure, answers)
        assert tenure is not None, "a confirmed read is answered by a leader that has applied its own term"
        term = self._engine.term
        match read.request:
            case wire.ConfirmRequest(request_id):
                answers.add(read.caller, wire.Confirmed(request_id, term))
            case wire.KeepAliveRequest():
                self.keep_alive(read, read.request, tenure, answers)
            case wire.CachedQueryRequest() | wire.RenewCacheRequest():
                asker = cached_reads.Asker(read.caller, stamp, term)
                cached_reads.answer(asker, read.request, tenure, self._machine, answers)
            case wire.WatchRequest() | wire.EventsRequest():
                watching.begin(tenure, self._machine, term, now_us, read.caller, read.request, stamp, answers)
        return None

    def _answer_query(self, read: Read, request: wire.QueryRequest, tenure: Tenure | None, answers: Answers) -> None:
        query = request.query
        remaining_ms = _nobody_counts if tenure is None else tenure.leases.remaining_ms
        result = self._machine.query(query, read.stamp.principal, remaining_ms, *read.stamp[1:])
        if isinstance(query, commands.AwaitGrant) and isinstance(result, commands.Queued):
            self._waiters.add(query.owner, query.name, query.acquisition, read.caller)
        answers.add(read.caller, wire.Answer(request.id, result))

    def keep_alive(self, read: Read, request: wire.KeepAliveRequest, tenure: Tenure, answers: Answers) -> None:
        if request.term != self._engine.term:
            tenure.leases.allow_another_try(request.session)
            return answers.add(read.caller, wire.OtherTerm(request.id, self._engine.term))
        machine, principal = self._machine, read.stamp.principal
        session = machine.sessions.get(request.session)
        if session is None or session.principal != principal or principal not in machine.principals:
            gone = commands.Failure(commands.SESSION_GONE, f"session {request.session} is gone, or another's")
            return answers.add(read.caller, wire.Answer(request.id, gone))
        if not tenure.leases.is_new(request.session, read.caller.channel, request.count):
            return None
        if tenure.keep_alive(request.session, read.caller, request.id):
            answers.add(read.caller, wire.KeptAlive(request.id, request.session, session.ttl_ms))
        for broken in tenure.broken_holds.kept_alive(request.session, read.caller):
            answers.broken(read.caller, request.cluster, broken)
        return None


def _nobody_counts(session: int) -> int:
    raise AssertionError(f"what is left of session {session} is asked of the leader, which counts it")
