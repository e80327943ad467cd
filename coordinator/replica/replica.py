"""One replica as its node hosts it: the engine, the state machine, and the callers that wait for either.

Commands become entries, stamped with who a node verified that they come from; their results go back when the entry is
applied. Reads, keep-alives and confirmations share one confirmation of leadership a turn. Everything here is called by
the one turn (`turn.py`); nothing here does input or output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from coordinator import wire
from coordinator.consensus.engine import Engine, HardState, Outgoing, Ready, Role, Snapshot
from coordinator.consensus.entries import COMMAND, COMMAND_PREFIX
from coordinator.consensus.membership import Configuration
from coordinator.replica.callers import Answers, Caller
from coordinator.replica.comparison import Comparison, Verdict
from coordinator.replica.history import History
from coordinator.replica.leases import Leases
from coordinator.replica.meters import Meters
from coordinator.replica.ports import Head, Write
from coordinator.replica.stamps import Stamp, Stamps, UnknownToken
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.machine import (
    GrantMade,
    Machine,
    SessionBegan,
    SessionEnded,
    StateMarked,
    encode_node_entry,
)

APPLY_BYTES_MAX: Final = 2 * 1024 * 1024
"""Entries applied in one turn; the rest waits for the next, so that a long log does not hold the loop."""
COMMAND_BYTES_MAX: Final = commands.VALUE_BYTES_MAX + 8 * 1024
READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Answered to reads in one turn; the rest, confirmed already, waits for the next: 20 bytes may ask for 1 MiB."""
WATCHERS_MAX: Final = 200_000
"""Acquisitions whose grant is pushed. Past it grants are not pushed, and waiters find out by asking."""
COMPARE_US: Final = 60_000_000
"""The leader has the replicas compare their states this often, where something was applied since."""


class Compaction(NamedTuple):
    """When the log is cut: a snapshot each `snapshot_entries` applied, behind which `trailing_entries` are kept for
    followers that are a little behind."""

    snapshot_entries: int = 20_000
    trailing_entries: int = 5_000


class _Proposal(NamedTuple):
    """`term`: that of its entry."""

    caller: Caller
    request_id: int
    op: commands.ClientOp
    session: int
    term: int
    since_us: int


class _Asked(NamedTuple):
    """A command that becomes an entry in this turn."""

    caller: Caller
    request_id: int
    op: commands.ClientOp
    session: int
    since_us: int


_ReadRequest = wire.QueryRequest | wire.KeepAliveRequest | wire.ConfirmRequest


class _Read(NamedTuple):
    caller: Caller
    request: _ReadRequest
    stamp: Stamp


class _Dumping(NamedTuple):
    """The state after the entry `at`. `is_mark`: the replicas compare this one."""

    dump: snapshot.Dump
    at: int
    term: int
    configuration: Configuration
    is_mark: bool
    parts: list[bytes]


