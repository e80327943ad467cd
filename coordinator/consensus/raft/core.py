"""One replica's Raft: its state, who handles what comes in, and what is handed to the host.

The rules themselves are in the files beside this one, one for each part of the paper: `elections.py`,
`replication.py`, `reads.py`. They are functions over the `Raft` that they are given; nobody else writes its state.
The order in which a host must call is written in `coordinator/consensus/engine.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from coordinator.consensus.engine import (
    Committed,
    ConfirmedRead,
    Engine,
    HardState,
    Heard,
    Heartbeat,
    Outgoing,
    Ready,
    Role,
    Snapshot,
    Standing,
)
from coordinator.consensus.entries import CONFIGURATION, payload_bytes
from coordinator.consensus.members import Change
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.consensus.raft import changes, elections, reads, replication, sleep, snapshots, standing, transfer
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    Message,
    ReadRequest,
    ReadResponse,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from coordinator.consensus.raft.options import Options, check, quiet_beat_us
from coordinator.consensus.raft.progress import Progress
from coordinator.consensus.raft.rounds import Rounds
from coordinator.consensus.raft.spares import Spares

NOBODY = 0
"""No replica has this identity."""


class Raft(Engine):
    """See `coordinator.consensus.engine.Engine`. All state is public to the modules of this package."""

    configuration: Configuration
    """The one that is in force: the last in the log, whether it is committed or not (Raft, section 6)."""

    def __init__(
        self,
        replica: int,
        hard_state: HardState,
        log: Log,
        *,
        options: Options,
        random: Random,
        now_us: int,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Restart from what the journal held. `random` is seeded by the host; `log` is owned from here on. The state
        machine was restored from `snapshot`, where there is one."""
        check(options)
        if replica <= NOBODY:
            raise ValueError(f"a replica's identity is a positive integer, got {replica}")
        self.replica, self.options = replica, options
        self.random, self.log = random, log
        self.term, self.vote = hard_state.term, hard_state.vote
        self.on_disk = hard_state
        self.role, self.leader = Role.FOLLOWER, NOBODY
        self.heard_at_us: int | None = None
        """When this follower last heard the leader of its term; None: it owes no loyalty to anyone."""
        self.heard_round = self.agreed = (0, 0)
        """Behind its term, the highest round that a leader was heard to send; and up to where the log was found to be
        that of a leader."""
        self.forgot = self.election_due_us = 0
        self.campaign = random.getrandbits(48)
        """Numbers this replica's campaigns; begins anywhere, so that no number repeats over a restart."""
        self.campaign_reason = ""
        self.unanswered: tuple[int, VoteRequest] | None = None
        """Who last asked for a pre-vote and got no answer, since this replica was loyal to its leader."""
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.rounds, self.spares = Rounds(now_us), Spares()
        self.reads = reads.Reads(random.getrandbits(63))
        self.term_start_index = 0
        """A leader's first entry of its own term."""
        self.transferring: transfer.Transfer | None = None
        self.passed_over: set[int] = set()
        """Whom a leader that may not serve has offered its leadership in vain."""
        self.led_since_us = 0
        self.settled = 0
        """Every full voter has the log up to there on disk. Kept in a cluster with witnesses only."""
        self.doubt_seen_us: int | None = None
        """When a leader in doubt was first seen to be that."""
        self.campaigns = 0
        """Campaigns since a leader was known."""
        self.sure_index = 0
        self.is_witness = False
        """Has it no state machine?"""
        self.in_doubt = False
        """The host is not sure of its state machine: this replica must not serve."""
        self.lease_given_up = False
        """This leader told somebody to campaign in this term: its lease holds no more."""
        self.uncommitted_bytes = 0  # Of a leader: the payload behind its commit index, of whatever term.
        self.snapshot = snapshot
        self.incoming: snapshots.Incoming | None = None
        self.installed: Snapshot | None = None
        """A snapshot that has come whole in this turn, and whether the log's tail behind it is kept."""
        self.keep_tail = False
        self.applied = snapshot.last_index if snapshot is not None else 0
        log.commit = max(log.commit, self.applied)
        first = Configuration(()) if snapshot is None else snapshot.configuration
        self.configurations: list[tuple[int, Configuration]] = [(self.applied, first)]
        self.early: list[Outgoing] = []
        self.late: list[Outgoing] = []
        self.confirmed_reads: list[ConfirmedRead] = []
        self.note_configurations(self.applied + 1)
        self.note_kind()
        if options.lease_reads:
            self.heard_at_us = now_us  # It may have promised a leader its loyalty just before it restarted.
        elections.reset_timer(self, now_us)

    # --- what the host may look at ----------------------------------------------------------------

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def first_index(self) -> int:
        return self.log.offset + 1

    @property
    def commit_index(self) -> int:
        return self.log.commit

    @property
    def applied_index(self) -> int:
        """The last index that `take_committed` has handed out."""
        return self.applied

    @property
    def is_handing_over(self) -> bool:
        """Does it lead, and take nothing new until somebody else does?"""
        return self.transferring is not None

    @property
    def is_voter(self) -> bool:
        return self.replica in self.configuration.voter_ids

    @property
    def is_fit(self) -> bool:
        """May it serve as a leader? One that may not leads only to bring the others up to date, and hands over."""
        return not self.in_doubt and not self.is_witness

    @property
    def may_campaign(self) -> bool:
        """Is it a voter, or was it one before changes that are not committed yet? Its log may be the one that is needed
        to commit them (thesis, section 4.2.2)."""
        open_ones = [configuration for index, configuration in self.configurations if index > self.log.commit]
        return any(self.replica in c.voter_ids for c in (self.configuration_at(self.log.commit), *open_ones))

    @property
    def confirmed_at_us(self) -> int:
        """When the last round that a majority has answered was sent. Of a leader only."""
        return self.rounds.confirmed_at_us

    @property
    def may_answer(self) -> bool:
        """Does this leader's commit index speak for all terms before its own? (Raft, section 8)"""
        return self.role is Role.LEADER and self.log.commit >= self.term_start_index

    @property
    def applied_own_term(self) -> bool:
        """Is this a leader that has applied the first entry of its own term, and so everything of the terms before?"""
        return self.role is Role.LEADER and self.applied >= self.term_start_index

    @property
    def votes_granted(self) -> int:
        """Votes of the last campaign that came in before it was decided."""
        return sum(self.votes.values())

    @property
    def deadline_us(self) -> int:
        """When `tick` has something to do next."""
        if self.role is Role.LEADER:
            # A quiet leader beats so seldom that it would look too late whether a majority still answers.
            due_us = min(replication.beat_due_us(self), elections.quorum_due_us(self))
            return min(due_us, self.spares.due_us)
        return self.election_due_us

    @property
    def arrived(self) -> Snapshot | None:
        """A snapshot from a leader that is whole and not in place yet: get it ready, then `install`."""
        return snapshots.arrived(self)

    # --- what comes in ----------------------------------------------------------------------------

    def step(self, sender: int, message: Message, now_us: int) -> None:
        """Take one message. Its sender need not be a member by this replica's log, which may be behind."""
        if sender == self.replica:
            return
        match message:
            case AppendEntries():
                replication.on_append_entries(self, sender, message, now_us)
            case AppendResponse():
                replication.on_append_response(self, sender, message, now_us)
            case VoteRequest():
                elections.on_vote_request(self, sender, message, now_us)
            case VoteResponse():
                elections.on_vote_response(self, sender, message, now_us)
            case InstallSnapshot():
                snapshots.on_install(self, sender, message, now_us)
            case SnapshotResponse():
                snapshots.on_response(self, sender, message, now_us)
            case ReadRequest():
                reads.on_request(self, sender, message)
            case ReadResponse():
                reads.on_response(self, message)
            case TimeoutNow():
                elections.on_timeout_now(self, sender, message, now_us)

    def tick(self, now_us: int) -> None:
        """Let time pass: call at least whenever `deadline_us` has come."""
        elections.tick(self, now_us)

    def stood_still(self, us: int) -> None:
        """The host itself stood still for so long, and heard nobody: call it before what came meanwhile is taken in."""
        elections.stood_still(self, us)

    def suspect(self, leader: int, now_us: int) -> None:
        """The host itself saw the channel of `leader` fall silent (the crash hint)."""
        elections.suspect(self, leader, now_us)

    def propose(self, entries: list[bytes], *, in_doubt: bool = False) -> int | None:
        """Append to the leader's log; the index of the first, or None where this is no leader, is not fit to serve,
        hands over, or has its bound of uncommitted bytes. That never refuses what has no payload, nor what comes when
        nothing else waits. `in_doubt`: though this replica doubts its state, of which the entries say nothing."""
        if self.role is not Role.LEADER or self.transferring is not None:
            return None
        if not self.is_fit and not (in_doubt and not self.is_witness):
            return None
        size = payload_bytes(entries)
        if size and self.uncommitted_bytes and self.uncommitted_bytes + size > self.options.uncommitted_bytes_max:
            return None
        self.uncommitted_bytes += size
        first_index = self.log.last_index + 1
        self.append(first_index, [self.term] * len(entries), entries)
        return first_index

    def read(self, *, lease_ok: bool = False) -> int | None:
        """Ask for a linearizable read; its ticket, or None where no leader is known or this replica may not serve.
        A follower asks its leader; what is lost on the way is never answered, and asked again by whoever waits.

        `lease_ok`: where lease reads are switched on, the leader's lease will do instead of a majority's word."""
        return reads.begin(self, lease_ok=lease_ok)

    def delegate(self, now_us: int) -> int:
        """The voter that this leader may leave linearizable reads to; 0 where there is none."""
        return reads.delegate(self, now_us)

    def stands_in(self, leader: int, term: int, read_index: int) -> bool:
        """May this replica answer reads that `leader` left to it in `term`, as soon as it has applied `read_index`?"""
        return reads.stands_in(self, leader, term, read_index)

    def doubt(self, in_doubt: bool, sure_index: int = 0) -> None:
        """The host doubts its state machine, or no longer: this replica must not serve meanwhile. Up to `sure_index`
        the state is known to have been right: a snapshot up to there may still be given to others."""
        self.in_doubt, self.sure_index = in_doubt, sure_index
        if not in_doubt:
            self.doubt_seen_us = None

    def install(self) -> None:
        """What has `arrived` is ready to be put in place: the next `ready` asks for it."""
        snapshots.install(self)

    def refuse(self) -> None:
        """What has `arrived` can not be used: it must come again, all of it."""
        self.incoming = None

    def disk_took(self, took_us: int, now_us: int) -> None:
        """The journal's last commit took so long. A leader whose disk stalls gives way (etcd#15247)."""
        if took_us >= self.options.disk_stall_us and now_us - self.led_since_us >= self.options.stall_pause_us:
            transfer.give_way(self, now_us)

    # --- heartbeats that hosts speak --------------------------------------------------------------

    @property
    def heartbeat_us(self) -> int:
        """Between two heartbeats of a quiet cluster; two and a half fit into the shortest election time-out."""
        return quiet_beat_us(self.options)

    def heartbeat(self, now_us: int) -> Heartbeat | None:
        """What the host of this quiet leader may say for it to all members, not in rounds; None where it may not."""
        return sleep.heartbeat(self, now_us)

    def would_answer(self, said: Heartbeat) -> bool:
        """May the host of this follower answer this for it?"""
        return sleep.would_answer(self, said)

    def heard(self, at_us: int) -> None:
        """The host took in at `at_us`, and answered, what this follower would have answered."""
        sleep.heard(self, at_us)

    def answered(self, by: Mapping[int, Heard]) -> None:
        """For each follower the last of what was said for this leader that was answered for the follower."""
        sleep.answered(self, by)

    # --- what an operator asks --------------------------------------------------------------------

    @property
    def configuration_index(self) -> int:
        """Where the configuration in force is in the log, or in the snapshot at its start; committed or not."""
        return self.configurations[-1][0]

    @property
    def promote_lag_max(self) -> int:
        """A learner that lacks more entries than this is not made a voter."""
        return self.options.promote_lag_entries_max

    @property
    def quorum_us(self) -> int:
        """A member that was not heard for so long does not count as answering."""
        return self.options.election_timeout_us_min

    def standing(self, now_us: int) -> list[Standing]:
        """How far each member has come; nothing where this is no leader."""
        return standing.of_members(self, now_us)

    def captured(self) -> tuple[Snapshot | None, Committed]:
        """The last snapshot, and the committed entries that have been applied behind it: together, the state."""
        first_index = self.log.offset if self.snapshot is None else self.snapshot.last_index
        terms, entries = self.log.slice(first_index + 1, self.applied, bytes_max=1 << 62)
        return self.snapshot, Committed(first_index + 1, terms, entries)

    def best_successor(self, now_us: int, *, but: int = 0) -> int | None:
        """The other voter that answers and is furthest, to hand leadership to; never `but`."""
        return standing.best_successor(self, now_us, but)

    def change(self, change: Change, now_us: int) -> int:
        """Begin a change of membership; the index of its first configuration. Raises ChangeRefused."""
        return changes.begin(self, change, now_us)

    def transfer(self, target: int, now_us: int) -> bool:
        """Hand leadership to the replica `target`; False where that can not be. It may come to nothing. To name the
        leader itself aborts a transfer that is under way; False where none is."""
        return transfer.begin(self, target, now_us)

    def step_down(self, now_us: int) -> None:
        """Lead no longer, and tell the one who is furthest to campaign."""
        if self.role is not Role.LEADER:
            return
        successor = transfer.best_successor(self)
        term = self.term
        elections.become_follower(self, term, NOBODY, now_us)
        if successor is not None:
            self.lease_given_up = True
            self.early.append(Outgoing(successor, TimeoutNow(term)))

    def campaign_now(self, now_us: int) -> None:
        """Try to lead, where a majority would have it."""
        elections.campaign(self, now_us)

    # --- what goes out ----------------------------------------------------------------------------

    def ready(self, now_us: int) -> Ready:
        """What is to be done now; see the module of the engine for the order."""
        snapshots.drop_overtaken(self)
        if self.role is Role.LEADER:
            removed = changes.go_on(self, now_us)
            if self.may_answer:
                reads.confirm_by_lease(self, now_us)
            replication.replicate(self, now_us)
            transfer.tell(self)
            if self.may_answer:
                reads.confirm(self)
            if removed:
                self.step_down(now_us)
        hard_state = HardState(self.term, self.vote, self.log.commit)
        must_write = hard_state[:2] != self.on_disk[:2] or self.log.unwritten <= self.log.last_index
        first_index = self.log.unwritten
        terms, entries = self.log.rest(first_index)
        early, late = self.early, self.late
        self.early, self.late = [], []
        if hard_state.term != self.on_disk.term:
            early, late = [], early + late
        install, self.installed = self.installed, None
        if install is not None:
            must_write = True
        return Ready(
            early,
            late,
            hard_state if must_write else None,
            first_index,
            terms,
            entries,
            install,
            keep_tail=self.keep_tail,
        )

    def persisted(self, ready: Ready) -> None:
        """What `ready` asked to write is on disk."""
        if ready.hard_state is not None:
            self.on_disk = ready.hard_state
        self.log.unwritten = ready.first_index + len(ready.entries)
        # A leader that said and wrote nothing counts as it did before.
        if self.role is Role.LEADER and (ready.hard_state is not None or ready.early or not self.progress):
            replication.advance_commit(self)
            if self.rounds.confirmed < self.rounds.current:
                self.rounds.confirm(replication.confirmed_round(self))
            if self.may_answer:
                reads.confirm(self)

    def take_committed(self, bytes_max: int) -> Committed:
        """The next entries to apply, cut at `bytes_max`. The host has applied them when it asks again."""
        first_index = self.applied + 1
        if first_index > self.log.commit:
            return Committed(first_index, [], [])
        terms, entries = self.log.slice(first_index, self.log.commit, bytes_max)
        self.applied += len(entries)
        return Committed(first_index, terms, entries)

    def give_back(self, count: int) -> None:
        """The host has not applied the last so many of what it took, and takes them anew."""
        self.applied -= count

    def tail(self, count: int) -> Committed:
        """The last `count` entries, committed or not; for people to look at."""
        first_index = max(self.log.offset, self.log.last_index - count) + 1
        return Committed(first_index, *self.log.slice(first_index, self.log.last_index, bytes_max=1 << 62))

    def compact(self, snapshot: Snapshot, keep_from: int) -> None:
        """The host has `snapshot` on disk: forget the entries below `keep_from`. Some behind the snapshot's index are
        kept for followers that are a little behind, so that these need no snapshot."""
        assert snapshot.last_index <= self.applied, f"a snapshot of {snapshot.last_index}, applied is {self.applied}"
        before = 0 if self.snapshot is None else self.snapshot.last_index
        assert snapshot.last_index >= before, f"a snapshot of {snapshot.last_index} behind one of {before}"
        self.snapshot = snapshot
        being_sent = [
            progress.snapshot.source.last_index
            for replica, progress in self.progress.items()
            if progress.snapshot is not None and changes.answers(self, replica, self.rounds.all_sent_us)
        ]
        # What a follower needs next, once it has the snapshot that it is being sent, is kept for it.
        self.log.compact(min(keep_from - 1, snapshot.last_index, *being_sent))

    def term_at(self, index: int) -> int:
        """The term of an entry that the log holds, or of the one before its first."""
        term = self.log.term_at(index)
        assert term is not None, f"the log holds no entry {index}"
        return term

    def configuration_at(self, index: int) -> Configuration:
        """The configuration that was in force after the entry at `index`."""
        return next(configuration for at, configuration in reversed(self.configurations) if at <= index)

    def take_reads(self) -> list[ConfirmedRead]:
        """Reads that may be answered; each names the index that must be applied first."""
        taken, self.confirmed_reads = self.confirmed_reads, []
        return taken

    # --- for the modules of this package ----------------------------------------------------------

    def append(self, first_index: int, terms: list[int], entries: list[bytes]) -> None:
        """Add entries behind the last one."""
        assert first_index == self.log.last_index + 1, f"entries for {first_index} behind {self.log.last_index}"
        self.log.append(terms, entries)
        self.note_configurations(first_index)

    def truncate(self, first_index: int) -> None:
        """Forget a conflicting tail, and the configurations in it."""
        self.log.truncate(first_index)
        while self.configurations[-1][0] >= first_index:
            self.configurations.pop()
        self.configuration = self.configurations[-1][1]

    def note_configurations(self, first_index: int) -> None:
        """Take on configurations from `first_index` on as soon as they are in the log (Raft, section 6)."""
        log = self.log
        for position in range(first_index - log.offset - 1, len(log.entries)):
            entry = log.entries[position]
            if entry[0] == CONFIGURATION:
                self.configurations.append((log.offset + 1 + position, decode_configuration(entry)))
                self.note_kind()
        self.configuration = self.configurations[-1][1]

    def note_kind(self) -> None:
        """A witness is one from before the configuration that names it (only witnesses begin behind a snapshot without
        a state), and for good, though it be removed or that entry cut off: what it did not apply, its state lacks."""
        without_state = self.snapshot is not None and not self.snapshot.data
        named = any(c.is_witness(self.replica) for _, c in self.configurations)
        self.is_witness = self.is_witness or without_state or named

    def note_contact(self, progress: Progress, number: int, now_us: int) -> None:
        """A follower has answered round `number`. What was answered before is a copy, or late: no sign of life."""
        if number > progress.acked_round:
            progress.acked_round, progress.heard_at_us = number, now_us
        self.rounds.confirm(replication.confirmed_round(self))

    def drop_leadership(self) -> None:
        """Forget what only a leader knows."""
        self.progress = {}
        self.transferring = None
        self.reads.drop()
        self.confirmed_reads = []
        self.uncommitted_bytes = 0
