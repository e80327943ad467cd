"""A node's process from inside: what the bootstep starts, runs on a thread of its own, and stops.

It puts the one turn on SQLite, Redis and the monotonic clock. It outlives the loss of the broker and of Redis; it does
not outlive a journal that failed, because what is on disk is then unknown (docs/design.md, rule 3).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, NoReturn

from coordinator import orders, records
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica.allocation import give_large_blocks_back
from coordinator.replica.births import WebToken
from coordinator.replica.directory import LOCK_NAME, NodeDirectory, OpenFiles
from coordinator.replica.disk_log import DiskLog
from coordinator.replica.exporter import NodeCollector, registry_of
from coordinator.replica.intents import Intents
from coordinator.replica.journal import FILE_NAME, SqliteJournal
from coordinator.replica.leadership_log import LeadershipLog
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.lifecycle import Lifecycle
from coordinator.replica.loading import load_all
from coordinator.replica.mailbox import RedisBus
from coordinator.replica.metrics_server import MetricsAddress, MetricsServer
from coordinator.replica.ports import Clock, JournalFailed
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.stored import JournalDamaged, StoredLog, StoredReplica
from coordinator.replica.turn import Turn
from coordinator.replica.windows import Windows
from coordinator.statemachine.machine import Machine
from coordinator.statemachine.state import State
from coordinator.wire import Channels

SWITCH_INTERVAL_S: Final = 0.0005
"""A thread that computes took the loop's p50 from 0.38 ms to 5.65 ms, and to 0.96 ms with this (docs/design.md, "A busy
thread beside the loop")."""
COLLECTION_NS_LONG: Final = 1_000_000
"""Of some 25,000 objects, where they are in a cache; where they are not, ten times that."""
FULL_EVERY: Final = 2
"""Collections of the middle generation, of some 9,000 new objects each, between two full ones: of memory that was not
touched for long, a full one takes half a microsecond an object."""
PROMOTIONS_MAX: Final = 4
"""A full one that comes behind more of them than this would take long."""
YOUNG_NS: Final = 20_000_000
"""What is new is looked at each time the loop has worked for so long. The interpreter counts how many more objects were
made than freed, so that what takes the place of older objects, as in the history, is 100,000 before it is looked at."""
TURN_US_MAX: Final = 20_000
"""Between two turns at the most, whatever comes: a longer time is a stall (`leases.py`)."""
QUIET_TURN_US_MAX: Final = 60_000
"""Where nobody wants anything; a node whose mailboxes are empty. The death of a leader's node is seen that much later,
too; still below what the leases take for a stall."""
FILES_US: Final = 1_000_000
"""Between two looks whether the files that it has open are still there."""
JOIN_S_MAX: Final = 3.0
HAND_OVER_S_MAX: Final = 1.5
"""How long a node that is to end tries to hand its leaderships over: two tries."""
EXIT_JOURNAL: Final = 74
"""Status of a process that ended because its journal failed (EX_IOERR)."""
EXIT_DEFECT: Final = 70
"""Status of a process that ended because its loop raised (EX_SOFTWARE)."""

WAITING_FOR: Final = (
    "its journal is empty, so it has no identity here: it waits to be added as a new replica, "
    "or for its own directory to be put back"
)

logger = logging.getLogger(__name__)


class HostSettings(NamedTuple):
    """All that a node needs to know, handed in by the composition root."""

    node: str
    directory: Path
    redis_url: str
    realm: str
    peer_key: bytes
    faults_allowed: bool
    greet: Callable[[], None]
    options: Options = Options()
    web_token: WebToken | None = None
    """For the birth of new clusters; a node without it takes part in none."""
    backups: Path | None = None
    """Where backups are put; None: beside the journal."""
    address: str = ""
    """Where other nodes reach the Redis of this one's mailbox; "" where all share one."""
    shared_redis: str = ""
    """The Redis of dashboards, and of nodes without one of their own; "" where that is this node's own."""
    metrics: MetricsAddress | None = None
    """Where `/metrics` is served; None: nowhere."""

    def __repr__(self) -> str:
        return f"HostSettings({self.node!r}, {str(self.directory)!r})"  # The rest is secret.


