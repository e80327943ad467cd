"""Quorums, the log and the leader's picture of a follower, each against a model so simple that it is plainly right.

- quorums: every subset of the voters is looked at;
- the log: a list that never forgets, and a second list that is the disk;
- progress: a real leader against a follower that is a list, over a network that loses, repeats and reorders.
"""

from __future__ import annotations

from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.consensus.engine import HardState, Role, Snapshot
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import (
    ChangeRefused,
    Configuration,
    decode_configuration,
    encode_configuration,
    next_configuration,
)
from coordinator.consensus.quorum import Tally
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    Message,
    SnapshotResponse,
    VoteResponse,
)
from coordinator.consensus.raft.options import Options
from coordinator.consensus.raft.progress import Progress, ProgressState
from tests.unit.consensus.play import Disk, Play

# --- quorums --------------------------------------------------------------------------------------

REPLICAS = range(1, 8)
SOME = st.sets(st.sampled_from(REPLICAS), max_size=7)


def members(replicas: set[int]) -> tuple[Member, ...]:
    return tuple(Member(replica, f"node{replica}") for replica in sorted(replicas))


def ids(some: tuple[Member, ...]) -> set[int]:
    return {member.replica for member in some}


def majorities(voters: set[int]) -> list[set[int]]:
    """Every set of voters that is more than half of them."""
    return [
        set(chosen)
        for size in range(len(voters) + 1)
        for chosen in combinations(sorted(voters), size)
        if 2 * size > len(voters)
    ]


def quorums(configuration: Configuration) -> list[set[int]]:
    """Every set that decides: a majority of the voters and, where it is joint, one of those of before."""
    found = majorities(ids(configuration.voters))
    if configuration.outgoing:
        found = [one | other for one in found for other in majorities(ids(configuration.outgoing))]
    return found


