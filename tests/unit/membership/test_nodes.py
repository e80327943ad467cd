"""Asking nodes what they host, where not all that answer were asked for."""

from __future__ import annotations

import pytest

from coordinator.membership import nodes
from coordinator.membership.nodes import NodeReport


def report(node: str) -> NodeReport:
    return NodeReport(node, "", False, 0, {}, [], {})


class Broker:
    """Nodes that answer one after the other."""

    def __init__(self, *there: str) -> None:
        self.there = there
        self.asked: list[int] = []

    def broadcast(self, limit: int, timeout_s: float) -> dict[str, NodeReport]:
        self.asked.append(limit)
        return {node: report(node) for node in self.there[: limit or None]}


def test_a_node_that_answers_behind_others_that_were_not_asked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker("node3", "node5", "node1", "node2")
    monkeypatch.setattr(nodes, "_broadcast", broker.broadcast)
    assert nodes.look(["node1", "node2"]).keys() >= {"node1", "node2"}


def test_where_those_that_are_expected_answer_nobody_else_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker("node1", "node2", "node3")
    monkeypatch.setattr(nodes, "_broadcast", broker.broadcast)
    assert nodes.look(["node1", "node2"]).keys() == {"node1", "node2"}
    assert broker.asked == [2]