class MonotonicClock(Clock):
    def now_us(self) -> int:
        return time.monotonic_ns() // 1_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Host:
    """One node. Construction takes hold of the directory and loads the journal; `start` begins to take part."""

    def __init__(self, settings: HostSettings) -> None:
        """Raises DirectoryHeld, JournalDamaged (as a whole: a damaged replica only takes no part), OSError."""
        records.quicken("coordinator")
        give_large_blocks_back()
        self._settings = settings
        self._directory = NodeDirectory(settings.directory)
        self._journal = SqliteJournal(settings.directory, settings.node)
        names = (LOCK_NAME, FILE_NAME, f"{FILE_NAME}-wal")
        self._open_files = OpenFiles([settings.directory / name for name in names])
        self._looks_us = 0
        """When it is next looked whether they are there, who leads, and how slow the disk is."""
        self._clock = MonotonicClock()
        channels = Channels(settings.realm)
        drops: Counter[str] = Counter()
        self._bus = RedisBus(
            settings.node,
            settings.redis_url,
            channels,
            Random(secrets.randbits(64)),  # noqa: S311 - jitter, nothing to guess
            greet=settings.greet,
            drops=drops,
            address=settings.address,
        )
        self._windows = Windows(settings.options)
        loaded = load_all(self._journal, self._make)
        identity = Identity(
            settings.node,
            os.getpid(),
            secrets.randbits(48),
            settings.faults_allowed,
            WAITING_FOR,
            settings.address,
            settings.shared_redis,
        )
        self._turn = Turn(
            identity,
            channels,
            settings.peer_key,
            loaded.replicas,
            journal=self._journal,
            bus=self._bus,
            clock=self._clock,
            drops=drops,
        )
        self._turn.pace_us = STEP_US_MAX
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.intents = Intents(self._wake)
        self.lifecycle = Lifecycle(
            self._turn,
            self._journal,
            self.intents,
            make=self._make,
            stopped=loaded.stopped,
            damaged=loaded.damaged,
            backups=settings.backups or settings.directory / "backups",
            web_token=settings.web_token,
        )
        self._stopping = threading.Event()
        self._hand_over_until_us = 0
        self._collections = _Collections()
        self._leadership_log = LeadershipLog(settings.node)
        self._disk_log = DiskLog(settings.node)
        self._runner = threading.Thread(target=self._run, name=f"conclave-{settings.node}", daemon=True)
        self._metrics = self._metrics_server()
        if not (loaded.replicas or loaded.stopped or loaded.damaged):
            logger.warning("%s waits: %s", settings.node, WAITING_FOR)

    def _make(self, stored: StoredReplica, log: StoredLog, state: State | None) -> Replica:
        """See `loading.Make`. Raises JournalDamaged where there is a snapshot and no state."""
        now_us = self._clock.now_us()
        engine = Raft(
            stored.replica,
            log.hard_state,
            Log(log.terms, log.entries, log.hard_state.commit, log.offset, log.offset_term),
            options=self._windows.options,
            random=Random(secrets.randbits(64)),  # noqa: S311 - election timers, nothing to guess
            now_us=now_us,
            snapshot=log.snapshot,
        )
        machine = Machine()
        if log.snapshot is not None and not engine.is_witness:
            if state is None:
                raise JournalDamaged(f"the snapshot of replica {stored.replica:x} is empty")
            machine.adopt(state)
        return Replica(
            stored.cluster,
            stored.cluster_name,
            stored.replica,
            engine,
            machine,
            now_us,
            stopped=log.stopped,
            agreed_index=log.agreed_index,
        )

    @property
    def node(self) -> str:
        return self._settings.node

    @property
    def address(self) -> str:
        """Where others reach the Redis of its mailbox; "" where all share one."""
        return self._settings.address

    @property
    def order_key(self) -> bytes:
        """What signs orders that come through Celery's broker."""
        return orders.key_of(self._settings.peer_key)

    @property
    def journal_identity(self) -> int:
        """Random, made with the journal: a new disk is a new node, whatever its name."""
        return self._journal.node_identity

    def _metrics_server(self) -> MetricsServer | None:
        """A node that can not be measured is still a node: a port in use costs its figures alone."""
        address = self._settings.metrics
        if address is None:
            return None
        collector = NodeCollector(self._turn, self._journal, lambda: self._bus.connected)
        try:
            server = MetricsServer(address, registry_of(collector))
        except OSError as error:
            logger.error("%s serves no metrics: %s: %s", self._settings.node, address.url, error.strerror)
            return None
        logger.info("%s serves its metrics on %s", self._settings.node, address.url)
        return server

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], FULL_EVERY)
        gc.callbacks.append(self._collections)
        self._runner.start()
        if self._metrics is not None:
            self._metrics.start()

    def _wake(self) -> None:
        """Have the loop begin its next turn; from any thread."""
        with contextlib.suppress(BlockingIOError):  # Full: it is being woken already.
            os.write(self._wake_writer, b"\0")

    def stop(self, *, hand_over: bool = True) -> None:
        """End the loop at the end of its turn. What is journaled stays; what is not was never promised.

        `hand_over`: first let others take over what this node leads, for up to HAND_OVER_S_MAX, so that nobody who asks
        meanwhile waits for an election.
        """
        if self._metrics is not None:
            self._metrics.stop()
            self._metrics = None
        if hand_over:
            self._hand_over_until_us = self._clock.now_us() + int(HAND_OVER_S_MAX * 1e6)
        self._stopping.set()
        self._wake()
        if self._runner.is_alive():
            self._runner.join(JOIN_S_MAX)

    def _run(self) -> None:
        try:
            self._loop()
        except JournalFailed as error:
            _end(EXIT_JOURNAL, f"{self._settings.node}: the journal failed, so the process ends: {error}")
        except Exception:
            logger.critical("%s: the loop ended", self._settings.node, exc_info=True)
            _end(EXIT_DEFECT, f"{self._settings.node}: a defect ended the loop, so the process ends")

    def _loop(self) -> None:
        now_us, bus = self._clock.now_us, self._bus
        due_us = now_us()
        has_work = is_settled = False
        while not self._is_over():
            began_us, began_cpu_ns = now_us(), time.thread_time_ns()
            bus.keep(began_us)
            if has_work or self._stopping.is_set() or now_us() >= due_us:
                self.lifecycle.run(now_us())
                self._windows.share(self._turn.replicas.values())
                outcome = self._turn.run()
                if outcome.crash:
                    logger.warning("%s ends at an operator's word (fault injection)", self._settings.node)
                    os.kill(os.getpid(), signal.SIGKILL)
                self._collections.pass_time(time.thread_time_ns())
                ended_us = now_us()
                if ended_us >= self._looks_us:
                    self._check_files(ended_us)
                    self._leadership_log.look(self._turn.replicas.values(), ended_us)
                    self._disk_log.look(self._journal.fsyncs)
                bus.look_us = QUIET_TURN_US_MAX if outcome.is_quiet else TURN_US_MAX
                due_us = min(outcome.deadline_us, ended_us + bus.look_us)
                slice_us = self.lifecycle.due_us(ended_us)
                if slice_us is not None:
                    due_us = min(due_us, slice_us)
                is_settled = outcome.is_settled
                self._turn.meters.loops.observe(ended_us - began_us)
                self._turn.meters.loops_cpu.observe((time.thread_time_ns() - began_cpu_ns) // 1_000)
            has_work = bus.wait(self._wake_reader, due_us - now_us(), is_settled=is_settled)
        self._journal.close()
        self._directory.release()

    def _check_files(self, now_us: int) -> None:
        """A journal that somebody deleted takes what is written, and keeps nothing over the end of this process (rule
        3); one whose disk fails may not say so by itself. Raises JournalFailed."""
        self._looks_us = now_us + FILES_US
        gone = self._open_files.first_gone()
        if gone is not None:
            raise JournalFailed(f"{gone} was deleted or put elsewhere while this process had it open")
        self._journal.check_log()

    def _is_over(self) -> bool:
        """Is it time to end: asked to, and nothing left that this node leads and another could, or no time for it?"""
        if not self._stopping.is_set():
            return False
        now_us = self._clock.now_us()
        return now_us >= self._hand_over_until_us or not self.lifecycle.hand_over_all(now_us)


class _Collections:
    """Full collections look at all that lives, and hold up the loop for it: with a million keys for 150 ms. Where one
    took long, what survived it is left out of all later ones; where one would, what has come since the last one is left
    out of it. Counting references frees most of it anyway."""

    def __init__(self) -> None:
        self._began_ns = 0
        self._promoted = gc.get_stats()[1]["collections"]
        """Collections of the middle generation up to the last full one."""
        self._young_ns = 0
        """When what is new was looked at, in CPU time of the loop."""

    def pass_time(self, cpu_ns: int) -> None:
        """Of the loop's thread: it has worked for so long by now."""
        if cpu_ns - self._young_ns >= YOUNG_NS:
            gc.collect(1)
            self._young_ns = cpu_ns

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            promoted = gc.get_stats()[1]["collections"]
            if promoted - self._promoted > PROMOTIONS_MAX:
                gc.freeze()
            self._promoted = promoted
            self._began_ns = time.thread_time_ns()
        elif time.thread_time_ns() - self._began_ns > COLLECTION_NS_LONG:
            gc.freeze()


def _end(status: int, message: str) -> NoReturn:
    """End the process at once: no handler, no flush of a handle that failed."""
    logger.critical(message)
    os._exit(status)


__all__ = ["Host", "HostSettings"]
