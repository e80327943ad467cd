"""A replica on its way out of the journal into memory.

At the start of a node nobody waits, and it is done at once. While the node runs, a state of a million keys takes ten
seconds: then a thread of its own reads and checks what the journal has, which is the disk's work and the checksums',
and the loop builds the state from it, a slice at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from coordinator.consensus.entries import COMMAND, CONFIGURATION
from coordinator.consensus.membership import decode_configuration
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.replica import Replica
from coordinator.replica.states import SLICE_EVERY_US
from coordinator.replica.stored import JournalDamaged, JournalUnusable, StoredLog, StoredReplica
from coordinator.statemachine import snapshot
from coordinator.statemachine.commands.levels import why_unreadable
from coordinator.statemachine.machine import level_from
from coordinator.statemachine.state import State

LOAD_BYTES: Final = 64 * 1024
"""Of a snapshot, in one slice: about two milliseconds' work."""

logger = logging.getLogger(__name__)

Make = Callable[[StoredReplica, StoredLog, State | None], Replica]
"""A replica of what the journal holds and, where that has a snapshot, the state in it."""


def at_once(stored: StoredReplica, journal: SqliteJournal, make: Make) -> Replica:
    """Raises JournalDamaged."""
    loading = Loading(stored, journal, make)
    loading.read()
    while (replica := loading.go_on()) is None:
        pass
    return replica


class Loaded(NamedTuple):
    """What a journal holds. `damaged`: what it can not give back, and why."""

    replicas: list[Replica]
    stopped: list[StoredReplica]
    damaged: dict[StoredReplica, str]


def load_all(journal: SqliteJournal, make: Make) -> Loaded:
    """At the start of a node. A replica that is damaged takes no part; the others' clusters are not to go with it.
    Raises JournalUnusable where one may be as it should: nobody is to be told to remove it."""
    loaded = Loaded([], [], {})
    resting = journal.resting()
    for stored in journal.replicas():
        if stored.replica in resting:
            loaded.stopped.append(stored)
            continue
        try:
            loaded.replicas.append(at_once(stored, journal, make))
        except JournalUnusable:
            raise
        except JournalDamaged as error:
            logger.error("its replica of %s takes no part: %s", stored.cluster_name, error)
            loaded.damaged[stored] = f"{error}"
    return loaded


class Loading:
    def __init__(self, stored: StoredReplica, journal: SqliteJournal, make: Make) -> None:
        self._stored = stored
        self._journal = journal
        self._make = make
        self._log: StoredLog | None = None
        self._error: Exception | None = None
        self._loader: snapshot.Loader | None = None
        self._fed = 0
        self._due_us = 0

    @property
    def state(self) -> State | None:
        """What is built so far of what the journal has."""
        return None if self._loader is None else self._loader.state

    def begin(self) -> None:
        """Read what the journal has in a thread of its own. Nobody else may write or remove what is of this replica."""
        name = f"conclave-load-{self._stored.cluster_name}"
        threading.Thread(target=self._read, name=name, daemon=True).start()

    def _read(self) -> None:
        try:
            self.read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop is told
            self._error = error

    def read(self) -> None:
        """Raises JournalDamaged."""
        log = self._journal.load(self._stored.replica)
        if not self._is_witness(log):  # Which applies nothing, and so may be of a program that could not.
            level = max((level_from(entry, 1) for entry in log.entries if entry[0] == COMMAND), default=0)
            if why := why_unreadable(level):
                raise JournalDamaged(f"the log of replica {self._stored.replica:x}: {why}")
            if log.snapshot is not None and len(log.snapshot.data):
                self._loader = snapshot.Loader()
        self._log = log

    def _is_witness(self, log: StoredLog) -> bool:
        named = [decode_configuration(entry) for entry in log.entries if entry[0] == CONFIGURATION]
        named += [] if log.snapshot is None else [log.snapshot.configuration]
        return any(configuration.is_witness(self._stored.replica) for configuration in named)

    def due_us(self, now_us: int) -> int:
        """When the next slice is due."""
        return self._due_us if self._log is not None else now_us + SLICE_EVERY_US

    def pass_time(self, now_us: int) -> Replica | None:
        """Go on, where it is due. The replica, once it is loaded. Raises JournalDamaged."""
        if self._error is not None:
            raise JournalDamaged(f"{self._error}") from self._error
        if self._log is None or now_us < self._due_us:
            return None
        self._due_us = now_us + SLICE_EVERY_US
        return self.go_on()

    def go_on(self) -> Replica | None:
        """Do a slice of what has been read."""
        log = self._log
        assert log is not None, "what is to be loaded has been read"
        state: State | None = None
        if self._loader is not None and log.snapshot is not None:
            data = log.snapshot.data
            try:
                self._loader.feed(data[self._fed : self._fed + LOAD_BYTES])
                self._fed += LOAD_BYTES
                if self._fed < len(data):
                    return None
                state = self._loader.finish()
            except snapshot.SnapshotDamaged as error:
                raise JournalDamaged(f"the snapshot of replica {self._stored.replica:x}: {error}") from error
        return self._make(self._stored, log, state)
