"""Reports as nodes would make them, for tests of what the dashboard makes of them."""

from __future__ import annotations

from typing import Any

from coordinator import wire
from coordinator.statemachine.commands import Holder, LockList, LockView

NODES = ("node1", "node2", "node3")
CLUSTER = 0x5EED


def feed(node: str, *, role: str = "follower", leader: str = "node2", term: int = 3, **changed: Any) -> wire.Feed:
    """A report of `node`. `changed` replaces fields of the report or of the feed around it."""
    report: dict[str, Any] = {
        "node": node, "cluster": CLUSTER, "cluster_name": "default", "replica": 7, "pid": 100, "role": role,
        "leader": leader, "term": term, "vote": leader, "last_index": 20, "commit_index": 20, "applied_index": 20,
        "digest": "", "waiting_for": "", "voters": NODES, "drops": {}, "faults_allowed": True,
    }  # fmt: skip
    around: dict[str, Any] = {
        "boot": 1, "number": 1, "elections": (), "log": (), "first_index": 1, "locks": None,
        "commits_per_s": 0.0, "commit_ms_p50": 0.0, "commit_ms_p99": 0.0, "fsync_ms_p50": 0.0, "shared": None,
    }  # fmt: skip
    for name, value in changed.items():
        (report if name in report else around)[name] = value
    return wire.Feed(report=wire.ReplicaReport(**report), **around)


def quorum(leader: str = "node2", *, term: int = 3, nodes: tuple[str, ...] = NODES, **changed: Any) -> list[wire.Feed]:
    """A report of each of `nodes`, which agree on the leader; `changed` is the leader's."""
    return [
        feed(node, role="leader", leader=leader, term=term, **changed)
        if node == leader
        else feed(node, leader=leader, term=term)
        for node in nodes
    ]


def lock(name: str = "deploy", *, session: int = 5, token: int = 17, expires_in_ms: int = 9_000, ttl_ms: int = 10_000,
         waiters: tuple[Holder, ...] = ()) -> LockView:  # fmt: skip
    return LockView(name, Holder(session, 0, "user:ann"), token, waiters, expires_in_ms, ttl_ms, len(waiters))


def locks(*views: LockView) -> LockList:
    return LockList(views, len(views), sum(len(view.waiters) for view in views))


def election(term: int = 3, leader: str = "node2", **changed: Any) -> wire.Election:
    fields: dict[str, Any] = {"reason": "", "votes": 0, "voters": 0, "at_ms": 1_000_000, "waited_ms": 0} | changed
    return wire.Election(term, leader, **fields)
