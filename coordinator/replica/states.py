"""The states of one replica, beside the one in memory: marks, at which all replicas compare theirs, and snapshots, that
take the place of the log up to their index. Its host is the `Replica`; nothing here answers callers.

A snapshot is the state at a mark that most replicas agree on, or, where an operator asks, the state as it is then.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from coordinator import wire
from coordinator.consensus.engine import Data, Engine, Outgoing, Ready, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.membership import Configuration
from coordinator.consensus.parts import Parts
from coordinator.replica.comparison import Comparison, Verdict
from coordinator.replica.log_bytes import LogBytes
from coordinator.replica.meters import Meters, Stopwatch
from coordinator.replica.ports import Head, Journal, Staging
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.machine import Machine, encode_node_entry
from coordinator.statemachine.state import State

COMPARE_US: Final = 60_000_000
"""The leader has the replicas compare their states this often, where something was applied since."""
SLICE_EVERY_US: Final = 3_000
"""A slice of a state, about a millisecond's work, is cut this often: whoever waits for a lock has the rest."""
BYTE_STEPS: Final = 64
"""Of `trailing_bytes`, to within which it is known where in the log they begin."""
MARK_AGAIN_US_MIN: Final = 1_000_000
MARK_AGAIN_US_MAX: Final = 60_000_000
"""Between two marks of a leader in doubt, doubled each time: the log grows with them, though nobody may be right."""
STAGE_AGAIN_US: Final = 2_000_000
"""A disk that did not take a snapshot is tried again after this."""
STATE_SHARE: Final = 4
"""Where a node holds many logs, one that has a fourth of its state's bytes may be cut; a fourth of it is kept."""
LEFT_MAX: Final = 4
"""Kept for whoever frees it bit by bit; of more than that the oldest goes at once."""
NONE_OF_A_WITNESS: Final = "its replica is a witness: it has no state to take a snapshot of, and cuts its log by itself"


class Compaction(NamedTuple):
    """When the log is cut: a snapshot each `snapshot_entries` applied, or `snapshot_bytes` of them, behind which
    `trailing_entries` are kept for followers that are a little behind, or `trailing_bytes` of them. Each costs what the
    state has, not the log: with the last 100,000 changes in it, at one each 20,000 entries, a seventh of all that nodes
    do under load. So a log of small entries grows longer."""

    snapshot_entries: int = 100_000
    trailing_entries: int = 5_000
    staged_bytes_min: int = 256 * 1024
    """A snapshot of this size is put on disk beside the loop; a smaller one in the commit that takes it."""
    load_bytes: int = 64 * 1024
    """Of a snapshot, loaded in one turn: about two milliseconds' work."""
    snapshot_bytes: int = 256 * 1024 * 1024
    trailing_bytes: int = 64 * 1024 * 1024
    crowded_entries: int = 20_000
    """So many are enough for a snapshot where they have `crowded_bytes`, or where a node holds many logs."""
    crowded_bytes: int = 32 * 1024 * 1024
    node_bytes: int = 1024 * 1024 * 1024
    """Of the logs of all replicas of a node: each has its share, by their number, or `STATE_SHARE` of what its state
    has, where that is more: a snapshot costs what the state has."""


class _Dumping(NamedTuple):
    """The state after the entry `at`, and after the mark `mark` too. `is_mark`: the replicas compare this one."""

    dump: snapshot.Dump
    at: int
    mark: int
    term: int
    configuration: Configuration
    is_mark: bool
    parts: Parts | None
    """None: its digest alone is wanted."""
    stopwatch: Stopwatch


class _Staged(NamedTuple):
    """A snapshot that is on disk, or on its way. `staging` None: small enough for the commit that takes it.
    `retry_us`: when one that failed may be tried again."""

    snapshot: Snapshot
    staging: Staging | None
    retry_us: int

    @property
    def is_ready(self) -> bool:
        return self.staging is None or self.staging.is_done


class _Loading:
    """A snapshot that has come from a leader, on its way to disk and into a state."""

    def __init__(self, staged: _Staged, *, has_state: bool) -> None:
        self.staged = staged
        self.loader = snapshot.Loader() if has_state else None
        """None: on a witness, or once all has been fed to it."""
        self.fed = 0
        self.stopwatch = Stopwatch()
        self.state: State | None = None


