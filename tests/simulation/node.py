"""A node: a machine with a disk and a clock, and the process on it, built as `coordinator/replica/host.py` builds it.

The process runs the host's own `Turn` over the unchanged replica, engine and state machine. Around them is only what
the host's loop does: run a turn when something came or when it is due, and end when the journal fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from coordinator import wire
from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.membership import decode_configuration
from coordinator.consensus.raft.messages import KINDS as MESSAGE_KINDS
from coordinator.consensus.raft.messages import (
    AppendResponse,
    InstallSnapshot,
    Message,
    ReadResponse,
    SnapshotResponse,
    VoteRequest,
    VoteResponse,
)
from coordinator.replica.caching import LEASE_MS
from coordinator.replica.callers import Caller, TurnBounds
from coordinator.replica.feed import Feed
from coordinator.replica.host import WAITING_FOR
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.ports import JournalFailed, Outbound, Write
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.turn import Turn
from coordinator.statemachine import snapshot
from coordinator.statemachine.commands import Result
from coordinator.statemachine.items import Item
from coordinator.wire import PeerMessage
from tests.simulation.bus import Bus
from tests.simulation.clocks import Clock
from tests.simulation.disk import NOTHING, Disk, DiskDamaged, Journal, ProcessDied, Stored, flipped
from tests.simulation.seen import SeenAnswers, SeenDelegate, SeenMachine, SeenReading, SeenReplica
from tests.simulation.watch import Violation, defect_of

if TYPE_CHECKING:
    from tests.simulation.watch import View
    from tests.simulation.world import World

_KEPT_AS: Final[dict[type, str]] = {
    VoteRequest: "vote",
    VoteResponse: "vote",
    InstallSnapshot: "snapshot",
    AppendResponse: "acknowledgement",
    SnapshotResponse: "acknowledgement",
    ReadResponse: "read answer",
}
"""Messages that somebody with a copy of the traffic keeps by their kinds (`network.keep`)."""
START_US_MIN: Final = 1_000
START_US_MAX: Final = 60_000
SLOWER_US: Final = 3_000
"""Of slow disks, where callers share commits (`coordinator/replica/gathering.py`)."""
LITTLE_BYTES: Final = 400
"""Where a turn applies no more, it goes over one row for reads."""
FLIPPED: Final = "a-flipped-bit"
"""The key that is there where a bit of the state has flipped."""


def _bounds(apply_bytes: int) -> TurnBounds:
    """A turn applies one entry that is much work, and gives back those behind it. Turns that apply little answer one
    read that goes over any rows, and one watch, and owe the rest."""
    usual = TurnBounds(apply_bytes=apply_bytes, apply_rows=0)
    return usual._replace(read_rows=0) if apply_bytes <= LITTLE_BYTES else usual


class Spoken:
    """Heartbeats that a node spoke for its quiet leaders, and who answered them."""

    def __init__(self, boot: int) -> None:
        self.beat_us = 0
        """Of this turn."""
        self._boot = boot
        self._said: dict[tuple[str, int], tuple[int, list[wire.Sleeper]]] = {}
        self.answered_us: dict[tuple[int, int], dict[int, int]] = {}
        """(leader, term) to when, by its own clock, that was sent which each follower has answered last."""

    def said(self, node: str, beat: wire.SleepBeat) -> None:
        self._said[node, beat.number] = (self.beat_us, beat.sleepers)

    def answered(self, node: str, answer: wire.SleepAnswer) -> None:
        said = self._said.get((node, answer.number))
        if said is None or answer.boot != self._boot:
            return
        sent_us, sleepers = said
        for cluster, leader, follower, term, _ in sleepers:
            if cluster not in answer.awake:
                answered_us = self.answered_us.setdefault((leader, term), {})
                answered_us[follower] = max(sent_us, answered_us.get(follower, 0))


class _SeenTurn(Turn):
    """The turn, seen where it takes a message and where it publishes."""

    see_message: Callable[[int, Message], None]
    see_outgoing: Callable[[list[Outgoing]], None]
    see_answers: Callable[[], None]
    see_answered_for: Callable[[wire.SleepBeat, wire.SleepAnswer], None]
    spoken: Spoken

    def _awake(self, now_us: int) -> list[Replica]:
        self.spoken.beat_us = now_us
        return super()._awake(now_us)

    def _words(self) -> list[Outbound]:
        for node, _, word in self.sleep._words:
            if isinstance(word, wire.SleepBeat):
                self.spoken.said(node, word)
        return super()._words()

    def _step(self, node: str, message: PeerMessage, now_us: int) -> None:
        said = message.message
        dropped = self.drops.get("peer-identity")
        if isinstance(said, wire.SleepAnswer):
            self.spoken.answered(node, said)
        words = len(self.sleep._words)
        super()._step(node, message, now_us)
        if isinstance(said, wire.SleepBeat) and len(self.sleep._words) > words:
            answer = self.sleep._words[-1][2]
            assert isinstance(answer, wire.SleepAnswer)
            self.see_answered_for(said, answer)
        if self.drops.get("peer-identity") == dropped and isinstance(said, MESSAGE_KINDS):
            self.see_message(message.sender, said)

    def _publish(self, batches: list[tuple[Replica, list[Outgoing]]], rest: list[Outbound]) -> bool:
        for _, outgoing in batches:
            if outgoing:
                self.see_outgoing(outgoing)
        if rest:
            self.see_answers()
        return super()._publish(batches, rest)


class Node:
    def __init__(self, world: World, name: str, stored: Stored, random: Random) -> None:
        self.world = world
        self.name = name
        self.disk = Disk(stored)
        self.clock = Clock(world.scheduler, random, world.settings.drift_ppm_max)
        self.random = random
        self.boots = 0
        self.turn: _SeenTurn | None = None
        """The process; None while there is none."""
        self.replica: Replica | None = None
        self.engine: Any = None
        self.view: View
        self.highest_heard = 0
        """The highest term that its process was told of."""
        self.turn_us = 0
        """When, by its clock, the last turn began."""
        self.paused = False
        self.kept_alive: dict[int, list[int]] = {}
        """Session to when this process took in a keep-alive of it, in waking time."""
        self.leases_since_us = 0
        """When, in waking time, its leadership began to count leases."""
        self.leases_at_first_ms: dict[int, int] = {}
        """What each session had left then."""
        self._leases: object = None
        self._keep_alive_counts: dict[tuple[str, int, int], int] = {}
        self._sessions_expired = 0
        self._asleep_us = 0
        self._asleep_since_us: int | None = None
        self.cannot_start = ""
        """Why no process will ever run here again."""
        self.flipped = False
        """A bit of its memory has flipped, and may have reached its disk."""
        self.flips_parts = 0.0
        """In which share of the parts of snapshots that it sends a byte changes."""
        self._busy_until_us = 0
        self._due_us: int | None = None
        self._life = 0
        self._to_wake: set[tuple[int, int]] = set()
        """Times of wake-ups that are to come, with the life that they are for: of two at one time the second would come
        to nothing."""

    @property
    def is_lost(self) -> bool:
        """Will its replica never serve again, or is that to be expected?"""
        return self.disk.damaged or self.disk.snapshot_flipped or self.flipped or bool(self.disk.stopped)

    # --- the process ------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.turn is not None

    @property
    def leads(self) -> bool:
        return self.turn is not None and self.engine is not None and self.engine.role is Role.LEADER

    def start(self) -> None:
        """Begin a process, with what the disk holds."""
        if self.is_up or self.cannot_start:
            return
        try:
            stored = self.disk.load()
        except DiskDamaged as damage:
            self.cannot_start = str(damage)
            return
        world = self.world
        self._life += 1
        self.boots += 1
        self.highest_heard = 0
        self.kept_alive = {}
        self._leases = None
        self._sessions_expired = 0
        self._asleep_us = 0
        self._asleep_since_us = None
        now_us = self.clock.now_us()
        self.replica = self._host(stored, now_us) if stored is not None else None
        self.engine = self.replica.engine if self.replica is not None else None
        self.bus = Bus(
            self.name,
            world.network,
            world.scheduler,
            self.random,
            world.channels,
            wake=self._something_came,
            ahead_us=lambda: self.clock.ahead_us,
            passes=self._time_passes,
            listens=world.listeners_changed,
        )
        bus = self.bus
        self.journal = Journal(
            self.disk,
            self.random,
            passes=self._time_passes,
            journaled=self._journaled,
            has_sent=lambda: bus.has_sent,
            slower_us=SLOWER_US if world.settings.disks_are_slow else 0,
        )
        drops: Counter[str] = Counter()
        self.turn = _SeenTurn(
            Identity(self.name, 1_000 + self.boots, self.boots, True, "" if self.replica else WAITING_FOR),
            world.channels,
            world.peer_key,
            [self.replica] if self.replica is not None else [],
            journal=self.journal,
            bus=self.bus,
            clock=self.clock,
            drops=drops,
        )
        self.turn.pace_us = STEP_US_MAX
        if world.settings.late_us:
            self.turn.few_replicas = 0
        self.turn.see_outgoing = self._publishes
        self.turn.see_answers = partial(world.watch.answering, self)
        self.turn.see_message = partial(world.watch.took, self)
        self.turn.see_answered_for = partial(world.watch.tell, "answered_for", self)
        self.turn.spoken = Spoken(self.turn.identity.boot)
        answers = self.turn._answers = SeenAnswers(self.name)
        answers.see_kept_alive = partial(world.watch.tell, "kept_alive", self)
        if not world.settings.with_feed:
            self.turn._feed = _NoFeed(self.turn.identity, world.channels, world.peer_key)
        self._busy_until_us = 0
        self._due_us = None
        world.watch.started(self)
        world.scheduler.after(self.random.randrange(START_US_MIN, START_US_MAX), self._connect, self._life)
        self._wake_at(world.scheduler.now_us)

    def _host(self, stored: Stored, now_us: int) -> Replica:
        world = self.world
        engine = world.engine_kind.build(stored, world.settings.options, Random(self.random.getrandbits(64)), now_us)
        machine = SeenMachine(self._applied)
        if stored.log.snapshot is not None and not engine.is_witness:
            snapshot.load(machine, stored.log.snapshot.data)
        replica = SeenReplica(
            world.cluster,
            world.settings.cluster_name,
            stored.replica,
            engine,
            machine,
            now_us,
            compaction=world.settings.compaction,
            compare_us=world.settings.compare_us,
            agreed_index=stored.log.agreed_index,
            cache_lease_ms=LEASE_MS if world.settings.mixed is None else world.settings.mixed.cache_lease_ms,
            stopped=stored.log.stopped,
            bounds=_bounds(world.settings.apply_bytes_max),
        )
        replica.see_keep_alive = self._kept_alive
        reading, delegate = replica.reading, replica.reading.delegate
        assert isinstance(reading, SeenReading)
        assert isinstance(delegate, SeenDelegate)
        reading.see_answer = partial(world.watch.tell, "read_answered", self)
        reading.see_begun = partial(world.watch.tell, "read_begun", self)
        reading.see_confirmed = partial(world.watch.tell, "read_confirmed", self)
        reading.see_left = partial(world.watch.tell, "reads_left", self)
        delegate.see_taken = partial(world.watch.tell, "reads_taken", self)
        return replica

    def _connect(self, life: int) -> None:
        if life == self._life and self.is_up:
            self.bus.connect()

    def die(self, why: str, *, silently: bool = False) -> None:
        """The process ends as `kill -9` ends it. `silently`: its machine with it."""
        if self.turn is None:
            return
        self.world.note(self.name, f"dies {why}")
        self.turn = None
        self.replica = None
        self.engine = None
        self._life += 1
        self.paused = False
        self.clock.thaw()
        self.clock.ahead_us = 0
        self.bus.die(silently=silently)

    # --- its loop ---------------------------------------------------------------------------------

    def _something_came(self) -> None:
        if self.paused or self.turn is None:
            return
        now_us = self.world.scheduler.now_us
        if now_us >= self._busy_until_us:
            self._busy_until_us = (
                now_us + self.world.settings.turn_us
            )  # What else comes within it, the same turn drains.
        self._wake_at(self._busy_until_us)

    def _wake_at(self, time_us: int) -> None:
        """Let there be a turn at `time_us` at the latest."""
        if self._due_us is None or time_us < self._due_us:
            self._due_us = time_us
            if (time_us, self._life) not in self._to_wake:
                self._to_wake.add((time_us, self._life))
                self.world.scheduler.at(time_us, self._wake, time_us, self._life)

    def _wake(self, due_us: int, life: int) -> None:
        self._to_wake.remove((due_us, life))
        if due_us != self._due_us or life != self._life or self.paused:
            self.world.scheduler.nothing_happened()
            return
        self._due_us = None
        self._run_turn()

    def _run_turn(self) -> None:
        world = self.world
        turn = self.turn
        assert turn is not None
        self.clock.ahead_us = 0
        self.turn_us = self.clock.now_us()
        self.journal.took_us = 0
        try:
            outcome = turn.run()
        except ProcessDied as death:
            self._ended(str(death))
            return
        except JournalFailed as failure:
            self._ended(f"as its journal failed: {failure}")
            return
        except Violation:
            raise
        except Exception as defect:
            raise defect_of(self.name, defect) from defect
        busy_until_us = world.scheduler.now_us + self.clock.ahead_us + world.settings.turn_us
        self.clock.ahead_us = 0
        self._busy_until_us = busy_until_us
        if self.replica is not None:
            if self.replica.leases is not self._leases:
                self._note_leases()
            world.watch.turn_ended(self)
        if outcome.crash:
            self._ended("at an operator's word")
            return
        if self.bus.waiting:
            self._wake_at(busy_until_us)
        else:
            due_us = min(outcome.deadline_us, self.turn_us + STEP_US_MAX)
            self._wake_at(max(self.clock.true_us(due_us), busy_until_us))

    def _ended(self, why: str) -> None:
        """The process is over, and whoever looks after it starts it again."""
        self.world.watch.died(self)
        self.die(why)
        self.world.injector.restart_later(self)

    # --- what is seen of it -----------------------------------------------------------------------

    def _time_passes(self, us: int) -> None:
        self.clock.ahead_us += us

    def _journaled(self, write: Write) -> None:
        self.world.watch.journaled(self, write)
        if self.leads:
            assert self.replica is not None
            expired = self.replica.meters.sessions_expired
            if expired != self._sessions_expired:
                self._sessions_expired = expired
                self.world.injector.moment("expiring", self)
            for entry in write.entries:
                if entry[0] == CONFIGURATION:
                    self.world.injector.moment("changing", self)
                    if decode_configuration(entry).is_joint:
                        self.world.injector.moment("joint", self)

    def _applied(self, index: int, entry: bytes, result: Result, events: list[Any]) -> None:
        self.world.watch.applied(self, index, entry, result, events)

    def _publishes(self, outgoing: list[Outgoing]) -> None:
        self.world.watch.publishing(self, outgoing)
        if self.flips_parts:
            self._flip_parts(outgoing)
        for _, message in outgoing:
            self.bus.kept_as = _KEPT_AS.get(type(message), "")
            if self.bus.kept_as:
                break
        if self.engine.role is Role.LEADER:
            self.world.injector.moment("sent", self)
        elif any(type(message) is AppendResponse and not message.success for _, message in outgoing):
            self.world.injector.moment("refusing", self)

    def _flip_parts(self, outgoing: list[Outgoing]) -> None:
        """Change bytes of parts of a snapshot, for those who put it together: a witness only keeps it."""
        states = {
            node.disk.replica for node in self.world.nodes if node.engine is not None and not node.engine.is_witness
        }
        for position, (receiver, message) in enumerate(outgoing):
            if not isinstance(message, InstallSnapshot) or not message.data or receiver not in states:
                continue
            if self.random.random() < self.flips_parts:
                data = flipped(message.data, self.random.random())
                outgoing[position] = Outgoing(receiver, message._replace(data=data))
                self.world.faults["flip-in-sent-snapshot"] += 1
                self.world.note(self.name, f"sends a flipped byte of a snapshot up to {message.last_index}")

    def _kept_alive(self, caller: Caller, request: wire.KeepAliveRequest) -> None:
        """Note a keep-alive that is for this leadership, and no copy of an earlier one."""
        asker = (caller.channel, request.session, request.term)
        if request.term == self.engine.term and request.count > self._keep_alive_counts.get(asker, 0):
            self._keep_alive_counts[asker] = request.count
            self.kept_alive.setdefault(request.session, []).append(self.awake_us())

    def _note_leases(self) -> None:
        """A new leadership begins with full leases, or with what checkpoints say."""
        assert self.replica is not None
        self._leases = self.replica.leases
        self.leases_since_us = self.awake_us()
        self.leases_at_first_ms = {s.session: s.lease_ms for s in self.replica.machine.sessions.values()}
        self.kept_alive = {}
        if self._leases is not None:
            self.world.watch.tell("counting", self)

    def awake_us(self) -> int:
        """How long its processes have been awake and heard what came, in true time."""
        now_us = self.world.scheduler.now_us + self.clock.ahead_us
        asleep_us = self._asleep_us
        if self._asleep_since_us is not None:
            asleep_us += max(0, now_us - self._asleep_since_us)
        return now_us - asleep_us

    @property
    def spoken(self) -> Spoken:
        assert isinstance(self.turn, _SeenTurn)
        return self.turn.spoken

    def _falls_asleep(self, *, clock_stops: bool) -> None:
        """A turn whose end its clock has shown already is over first, unless the clock stands still with it: the end
        comes later then (`resume`)."""
        if self._asleep_since_us is None:
            now_us = self.world.scheduler.now_us
            self._asleep_since_us = now_us if clock_stops else max(now_us, self._busy_until_us)

    def _wakes(self) -> None:
        if self._asleep_since_us is not None:
            # What a stall takes up to this, a leader can not tell from a late turn.
            self._asleep_us += max(0, self.world.scheduler.now_us - self._asleep_since_us - STEP_US_MAX)
            self._asleep_since_us = None

    # --- what befalls it --------------------------------------------------------------------------

    def die_while_sending(self, packets: int, befell: Callable[[], None]) -> None:
        """Die when so many more packets have left; `befell` is told then."""
        self.bus.sends_left, self.bus.died_sending = packets, befell

    def rebirth(self, replica: int) -> None:
        """An operator makes an empty journal for a new replica here, in place of whatever there was."""
        self.die("to begin as a new replica")
        self.disk.put(NOTHING)
        self.disk.replica = replica
        self.disk.damaged = False
        self.flipped = False
        self.cannot_start = ""
        self.start()

    def flip(self) -> None:
        """A bit of the state in its memory flips, where no client ever looks."""
        assert self.replica is not None
        if FLIPPED not in self.replica.machine.keys:
            self.replica.machine.state.keys.add(FLIPPED, Item(b"?", 1, 1, 1))
        self.flipped = True
        self.world.flipped.add(self.disk.replica)

    @property
    def has_flipped_state(self) -> bool:
        """Does its state hold a flipped bit, its own or one that came with another's snapshot?"""
        return self.replica is not None and FLIPPED in self.replica.machine.keys

    def wake(self) -> None:
        """Its replica sleeps no more: somebody is about to ask it for something."""
        if self.turn is not None and self.replica is not None:
            self.turn.stir(self.replica.cluster)

    def nudge(self) -> None:
        """Let it have a turn soon: an operator asked it for something."""
        self.wake()
        self._something_came()

    def pause(self, *, clock_stops: bool) -> None:
        """SIGSTOP, or a suspended machine, whose clock may stand still with it (not where lease reads are on: they
        assume clocks that do not, `Options.lease_reads`)."""
        clock_stops = clock_stops and not self.world.settings.options.lease_reads
        self.paused = True
        self._falls_asleep(clock_stops=clock_stops)
        self._due_us = None
        if clock_stops:
            self.clock.freeze()

    def resume(self) -> None:
        # It stood still within a turn, perhaps, whose end its clock has shown already: there it goes on.
        self._busy_until_us += self.clock.thaw()
        if self.paused:
            self.paused = False
            self._wakes()
            if self.turn is not None:
                self._wake_at(max(self.world.scheduler.now_us, self._busy_until_us))


class _NoFeed(Feed):
    """In place of the feed, which decides nothing and costs as much as all else, in most seeds."""

    def due_us(self, now_us: int) -> int:
        return now_us + 10_000_000

    def packets(
        self, replicas: object, drops: object, fsyncs_us: object, now_us: int, waits_for: object
    ) -> list[Outbound]:
        return _NOTHING


_NOTHING: Final[list[Outbound]] = []
