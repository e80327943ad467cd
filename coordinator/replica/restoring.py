"""Backups on their way into a replica that is to begin with them, beside the loop: a thread of its own reads one and
makes a log of it (`restoration.py`), another puts that on disk, and the loop takes it in one short commit."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from coordinator.replica import restoration
from coordinator.replica.backup import BackupDamaged
from coordinator.replica.births import WebToken
from coordinator.replica.intents import RestoreReplica
from coordinator.replica.ports import Journal, Staging
from coordinator.replica.restoration import Begun
from coordinator.replica.states import Compaction
from coordinator.statemachine.restoration import NotRestorable
from coordinator.statemachine.snapshot import SnapshotDamaged

STAGED_BYTES_MIN = Compaction().staged_bytes_min

logger = logging.getLogger(__name__)


class Ready(NamedTuple):
    """`staging`: the snapshot, on disk; None where it is small enough for the commit."""

    begun: Begun
    staging: Staging | None


class Refused(NamedTuple):
    why: str


class _Work:
    """One backup. The thread that reads it says what became of it; the loop looks."""

    def __init__(self, intent: RestoreReplica, web_token: WebToken) -> None:
        self.document = _document(intent)
        self.begun: Begun | None = None
        self.refused = ""
        self.staging: Staging | None = None
        self._intent = intent
        self._web_token = web_token

    def read(self) -> None:
        try:
            self.begun = restoration.begin(self._intent, self._web_token)
        except OSError as error:
            self.refused = f"{self._intent.path}: {error.strerror or error}"
        except (BackupDamaged, SnapshotDamaged, NotRestorable) as error:
            self.refused = f"{error}"
        except Exception as error:
            logger.exception("%s can not be restored", self._intent.path)
            self.refused = f"{self._intent.path}: {error!r}"


class Restoring:
    """Use by the loop alone."""

    def __init__(self, journal: Journal, web_token: WebToken | None) -> None:
        self._journal = journal
        self._web_token = web_token
        self._works: dict[int, _Work] = {}
        """By cluster."""

    def go_on(self, intent: RestoreReplica, replica: int) -> Ready | Refused | None:
        """How far it is; None while it is under way."""
        work = self._works.get(intent.cluster)
        if work is None:
            if self._web_token is None:
                return Refused("this node has no web token to check the backup with")
            work = self._works[intent.cluster] = _Work(intent, self._web_token)
            threading.Thread(target=work.read, name="conclave-restore", daemon=True).start()
            return None
        if work.document != _document(intent):
            return Refused("it is being restored by another document")
        outcome = self._outcome(work, replica)
        if outcome is not None:
            del self._works[intent.cluster]
        return outcome

    def _outcome(self, work: _Work, replica: int) -> Ready | Refused | None:
        if work.refused:
            return Refused(work.refused)
        begun = work.begun
        if begun is None:
            return None
        assert begun.log.snapshot is not None, "a restored log begins with one"
        if len(begun.log.snapshot.data) < STAGED_BYTES_MIN:
            return Ready(begun, None)
        if work.staging is None:
            work.staging = self._journal.stage(replica, begun.log.snapshot)
        if work.staging.failed:
            return Refused(work.staging.failed)
        return Ready(begun, work.staging) if work.staging.is_done else None

    def give_up(self, intent: RestoreReplica) -> None:
        """The replica can not begin with it any more."""
        work = self._works.get(intent.cluster)
        if work is not None and work.document == _document(intent):
            del self._works[intent.cluster]
            if work.staging is not None:
                work.staging.give_up()


def _document(intent: RestoreReplica) -> RestoreReplica:
    """What is the same however often it is asked for."""
    return intent._replace(request="")
