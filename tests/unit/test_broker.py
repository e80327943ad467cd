"""A Redis that is there and says nothing, or an address that swallows everything, ends a command in good time.

A worker has the same options, and is to be idle for as long as it likes: tests/integration/test_broker.py asks that of
a real Redis.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import redis
from celery import Celery
from celery.exceptions import WorkerShutdown
from django.conf import settings
from kombu.transport.redis import Transport

from coordinator.celery import app
from coordinator.config import url_for_celery
from coordinator.membership import nodes
from coordinator.replica import consumer
from coordinator.replica.control import ANSWER_KEPT_MS
from tests.integration.private_redis import PrivateRedis

ANSWER_S_MAX = 10.0


@pytest.fixture
def silent() -> Iterator[str]:
    """Of a server that takes connections and never answers, as a Redis that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def swallowing() -> Iterator[str]:
    """Of a server whose line of connections is full, so that no packet to it is answered."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["silent", "swallowing"])
def test_a_redis_that_does_not_answer_ends_a_command_in_good_time(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery(broker=request.getfixturevalue(kind), set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.broker_url = request.getfixturevalue(kind)
    monkeypatch.setattr(nodes, "current_app", app)
    began = time.monotonic()
    with pytest.raises(nodes.BrokerUnavailable, match="Celery's broker does not answer: Timeout"):
        nodes.look()
    assert time.monotonic() - began < ANSWER_S_MAX


def test_a_workers_question_without_an_answer_is_no_lost_connection() -> None:
    """A worker without work has Redis hold back its answer for a while; no time-out of a socket may come before."""
    assert Transport.brpop_timeout * 3 <= settings.BROKER_ANSWER_S_MAX


@pytest.fixture
def control_of(tmp_path: Path) -> Iterator[tuple[PrivateRedis, Celery]]:
    """A Redis, and the control of an application whose broker it is."""
    with PrivateRedis(tmp_path / "data") as server:
        made = Celery(broker=url_for_celery(server.url), set_as_current=False, control=app.control_cls)
        made.config_from_object("django.conf:settings", namespace="CELERY")
        made.conf.broker_url = url_for_celery(server.url)
        yield server, made


def test_an_answer_that_its_asker_is_gone_for_does_not_stay_in_redis(control_of: tuple[PrivateRedis, Celery]) -> None:
    """An asker that had as many answers as it waited for deleted its queue, and the next answer made it anew."""
    server, asked = control_of
    mailbox = asked.control.mailbox
    with asked.connection() as connection, redis.Redis.from_url(server.url) as looking:
        channel = connection.default_channel
        queue = mailbox.reply_queue(channel)
        queue.declare()
        answer = {"node1@conclave": {"ok": "here"}}
        node = mailbox.Node("node1@conclave", channel=channel)
        node.reply(answer, mailbox.reply_exchange.name, queue.routing_key, "a ticket")
        (key,) = looking.keys(f"*{queue.name}")
        assert 0 < looking.pttl(key) <= ANSWER_KEPT_MS
        assert queue.get().payload == answer, "until then it is there"


def test_a_process_that_asks_for_months_keeps_nothing_of_it(control_of: tuple[PrivateRedis, Celery]) -> None:
    """The reconciler asks all nodes each second while it waits for something."""
    _, asking = control_of
    with asking.connection() as connection:
        for _ in range(3):
            assert asking.control.broadcast("replicas", reply=True, timeout=0.01, connection=connection) == []
        exchanges = connection.transport.state.exchanges
        assert not exchanges[asking.control.mailbox.reply_exchange.name].get("table")
        assert not any(channel._expires for channel in connection.transport.channels)


@pytest.mark.long
def test_whatever_a_broker_answers_the_worker_goes_on_until_it_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What redis-py raises of a server that is no Redis is of no class of its own."""
    monkeypatch.setattr(consumer, "PAUSE_S_MIN", 0.0)
    celery = Celery(broker="redis://127.0.0.1:1/0")
    celery.conf.broker_channel_error_retry = True
    worker = consumer.PatientConsumer(
        lambda _: None, app=celery, controller=Mock(use_eventloop=False), pool=Mock(), timer=Mock()
    )
    errors = [TypeError("unhashable type: 'list'"), IndexError(), AttributeError(), OSError("lost"), WorkerShutdown(0)]

    def start(_: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(worker.blueprint, "start", start)
    with pytest.raises(WorkerShutdown):
        worker.start()
    assert not errors


def test_a_message_that_cannot_be_taken_is_dropped_and_those_behind_it_are_heard() -> None:
    """It was put back, and failed over again, for ever: a body that is none, or no `id` (to Celery's transport a
    KeyError is a lost connection)."""
    celery = Celery(broker="redis://127.0.0.1:1/0")
    worker = consumer.PatientConsumer(
        lambda _: None, app=celery, controller=Mock(use_eventloop=False), pool=Mock(), timer=Mock()
    )
    worker.strategies = {"an order": Mock(side_effect=[TypeError("no len()"), KeyError("id"), None, OSError("lost")])}
    handle = worker.create_task_handler()
    messages = [Mock(headers={"task": "an order"}, acknowledged=False) for _ in range(4)]
    for message in messages[:3]:
        handle(message)
    with pytest.raises(OSError, match="lost"):
        handle(messages[3])
    assert [message.ack.called for message in messages] == [True, True, False, False]
