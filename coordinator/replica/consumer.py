"""The way to Celery's broker of a worker that hosts a node: whatever the broker answers, and whatever lies in the
node's queue, the worker goes on, since the node must outlive it. Celery's own ends for good where a Redis answers with
an error: one that is full, or read-only since it became a replica, or whose user lacks a permission; and where what
answers is no Redis.
"""

from __future__ import annotations

import gc
import logging
import random
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 8.0
"""Before a broker that answered with an error is asked again: doubled each time, and jittered by half."""
STEADY_S: Final = 30.0
"""After so long without such an answer it begins with the least."""
GLANCE_S: Final = 0.1
"""How long the worker may not notice meanwhile that it is told to end."""


class PatientConsumer(Consumer):  # type: ignore[misc]  # Celery carries no types
    """Takes effect with Celery's `broker_channel_error_retry`, by which such an answer counts as a lost connection."""

    _pause_s = PAUSE_S_MIN
    _refused_s = float("-inf")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Of what is no Redis redis-py raises whatever comes: a TypeError, where it is a map with a list as its key.
        self.channel_errors = (Exception,)

    def connect(self) -> Any:
        """As Celery's, which forgets a connection that is made and then gets an error for its first command: it would
        stay open, and there is another with each try."""
        connection = self.connection_for_read(heartbeat=self.amqheartbeat)
        try:
            if self.hub:
                connection.transport.register_with_event_loop(connection.connection, self.hub)
        except Exception:
            ignore_errors(connection, connection.close)  # type: ignore[no-untyped-call]
            raise
        return connection

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """As Celery's, which takes most of what is wrong with a message for a lost connection: it would put the message
        back and fail over it again, each time, and no order behind it was ever heard."""
        handle = super().create_task_handler(*arguments, **options)

        def drop_what_fails(message: Any) -> None:
            try:
                handle(message)
            except (OSError, RedisError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a stranger has put there
                log.error("a message in this node's queue is no task, and is dropped: %r", error)
                if not message.acknowledged:
                    message.ack()

        return drop_what_fails

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        self._pause_after(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        self._pause_after(exc)

    def _pause_after(self, error: Exception) -> None:
        """Where the broker answered with an error: one that was only lost is tried again at once. Raises what ends the
        worker, where it is told to end."""
        if isinstance(error, self.connection_errors):
            return
        _forget(error)
        now_s = time.monotonic()
        self._pause_s = PAUSE_S_MIN if now_s > self._refused_s + STEADY_S else min(2 * self._pause_s, PAUSE_S_MAX)
        self._refused_s = now_s
        until_s = now_s + self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, nothing to guess
        while time.monotonic() < until_s:
            maybe_shutdown()
            time.sleep(GLANCE_S)


def _forget(error: BaseException | None) -> None:
    """What a try has left refers to itself, and is collected while it is new: later the node's loop leaves it out of
    collections (`host._Collections`), and with each try there would be more."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect(1)