class Replica:
    def __init__(
        self,
        cluster: int,
        cluster_name: str,
        replica: int,
        engine: Engine,
        machine: Machine,
        now_us: int,
        *,
        compaction: Compaction | None = None,
        compare_us: int = COMPARE_US,
        stopped: str = "",
    ) -> None:
        """`stopped`: why it takes no part, as the journal says; "" where it does."""
        self.compaction = compaction or Compaction()
        self.snapshot_wanted = 0
        """An operator wants a snapshot at this index or later."""
        self.stopped = stopped
        self._stopping = ""
        self.comparison = Comparison(replica)
        self._compare_us = compare_us
        self._compare_due_us = now_us + compare_us
        self._marked_index = 0
        """The last mark that was applied here, or proposed."""
        self._answers_to_peers: list[Outgoing] = []
        self._snapshot_index = engine.applied_index
        self._dumping: _Dumping | None = None
        """A state on its way into bytes, a slice a turn."""
        self._offered: Snapshot | None = None
        """The state at a mark, to be kept once a majority has the same."""
        self._taken: Snapshot | None = None
        """A snapshot that is not on disk yet."""
        self.cluster = cluster
        self.cluster_name = cluster_name
        self.replica = replica
        self.engine = engine
        self.machine = machine
        self.leases: Leases | None = None
        """Of a leader that has applied the first entry of its own term; None elsewhere."""
        self._term = engine.term
        self._answered_up_to_us = 0
        """Every keep-alive that came before the round sent at this time is answered: what a lease may be held against
        (history 3). Behind the engine's own confirmation, which comes within a turn, before its reads are answered."""
        self.history = History(now_us)
        self.meters = Meters()
        self._commands: list[_Asked] = []
        self._entries: list[bytes] = []
        """Of `_commands`, in the same order."""
        self._signer: tuple[Caller, Stamp | None] | None = None
        """The stamp of the last caller, until something is applied."""
        self._stamps = Stamps(machine)
        self._proposals: dict[int, _Proposal] = {}
        self._reads: list[_Read] = []
        self._reads_by_ticket: dict[int, list[_Read]] = {}
        self._confirmed: deque[tuple[int, deque[_Read]]] = deque()
        self._watchers: dict[int, dict[tuple[str, int], Caller]] = {}
        self._watching = 0

    @property
    def configuration(self) -> Configuration:
        return self.engine.configuration

    @property
    def snapshot_index(self) -> int:
        """Of the last snapshot, on disk or about to be."""
        return self._snapshot_index if self._taken is None else self._taken.last_index

    @property
    def leader_node(self) -> str:
        """The node of the leader, "" where this replica knows of none."""
        return self.engine.configuration.node_of(self.engine.leader)

    @property
    def followed_node(self) -> str:
        """The node of the leader that this replica follows; "" where it follows none."""
        return self.leader_node if self.engine.role is Role.FOLLOWER else ""

    @property
    def pending(self) -> tuple[int, int, int]:
        """How many wait here: proposals for their entry to be applied, reads for a majority's word, and acquisitions
        for their grant to be pushed. May be asked from another thread."""
        reads = sum(map(len, [*self._reads_by_ticket.values()])) + sum(len(reads) for _, reads in [*self._confirmed])
        return len(self._commands) + len(self._proposals), len(self._reads) + reads, self._watching

    @property
    def waits_for(self) -> str:
        """Why it serves nothing, in words; "" where nothing keeps it from it."""
        return self.stopped or self.comparison.why

    @property
    def _serves(self) -> bool:
        """May it answer callers, as far as its own state goes?"""
        return self.engine.is_fit and not self._stopping

    # --- what comes in ----------------------------------------------------------------------------

    def may(self, caller: Caller, act_for: str, right: str) -> bool:
        """Has the caller, or whom it may act for, this right altogether, by this replica's copy of the log?"""
        own = self._stamps.own(caller)
        stamp = self._stamps.acting(own, act_for) if own is not None and act_for else own
        if not isinstance(stamp, Stamp):
            return False
        access = self.machine.access(*stamp)
        return not isinstance(access, commands.Failure) and access.may(right)

    def ask(self, caller: Caller, request: wire.CommandRequest | _ReadRequest, answers: Answers, now_us: int) -> None:
        """Take a client's request; it is answered in this turn or a later one, or lost with the leadership."""
        if self.engine.role is not Role.LEADER or not self._serves:
            return answers.add(caller, wire.NotLeader(request.id, self._elsewhere))
        known = self._signer
        if known is None or known[0] is not caller:
            known = self._signer = (caller, self._stamps.own(caller))
        own = known[1]
        act_for = "" if isinstance(request, wire.ConfirmRequest) else request.act_for
        stamp = self._stamps.acting(own, act_for) if own is not None and act_for else own
        if stamp is None or (isinstance(stamp, UnknownToken) and not self.engine.applied_own_term):
            # Not known here, or not yet: a leader that is still applying what it inherited must not judge.
            return answers.add(caller, wire.NotLeader(request.id, ""))
        if isinstance(stamp, UnknownToken):
            return self._refuse(caller, request.id, answers, commands.FORBIDDEN, "act_for is no token of this cluster")
        if isinstance(stamp, commands.Failure):
            return answers.add(caller, wire.Answer(request.id, stamp))
        if not isinstance(request, wire.CommandRequest):
            self._reads.append(_Read(caller, request, stamp))
            return None
        if len(request.command) > COMMAND_BYTES_MAX:
            message = f"a command has at most {COMMAND_BYTES_MAX} bytes, got {len(request.command)}"
            return self._refuse(caller, request.id, answers, commands.INVALID, message)
        command = wire.decode_command(request.command)
        self._commands.append(_Asked(caller, request.id, command.op, command.session, now_us))
        self._entries.append(self._stamps.entry(stamp, bytes(request.command)))
        return None

    @property
    def _elsewhere(self) -> str:
        """Whom to ask instead; "" where nobody is known."""
        return "" if self.engine.role is Role.LEADER else self.leader_node

    def hear_digest(self, sender: int, said: wire.StateDigest) -> None:
        """Another replica says what its state is after an entry; it is told this one's, where it asks."""
        if said.version != snapshot.VERSION:
            return  # Other bytes for the same state.
        self.comparison.hear(sender, said.at, said.digest)
        own = self.comparison.own(said.at)
        if said.wanted and own is not None:
            self._answers_to_peers.append(
                Outgoing(sender, wire.StateDigest(snapshot.VERSION, said.at, own, wanted=False))
            )

    @staticmethod
    def _refuse(caller: Caller, request_id: int, answers: Answers, code: str, message: str) -> None:
        answers.add(caller, wire.Answer(request_id, commands.Failure(code, message)))

    def tick(self, now_us: int, *, connected: bool) -> None:
        """Let time pass for the engine and, on a leader, for the leases. After everything that came was taken in."""
        self.engine.tick(now_us)
        if self.leases is None or self.engine.role is not Role.LEADER:
            return
        self.leases.advance(now_us, connected=connected)
        expired = self.leases.take_expired(self._answered_up_to_us)
        if expired:
            entry = COMMAND_PREFIX + encode_node_entry(commands.ExpireSessions(tuple(expired)))
            if self.engine.propose([entry]) is None:
                self.leases.proposal_refused(expired)
            else:
                self.meters.sessions_expired += len(expired)
        unmarked = self.engine.applied_index - max(self._marked_index, self._snapshot_index)
        if now_us >= self._compare_due_us or unmarked >= self.compaction.snapshot_entries:
            self._mark_state(now_us)

    def _mark_state(self, now_us: int) -> None:
        """Have all replicas compare their states, where something was applied since the last time."""
        self._compare_due_us = now_us + self._compare_us
        if self.machine.applied > self._marked_index:
            index = self.engine.propose([COMMAND_PREFIX + encode_node_entry(commands.MarkState())])
            if index is not None:
                self._marked_index = index

    # --- the turn's middle ------------------------------------------------------------------------

    def write(self, ready: Ready) -> Write | None:
        """What the journal is to take in this turn; None where nothing."""
        head = self._head(ready)
        if ready.hard_state is None and head is None and not self._stopping:
            return None
        hard_state = ready.hard_state or HardState(self.engine.term, self.engine.vote, self.engine.commit_index)
        return Write(self.replica, hard_state, ready.first_index, ready.terms, ready.entries, head, self._stopping)

    def _head(self, ready: Ready) -> Head | None:
        if ready.install is not None:
            self._offered = self._taken = None
            return Head(ready.install, ready.install.last_index, ready.install.term, ready.keep_tail)
        if self._taken is None or self._stopping:
            return None
        offset = max(self.engine.first_index - 1, self._taken.last_index - self.compaction.trailing_entries)
        return Head(self._taken, offset, self.engine.term_at(offset), keep_tail=True)

    def prepare(self, answers: Answers, now_us: int) -> Ready:
        """Propose what was asked and say what is to be written and sent."""
        if self.engine.term != self._term:
            # Of a cluster of one voter, one leadership may follow upon another with no turn in between.
            self._term = self.engine.term
            self._abdicate(answers)
        if self.comparison.has_news or self.comparison.is_in_doubt:
            self._judge_state(answers, now_us)
        if self._commands:
            self._propose(answers)
        if self._reads:
            self._begin_reads(answers)
        return self.engine.ready(now_us)

    def _judge_state(self, answers: Answers, now_us: int) -> None:
        """Serve nothing while in doubt of the own state, and take no part any more where it is known to differ."""
        verdict = self.comparison.judge(self.configuration.full_voter_ids)
        self.engine.doubt(verdict is Verdict.IN_DOUBT, self.comparison.agreed)
        if verdict is Verdict.DIFFERS:
            self._stopping = self.comparison.why
            self.engine.step_down(now_us)
        if not self._serves:
            self._abdicate(answers)

    def take_peer_words(self, now_us: int) -> list[Outgoing]:
        """What is to be said to other replicas beside the engine's messages, after the journal."""
        words, self._answers_to_peers = self._answers_to_peers, []
        if not self.comparison.is_due(now_us):
            return words
        others = [m.replica for m in self.configuration.members if not m.witness and m.replica != self.replica]
        due = self.comparison.due(others, now_us)
        if due is not None:
            words += [
                Outgoing(other, wire.StateDigest(snapshot.VERSION, due.at, due.digest, wanted=True))
                for other in due.receivers
            ]
        return words

    def _begin_reads(self, answers: Answers) -> None:
        """One question for all reads of the turn, and one for all keep-alives, which no lease answers (history 1)."""
        taken, self._reads = self._reads, []
        if self.engine.role is not Role.LEADER:
            self._turn_away(taken, answers)
            return
        for lease_ok in (True, False):
            reads = [read for read in taken if isinstance(read.request, wire.QueryRequest) is lease_ok]
            ticket = self.engine.read(lease_ok=lease_ok) if reads else None
            if ticket is not None:
                self._reads_by_ticket[ticket] = reads

    def _propose(self, answers: Answers) -> None:
        taken, self._commands = self._commands, []
        entries, self._entries = self._entries, []
        first_index = self.engine.propose(entries)
        if first_index is not None:
            term = self.engine.term
            for index, (caller, request_id, op, session, since_us) in enumerate(taken, first_index):
                self._proposals[index] = _Proposal(caller, request_id, op, session, term, since_us)
            return
        self.meters.proposals_failed += len(taken)
        for proposal in taken:
            if self.engine.role is Role.LEADER:
                message = (
                    "the leader takes nothing new now: it hands over, or has its bound of uncommitted bytes; ask again"
                )
                self._refuse(proposal.caller, proposal.request_id, answers, commands.BUSY, message)
            else:
                answers.add(proposal.caller, wire.NotLeader(proposal.request_id, self.leader_node))

    def _turn_away(self, reads: Iterable[_Read], answers: Answers) -> None:
        for read in reads:
            answers.add(read.caller, wire.NotLeader(read.request.id, self._elsewhere))

    def finish(self, ready: Ready, answers: Answers, now_us: int) -> None:
        """The journal has what `ready` asked for: apply what is committed and answer whom that answers."""
        engine = self.engine
        engine.persisted(ready)
        if self._stopping:
            self.stopped = self._stopping
            self._stop_dumping()
            return
        self._begin_behind(ready.install)
        self._apply(answers, now_us)
        self._take_snapshot(now_us)
        for read in engine.take_reads():
            waiting = self._reads_by_ticket.pop(read.ticket, None)
            if waiting is not None:
                self._confirmed.append((read.read_index, deque(waiting)))
        if engine.role is not Role.LEADER or not self._serves:
            if self._is_waited_for:
                self._abdicate(answers)
        elif self.leases is None and engine.applied_own_term:
            self.leases = Leases(now_us)
            self._compare_due_us = now_us + self._compare_us
            self._answered_up_to_us = 0
            for session in self.machine.sessions.values():
                self.leases.renew(session.session, session.ttl_ms)
        if self._confirmed:
            self._answer_reads(answers)
        if not self._confirmed:
            self._answered_up_to_us = engine.confirmed_at_us
        self.history.observe(self, now_us)

    def _begin_behind(self, installed: Snapshot | None) -> None:
        """A snapshot is on disk, one that came or one that was taken here: begin behind it."""
        if installed is not None:
            self._stop_dumping()
            self._snapshot_index = installed.last_index
            if not self.engine.is_witness:
                self._signer = None
                with self.meters.snapshot_loads.time():
                    snapshot.load(self.machine, installed.data)
        elif self._taken is not None:
            self.engine.compact(self._taken, self._taken.last_index - self.compaction.trailing_entries + 1)
            self._snapshot_index, self._taken = self._taken.last_index, None

    @property
    def _is_waited_for(self) -> bool:
        """Is there anything that only a leader has?"""
        waits = self._proposals or self._reads_by_ticket or self._confirmed or self._watchers
        return bool(waits) or self.leases is not None

    def _abdicate(self, answers: Answers) -> None:
        """Whoever waits for this leader asks the next one; a retry is harmless. (Raft, section 8)"""
        self.leases = None
        self._watchers = {}
        self._watching = 0
        for reads in self._reads_by_ticket.values():
            self._turn_away(reads, answers)
        self._reads_by_ticket = {}
        for _, confirmed in self._confirmed:
            self._turn_away(confirmed, answers)
        self._confirmed.clear()
        self.meters.proposals_failed += len(self._proposals)
        for proposal in self._proposals.values():
            answers.add(proposal.caller, wire.NotLeader(proposal.request_id, self._elsewhere))
        self._proposals = {}

    def _take_snapshot(self, now_us: int) -> None:
        """Note a snapshot, where one is due; the next turn's commit of the journal takes it, and then the log is cut.
        It is the state at a mark that most replicas agree on, or, where an operator asks, the state as it is now. A
        witness cuts off what every full voter has."""
        engine = self.engine
        if engine.is_witness:
            index = min(engine.applied_index, engine.settled)
            if index - self._snapshot_index >= self.compaction.snapshot_entries:
                self._taken = Snapshot(index, engine.term_at(index), engine.configuration_at(index), b"")
            return
        index = engine.applied_index
        wanted = self.snapshot_index < self.snapshot_wanted <= index
        if wanted and self._dumping is None and self.comparison.may_keep(index):
            self._begin_dump(index, is_mark=False)
        if self._dumping is not None:
            self._go_on_dumping(self._dumping, now_us)
        if self._offered is not None and self.comparison.may_keep(self._offered.last_index):
            self._taken, self._offered = self._offered, None

    def _begin_dump(self, index: int, *, is_mark: bool) -> None:
        """Take the state as it is after the entry at `index`, in slices, while the machine goes on."""
        engine = self.engine
        dump = snapshot.begin(self.machine)
        self._dumping = _Dumping(dump, index, engine.term_at(index), engine.configuration_at(index), is_mark, [])

    def _go_on_dumping(self, dumping: _Dumping, now_us: int) -> None:
        with self.meters.snapshot_dumps.time():
            dumping.parts.append(dumping.dump.slice())
        if not dumping.dump.done:
            return
        self._dumping = None
        data = b"".join(dumping.parts)
        taken = Snapshot(dumping.at, dumping.term, dumping.configuration, data)
        if not dumping.is_mark:
            self._taken = taken
            return
        self.comparison.marked(dumping.at, bytes.fromhex(dumping.dump.digest), now_us)
        if dumping.at - self._snapshot_index >= self.compaction.snapshot_entries:
            self._offered = taken

    def _stop_dumping(self) -> None:
        if self._dumping is not None:
            self._dumping.dump.close()
            self._dumping = None

    # --- apply ------------------------------------------------------------------------------------

    def _apply(self, answers: Answers, now_us: int) -> None:
        if self.engine.applied_index >= self.engine.commit_index:
            return
        committed = self.engine.take_committed(APPLY_BYTES_MAX)
        if self.engine.is_witness:
            return
        self._signer = None
        meters, machine = self.meters, self.machine
        for index, (term, entry) in enumerate(
            zip(committed.terms, committed.entries, strict=True), committed.first_index
        ):
            if entry[0] != COMMAND:
                continue
            result = machine.apply(index, memoryview(entry)[1:])
            proposal = self._proposals.pop(index, None)
            if proposal is not None and proposal.term == term:
                answers.add(proposal.caller, wire.Answer(proposal.request_id, result))
                meters.committed(now_us, now_us - proposal.since_us)
                if self._watching or type(result) is commands.Queued:
                    self._follow_waiter(proposal, result)
            if machine.events:
                self._tell(answers, index)

    def _follow_waiter(self, proposal: _Proposal, result: commands.Result) -> None:
        """Note who is to be told of a grant, and who no longer."""
        op = proposal.op
        match op:
            case commands.AcquireLock() if isinstance(result, commands.Queued):
                session = op.owner or proposal.session
                if op.take_over:
                    for name, acquisition in [*self._watchers.get(session, {})]:
                        if name == op.name:
                            self._unwatch(session, name, acquisition)
                self._watch(session, op.name, op.acquisition, proposal.caller)
            case commands.ReleaseLock() | commands.CancelAcquire():
                self._unwatch(op.owner or proposal.session, op.name, op.acquisition)

    def _watch(self, session: int, name: str, acquisition: int, caller: Caller) -> None:
        watched = self._watchers.setdefault(session, {})
        if (name, acquisition) not in watched:
            if self._watching >= WATCHERS_MAX:
                return
            self._watching += 1
        watched[name, acquisition] = caller

    def _tell(self, answers: Answers, index: int) -> None:
        events, self.machine.events = self.machine.events, []
        for event in events:
            match event:
                case SessionBegan(session, ttl_ms):
                    if self.leases is not None:
                        self.leases.renew(session, ttl_ms)
                case SessionEnded(session):
                    self._watching -= len(self._watchers.pop(session, {}))
                    if self.leases is not None:
                        self.leases.forget(session)
                case GrantMade(session, name, acquisition, token):
                    caller = self._unwatch(session, name, acquisition)
                    if caller is not None:
                        answers.add(caller, wire.GrantPushed(self.cluster, session, name, acquisition, token))
                case StateMarked():
                    self._marked(index)

    def _marked(self, index: int) -> None:
        """Here the replicas compare their states. One at a time: a mark that comes meanwhile is another's chance."""
        self._marked_index = index
        if self._dumping is None:
            self._begin_dump(index, is_mark=True)

    def _unwatch(self, session: int, name: str, acquisition: int) -> Caller | None:
        watched = self._watchers.get(session, {})
        caller = watched.pop((name, acquisition), None)
        if caller is not None:
            self._watching -= 1
            if not watched:
                del self._watchers[session]
        return caller

    # --- reads ------------------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """Is there work for a next turn at once?"""
        ready = bool(self._confirmed) and self._confirmed[0][0] <= self.engine.applied_index
        return ready or self.engine.applied_index < self.engine.commit_index or self._dumping is not None

    def _answer_reads(self, answers: Answers) -> None:
        """Answer confirmed reads whose index is applied, as far as the turn's bytes go."""
        size = 0
        while self._confirmed and self._confirmed[0][0] <= self.engine.applied_index:
            waiting = self._confirmed[0][1]
            while waiting:
                if size > READ_BYTES_MAX:
                    return
                before = answers.size
                self._answer_read(waiting.popleft(), answers)
                size += answers.size - before
            self._confirmed.popleft()

    def _answer_read(self, read: _Read, answers: Answers) -> None:
        assert self.leases is not None, "a confirmed read is answered by a leader that has applied its own term"
        stamp = read.stamp
        if stamp.actor and not self.machine.may_act_for(stamp.actor):
            message = f"{stamp.actor!r} may not act for others"
            return self._refuse(read.caller, read.request.id, answers, commands.FORBIDDEN, message)
        match read.request:
            case wire.ConfirmRequest(request_id):
                answers.add(read.caller, wire.Confirmed(request_id, self.engine.term))
            case wire.KeepAliveRequest():
                self._keep_alive(read, read.request, answers)
            case wire.QueryRequest(request_id, query=query):
                result = self.machine.query(query, stamp.principal, self.leases.remaining_ms, *stamp[1:])
                if isinstance(query, commands.AwaitGrant) and isinstance(result, commands.Queued):
                    self._watch(query.owner, query.name, query.acquisition, read.caller)
                answers.add(read.caller, wire.Answer(request_id, result))
        return None

    def _keep_alive(self, read: _Read, request: wire.KeepAliveRequest, answers: Answers) -> None:
        assert self.leases is not None
        if request.term != self.engine.term:
            self.leases.allow_another_try(request.session)
            return answers.add(read.caller, wire.OtherTerm(request.id, self.engine.term))
        session = self.machine.sessions.get(request.session)
        principal = read.stamp.principal
        if session is None or session.principal != principal or principal not in self.machine.principals:
            message = f"session {request.session} is gone, or another's"
            return self._refuse(read.caller, request.id, answers, commands.SESSION_GONE, message)
        if not self.leases.is_new(request.session, read.caller.channel, request.count):
            return None
        if self.leases.renew(request.session, session.ttl_ms):
            answers.add(read.caller, wire.KeptAlive(request.id, request.session, session.ttl_ms))
        # Else its expiry is proposed and not yet applied: no answer now; the caller asks again (history 11).
        return None