class States:
    def __init__(
        self,
        replica: int,
        engine: Engine,
        machine: Machine,
        meters: Meters,
        now_us: int,
        compaction: Compaction,
        compare_us: int,
        agreed_index: int,
    ) -> None:
        """`agreed_index`: up to there the state that it begins with is one that a majority had; 0: it is not known."""
        self.compaction = compaction
        self.snapshot_wanted = 0
        """An operator wants a snapshot at this index or later. It is taken at the next mark: what was applied behind
        the last one, nobody has compared, and a log must not be cut behind a state that may be wrong."""
        self.comparison = Comparison(replica, agreed_index)
        self.marked_index = 0
        """The last mark that was applied here, or proposed."""
        self.is_crowded = False
        """Are there many other logs on its node?"""
        self.sharers = 1
        """How many logs its node holds, this one among them."""
        self.compare_due_us = now_us + compare_us
        self._mark_again_us: int | None = None
        """When a leader in doubt makes a new mark; None: it has not been seen in doubt yet."""
        self._mark_again_pause_us = MARK_AGAIN_US_MIN
        self._compare_us = compare_us
        self._replica = replica
        self._engine = engine
        self._machine = machine
        self._meters = meters
        self._answers_to_peers: list[Outgoing] = []
        self._snapshot_index = engine.applied_index
        self._log_bytes = LogBytes()
        self._unmarked_bytes = 0
        """Applied since the last mark."""
        self._dumping: _Dumping | None = None
        """A state on its way into bytes, a slice a turn."""
        self._offered: Snapshot | None = None
        """The state at a mark, to be kept once a majority has the same."""
        self._taken: _Staged | None = None
        """A snapshot that was taken here, until the journal names it."""
        self._loading: _Loading | None = None
        self._left: deque[State | Data] = deque(maxlen=LEFT_MAX)
        """Of no use any more here, and too large to be freed at once."""
        self._last = engine.snapshot
        """The one that the engine has."""
        self._slice_due_us = now_us
        self.trouble = ""
        """Why a snapshot can not be kept or used, in words, while that is so."""
        self._trouble_index = 0
        """Of that snapshot. One that came is not needed any more when the log has come so far."""

    @property
    def snapshot_index(self) -> int:
        """Of the last snapshot, on disk or about to be."""
        return self._snapshot_index if self._taken is None else self._taken.snapshot.last_index

    @property
    def due_us(self) -> int | None:
        """When the next slice of a state is due, which is on its way into bytes or out of them; None where none is."""
        loads = self._loading is not None and self._loading.loader is not None
        return self._slice_due_us if loads or self._dumping is not None else None

    @property
    def is_settled(self) -> bool:
        """Is nothing under way here, to disk, to peers, or out of what they sent?"""
        under_way = self._dumping or self._offered or self._taken or self._loading or self._answers_to_peers
        wanted = self.snapshot_wanted > self.snapshot_index or self.trouble
        return not (under_way or wanted) and self.comparison.is_settled

    @property
    def mark_due_us(self) -> int | None:
        """When the leader is to have the states compared; None where nothing was applied since the last time."""
        return self.compare_due_us if self._machine.applied > self.marked_index else None

    def applied(self, size: int) -> None:
        """`size` bytes of entries were taken from the log to be applied."""
        self._unmarked_bytes += size
        self._log_bytes.applied(self._engine.applied_index, size, self.compaction.trailing_bytes // BYTE_STEPS)

    def _is_long(self, index: int, share: int = 1) -> bool:
        """Is so much applied up to `index` since the last snapshot that the log is to be cut? `share`: or an integer
        part of it, where the state is gone over anyway; and whoever follows a mark has counted a few bytes less, or
        more, than whoever made it."""
        since = self._snapshot_index
        return self._is_much((index - since) * share, self._log_bytes.since(since) * share)

    def _is_much(self, entries: int, size: int) -> bool:
        bounds = self.compaction
        if entries >= bounds.snapshot_entries or size >= bounds.snapshot_bytes:
            return True
        if size * self.sharers >= bounds.node_bytes and size >= self._share_bytes():
            return True
        return entries >= bounds.crowded_entries and (self.is_crowded or size >= bounds.crowded_bytes)

    def _share_bytes(self) -> int:
        """What this log may have of the bytes of all on its node."""
        state = self._machine.state
        of_state = (state.key_bytes + state.history.bytes) // STATE_SHARE
        return max(self.compaction.node_bytes // self.sharers, of_state)

    # --- marks ------------------------------------------------------------------------------------

    def put_off(self, now_us: int) -> None:
        """A leadership begins: its first mark is due after the whole time. What an earlier one marked last may have
        been cut off."""
        self.compare_due_us = now_us + self._compare_us
        self.marked_index = min(self.marked_index, self._machine.applied)

    def tick(self, now_us: int) -> None:
        """Let time pass, on a leader that serves."""
        self.tick_in_doubt(now_us)
        unmarked = self._engine.applied_index - max(self.marked_index, self._snapshot_index)
        waits = self._is_wanted(self._engine.applied_index) and self._offered is None
        is_due = waits or now_us >= self.compare_due_us or self._is_much(unmarked, self._unmarked_bytes)
        if is_due and self._dumping is None:
            self.mark(now_us)

    def tick_in_doubt(self, now_us: int) -> None:
        """Let time pass, on a leader that doubts its state, and serves nothing; or that can not tell which of the
        others is right. Who was busy with one mark passed over the next, so that it may be that no two replicas can be
        compared at the same one. Behind a new mark all can, once nothing else comes."""
        if self._dumping is not None or not (self.comparison.is_in_doubt or self.comparison.others_differ):
            return
        if self._mark_again_us is None:
            self._mark_again_us = now_us + self._mark_again_pause_us
        if now_us < self._mark_again_us:
            return
        if self._propose_mark(in_doubt=True) is not None:
            self._mark_again_pause_us = min(2 * self._mark_again_pause_us, MARK_AGAIN_US_MAX)
            self._mark_again_us = now_us + self._mark_again_pause_us

    def mark(self, now_us: int) -> None:
        """Have all replicas compare their states, where something was applied since the last time."""
        self.compare_due_us = now_us + self._compare_us
        if self._machine.applied > self.marked_index:
            index = self._propose_mark()
            if index is not None:
                self.marked_index = index
                self._unmarked_bytes = 0

    def _propose_mark(self, *, in_doubt: bool = False) -> int | None:
        return self._engine.propose([COMMAND_PREFIX + encode_node_entry(commands.MarkState())], in_doubt=in_doubt)

    def marked(self, index: int) -> None:
        """Here the replicas compare their states. One at a time: a mark that comes meanwhile is another's chance."""
        self._unmarked_bytes = 0
        if self._dumping is not None:
            self.marked_index = self._dumping.at
            return
        self.marked_index = index
        self._begin_dump(index, is_mark=True)

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

    @property
    def has_news(self) -> bool:
        """Is there something to judge by, or a doubt that may be over?"""
        return self.comparison.has_news or self.comparison.is_in_doubt

    def judge(self) -> Verdict:
        """What to think of the own state. The engine is told of a doubt."""
        verdict = self.comparison.judge(self._engine.configuration.full_voter_ids)
        if verdict is not Verdict.IN_DOUBT and not self.comparison.others_differ:
            self._mark_again_us, self._mark_again_pause_us = None, MARK_AGAIN_US_MIN
        self._engine.doubt(verdict is Verdict.IN_DOUBT, self.comparison.agreed)
        return verdict

    def take_peer_words(self, now_us: int) -> list[Outgoing]:
        """What is to be said to other replicas beside the engine's messages, after the journal."""
        words, self._answers_to_peers = self._answers_to_peers, []
        if not self.comparison.is_due(now_us):
            return words
        members = self._engine.configuration.members
        others = [member.replica for member in members if not member.witness and member.replica != self._replica]
        due = self.comparison.due(others, now_us)
        if due is not None:
            words += [
                Outgoing(other, wire.StateDigest(snapshot.VERSION, due.at, due.digest, wanted=True))
                for other in due.receivers
            ]
        return words

    # --- snapshots --------------------------------------------------------------------------------

    def prepare(self, journal: Journal, now_us: int) -> None:
        """Go on with what is on its way to disk, or from a leader into a state; before the turn's `ready`. Once it is
        on disk, a turn's commit of the journal takes it, and then the log is cut."""
        if self._offered is not None and self._taken is None and self.comparison.may_keep(self._offered.last_index):
            self._taken, self._offered = self._stage(self._offered, journal, now_us), None
        if self._taken is not None:
            self._taken = self._stage_again(self._taken, journal, now_us)
        elif self.trouble and self._engine.commit_index >= self._trouble_index:
            self.trouble = ""
        arrived = self._engine.arrived
        loading = self._loading
        if loading is not None and loading.staged.snapshot is not arrived:
            self._give_up(loading.staged)
            self._leave(loading)
            loading = self._loading = None
        if arrived is None:
            return
        if loading is None:
            has_state = not self._engine.is_witness
            self._slice_due_us = 0
            loading = self._loading = _Loading(self._stage(arrived, journal, now_us), has_state=has_state)
        loading.staged = self._stage_again(loading.staged, journal, now_us)
        if loading.loader is not None and now_us >= self._slice_due_us:
            self._slice_due_us = now_us + SLICE_EVERY_US
            self._go_on_loading(loading, loading.loader)
        if self._loading is not None and loading.loader is None and loading.staged.is_ready:
            self._engine.install()

    def _stage(self, taken: Snapshot, journal: Journal, now_us: int) -> _Staged:
        if len(taken.data) < self.compaction.staged_bytes_min:
            return _Staged(taken, None, now_us)
        return _Staged(taken, journal.stage(self._replica, taken), now_us + STAGE_AGAIN_US)

    def _stage_again(self, staged: _Staged, journal: Journal, now_us: int) -> _Staged:
        """A disk that is full may have room again."""
        if staged.staging is None or not staged.staging.failed:
            return staged
        self.trouble = f"its disk does not take a snapshot: {staged.staging.failed}"
        self._trouble_index = staged.snapshot.last_index
        return self._stage(staged.snapshot, journal, now_us) if now_us >= staged.retry_us else staged

    def _leave(self, loading: _Loading) -> None:
        """Nobody needs what was built of it so far."""
        built = loading.state if loading.loader is None else loading.loader.state
        if built is not None:
            self._left.append(built)

    def take_left(self) -> list[State | Data]:
        """What is not needed here any more, for whoever frees it bit by bit. A state belongs to nobody else."""
        left, self._left = [*self._left], deque(maxlen=LEFT_MAX)
        return left

    @staticmethod
    def _give_up(staged: _Staged | None) -> None:
        if staged is not None and staged.staging is not None:
            staged.staging.give_up()

    def _go_on_loading(self, loading: _Loading, loader: snapshot.Loader) -> None:
        data = loading.staged.snapshot.data
        with loading.stopwatch.slice():
            try:
                loader.feed(data[loading.fed : loading.fed + self.compaction.load_bytes])
                loading.fed += self.compaction.load_bytes
                if loading.fed >= len(data):
                    loading.state = loader.finish()
                    loading.loader = None
            except snapshot.SnapshotDamaged as error:
                self.trouble = f"the snapshot that its leader sent can not be used: {error}"
                self._trouble_index = loading.staged.snapshot.last_index
                self._give_up(loading.staged)
                self._leave(loading)
                self._loading = None
                self._engine.refuse()
        if loading.state is not None:
            self._meters.snapshot_loads.observe(loading.stopwatch.us)

    def head(self, ready: Ready, *, stopping: bool) -> Head | None:
        """The snapshot that the journal is to take in this turn; None where none. `stopping`: one that comes from
        elsewhere alone."""
        if ready.install is not None:
            self._give_up(self._taken)
            self._offered = self._taken = None
            # One without a state is installed as it comes, and another may be on its way by then.
            loading = self._loading
            is_it = loading is not None and loading.staged.snapshot is ready.install
            staging = loading.staged.staging if loading is not None and is_it else None
            return Head(ready.install, ready.install.last_index, ready.install.term, ready.keep_tail, staging)
        if self._taken is None or stopping or not self._taken.is_ready:
            return None
        taken, staging, _ = self._taken
        trailing_bytes = min(self.compaction.trailing_bytes, self._share_bytes() // STATE_SHARE)
        behind = self._log_bytes.place_before(taken.last_index, trailing_bytes)
        offset = max(self._engine.first_index - 1, taken.last_index - self.compaction.trailing_entries, behind)
        agreed = self.comparison.agreed >= taken.last_index
        return Head(taken, offset, self._engine.term_at(offset), keep_tail=True, staged=staging, agreed=agreed)

    def begin_behind(self, head: Head, *, installed: bool) -> None:
        """A snapshot is on disk, one that came or one that was taken here: begin behind it."""
        if installed:
            self.stop()
            loading = self._loading
            if loading is not None and loading.staged.snapshot is head.snapshot:
                self._loading = None
                if loading.state is not None:
                    self._left.append(self._machine.state)
                    self._machine.adopt(loading.state)
        else:
            self._engine.compact(head.snapshot, head.offset + 1)
            self._taken = None
        if self._last is not None:
            self._left.append(self._last.data)
        self._last = self._engine.snapshot
        self._log_bytes.forget(head.offset)
        self._snapshot_index = head.snapshot.last_index

    def advance(self, now_us: int) -> None:
        """Go on with a snapshot, where one is due. A witness cuts off what every full voter has."""
        engine = self._engine
        if engine.is_witness:
            index = min(engine.applied_index, engine.settled)
            if index > self._snapshot_index and self._is_long(index):
                empty = Snapshot(index, engine.term_at(index), engine.configuration_at(index), b"")
                self._give_up(self._taken)
                self._taken = _Staged(empty, None, now_us)
            return
        index = engine.applied_index
        # What stands at that index may be another entry by now, and this replica may have been busy at the mark.
        is_marked = self._machine.applied == self.marked_index and self.comparison.own(self.marked_index) is not None
        if is_marked and self._is_wanted(index) and self._dumping is None and self._offered is None:
            self._begin_dump(index, is_mark=False)
        if self._dumping is not None and now_us >= self._slice_due_us:
            self._slice_due_us = now_us + SLICE_EVERY_US
            self._go_on_dumping(self._dumping, now_us)

    def put_again(self, journal: Journal, now_us: int) -> bool:
        """The file of the last snapshot is gone, and memory has all of it: put it into another. False where there is
        none, or one is on its way already."""
        last = self._engine.snapshot
        if last is None or self._taken is not None:
            return False
        self._taken = self._stage(last, journal, now_us)
        return True

    def _is_wanted(self, index: int) -> bool:
        return self.snapshot_index < self.snapshot_wanted <= index

    def _begin_dump(self, index: int, *, is_mark: bool) -> None:
        """Take the state as it is after the entry at `index`, in slices, while the machine goes on."""
        engine = self._engine
        dump = snapshot.begin(self._machine)
        self._slice_due_us = 0
        is_due = self._is_wanted(index) or self._is_long(index, 2)
        parts = Parts() if is_due or not is_mark else None
        configuration = engine.configuration_at(index)
        term = engine.term_at(index)
        self._dumping = _Dumping(dump, index, self.marked_index, term, configuration, is_mark, parts, Stopwatch())

    def _go_on_dumping(self, dumping: _Dumping, now_us: int) -> None:
        with dumping.stopwatch.slice():
            part = dumping.dump.slice()
        if dumping.parts is not None:
            dumping.parts.append(part)
        if not dumping.dump.done:
            return
        self._dumping = None
        if dumping.parts is not None:
            self._meters.snapshot_dumps.observe(dumping.stopwatch.us)
        digest = bytes.fromhex(dumping.dump.digest)
        if dumping.is_mark:
            self.comparison.marked(dumping.at, digest, now_us)
        elif digest != self.comparison.own(dumping.mark):
            # It changed and nothing was applied: this is not the state that was compared, and never a snapshot.
            self.comparison.marked(dumping.mark, digest, now_us)
            return
        if dumping.parts is not None and dumping.at > self.snapshot_index:
            self._offered = Snapshot(dumping.at, dumping.term, dumping.configuration, dumping.parts)

    def end(self, head: Head | None = None) -> None:
        """The replica takes no part from here on: give up all that is under way, on disk too. `head`: what the journal
        took in this turn, and names."""
        self.stop()
        self._offered = None
        taken, loading = self._taken, self._loading
        self._taken = self._loading = None
        if loading is not None:
            self._leave(loading)
        for staged in (taken, None if loading is None else loading.staged):
            if staged is not None and (head is None or staged.staging is not head.staged):
                self._give_up(staged)

    def stop(self) -> None:
        """Give up what is on its way into bytes."""
        if self._dumping is not None:
            self._dumping.dump.close()
            self._dumping = None
