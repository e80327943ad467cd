"""The bootstep that makes a Celery worker a node: thin, over `Host`.

It is a step of the worker itself, not of its consumer, so that the node outlives the loss of the broker.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import bootsteps

from coordinator.replica import tasks
from coordinator.replica.directory import DirectoryHeld
from coordinator.replica.host import Host, HostSettings
from coordinator.replica.stored import JournalDamaged, JournalUnusable

logger = logging.getLogger(__name__)


def queue_of(node: str) -> str:
    """The queue of a node's own tasks."""
    return f"conclave.node.{node}"


def _what_to_do(error: Exception, directory: Path) -> str:
    """About a journal that is damaged. One that is unusable for another reason may be as it should."""
    if not isinstance(error, JournalDamaged) or isinstance(error, JournalUnusable):
        return ""
    return (
        f". Move {directory} away and start the node again: it waits as a new one, to be given new replicas by the "
        "others; never put an older copy back, which knows nothing of later votes (docs/journal.md, What to do about "
        "damage)"
    )


class NodeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Hosts a node in this worker. Refuses under any pool but `solo`: a forked child would inherit the socket and
    keep the mailbox of a dead node looking alive."""

    requires = ("celery.worker.components:Pool",)
    settings: Callable[[], HostSettings]

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._host: Host | None = None

    def create(self, worker: Any) -> None:
        if worker.pool_cls.__module__.rpartition(".")[2] != "solo":
            raise SystemExit(f"a worker that hosts a node takes --pool solo, got {worker.pool_cls.__module__}")
        settings = type(self).settings()
        others = set(worker.app.amqp.queues.consume_from) - {queue_of(settings.node)}
        if others:
            raise SystemExit(
                f"a worker that hosts a node takes that node's own tasks alone, -Q {queue_of(settings.node)}; "
                f"got {', '.join(sorted(others))}"
            )
        try:
            self._host = Host(settings)
        except (DirectoryHeld, JournalDamaged, OSError, sqlite3.Error) as error:
            said = " ".join(str(error).splitlines())
            raise SystemExit(
                f"this worker can not host its node: {said}{_what_to_do(error, settings.directory)}"
            ) from error

    def start(self, worker: Any) -> None:
        assert self._host is not None, "create comes before start"
        self._host.start()
        tasks.hosts(self._host)

    def stop(self, worker: Any) -> None:
        if self._host is not None:
            self._host.stop()

    def terminate(self, worker: Any) -> None:
        """The worker is to end at once: others notice, and elect."""
        if self._host is not None:
            self._host.stop(hand_over=False)
