"""What a node answers at once to `celery control` and `celery inspect`: what it will not do, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.replica import tasks
from coordinator.replica.hosted import Hosted
from coordinator.replica.intents import Drain, Intents, TransferLeadership


class _Node:
    """As much of a host as the commands look at."""

    node = "node1"

    def __init__(self) -> None:
        self.lifecycle = self
        self.intents = Intents(lambda: None)

    def hosted(self) -> list[Hosted]:
        voters = ("node1", "node2", "node3")
        return [
            Hosted(1, "mine", 11, "running", "leader", "node1", voters=voters, learners=("node4",)),
            Hosted(2, "theirs", 12, "running", "follower", "node2", voters=voters),
            Hosted(3, "nobodys", 13, "running", "candidate", voters=voters),
            Hosted(4, "resting", 14, "stopped"),
            Hosted(5, "alone", 15, "running", "leader", "node1", voters=("node1",)),
        ]


@pytest.fixture
def node() -> Iterator[_Node]:
    node: Any = _Node()
    tasks.hosts(node)
    yield node
    tasks.hosts(None)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"cluster": "other"}, "node1 hosts no replica of other; it hosts alone, mine, nobodys, resting, theirs"),
        ({"cluster": "theirs"}, "node1 does not lead theirs; as far as it knows node2 does"),
        ({"cluster": "nobodys", "node": "node2"}, "node1 does not lead nobodys; it knows of nobody who does"),
        ({"cluster": "resting"}, "node1 does not lead resting: its replica is stopped"),
        ({"cluster": "mine", "node": "node77"}, "node77 has no vote in mine; node1, node2, node3 have"),
        ({"cluster": "mine", "node": "node4"}, "node4 has no vote in mine; node1, node2, node3 have"),
        ({"cluster": "alone"}, "nobody but node1 has a vote in alone"),
        ({}, "expected transfer CLUSTER [NODE]: missing a required argument: 'cluster'"),
        (
            {"cluster": "mine", "to": "node2"},
            "expected transfer CLUSTER [NODE]: got an unexpected keyword argument 'to'",
        ),
        ({"cluster": 7}, "expected transfer CLUSTER [NODE]: cluster is to be text, got 7"),
        ({"cluster": "mine", "node": None}, "expected transfer CLUSTER [NODE]: node is to be text, got None"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused_in_the_answer(
    node: _Node, arguments: dict[str, Any], refusal: str
) -> None:
    assert tasks.transfer(None, **arguments) == {"error": refusal}
    assert node.intents.take() == []


def test_who_leads_already_says_so(node: _Node) -> None:
    assert tasks.transfer(None, cluster="mine", node="node1") == {"ok": "node1 leads mine already"}
    assert node.intents.take() == []


@pytest.mark.parametrize("target", ["", "node3"])
def test_a_transfer_that_may_be_is_posted(node: _Node, target: str) -> None:
    assert tasks.transfer(None, cluster="mine", node=target) == {"ok": "node1 hands mine over"}
    (intent,) = node.intents.take()
    assert isinstance(intent, TransferLeadership)
    assert (intent.cluster, intent.node) == (1, target)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"on": "of"}, "expected drain [on|off]: got 'of'"),
        ({"on": True}, "expected drain [on|off]: on is to be text, got True"),
        ({"node": "node1"}, "expected drain [on|off]: got an unexpected keyword argument 'node'"),
    ],
)
def test_a_drain_that_is_none_is_refused_in_the_answer(node: _Node, arguments: dict[str, Any], refusal: str) -> None:
    assert tasks.drain(None, **arguments) == {"error": refusal}
    assert node.intents.take() == []


def test_a_drain_is_posted(node: _Node) -> None:
    assert tasks.drain(None) == {"ok": "node1 hands over what it leads"}
    assert tasks.drain(None, on="off") == {"ok": "node1 may lead again"}
    assert [intent.on for intent in node.intents.take() if isinstance(intent, Drain)] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"nonce": 7}, "expected replicas: nonce is to be text, got 7"),
        ({"cluster": "mine"}, "expected replicas: got an unexpected keyword argument 'cluster'"),
    ],
)
def test_a_question_that_is_none_is_refused_in_the_answer(node: _Node, arguments: dict[str, Any], refusal: str) -> None:
    assert tasks.replicas(None, **arguments) == {"error": refusal}


@pytest.mark.parametrize("command", [tasks.transfer, tasks.drain, tasks.replicas])
def test_without_a_node_nothing_else_is_looked_at(command: Any) -> None:
    assert command(None, nonsense=1) == {"error": tasks.NO_NODE}
