"""One replica as its node hosts it: the engine, the state machine, and the callers that wait for either.

Commands become entries, stamped with who a node verified that they come from; their results go back when the entry is
applied. Reads, keep-alives and confirmations share one confirmation of leadership a turn. Everything here is called by
the one turn (`turn.py`); nothing here does input or output.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.consensus.engine import NEVER_US, Committed, Engine, HardState, Outgoing, Ready, Role
from coordinator.consensus.entries import COMMAND, COMMAND_PREFIX, bytes_in
from coordinator.consensus.membership import Configuration
from coordinator.replica import cached_reads, watching
from coordinator.replica.caching import HELD_BYTES_MAX, HELD_MAX, LEASE_MS, Caching
from coordinator.replica.callers import Answers, Caller, TurnBounds
from coordinator.replica.comparison import Verdict
from coordinator.replica.gathering import Gathering
from coordinator.replica.grants import GrantWaiters
from coordinator.replica.history import History
from coordinator.replica.leases import Leases
from coordinator.replica.levels import Levels
from coordinator.replica.meters import Meters
from coordinator.replica.ports import Head, Journal, Write
from coordinator.replica.proposals import Asked, Proposal
from coordinator.replica.reading import Reading, whom_to_ask
from coordinator.replica.reads import Read, ReadRequest
from coordinator.replica.stamps import Stamp, Stamps, UnknownToken
from coordinator.replica.states import COMPARE_US, Compaction, States
from coordinator.replica.tenure import Tenure
from coordinator.statemachine import commands, files, transactions
from coordinator.statemachine.commands.levels import why_unreadable
from coordinator.statemachine.events import (
    CheckpointReset,
    Event,
    LevelUnknown,
    LockBroken,
    LockDelayed,
    LockDelayEnded,
)
from coordinator.statemachine.locks import CLIENTS_INDEX_MAX
from coordinator.statemachine.machine import (
    GrantMade,
    Machine,
    SessionBegan,
    SessionEnded,
    StateMarked,
    encode_node_entry,
)

SMALL_BYTES: Final = 2_048
"""An entry of fewer bytes is copied more quickly than a view of it is made."""
COMMAND_BYTES_MAX: Final = commands.VALUE_BYTES_MAX + 8 * 1024
UNAPPLIED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a leader's own proposals. Entries may be committed faster than they are applied."""
NO_ROOM_TO_APPLY: Final = "the leader has as many bytes of entries before it that are not applied as it takes"
NO_ROOM_TO_HOLD: Final = "as many commands as may wait until no client keeps what they change"
NO_ROOM_IN_LOG: Final = "the leader has as many bytes of entries before it that are not committed as it takes"
NO_INDEX_LEFT: Final = "this cluster's log has come to the last index that a fencing token holds: make another cluster"
FORGOT: Final = (
    "it lacks entry %d, which it told its leader to have: its journal is one of before, put back from a copy or by its "
    "disk, and has forgotten what was promised since, so it stopped for good: it waits to be removed, and replaced by "
    "a new replica"
)
HANDS_OVER: Final = "the leader takes nothing new while it hands over; ask again"


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
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
        cache_lease_ms: int = LEASE_MS,
        stopped: str = "",
        agreed_index: int = 0,
        bounds: TurnBounds | None = None,
    ) -> None:
        """`stopped`: why it takes no part, as the journal says; "" where it does. `agreed_index`: see `States`."""
        self.stopped = stopped
        self._stopping = ""
        self._unknown = ""
        """What it has come to in its log that this program does not know; "": nothing."""
        self.cluster = cluster
        self.cluster_name = cluster_name
        self.replica = replica
        self.engine = engine
        self.machine = machine
        self.levels = Levels()
        self.bounds = bounds or TurnBounds()
        self._cache_lease_ms = cache_lease_ms
        self._cache_number = 1
        """Of no cache's lease yet: a leader that serves again in the same term must not give one twice."""
        self._tenure: Tenure | None = None
        """Of a leader that has applied the first entry of its own term; None elsewhere."""
        self._term = engine.term
        self._turn_us = now_us
        """When this turn began."""
        self._answered_up_to_us = 0
        """Every keep-alive that came before the round sent at this time is answered: what a lease may be held against
        (history 3). Behind the engine's own confirmation, which comes within a turn, before its reads are answered."""
        self.history = History(now_us)
        self.meters = Meters()
        self.states = States(
            replica, engine, machine, self.meters, now_us, compaction or Compaction(), compare_us, agreed_index
        )
        self.digested = (-1, "")
        """The digest of all that was applied up to an index, for status (`report.py`)."""
        self._head: Head | None = None
        """What the journal took in this turn."""
        self._inherited = (0, 0)
        """Of a leader its term, and what its log had when it was first seen to lead."""
        self._commands: list[Asked] = []
        self._entries: list[bytes] = []
        """Of `_commands`, in the same order."""
        self.gathering = Gathering()
        self._answered: list[str] = []
        """Who was answered in this turn, and may come back at once."""
        self._signer: tuple[Caller, Stamp | None] | None = None
        """The caller of the packet that is taken in, whose requests may be taken, and its stamp."""
        self._stamps = Stamps(machine)
        self._proposals: dict[int, Proposal] = {}
        self._unapplied: deque[tuple[int, int]] = deque()
        """What was proposed in this leadership and is not applied, by turn: the last index, and bytes."""
        self._unapplied_bytes = 0
        self._waiters = GrantWaiters()
        self.reading = self._new_reading(engine, machine)
        self._resumes = (0, 0)
        """Of a leader that ceased to serve: its term, and up to where it is to apply before it serves again."""

    @property
    def leases(self) -> Leases | None:
        """Of a leader that has applied the first entry of its own term; None elsewhere."""
        return None if self._tenure is None else self._tenure.leases

    @property
    def counts_time(self) -> bool:
        """Does it lead, and count a lease, a lock-delay or the time to a checkpoint?"""
        return self._tenure is not None and self._tenure.due_in_us is not None

    @property
    def configuration(self) -> Configuration:
        return self.engine.configuration

    @property
    def leader_node(self) -> str:
        """The node of the leader, "" where this replica knows of none."""
        return self.engine.configuration.node_of(self.engine.leader)

    @property
    def pending(self) -> tuple[int, int, int]:
        """How many wait here: proposals for their entry to be applied, reads for a majority's word, and acquisitions
        for their grant to be pushed. May be asked from another thread."""
        tenure = self._tenure
        held = 0 if tenure is None else tenure.caching.held
        return len(self._commands) + held + len(self._proposals), self.reading.count, self._waiters.count

    @property
    def watches(self) -> int:
        """How many wait here for changes. May be asked from another thread."""
        tenure = self._tenure
        return 0 if tenure is None else tenure.watches.count

    @property
    def waits_for(self) -> str:
        """Why it serves nothing, in words; "" where nothing keeps it from it."""
        return self.stopped or self.states.comparison.why or self.states.trouble

    def _others(self) -> list[int]:
        """The other members that have a state machine."""
        return [m.replica for m in self.configuration.members if not m.witness and m.replica != self.replica]

    @property
    def _serves(self) -> bool:
        """May it answer callers, as far as its own state goes?"""
        term, index = self._resumes
        engine = self.engine
        return engine.is_fit and not self._stopping and (engine.applied_index >= index or engine.term != term)

    # --- what comes in ----------------------------------------------------------------------------

    def may(self, caller: Caller, act_for: str, right: str) -> bool:
        """Has the caller, or whom it may act for, this right altogether, by this replica's copy of the log?"""
        own = self._stamps.own(caller)
        stamp = self._stamps.acting(own, act_for) if own is not None and act_for else own
        if not isinstance(stamp, Stamp):
            return False
        access = self.machine.access(*stamp)
        return not isinstance(access, commands.Failure) and access.may(right)

    def ask(self, caller: Caller, request: wire.CommandRequest | ReadRequest, answers: Answers, now_us: int) -> None:
        """Take a client's request; it is answered in this turn or a later one, or lost with the leadership."""
        known = self._signer
        if known is None or known[0] is not caller:
            # Of another packet: within one, nothing changes that this asks.
            if self.engine.role is not Role.LEADER or not self._serves:
                return answers.add(caller, wire.NotLeader(request.id, whom_to_ask(self.engine)))
            known = self._signer = (caller, self._stamps.own(caller))
        own = known[1]
        act_for: str = getattr(request, "act_for", "")
        stamp = self._stamps.acting(own, act_for) if own is not None and act_for else own
        if type(stamp) is UnknownToken and own is not None and self.engine.applied_own_term:
            stamp = stamp.stamp(own)
        if not isinstance(stamp, Stamp):
            return self._refuse_stamp(caller, request.id, stamp, answers)
        if type(request) is not wire.CommandRequest:
            return self.reading.ask(Read(caller, request, stamp, now_us, 0), answers)  # type: ignore[arg-type]
        encoded = request.command
        if len(encoded) > COMMAND_BYTES_MAX:
            message = f"a command has at most {COMMAND_BYTES_MAX} bytes, got {len(encoded)}"
            return self._refuse(caller, request.id, answers, commands.INVALID, message)
        command = wire.decode_command(encoded)
        if type(command.op) is commands.Transact and transactions.is_too_deep(command.op):
            message = f"a transaction that is nested more than {files.READ_NESTING_MAX} deep is not read"
            return self._refuse(caller, request.id, answers, commands.INVALID, message)
        self.gathering.arrived(caller.channel, now_us)
        self._commands.append(Asked(caller, request.id, command.op, command.session, now_us))
        self._entries.append(self._stamps.entry(stamp, encoded))
        return None

    def _refuse_stamp(
        self, caller: Caller, request_id: int, stamp: UnknownToken | commands.Failure | None, answers: Answers
    ) -> None:
        """Of a caller whom nothing is known of that its requests could be stamped with."""
        if not isinstance(stamp, commands.Failure):
            # Not known here, or not yet: a leader that is still applying what it inherited must not judge.
            return answers.add(caller, wire.NotLeader(request_id, ""))
        return answers.add(caller, wire.Answer(request_id, stamp))

    def hear_dropped(self, caller: Caller, said: wire.DroppedRequest) -> None:
        """A client serves no more what it was told to drop."""
        if self._tenure is not None and said.term == self.engine.term == self._term:
            own = self._stamps.own(caller)
            if own is not None:
                cached_reads.hear_dropped(cached_reads.Asker(caller, own, said.term), said, self._tenure, self.machine)

    def hear_digest(self, sender: int, said: wire.StateDigest) -> None:
        """Another replica says what its state is after an entry, or what it can apply."""
        if said.version < 0:
            self.levels.hear(sender, said)
        else:
            self.states.hear_digest(sender, said)

    @staticmethod
    def _refuse(caller: Caller, request_id: int, answers: Answers, code: str, message: str) -> None:
        answers.add(caller, wire.Answer(request_id, commands.Failure(code, message)))

    def tick(self, now_us: int, *, connected: bool) -> None:
        """Let time pass for the engine and for what a leader counts. After everything that came was taken in."""
        self._turn_us = now_us
        self._signer = None
        self.engine.tick(now_us)
        tenure = self._tenure
        if self.engine.role is Role.LEADER and not self.engine.is_fit:
            self.states.tick_in_doubt(now_us)
        if tenure is None or self.engine.role is not Role.LEADER or self.engine.term != self._term:
            return  # Of a cluster of one voter the tick may have ended one leadership and begun another.
        tenure.leases.advance(now_us, connected=connected)
        tenure.caching.pass_time(now_us, self.engine.last_index)
        for op in tenure.due(self._answered_up_to_us, self._others):
            if self.engine.propose([COMMAND_PREFIX + encode_node_entry(op)]) is None:
                tenure.refused(op)
            elif isinstance(op, commands.ExpireSessions):
                self.meters.sessions_expired += len(op.sessions)
        if tenure.leases.take_wants_round():
            self.reading.begin_round(lease_ok=False)  # For its round alone.
        self.states.tick(now_us)

    # --- the turn's middle ------------------------------------------------------------------------

    def write(self, ready: Ready) -> Write | None:
        """What the journal is to take in this turn; None where nothing."""
        head = self._head = self.states.head(ready, stopping=bool(self._stopping))
        if ready.hard_state is None and head is None and not self._stopping:
            return None
        hard_state = ready.hard_state or HardState(self.engine.term, self.engine.vote, self.engine.commit_index)
        return Write(self.replica, hard_state, ready.first_index, ready.terms, ready.entries, head, self._stopping)

    def prepare(self, answers: Answers, journal: Journal, now_us: int) -> Ready:
        """Propose what was asked and say what is to be written and sent."""
        if self.engine.term != self._term:
            # Of a cluster of one voter, one leadership may follow upon another with no turn in between.
            self._term = self.engine.term
            self._abdicate(answers)
        if self.engine.forgot or self.states.has_news:
            self._judge_state(answers, now_us)
        self.states.prepare(journal, now_us)
        if (self._commands and not self._gathers(now_us)) or self._holds_back:
            self._propose(answers)
        self.reading.begin(answers, now_us)
        ready = self.engine.ready(now_us)
        if self.reading.left.has_words:
            ready.early.extend(self.reading.left.take_words())
        return ready

    def _gathers(self, now_us: int) -> bool:
        """Are the commands to share a later commit?"""
        gathering = self.gathering
        if self.engine.role is not Role.LEADER:
            gathering.end()
            return False
        return gathering.holds(len(self._commands), now_us)

    def _judge_state(self, answers: Answers, now_us: int) -> None:
        """Serve nothing while in doubt of the own state, and take no part any more where it is known to differ, or its
        disk to be one of before."""
        differs = self.states.judge() is Verdict.DIFFERS
        if differs or self.engine.forgot:
            self._stopping = self.states.comparison.why if differs else FORGOT % self.engine.forgot
            self.engine.step_down(now_us)
        if not self._serves:
            self._abdicate(answers)

    def take_peer_words(self, now_us: int) -> list[Outgoing]:
        """What is to be said to other replicas beside the engine's messages, after the journal."""
        words = self.states.take_peer_words(now_us)
        words += self.levels.take_answers()
        if self.reading.delegate.due_us != NEVER_US:
            words += self.reading.delegate.take_words(now_us)
        if self._tenure is not None and self.machine.state.level < self.levels.own:
            words += self.levels.ask(self.engine.term, self._others(), now_us)
        return words

    @property
    def _holds_back(self) -> bool:
        """May anybody keep what a command of now would change?"""
        tenure = self._tenure
        if tenure is not None:
            return not tenure.caching.is_idle
        engine = self.engine
        if engine.role is not Role.LEADER:
            return False
        if self._inherited[0] != engine.term:
            self._inherited = (engine.term, engine.last_index)
        # What a log holds that is not applied yet may say that somebody caches.
        return bool(self.machine.state.caching) or engine.applied_index + 1 < self._inherited[1]

    def _propose(self, answers: Answers) -> None:
        holds_back, tenure = self._holds_back, self._tenure
        if holds_back and tenure is None:
            self._put_off(answers)
            return
        taken, self._commands = self._commands, []
        entries, self._entries = self._entries, []
        if holds_back and tenure is not None:
            taken, entries, refused = tenure.caching.take(taken, entries)
            self._has_no_room(refused, answers, NO_ROOM_TO_HOLD)
        if entries:
            self._append(taken, entries, answers)
        if tenure is not None:
            tenure.caching.proposed(self.engine.last_index)

    def _put_off(self, answers: Answers) -> None:
        """Keep the commands until it is known who caches; what is beyond the bounds is refused."""
        count = size = 0
        for entry in self._entries[:HELD_MAX]:
            size += len(entry)
            if size > HELD_BYTES_MAX:
                break
            count += 1
        self._has_no_room(self._commands[count:], answers, NO_ROOM_TO_HOLD)
        del self._commands[count:], self._entries[count:]

    def _has_no_room(self, refused: list[Asked], answers: Answers, message: str) -> None:
        """None of these is proposed. Only this may be said so of a command: a client passes it on to its caller."""
        self.meters.proposals_failed += len(refused)
        for one in refused:
            answers.overloaded(one.caller, one.request_id, message)

    def _append(self, taken: list[Asked], entries: list[bytes], answers: Answers) -> None:
        size = bytes_in(entries)
        if self._unapplied_bytes and self._unapplied_bytes + size > UNAPPLIED_BYTES_MAX:
            return self._has_no_room(taken, answers, NO_ROOM_TO_APPLY)
        if self.engine.last_index + len(entries) > CLIENTS_INDEX_MAX:
            return self._has_no_room(taken, answers, NO_INDEX_LEFT)
        first_index = self.engine.propose(entries)
        if first_index is not None:
            self._unapplied.append((self.engine.last_index, size))
            self._unapplied_bytes += size
            term, proposals = self.engine.term, self._proposals
            index = first_index
            for asked in taken:
                proposals[index] = (term, asked)
                index += 1
            callers = [one.caller.channel for one in taken]
            self.gathering.proposed(callers, self.engine.last_index, self._turn_us)
            return None
        engine = self.engine
        leads = engine.role is Role.LEADER
        if leads and engine.is_fit and not engine.is_handing_over:
            return self._has_no_room(taken, answers, NO_ROOM_IN_LOG)
        self.meters.proposals_failed += len(taken)
        for proposal in taken:
            if leads:
                # Of which callers hear nothing, as in a rolling restart: their clients ask again.
                self._refuse(proposal.caller, proposal.request_id, answers, commands.BUSY, HANDS_OVER)
            else:
                answers.add(proposal.caller, wire.NotLeader(proposal.request_id, self.leader_node))
        return None

    def finish(self, ready: Ready, answers: Answers, now_us: int, took_us: int) -> None:
        """The journal has what `ready` asked for, which took so long: apply what is committed, answer who asked."""
        engine = self.engine
        engine.persisted(ready)
        if self._stopping:
            self.stopped = self._stopping
            self.states.end(self._head)
            return
        if self._head is not None:
            self.states.begin_behind(self._head, installed=ready.install is not None)
        was_left_reads = self.reading.delegate.has_heard
        if was_left_reads:
            self.reading.learn()
        self._apply(answers, now_us, took_us)
        if self._unknown:
            self._leave_to_a_later_version(answers, now_us)
            return
        if was_left_reads:
            self.reading.judge(now_us, serves=self._serves)
        if self._tenure is not None:
            self._tenure.watches.look(self.machine.state)
            self._tenure.caching.applied(engine.applied_index)
        self.states.advance(now_us)
        self.reading.confirm()
        if engine.role is not Role.LEADER or not self._serves:
            if self._is_waited_for or (self.reading.delegate.has_ready and not self._serves):
                self._abdicate(answers)
        elif self.leases is None and engine.applied_own_term:
            self._tenure = Tenure(self.machine, self.levels, self._new_caching(now_us), now_us)
            self.states.put_off(now_us)
            self._answered_up_to_us = 0
        self.reading.answer(self._tenure, answers, now_us)
        if self._tenure is not None:
            watching.answer(self._tenure, self.machine, self.engine.term, now_us, answers, self.bounds.read_rows)
            self._tell_caches(self._tenure, answers)
        if not self.reading.has_confirmed:
            self._answered_up_to_us = engine.confirmed_at_us
        self.history.observe(self, now_us)

    def disk_took(self, took_us: int, now_us: int) -> None:
        """The journal's commit of this turn took so long."""
        self.engine.disk_took(took_us, now_us)
        self.gathering.took(took_us)

    def _new_reading(self, engine: Engine, machine: Machine) -> Reading:
        return Reading(self.replica, engine, machine, self._stamps, self._waiters, self.bounds)

    def _new_caching(self, now_us: int) -> Caching:
        return Caching(self.machine, now_us, self.engine.last_index, self._cache_lease_ms, self._cache_number)

    @property
    def _is_waited_for(self) -> bool:
        """Is there anything that only a leader has?"""
        return self._callers_wait or self._tenure is not None

    @property
    def _callers_wait(self) -> bool:
        """Does anybody wait for what was taken in before this turn?"""
        return bool(self._proposals or self.reading.is_waited_for or self._waiters.count)

    def _abdicate(self, answers: Answers) -> None:
        """Whoever waits for this leader asks the next one; a retry is harmless. (Raft, section 8)"""
        elsewhere = whom_to_ask(self.engine)
        if self._tenure is not None:
            for caller, request_id in self._tenure.checkpoints.take_held():
                answers.add(caller, wire.NotLeader(request_id, elsewhere))
            for watch in self._tenure.watches.take_all():
                answers.add(watch.caller, wire.NotLeader(watch.request_id, elsewhere))
            for one in self._tenure.caching.take_held():
                self.meters.proposals_failed += 1
                answers.add(one.caller, wire.NotLeader(one.request_id, elsewhere))
            self._cache_number = self._tenure.caching.next_number
            # Where the leadership goes on, what its log holds is known again when it is applied (histories 10 and 11).
            self._resumes = self.engine.term, self.engine.last_index
        self._tenure = None
        self._waiters.clear()
        self.reading.turn_away(answers)
        self._unapplied.clear()
        self._unapplied_bytes = 0
        self.meters.proposals_failed += len(self._proposals)
        for _, proposal in self._proposals.values():
            answers.add(proposal.caller, wire.NotLeader(proposal.request_id, elsewhere))
        self._proposals = {}

    def _leave_to_a_later_version(self, answers: Answers, now_us: int) -> None:
        """It takes no part from here on, as one that is started with such a log takes none. Nothing is written: a
        program that knows the level goes on with it."""
        self.stopped = self._unknown
        self.engine.step_down(now_us)
        self._abdicate(answers)
        self.states.end(self._head)

    # --- apply ------------------------------------------------------------------------------------

    def _apply(self, answers: Answers, now_us: int, took_us: int) -> None:
        if self.engine.applied_index >= self.engine.commit_index:
            return
        committed = self.engine.take_committed(self.bounds.apply_bytes)
        count = len(committed.entries)
        if not self.engine.is_witness:
            self._answered = []
            count = self._apply_some(committed, answers, now_us)
            self.engine.give_back(len(committed.entries) - count)
            if self.engine.role is Role.LEADER:
                self.gathering.applied(self._answered, self.engine.applied_index, now_us, took_us)
        self.states.applied(bytes_in(committed.entries[:count]))
        while self._unapplied and self._unapplied[0][0] <= self.engine.applied_index:
            self._unapplied_bytes -= self._unapplied.popleft()[1]

    def _apply_some(self, committed: Committed, answers: Answers, now_us: int) -> int:
        """Apply as many of them as are work for one turn, one at least; how many these were."""
        machine, proposals = self.machine, self._proposals
        work = machine.state.work
        spent_max = work.rows + work.changes + self.bounds.apply_rows
        count = 0
        latencies_us: list[int] = []
        for index, (term, entry) in enumerate(
            zip(committed.terms, committed.entries, strict=True), committed.first_index
        ):
            if work.rows + work.changes > spent_max:
                break
            count += 1
            if entry[0] != COMMAND:
                continue
            result = machine.apply(index, entry[1:] if len(entry) < SMALL_BYTES else memoryview(entry)[1:])
            proposal = proposals.pop(index, None)
            if proposal is not None and proposal[0] == term:
                caller, request_id, op, session, since_us = proposal[1]
                answers.add(caller, wire.Answer(request_id, result))
                latencies_us.append(now_us - since_us)
                if type(result) is not commands.Queued:
                    self._answered.append(caller.channel)
                if self._waiters.count or type(result) is commands.Queued:
                    self._waiters.follow(op, result, session, caller)
            if machine.events:
                self._tell(answers, index)
                if self._unknown:
                    break
        if latencies_us:
            self.meters.committed(now_us, latencies_us)
        return count

    def _tell(self, answers: Answers, index: int) -> None:
        events, self.machine.events = self.machine.events, []
        tenure = self._tenure
        for event in events:
            match event:
                case SessionBegan(session, ttl_ms):
                    if tenure is not None:
                        tenure.began(session, ttl_ms)
                case SessionEnded(session):
                    self._waiters.forget(session)
                    if tenure is not None:
                        tenure.ended(session)
                case GrantMade(session, name, acquisition, token):
                    caller = self._waiters.take(session, name, acquisition)
                    if caller is not None:
                        self._answered.append(caller.channel)
                        answers.add(caller, wire.GrantPushed(self.cluster, session, name, acquisition, token))
                case StateMarked():
                    self.states.marked(index)
                case LevelUnknown(level):
                    self._unknown = f"its log, entry {index}: {why_unreadable(level)}"
                case _ if tenure is not None:
                    self._tell_tenure(tenure, event, answers)

    def _tell_tenure(self, tenure: Tenure, event: Event, answers: Answers) -> None:
        """What concerns only who counts leases, and whom it may tell something."""
        match event:
            case CheckpointReset(session) if self.engine.role is Role.LEADER:
                for caller, request_id in tenure.was_reset(session):
                    answers.add(caller, wire.KeptAlive(request_id, session, self.machine.sessions[session].ttl_ms))
            case LockDelayed() | LockDelayEnded():
                tenure.delayed(event)
            case LockBroken(session, name, acquisition):
                told = tenure.broken_holds.broken(name, session, acquisition)
                if told is not None:
                    caller, broken = told
                    answers.broken(caller, self.cluster, broken)

    # --- reads ------------------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """Is there work for a next turn at once?"""
        tenure = self._tenure
        woken = tenure is not None and tenure.watches.has_woken
        return woken or self.reading.owes or self.engine.applied_index < self.engine.commit_index

    def due_us(self, now_us: int, *, connected: bool) -> int:
        """When the next turn is due for this replica, if nothing comes before."""
        if self.owes:
            return now_us
        due_us = min(self.engine.deadline_us, self.reading.due_us)
        if self._commands and self.gathering.until_us:
            due_us = min(due_us, self.gathering.until_us)
        slice_us = self.states.due_us
        if slice_us is not None and slice_us < due_us:
            due_us = slice_us
        tenure = self._tenure
        if tenure is None:
            return due_us
        if self.machine.state.level < self.levels.own:
            due_us = min(due_us, self.levels.ask_due_us)
        watch_us, cache_us = tenure.watches.due_us, tenure.caching.due_us()
        if watch_us is not None and watch_us < due_us:
            due_us = watch_us
        if cache_us is not None and cache_us < due_us:
            due_us = cache_us
        left_us = tenure.due_in_us if connected else None  # While deaf, lease time stands still.
        return due_us if left_us is None or due_us < now_us + left_us else now_us + left_us

    @property
    def is_settled(self) -> bool:
        """Does it lead, and nobody waits for its followers: not for an entry, not for a read?"""
        engine = self.engine
        settled = engine.role is Role.LEADER and engine.commit_index == engine.last_index
        return settled and not (self._proposals or self.reading.awaits_others)

    @property
    def is_still(self) -> bool:
        """Has it nothing under way, nobody who waits for it, and nothing to count, until somebody comes or what it is
        to do next is due (`states.mark_due_us`)? Then it may sleep (`sleep.py`)."""
        stopped = self.stopped or self._stopping
        if (
            stopped
            or self.owes
            or self.history.pending
            or self._commands
            or self._callers_wait
            or self.reading.delegate.due_us != NEVER_US
            or not self.states.is_settled
        ):
            return False
        tenure = self._tenure
        if tenure is None:
            return self.engine.role is Role.FOLLOWER
        counts = tenure.due_in_us is not None or tenure.watches.count or self.machine.state.level < self.levels.own
        return self.engine.role is Role.LEADER and not counts

    def _tell_caches(self, tenure: Tenure, answers: Answers) -> None:
        """Those that keep what is about to change."""
        for caller, word in tenure.caching.take_words(self.cluster, self.engine.term):
            answers.add(caller, word)
