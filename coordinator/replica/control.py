"""Remote control over Celery's broker, with nothing left behind, in Redis or in a process that asks for months.

A node's answers lie in Redis until whoever asked takes them, and who asked may be gone: it had the answers that it
waited for, or waits no longer. It deletes its queue, and an answer that is under way right then makes it anew, with
nobody to take it or delete it, ever.
"""

from __future__ import annotations

from typing import Any, Final

from celery.app.control import Control as CelerysControl
from kombu.pidbox import Mailbox as CelerysMailbox

ANSWER_KEPT_MS: Final = 60_000
"""Longer than anybody waits who takes answers as they come."""


class Mailbox(CelerysMailbox):
    def _publish_reply(
        self,
        reply: Any,
        exchange: str,
        routing_key: str,
        ticket: str,
        channel: Any = None,
        producer: Any = None,
        **options: Any,
    ) -> None:
        connection: Any = self.connection
        super()._publish_reply(  # type: ignore[no-untyped-call]
            reply, exchange, routing_key, ticket, channel=channel, producer=producer, **options
        )
        with (channel or connection.default_channel).conn_or_acquire() as redis:
            redis.pexpire(f"{routing_key}.{exchange}", ANSWER_KEPT_MS)

    def _collect(self, *arguments: Any, **options: Any) -> Any:
        """Kombu keeps a row of each queue for answers that was bound, also once that is deleted, and how long it was to
        live; each question has another queue. Redis has the table that is looked at."""
        connection: Any = self.connection
        exchange: Any = self.reply_exchange
        queue: Any = self.reply_queue
        try:
            return super()._collect(*arguments, **options)  # type: ignore[no-untyped-call]
        finally:
            connection.transport.state.exchanges.get(exchange.name, {}).pop("table", None)
            for channel in connection.transport.channels:
                channel._expires.pop(queue.name, None)


class Control(CelerysControl):  # type: ignore[misc]
    Mailbox = Mailbox
