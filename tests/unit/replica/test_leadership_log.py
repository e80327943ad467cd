"""What a node's log says of who leads: each change once, in few lines, however often leaders come and go."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.replica.leadership_log import LOOK_US, NAMED_MAX, PAUSE_US_MAX, LeadershipLog

HOUR_US = 3_600_000_000


class Watched:
    """The log of node1, and clusters of which it has replicas."""

    def __init__(self, caplog: pytest.LogCaptureFixture, *names: str) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._log = LeadershipLog("node1")
        self.now_us = 1_000_000
        self.replicas: list[Any] = [
            SimpleNamespace(
                cluster=number,
                cluster_name=name,
                leader_node="node2",
                stopped=False,
                configuration=SimpleNamespace(members=("node1", "node2", "node3")),
                engine=SimpleNamespace(term=4),
                history=SimpleNamespace(elections=[]),
            )
            for number, name in enumerate(names)
        ]
        self.look()

    def led(self, leader: str, term: int, why: str = "") -> None:
        for replica in self.replicas:
            replica.leader_node, replica.engine.term = leader, term
            replica.history.elections.append(SimpleNamespace(term=term, reason=why))

    def look(self, passed_us: int = LOOK_US) -> list[str]:
        """What is new in the log."""
        self.now_us += passed_us
        self._caplog.clear()
        self._log.look(self.replicas, self.now_us)
        return [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]


def test_a_leadership_is_told_once_with_its_term_and_what_was_before(caplog):
    watched = Watched(caplog, "default")
    assert watched.look() == []
    watched.led("node3", 5)
    assert watched.look(HOUR_US) == ["INFO default: node3 leads in term 5 (before: node2 in term 4)"]
    watched.led("node1", 6, "the channel of node3 fell silent")
    assert watched.look(HOUR_US) == [
        "INFO default: this node leads in term 6 (before: node3 in term 5), the channel of node3 fell silent"
    ]
    assert watched.look(HOUR_US) == []


def test_that_nobody_leads_is_told_where_it_lasts_and_not_again_with_each_term(caplog):
    watched = Watched(caplog, "default")
    watched.led("", 5)
    assert watched.look(HOUR_US) == []
    assert watched.look() == ["WARNING default: no leader is known, term 5 (before: node2 in term 4)"]
    watched.led("", 6)
    assert watched.look(HOUR_US) == []
    watched.led("node2", 7)
    assert watched.look() == ["INFO default: node2 leads in term 7 (before: nobody in term 5)"]


def test_a_leader_that_flaps_does_not_fill_the_log(caplog):
    watched = Watched(caplog, "default")
    lines = []
    for term in range(5, 5 + 3600):
        watched.led(f"node{2 + term % 2}", term)
        lines += watched.look()
    assert 2 <= len(lines) <= 10 + HOUR_US // PAUSE_US_MAX
    watched.look(HOUR_US)
    watched.led("node1", 9_999)
    assert len(watched.look()) == 1, "what comes after an hour's rest is told at once"


def test_many_clusters_are_one_line(caplog):
    watched = Watched(caplog, *(f"cluster{number}" for number in range(100)))
    watched.led("node3", 5)
    (line,) = watched.look(HOUR_US)
    assert line.count("node3 leads in term 5") == NAMED_MAX
    assert line.endswith(f"; and of {100 - NAMED_MAX} more clusters")


def test_of_a_replica_that_takes_no_part_nothing_is_said(caplog):
    watched = Watched(caplog, "stopped", "empty")
    watched.replicas[0].stopped = True
    watched.replicas[1].configuration.members = ()
    watched.led("node3", 5)
    assert watched.look(HOUR_US) == []