class QuorumsAgainstEverySubset(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.configuration = Configuration(members({1, 2, 3}))
        self.values = dict.fromkeys(REPLICAS, 0)
        self.votes: dict[int, bool] = {}

    @rule(voters=SOME, learners=SOME)
    def change(self, voters, learners):
        before = self.configuration
        wanted = Change(members(voters), members(learners))
        try:
            after = next_configuration(before, wanted)
        except ChangeRefused:
            assert before.is_joint or not voters or voters & learners
            return
        assert not before.is_joint
        assert voters
        assert not voters & learners
        assert (after.voters, after.learners) == (wanted.voters, wanted.learners)
        assert after.is_joint == (len(ids(before.voters) ^ voters) > 1)
        assert after.outgoing == (before.voters if after.is_joint else ())
        self.moves_to(after)

    @precondition(lambda self: self.configuration.is_joint)
    @rule()
    def leave(self):
        self.moves_to(self.configuration.left())
        assert not self.configuration.is_joint

    def moves_to(self, after: Configuration) -> None:
        """Raft, section 6: no two quorums of two configurations in a row decide without each other."""
        assert all(one & other for one in quorums(self.configuration) for other in quorums(after))
        self.configuration = after

    @rule(replica=st.sampled_from(REPLICAS), value=st.integers(0, 9))
    def reaches(self, replica, value):
        self.values[replica] = value

    @rule(replica=st.sampled_from(REPLICAS), granted=st.booleans())
    def votes_for(self, replica, granted):
        self.votes[replica] = granted

    @rule()
    def votes_are_forgotten(self):
        self.votes = {}

    @invariant()
    def what_is_reached_is_what_some_quorum_has(self):
        reached = max(min(self.values[voter] for voter in quorum) for quorum in quorums(self.configuration))
        assert self.configuration.reached(self.values) == reached

    @invariant()
    def an_election_is_won_by_a_quorum_and_lost_when_none_is_left(self):
        found = quorums(self.configuration)
        won = any(all(self.votes.get(voter) is True for voter in quorum) for quorum in found)
        open_ = any(all(self.votes.get(voter) is not False for voter in quorum) for quorum in found)
        expected = Tally.WON if won else Tally.PENDING if open_ else Tally.LOST
        assert self.configuration.tally(self.votes) is expected

    @invariant()
    def everybody_is_a_member_once(self):
        configuration = self.configuration
        everybody = ids(configuration.voters) | ids(configuration.outgoing) | ids(configuration.learners)
        assert sorted(configuration.voter_ids) == sorted(ids(configuration.voters) | ids(configuration.outgoing))
        assert sorted(member.replica for member in configuration.members) == sorted(everybody)
        for replica in REPLICAS:
            assert (configuration.member(replica) is not None) == (replica in everybody)
            assert configuration.node_of(replica) == (f"node{replica}" if replica in everybody else "")

    @invariant()
    def an_entry_holds_it_whole(self):
        assert decode_configuration(encode_configuration(self.configuration)) == self.configuration


TestQuorumsAgainstEverySubset = QuorumsAgainstEverySubset.TestCase
TestQuorumsAgainstEverySubset.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


# --- the log --------------------------------------------------------------------------------------

Entry = tuple[int, bytes]
"""Term and bytes."""


class LogAgainstAList(RuleBasedStateMachine):
    """`self.all`: every entry from the first on, as if nothing were ever forgotten. `self.disk`: what the journal
    holds, from `self.disk_offset` on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.all: list[Entry] = []
        self.offset = 0
        self.commit = 0
        self.log = Log([], [], 0)
        self.disk: list[Entry] = []
        self.disk_offset = 0
        self.keep_tail: bool | None = None
        """Of a snapshot that came since the last write; None: none came."""

    def fresh(self, terms: list[int]) -> list[Entry]:
        self.count += len(terms)
        return [(term, b"\x01%d" % (self.count - at)) for at, term in enumerate(terms)]

    def last_term(self) -> int:
        return self.all[-1][0] if self.all else 0

    @rule(steps=st.lists(st.integers(0, 2), min_size=1, max_size=4))
    def append(self, steps):
        terms = [self.last_term() + sum(steps[: at + 1]) for at in range(len(steps))]
        new = self.fresh(terms)
        self.all += new
        self.log.append([term for term, _ in new], [entry for _, entry in new])

    @precondition(lambda self: len(self.all) > max(self.commit, self.offset))
    @rule(data=st.data(), count=st.integers(1, 3))
    def replace(self, data, count):
        """A tail is cut off only where another takes its place: what the journal does not replace stays there."""
        first = data.draw(st.integers(max(self.commit, self.offset) + 1, len(self.all)))
        term = self.last_term() + 1
        del self.all[first - 1 :]
        self.log.truncate(first)
        new = self.fresh([term] * count)
        self.all += new
        self.log.append([term for term, _ in new], [entry for _, entry in new])

    @rule(data=st.data())
    def commit_more(self, data):
        self.commit = self.log.commit = data.draw(st.integers(self.commit, len(self.all)))

    @rule()
    def write(self):
        """What the host does in one commit of the journal: the snapshot, then the entries from the first unwritten."""
        log = self.log
        if self.keep_tail is not None:
            self.disk = self.disk[self.offset - self.disk_offset :] if self.keep_tail else []
            self.disk_offset, self.keep_tail = self.offset, None
        terms, entries = log.slice(log.unwritten, log.last_index, 1 << 30)
        if entries:
            self.disk[log.unwritten - 1 - self.disk_offset :] = list(zip(terms, entries, strict=True))
        log.unwritten = log.last_index + 1
        assert self.disk == self.all[self.offset :], "what a restart would find is what memory holds"

    @precondition(lambda self: self.keep_tail is None)
    @rule(data=st.data())
    def compact(self, data):
        to = data.draw(st.integers(0, min(self.commit, self.log.unwritten - 1)))
        self.log.compact(to)
        if to > self.offset:
            self.disk = self.disk[to - self.disk_offset :]
            self.offset = self.disk_offset = to

    @precondition(lambda self: self.keep_tail is None)
    @rule(ahead=st.integers(1, 6), matches=st.booleans(), step=st.integers(0, 2))
    def install(self, ahead, matches, step):
        index = self.commit + ahead
        if matches and index <= len(self.all):
            term = self.all[index - 1][0]
            tail = self.all[index:]
        else:
            term = self.last_term() + 1 + step  # Of a term that no entry of this log has.
            tail = []
        known = self.all[: index - 1]
        known += self.fresh([self.last_term()] * (index - 1 - len(known)))
        self.all = [*known, (term, b"of the snapshot"), *tail]
        self.keep_tail = self.log.install(index, term)
        self.offset = self.commit = index

    @invariant()
    def the_log_holds_what_lies_behind_its_offset(self):
        log = self.log
        assert (log.offset, log.commit, log.last_index) == (self.offset, self.commit, len(self.all))
        assert list(zip(log.terms, log.entries, strict=True)) == self.all[self.offset :]
        assert log.last_term == (self.all[-1][0] if self.all else 0)
        for index in range(len(self.all) + 3):
            held = self.offset <= index <= len(self.all)
            term = 0 if index == 0 else self.all[index - 1][0] if index <= len(self.all) else None
            assert log.term_at(index) == (term if held else None)
            for asked in range(6):
                assert log.matches(index, asked) == (held and asked == term)

    @invariant()
    def what_is_on_disk_is_told_from_what_is_not(self):
        log = self.log
        assert self.offset < log.unwritten <= len(self.all) + 1
        if self.keep_tail is None:
            written = self.all[self.offset : log.unwritten - 1]
            assert self.disk[: len(written)] == written

    @rule(data=st.data(), bytes_max=st.integers(0, 12))
    def slice(self, data, bytes_max):
        first = data.draw(st.integers(self.offset + 1, len(self.all) + 1))
        last = data.draw(st.integers(first - 1, len(self.all)))
        terms, entries = self.log.slice(first, last, bytes_max)
        wanted = self.all[first - 1 : last]
        taken = [
            entry
            for at, entry in enumerate(wanted)
            if at == 0 or sum(len(other) for _, other in wanted[: at + 1]) <= bytes_max
        ]
        assert list(zip(terms, entries, strict=True)) == taken

    @rule(index=st.integers(0, 30), term=st.integers(0, 30))
    def hint(self, index, term):
        """Raft, section 5.3, at its end. Below its offset a log knows nothing more exact than its offset."""
        places = [at for at in range(self.offset + 1, min(index, len(self.all)) + 1) if self.all[at - 1][0] <= term]
        at, at_term = self.log.conflict_hint(index, term)
        if index < self.offset:
            assert (at, at_term) == (index, 0)
        else:
            assert at == max(places, default=self.offset)
            assert at_term == (self.all[at - 1][0] if at else 0)

    @rule(terms=st.lists(st.integers(0, 4), max_size=6).map(sorted))
    def compare(self, terms):
        """Raft, section 5.4.1: the later term, and of the same term the longer log, is more up to date."""
        last = terms[-1] if terms else 0
        mine = self.last_term()
        expected = last > mine or (last == mine and len(terms) >= len(self.all))
        assert self.log.up_to_date(len(terms), last) is expected


TestLogAgainstAList = LogAgainstAList.TestCase
TestLogAgainstAList.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


# --- progress -------------------------------------------------------------------------------------

OPTIONS = Options(
    message_bytes_max=40,
    inflight_messages_max=3,
    inflight_bytes_max=80,
    snapshot_chunk_bytes=8,
    snapshot_window_bytes=16,
)
TERM = 9
"""In which the leader leads."""


class ProgressAgainstAFollower(RuleBasedStateMachine):
    """Replica 1 is a real leader, replica 2 acknowledges at once, replica 3 is `self.follower`, a list of entries."""

    @initialize(
        terms=st.lists(st.sampled_from([1, 3, 5, 7]), max_size=8).map(sorted),
        same=st.integers(0, 8),
        others=st.lists(st.sampled_from([2, 4, 6, 8]), max_size=8).map(sorted),
    )
    def begin(self, terms, same, others):
        play = Play(options=OPTIONS)
        first = play.disks[1].entries[0]
        self.all: list[Entry] = [(1, first)] + [(term, b"\x01of %d" % at) for at, term in enumerate(terms)]
        log = [term for term, _ in self.all], [entry for _, entry in self.all]
        play.disks[1] = Disk(HardState(TERM - 1, 0, 1), *log)
        self.now_us = 0
        self.leader = leader = play.start(1)
        leader.role = Role.CANDIDATE
        leader.term, leader.vote, leader.votes, leader.campaign = TERM, 1, {1: True}, 7
        leader.step(2, VoteResponse(TERM, granted=True, pre=False, campaign=7), 0)
        assert leader.role is Role.LEADER
        self.all.append((TERM, b"\x00"))
        agreed = self.all[: 1 + min(same, len(self.all) - 2)]
        # Of terms that led elsewhere: where index and term are the same, the entry is (log matching).
        elsewhere = [(term, b"\x01else %d" % at) for at, term in enumerate(others) if term > agreed[-1][0]]
        self.follower: list[Entry] = agreed + elsewhere
        self.part: tuple[tuple[int, int], bytes] = ((0, 0), b"")
        """The snapshot that is coming: its index and size, and what is here of it."""
        self.known_match = 0
        self.sent: list[Message] = []
        self.answers: list[Message] = []
        self.turn()

    @property
    def progress(self) -> Progress:
        return self.leader.progress[3]

    def turn(self) -> None:
        leader = self.leader
        ready = leader.ready(self.now_us)
        leader.persisted(ready)
        leader.take_committed(1 << 30)
        self.sent += [message for receiver, message in ready.early + ready.late if receiver == 3]

    @rule(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4))
    def propose(self, sizes):
        entries = [b"\x01" + b"x" * size for size in sizes]
        assert self.leader.propose(entries) == len(self.all) + 1
        self.all += [(TERM, entry) for entry in entries]
        self.turn()

    @rule()
    def the_other_acknowledges(self):
        """So that it is committed; then the leader may cut its log."""
        match = self.leader.last_index
        answer = AppendResponse(TERM, 0, success=True, match=match, hint_index=0, hint_term=0)
        self.leader.step(2, answer, self.now_us)
        self.turn()
        assert self.leader.commit_index == match

    @rule(keep=st.integers(0, 3), size=st.integers(1, 40))
    def compact(self, keep, size):
        leader = self.leader
        index = leader.applied_index
        if index:
            taken = Snapshot(index, leader.term_at(index), leader.configuration_at(index), b"s" * size)
            leader.compact(taken, index - keep + 1)

    @rule()
    def time_passes(self):
        self.now_us += OPTIONS.heartbeat_us
        self.turn()

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data, again):
        at = data.draw(st.integers(0, len(self.sent) - 1))
        self.receive(self.sent[at] if again else self.sent.pop(at))

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), again=st.booleans())
    def answer(self, data, again):
        at = data.draw(st.integers(0, len(self.answers) - 1))
        self.leader.step(3, self.answers[at] if again else self.answers.pop(at), self.now_us)
        self.turn()

    @rule()
    def all_is_lost(self):
        self.sent, self.answers = [], []

    def receive(self, message: Message) -> None:
        """A follower by the book: Raft, figure 2, "AppendEntries RPC", and section 7."""
        log = self.follower
        match message:
            case AppendEntries():
                held = len(log) >= message.prev_index and (
                    message.prev_index == 0 or log[message.prev_index - 1][0] == message.prev_term
                )
                if not held:
                    places = [
                        at
                        for at in range(min(message.prev_index, len(log)), 0, -1)
                        if log[at - 1][0] <= message.prev_term
                    ]
                    hint = places[0] if places else 0
                    hint_term = log[hint - 1][0] if hint else 0
                    self.answers.append(
                        AppendResponse(
                            TERM,
                            message.round,
                            success=False,
                            match=message.prev_index,
                            hint_index=hint,
                            hint_term=hint_term,
                        )
                    )
                    return
                for at, new in enumerate(zip(message.terms, message.entries, strict=True), message.prev_index):
                    if at < len(log) and log[at][0] != new[0]:
                        del log[at:]
                    if at == len(log):
                        log.append(new)
                match = message.prev_index + len(message.entries)
                self.answers.append(
                    AppendResponse(TERM, message.round, success=True, match=match, hint_index=0, hint_term=0)
                )
            case InstallSnapshot():
                index, size = key = (message.last_index, message.size)
                here = self.part[1] if self.part[0] == key else b""
                if message.offset == len(here):
                    here += message.data
                self.part = (key, here)
                if len(here) == size:
                    tail = log[index:] if len(log) >= index and log[index - 1] == self.all[index - 1] else []
                    log[:] = self.all[:index] + tail
                self.answers.append(SnapshotResponse(TERM, message.round, index, len(here), size))
            case _:
                raise AssertionError(f"a leader sends no {message}")

    @invariant()
    def it_believes_nothing_that_is_not_so(self):
        progress = self.progress
        assert self.known_match <= progress.match < progress.next <= len(self.all) + 1
        assert self.follower[: progress.match] == self.all[: progress.match]
        self.known_match = progress.match

    @invariant()
    def what_is_under_way_is_bounded_and_counted(self):
        progress = self.progress
        assert progress.inflight_bytes == sum(size for _, size in progress.inflight)
        assert len(progress.inflight) <= OPTIONS.inflight_messages_max
        indices = [last for last, _ in progress.inflight]
        assert indices == sorted(set(indices))
        if progress.state is not ProgressState.REPLICATE:
            assert not indices
        elif indices:
            assert progress.match < indices[0]
            assert indices[-1] == progress.next - 1
        at = progress.snapshot
        assert (at is not None) == (progress.state is ProgressState.SNAPSHOT)
        if at is not None:
            assert 0 <= at.acked <= at.sent <= len(at.source.data)
            assert at.sent - at.acked < OPTIONS.snapshot_window_bytes + OPTIONS.snapshot_chunk_bytes

    @invariant()
    def the_leader_counts_no_more_than_what_is_true(self):
        """What a majority has, the follower among it, is really there (Raft, section 5.4)."""
        leader = self.leader
        assert leader.role is Role.LEADER
        assert leader.commit_index <= len(self.all)
        assert list(zip(leader.log.terms, leader.log.entries, strict=True)) == self.all[leader.log.offset :]

    def teardown(self):
        """From wherever it got to, the follower is brought up to date once the network is whole."""
        if not hasattr(self, "leader"):
            return
        self.all_is_lost()
        for _ in range(60 + 4 * len(self.all)):
            if self.follower == self.all and self.progress.match == len(self.all):
                return
            self.time_passes()
            for _ in range(20):
                sent, self.sent = self.sent, []
                for message in sent:
                    self.receive(message)
                answers, self.answers = self.answers, []
                for message in answers:
                    self.leader.step(3, message, self.now_us)
                    self.it_believes_nothing_that_is_not_so()
                if not answers:
                    break
                self.turn()
        raise AssertionError(f"it never catches up: {self.progress.state}, match {self.progress.match}")


TestProgressAgainstAFollower = ProgressAgainstAFollower.TestCase
TestProgressAgainstAFollower.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
