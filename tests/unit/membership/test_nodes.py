"""Asking nodes what they host, where not all that answer were asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import pytest

from coordinator.membership import nodes
from coordinator.membership.nodes import NodeReport, TaskOutcome


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


class Busy:
    """A node that takes what it is asked a look later, and had refused it before."""

    def __init__(self, *becomes: TaskOutcome) -> None:
        self.says = TaskOutcome("refused", "it is being sent a log; ask again", "5")
        self.becomes = [self.says, *becomes]
        self.is_asked = False

    def look(self, expected: Collection[str], timeout_s: float) -> dict[str, NodeReport]:
        if self.is_asked and self.becomes:
            self.says = self.becomes.pop(0)
        return {"node1": msgspec.structs.replace(report("node1"), outcomes={"birth-2a-form": self.says})}

    def ask(self, node: str, task: str, request: str, **arguments: str) -> None:
        self.is_asked = True


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> Callable[[Busy, float], TaskOutcome | None]:
    def ask(busy: Busy, timeout_s: float = 60) -> TaskOutcome | None:
        monkeypatch.setattr(nodes, "look", busy.look)
        monkeypatch.setattr(nodes, "ask", busy.ask)
        return nodes.ask_and_wait("node1", "form_cluster", "birth-2a-form", timeout_s).outcome

    monkeypatch.setattr(nodes, "POLL_S", 0)
    return ask


def test_what_a_node_refused_when_it_was_asked_before_is_no_answer(form):
    done = TaskOutcome("done", "begins the log", "5", tries=2)
    assert form(Busy(TaskOutcome("pending", "posted", "0", tries=2), done)) == done


def test_a_node_that_refuses_again_in_the_same_words_answers(form):
    again = TaskOutcome("refused", "it is being sent a log; ask again", "5", tries=2)
    assert form(Busy(again)) == again


def test_a_node_that_says_nothing_more_has_not_answered(form):
    assert form(Busy(), 0) is None


def test_nobody_waits_for_what_a_node_had_in_hand_when_its_process_ended(monkeypatch):
    pending = TaskOutcome("pending", "being written", "5")
    answers = [{}, {"restore-2a": pending}, {"restore-2a": pending}, None, {}]

    def look(expected: Collection[str], timeout_s: float) -> dict[str, NodeReport]:
        said = answers.pop(0)  # One look more than there are answers is one that nobody needs.
        return {} if said is None else {"node1": msgspec.structs.replace(report("node1"), outcomes=said)}

    monkeypatch.setattr(nodes, "look", look)
    monkeypatch.setattr(nodes, "ask", lambda *order, **arguments: None)
    monkeypatch.setattr(nodes, "POLL_S", 0)
    asked = nodes.ask_and_wait("node1", "restore_replica", "restore-2a", 60)
    assert asked.outcome is not None
    assert asked.outcome.state == nodes.LOST
    assert not answers


def test_what_a_node_has_not_taken_yet_is_waited_for(monkeypatch):
    done = TaskOutcome("done", "begins anew", "5")
    answers = [{}, {}, {}, {"restore-2a": done}]

    def look(expected: Collection[str], timeout_s: float) -> dict[str, NodeReport]:
        return {"node1": msgspec.structs.replace(report("node1"), outcomes=answers.pop(0))}

    monkeypatch.setattr(nodes, "look", look)
    monkeypatch.setattr(nodes, "ask", lambda *order, **arguments: None)
    monkeypatch.setattr(nodes, "POLL_S", 0)
    assert nodes.ask_and_wait("node1", "restore_replica", "restore-2a", 60).outcome == done
