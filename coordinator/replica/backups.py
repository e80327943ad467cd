"""The backups that a node is asked for: one after the other, for each keeps a whole state alive until it is written."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

from coordinator.replica import backup
from coordinator.replica.intents import DONE, PENDING, REFUSED, BackUpReplica, Intents, Outcome
from coordinator.replica.replica import Replica

WAITING_MAX: Final = 100
"""Backups of a node that are asked for and not begun. One more is refused."""


class Backups:
    def __init__(self, node: str, directory: Path, intents: Intents, logger: logging.Logger) -> None:
        self._node = node
        self._directory = directory
        self._intents = intents
        self._logger = logger
        self._writer: threading.Thread | None = None
        self._waiting: dict[str, None] = {}
        """Requests that wait for the one that is being written."""
        backup.sweep(directory)

    def begin(self, intent: BackUpReplica, replica: Replica | None) -> Outcome | None:
        """Begin to write it, in a thread of its own; None where it waits for another, and is to be asked again."""
        if replica is not None and replica.engine.is_witness:  # The state that it may keep for others is an old one.
            return self._refuse(intent, "its replica is a witness, which has no state: have another node back it up")
        if replica is None or not replica.machine.cluster_id:
            return self._refuse(intent, "this node hosts no running replica of it that has any state")
        if replica.stopped:
            return self._refuse(intent, f"its replica takes no part, so its state is no good: {replica.stopped}")
        if self._writer is not None and self._writer.is_alive():
            if intent.request in self._waiting:
                return None
            if len(self._waiting) >= WAITING_MAX:
                return self._refuse(intent, f"{WAITING_MAX} backups of this node wait already; ask again later")
            self._waiting[intent.request] = None
            self._intents.finish(intent.request, Outcome(PENDING, "waits for another backup", replica.replica))
            return None
        self._waiting.pop(intent.request, None)
        return self._write(intent, replica)

    def _refuse(self, intent: BackUpReplica, why: str) -> Outcome:
        self._waiting.pop(intent.request, None)
        return Outcome(REFUSED, why)

    def _write(self, intent: BackUpReplica, replica: Replica) -> Outcome:
        captured = backup.capture(replica, self._node)
        name = f"{replica.cluster_name}-{replica.cluster:x}-{captured.last_index:012}-{intent.request}.backup"
        path = self._directory / name
        pending = Outcome(PENDING, f"being written to {path}", replica.replica)
        self._intents.finish(intent.request, pending)
        arguments = (intent.request, path, captured)
        self._writer = threading.Thread(target=self._run, args=arguments, name="conclave-backup", daemon=True)
        self._writer.start()
        return pending

    def _run(self, request: str, path: Path, captured: backup.Captured) -> None:
        try:
            backup.write(path, captured)
        except OSError as error:
            outcome = Outcome(REFUSED, f"{path}: {error.strerror}", captured.replica)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is told
            outcome = Outcome(REFUSED, f"{path}: {error!r}", captured.replica)
        else:
            outcome = Outcome(DONE, f"{path}", captured.replica)
        self._logger.info("backup: %s: %s", outcome.state, outcome.message)
        self._intents.finish(request, outcome)
