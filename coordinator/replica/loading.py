"""What a node begins with: the replicas that its journal holds."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from coordinator.replica.journal import JournalDamaged, SqliteJournal, StoredReplica
from coordinator.replica.replica import Replica
from coordinator.replica.restoration import Begun
from coordinator.statemachine.snapshot import SnapshotDamaged


class Load(Protocol):
    def __call__(self, stored: StoredReplica, begun: Begun | None = None, /) -> Replica:
        """A replica of what the journal holds; where it was begun just now, of that."""
        ...


class Loaded(NamedTuple):
    """What a journal holds. `damaged`: what it can not give back, and why."""

    replicas: list[Replica]
    stopped: list[StoredReplica]
    damaged: dict[StoredReplica, str]


def load_all(journal: SqliteJournal, load: Load) -> Loaded:
    """At the start of a node. A replica that is damaged takes no part; the others' clusters are not to go with it."""
    loaded = Loaded([], [], {})
    resting = journal.resting()
    for stored in journal.replicas():
        if stored.replica in resting:
            loaded.stopped.append(stored)
            continue
        try:
            loaded.replicas.append(load(stored))
        except (JournalDamaged, SnapshotDamaged) as error:
            logging.getLogger(__name__).error("its replica of %s takes no part: %s", stored.cluster_name, error)
            loaded.damaged[stored] = f"{error}"
    return loaded
