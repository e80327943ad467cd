"""What travels through Celery's broker is obeyed and believed only with the installation's key (SECURITY.md)."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings

from coordinator import orders
from coordinator.membership import nodes
from coordinator.orders import FRESH_MS, OrderRefused
from coordinator.replica import tasks
from coordinator.replica.intents import HostReplica, Intents, RemoveReplica

KEY = orders.key_of(b"p" * 32)
NOW = 1_000_000_000


def order(**changes: Any) -> dict[str, Any]:
    sealed = orders.seal_order(KEY, "node1", "remove_replica", "r", {"cluster": "aa", "replica": "b"}, NOW)
    sealed = json.loads(json.dumps(sealed))  # As the broker carries it.
    return sealed | changes


def opened(sealed: dict[str, Any], node: str = "node1", task: str = "remove_replica", now_ms: int = NOW) -> None:
    orders.open_order(KEY, node, task, now_ms=now_ms, **sealed)


def test_an_order_is_obeyed_by_the_node_and_for_the_task_that_were_meant():
    opened(order())
    for wrong in (
        {"node": "node2"},
        {"task": "stop_replica"},
        {"now_ms": NOW + FRESH_MS + 1},
        {"now_ms": NOW - FRESH_MS - 1},
    ):
        with pytest.raises(OrderRefused):
            opened(order(), **wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"request": "other"},
        {"arguments": {"cluster": "aa", "replica": "c"}},
        {"arguments": {"cluster": "aa", "replica": "b", "forced": "node1"}},
        {"at_ms": NOW + 1},
        {"mac": "0" * 32},
        {"mac": ""},
        {"mac": None},
    ],
)
def test_a_changed_order_is_none(changes):
    with pytest.raises(OrderRefused):
        opened(order(**changes))


def test_another_installations_key_orders_nothing():
    sealed = orders.seal_order(orders.key_of(b"q" * 32), "node1", "remove_replica", "r", {}, NOW)
    with pytest.raises(OrderRefused):
        opened(sealed)


class FakeHost:
    def __init__(self) -> None:
        self.node = "node1"
        self.address = ""
        self.order_key = orders.key_of(settings.DATA.peer_key())
        self.journal_identity = 0x11
        self.lifecycle = self
        self.draining = False
        self.ran_us = time.monotonic_ns() // 1_000
        self.intents = Intents(lambda: None)

    def hosted(self) -> list[Any]:
        return []

    def epochs(self) -> dict[str, int]:
        return {"default": 3}


@pytest.fixture
def host():
    host: Any = FakeHost()
    tasks.hosts(host)
    yield host
    tasks.hosts(None)


class Broker:
    """Takes tasks, and asks nodes, as Celery's application does."""

    def __init__(self, monkeypatch) -> None:
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        self.answers: list[Any] = []
        self.expires_s: list[int] = []
        self.control = self
        monkeypatch.setattr(nodes, "current_app", self)

    def send_task(self, name: str, *, kwargs: dict[str, Any], queue: str, **options: Any) -> None:
        self.expires_s.append(options["expires"])
        self.sent.append((name, json.loads(json.dumps(kwargs)), queue))

    def broadcast(self, name: str, *, arguments: dict[str, Any], **options: Any) -> list[Any]:
        report = tasks.replicas(None, **arguments)
        return [json.loads(json.dumps({"node1@conclave": report})), *self.answers]


def test_what_the_management_asks_for_is_posted_on_the_node(host, monkeypatch):
    monkeypatch.setattr(nodes, "_ahead_ms", {})
    broker = Broker(monkeypatch)
    nodes.ask("node1", "host_replica", "a", cluster="aa", cluster_name="second")
    nodes.ask("node1", "remove_replica", "b", cluster="aa", replica="bb", committed_index=7)
    for name, kwargs, queue in broker.sent:
        assert queue == "conclave.node.node1"
        getattr(tasks, name.rpartition(".")[2])(**kwargs)
    assert host.intents.take() == [HostReplica("a", 0xAA, "second"), RemoveReplica("b", 0xAA, 0xBB, 7)]
    assert broker.expires_s == [nodes.TASK_EXPIRES_S] * 2


@pytest.mark.parametrize("ahead_s", [-86_400, -120, 120, 86_400])
def test_a_node_whose_clock_is_another_is_asked_by_that_one(host, monkeypatch, ahead_s):
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + ahead_s * 10**9, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(tasks, "time", clock)
    monkeypatch.setattr(nodes, "_ahead_ms", {})
    broker = Broker(monkeypatch)
    nodes.look()
    nodes.ask("node1", "host_replica", "a", cluster="aa", cluster_name="second")
    ((_, kwargs, _),) = broker.sent
    tasks.host_replica(**kwargs)
    assert host.intents.take() == [HostReplica("a", 0xAA, "second")]
    assert nodes.TASK_EXPIRES_S + ahead_s - 1 <= broker.expires_s[0] <= nodes.TASK_EXPIRES_S + max(0, ahead_s) + 1


def test_a_task_without_the_key_posts_nothing(host):
    forged = orders.seal_order(KEY, "node1", "remove_replica", "r", {"cluster": "aa", "replica": "b"}, NOW)
    with pytest.raises(OrderRefused):
        tasks.remove_replica(**forged)
    with pytest.raises(TypeError):
        tasks.remove_replica(request="r", cluster="aa", replica="b", forced="node1")
    assert host.intents.take() == []


def test_a_report_is_believed_with_the_key_and_for_the_question_that_was_asked(host, monkeypatch):
    broker = Broker(monkeypatch)
    old = tasks.replicas(None, nonce="an earlier one")
    forged = tasks.replicas(None, nonce="") | {"node": "node2", "mac": "0" * 32}
    broker.answers = [{"node1@conclave": old | {"epochs": {}}}, {"node2@conclave": forged}, {"x": "nonsense"}]
    found = nodes.look()
    assert set(found) == {"node1"}
    assert found["node1"].epochs == {"default": 3}


def test_a_worker_that_hosts_nothing_says_so():
    assert tasks.replicas(None) == {"error": tasks.NO_NODE}
    assert tasks.drain(None) == {"error": tasks.NO_NODE}
    with pytest.raises(RuntimeError, match="hosts no node"):
        tasks.stop_replica(request="r")
