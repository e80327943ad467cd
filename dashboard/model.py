"""What the live page knows of one cluster, made from the reports of its nodes. Pure: no clock, no I/O, no Django.

A view is a dictionary of sections, each a dictionary of JSON values: {section: {key: value}}. Two views differ by
`changes`, which names the keys that were set and those that are gone; a browser that applies them to the old view
has the new one. Times in a view that end in `_ms` without "in" or "for" are readings of the feed reader's monotonic
clock; a message carries that clock, so that a browser counts down without either side's wall clock.

Nothing here is invented: what no report says is null, and the page leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from coordinator import wire
from coordinator.membership.note import Note
from coordinator.statemachine.commands import Holder, LockList
from coordinator.statemachine.lock_commands import EXCLUSIVE, SHARED
from dashboard.history import History
from dashboard.sentence import Standing, sentence

HOUSEKEEPING: Final = "conclave/"
"""Locks of Conclave itself (the reconciler's) are no concern of those who look at the page."""
UNREACHABLE_MS: Final = 1_500
"""A node whose last report is older than this is unreachable."""
FORGET_MS: Final = 60_000
"""A node that no voter list names any more leaves the page this long after its last report, and a cluster that nobody
watches makes room for another."""
ELECTIONS_MAX: Final = 64
NODES_MAX: Final = 64
KEPT_BACK_NAMED_MAX: Final = 3
HOSTS_NONE: Final = "it hosts no running replica of this cluster"
HOSTS_ANOTHER: Final = "its replica is of another cluster of this name"
LEASE_JITTER_MS: Final = 150
"""A lease whose end moved by less than this between two reports did not move: the reports were late."""

View = dict[str, dict[str, Any]]


@dataclass(slots=True)
class _Heard:
    feed: wire.Feed
    at_ms: int


class ClusterModel:
    """The state of one cluster, fed by one reader. `nodes` are expected from the start, heard or not.

    A name may have had clusters before, and a replica of one of them may come back: nothing of two clusters is mixed.
    """

    def __init__(self, name: str, nodes: Iterable[str], now_ms: int) -> None:
        self.name = name
        self._identity = 0
        """Of the cluster that is shown; 0 before any replica was heard of."""
        self._expected: dict[str, int] = dict.fromkeys(nodes, now_ms)
        self._configured = frozenset(self._expected)
        self._heard: dict[str, _Heard] = {}
        self._elections: dict[int, wire.Election] = {}
        self._lease_ends: dict[str, tuple[int, int, int]] = {}
        self._locks: LockList | None = None
        self._shared: dict[str, wire.SharedLock] | None = None
        """Of `_locks` those that several may hold, by name; None where their leader does not tell."""
        self._history = History()
        self._leader = ""
        self._term = 0
        self._term_since_ms: int | None = None
        self._leaderless_since_ms = now_ms
        self._astray_since_ms: dict[str, int] = {}
        """Since when which nodes report and do not follow the leader."""
        self._blind_since_ms: int | None = None
        self._begun_ms = now_ms
        self._forgot_ms = now_ms
        self.membership = Note()
        """What is to be said of its membership, where that is not as it is wanted."""
        self.lost = 0
        self.dropped: dict[str, int] = {}

    # --- in -------------------------------------------------------------------------------------

    def apply(self, feed: wire.Feed, now_ms: int, wall_ms: int | None = None) -> bool:
        """Take in one report, newer than those before it (`dashboard.order` sees to that). False: it is of one node too
        many, and changed nothing. A report that names no cluster is of a node that hosts no replica.

        `wall_ms` is wall-clock time, used only to say how long a term that began before this process has lasted.
        """
        node = feed.report.node
        if node not in self._heard and node not in self._configured and len(self._heard) >= NODES_MAX:
            self.drop("too many nodes")
            return False
        self._heard[node] = _Heard(feed, now_ms)
        self._expected.setdefault(node, now_ms)
        self._settle(feed.report.cluster, now_ms)
        if feed.report.cluster == self._identity:
            for election in feed.elections:
                self._learn(election)
        self.tick(now_ms, wall_ms)
        self._take_locks()
        if node == self._leader:
            self._history.note(now_ms, feed.commits_per_s, leaderless=False)
        return True

    def elsewhere(self, feed: wire.Feed, now_ms: int) -> bool:
        """Take in that a node reports of another cluster. Where it has not reported of this one for a while, it hosts
        no replica of it: that is another thing than not to answer. True where that is to be shown."""
        node = feed.report.node
        heard = self._heard.get(node)
        if node not in self._expected or (
            heard is not None and heard.feed.report.replica and now_ms - heard.at_ms <= UNREACHABLE_MS
        ):
            return False
        self._heard[node] = _Heard(_without_replica(feed, HOSTS_NONE if node in self._voters() else ""), now_ms)
        return True

    def tick(self, now_ms: int, wall_ms: int | None = None) -> None:
        """Time has passed: see who still leads."""
        leader, term = self._find_leader(now_ms)
        if term != self._term or (leader and self._term_since_ms is None):
            self._term = term
            self._term_since_ms = self._term_began(now_ms, wall_ms) if leader else None
        if leader != self._leader:
            if not leader:
                self._leaderless_since_ms = now_ms
            self._leader = leader
        self._watch_followers(now_ms)
        known = self._blind_since_ms is None and now_ms - self._begun_ms > UNREACHABLE_MS
        self._history.note(now_ms, None, leaderless=known and not leader)
        if now_ms - self._forgot_ms >= UNREACHABLE_MS:  # Also where nobody looks: nodes come and go all the same.
            self._forget(self._voters(), now_ms)

    def blind(self, now_ms: int) -> None:
        """The feed's Redis does not answer, and has not since a report was last heard: nobody is in sight."""
        if self._blind_since_ms is None:
            self._blind_since_ms = max((heard.at_ms for heard in self._heard.values()), default=now_ms)

    def sighted(self, now_ms: int) -> None:
        """The feed's Redis answers again. Silence is counted from here: it was not the nodes that fell silent."""
        if self._blind_since_ms is not None:
            self._blind_since_ms = None
            self._begun_ms = now_ms
            self._leaderless_since_ms = max(self._leaderless_since_ms, now_ms)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _settle(self, cluster: int, now_ms: int) -> None:
        """A node reports of this cluster: is it the one to show? Of several the one that is led; where none is, the one
        that was shown, while any node reports of it."""
        if cluster in (0, self._identity):
            return
        shown = self._fresh(now_ms, self._identity)
        if shown and (_leader_of(shown, self._voters()) or not _leader_of(self._fresh(now_ms, cluster), ())):
            return
        self._identity = cluster
        self._elections, self._lease_ends, self._locks, self._shared = {}, {}, None, None
        self._history = History()
        self._leader, self._term, self._term_since_ms, self._leaderless_since_ms = "", 0, None, now_ms
        for heard in self._heard.values():
            if heard.feed.report.cluster == cluster:
                for election in heard.feed.elections:
                    self._learn(election)

    def _learn(self, election: wire.Election) -> None:
        """The winner's account of an election wins over what others saw of it; nobody else knows how it began."""
        known = self._elections.get(election.term)
        if known is None or (known.votes == 0 and election.votes > 0):
            self._elections[election.term] = election
            if len(self._elections) > ELECTIONS_MAX:
                del self._elections[min(self._elections)]

    def _take_locks(self) -> None:
        """The locks are what the leader last reported, which may have been before anybody confirmed that it leads."""
        heard = self._heard.get(self._leader)
        if heard is None or heard.feed.locks is None or heard.feed.locks is self._locks:
            return
        ends: dict[str, tuple[int, int, int]] = {}
        for lock in heard.feed.locks.locks:
            if lock.holder is None:
                continue
            end = heard.at_ms + lock.expires_in_ms
            known = self._lease_ends.get(lock.name)
            same = known is not None and known[:2] == (lock.holder.session, lock.token)
            if known is not None and same and abs(known[2] - end) < LEASE_JITTER_MS:
                end = known[2]
            ends[lock.name] = (lock.holder.session, lock.token, end)
        self._lease_ends = ends
        self._locks = heard.feed.locks
        shared = heard.feed.shared
        self._shared = None if shared is None else {each.name: each for each in shared}

    # --- who leads ------------------------------------------------------------------------------

    def _fresh(self, now_ms: int, cluster: int) -> dict[str, wire.ReplicaReport]:
        """What the replicas of that cluster reported lately."""
        return {
            node: heard.feed.report
            for node, heard in self._heard.items()
            if now_ms - heard.at_ms <= UNREACHABLE_MS and heard.feed.report.cluster == cluster
        }

    def _find_leader(self, now_ms: int) -> tuple[str, int]:
        """Who leads, and the newest term that anybody has seen."""
        reports = self._fresh(now_ms, self._identity)
        term = max((report.term for report in reports.values()), default=self._term)
        return _leader_of(reports, self._voters()), term

    def _watch_followers(self, now_ms: int) -> None:
        reports = self._fresh(now_ms, self._identity) if self._leader else {}
        astray = [
            node for node, report in reports.items() if (report.leader, report.term) != (self._leader, self._term)
        ]
        self._astray_since_ms = {node: self._astray_since_ms.get(node, now_ms) for node in astray}

    def _astray_ms(self, node: str, now_ms: int) -> int:
        """How long `node` has reported and not followed the leader; 0 while that is too short to mean anything."""
        for_ms = now_ms - self._astray_since_ms.get(node, now_ms)
        return for_ms if for_ms > UNREACHABLE_MS else 0

    def _term_began(self, now_ms: int, wall_ms: int | None) -> int:
        election = self._elections.get(self._term)
        if election is None or wall_ms is None or not election.at_ms:
            return now_ms
        return now_ms - max(0, wall_ms - election.at_ms)

    def _voters(self) -> list[str]:
        """As the newest term's report names them; before any report, the nodes that were configured."""
        reports = [heard.feed.report for heard in self._heard.values()]
        named = [report for report in reports if report.voters and report.cluster == self._identity]
        if not named:
            return sorted(self._configured)
        return sorted(max(named, key=lambda report: (report.term, report.commit_index)).voters)

    def nodes(self) -> set[str]:
        """Every node that a report or the configuration names: whose feed to listen to."""
        return set(self._expected) | set(self._voters())

    # --- out ------------------------------------------------------------------------------------

    def view(self, now_ms: int) -> View:
        """Everything the page shows, as JSON values."""
        self.tick(now_ms)
        voters = self._voters()
        self._forget(voters, now_ms)
        for node in voters:
            self._expected.setdefault(node, now_ms)
        replicas = {node: self._replica(node, node in voters, now_ms) for node in sorted(self._expected)}
        return {
            "cluster": {
                "name": self.name,
                "leader": self._leader,
                "term": self._term,
                "voters": voters,
                "commit_index": max((row["commit"] or 0 for row in replicas.values()), default=0),
                "leaderless_since_ms": None if self._leader else self._leaderless_since_ms,
            },
            "sentence": self._sentence(voters, replicas, now_ms),
            "replicas": replicas,
            "log": {node: _log_row(self._ours(heard.feed)) for node, heard in self._heard.items()},
            "elections": {str(term): _election(election) for term, election in self._elections.items()},
            "locks": self._lock_rows(),
            "lock_totals": self._lock_totals(),
            "figures": self._figures(),
            "history": self._history.view(),
            "feed": {"lost": self.lost, "dropped": dict(self.dropped)},
        }

    def _forget(self, voters: list[str], now_ms: int) -> None:
        self._forgot_ms = now_ms
        for node in set(self._expected) - self._configured - set(voters):
            heard = self._heard.get(node)
            if heard is None or now_ms - heard.at_ms > FORGET_MS:
                del self._expected[node]
                self._heard.pop(node, None)

    def _replica(self, node: str, is_voter: bool, now_ms: int) -> dict[str, Any]:
        heard = self._heard.get(node)
        silent_since = self._silent_since(node, now_ms)
        if heard is None:
            return _NEVER_HEARD | {"voter": is_voter, "silent_since_ms": silent_since}
        report = self._ours(heard.feed).report
        # A node that hosts no replica has no term and no log, rather than empty ones.
        hosts = bool(report.replica)
        return {
            "role": report.role if silent_since is None else "unreachable",
            "leads": node == self._leader,
            "voter": is_voter,
            "counts": is_voter
            and silent_since is None
            and report.role != "waiting"
            and not self._astray_ms(node, now_ms),
            "term": report.term if hosts else None,
            "vote": report.vote,
            "leader": report.leader,
            "last": report.last_index if hosts else None,
            "commit": report.commit_index if hosts else None,
            "applied": report.applied_index if hosts else None,
            "pid": report.pid,
            "waiting_for": report.waiting_for,
            "drops": dict(report.drops),
            "crashable": report.faults_allowed and silent_since is None,
            "silent_since_ms": silent_since,
        }

    def _ours(self, feed: wire.Feed) -> wire.Feed:
        """What a node says of the cluster that is shown."""
        is_of_another = feed.report.cluster not in (0, self._identity)
        return _without_replica(feed, HOSTS_ANOTHER) if is_of_another else feed

    def _silent_since(self, node: str, now_ms: int) -> int | None:
        """Since when `node` has not been heard, None while it is; never before this process could hear it."""
        heard = self._heard.get(node)
        if heard is not None and now_ms - heard.at_ms <= UNREACHABLE_MS:
            return None
        return max(self._begun_ms, heard.at_ms if heard else self._expected[node])

    def _sentence(self, voters: list[str], replicas: Mapping[str, dict[str, Any]], now_ms: int) -> dict[str, Any]:
        waiting = {node: row["waiting_for"] for node, row in replicas.items() if row["role"] == "waiting"}
        silent = {
            node: now_ms - row["silent_since_ms"]
            for node, row in replicas.items()
            if node in voters and row["silent_since_ms"] is not None
        }
        astray = {
            node: for_ms
            for node in voters
            if node not in silent and node not in waiting and (for_ms := self._astray_ms(node, now_ms))
        }
        said = sentence(
            Standing(
                voters=voters,
                leader=self._leader,
                term=self._term,
                term_ms=None if self._term_since_ms is None or not self._leader else now_ms - self._term_since_ms,
                silent_ms=silent,
                waiting=waiting,
                leaderless_ms=None if self._leader else now_ms - self._leaderless_since_ms,
                blind_ms=None if self._blind_since_ms is None else now_ms - self._blind_since_ms,
                looking=bool(silent) and now_ms - self._begun_ms <= UNREACHABLE_MS,
                astray_ms=astray,
            )
        )
        return {
            "state": said.state,
            "words": [list(pair) for pair in said.words],
            "detail": [list(pair) for pair in said.detail],
            "notes": [*said.notes, *([self.membership.words] if self.membership.words else [])],
            "rebuild": self.membership.refused,
        }

    def _lock_rows(self) -> dict[str, Any]:
        if self._locks is None:
            return {}
        return {
            lock.name: {
                "holder": _holder(lock.holder),
                **self._sharing(lock.name),
                "token": lock.token,
                "waiters": [_holder(waiter) for waiter in lock.waiters],
                "waiting": lock.waiting,
                "ttl_ms": lock.ttl_ms,
                "ends_at_ms": self._lease_ends[lock.name][2],
            }
            for lock in self._locks.locks
            if lock.holder is not None and not lock.name.startswith(HOUSEKEEPING)
        }

    def _sharing(self, name: str) -> dict[str, Any]:
        """How a lock is held, and how many hold it, of how many that may; null where that is not known."""
        if self._shared is None:
            return {"mode": None, "holding": None, "limit": None}
        shared = self._shared.get(name)
        if shared is None:
            return {"mode": EXCLUSIVE, "holding": 1, "limit": 1}
        return {
            "mode": shared.mode,
            "holding": shared.holding,
            "limit": None if shared.mode == SHARED else shared.limit,
        }

    def _lock_totals(self) -> dict[str, Any]:
        """Names without a holder are kept back for a lock-delay, and not held; they are counted among those listed."""
        locks = self._locks
        listed = locks.locks if locks else ()
        hidden = [lock for lock in listed if lock.name.startswith(HOUSEKEEPING)]
        kept_back = [lock for lock in listed if lock.holder is None and not lock.name.startswith(HOUSEKEEPING)]
        most_wanted = sorted(kept_back, key=lambda lock: (-lock.waiting, lock.name))[:KEPT_BACK_NAMED_MAX]
        return {
            "known": locks is not None,
            "counting": bool(self._leader) and self._blind_since_ms is None,
            "in_sight": self._blind_since_ms is None,
            "held": locks.held - len(hidden) - len(kept_back) if locks else 0,
            "kept_back": len(kept_back),
            "kept_back_first": [{"name": lock.name, "waiting": lock.waiting} for lock in most_wanted],
            "waiting": locks.waiting - sum(lock.waiting for lock in hidden) if locks else 0,
        }

    def _figures(self) -> dict[str, Any]:
        heard = self._heard.get(self._leader)
        if heard is None:
            return {}
        feed = heard.feed
        return {
            "commits_per_s": round(feed.commits_per_s, 1),
            "commit_ms_p50": round(feed.commit_ms_p50, 2),
            "commit_ms_p99": round(feed.commit_ms_p99, 2),
            "fsync_ms_p50": round(feed.fsync_ms_p50, 2),
        }


def _leader_of(reports: Mapping[str, wire.ReplicaReport], voters: Sequence[str]) -> str:
    """A replica leads, for this page, while it says so, nobody has seen a higher term, and a majority of the voters
    (itself among them) names it in that term. `voters`: where it does not name them itself."""
    term = max((report.term for report in reports.values()), default=0)
    in_term = {node: report for node, report in reports.items() if report.term == term}
    for node, report in in_term.items():
        if report.role != "leader":
            continue
        entitled = report.voters or voters
        following = [name for name in entitled if name in in_term and in_term[name].leader == node]
        if len({node, *following}) > len(entitled) // 2:
            return node
    return ""


def _without_replica(feed: wire.Feed, waiting_for: str) -> wire.Feed:
    """What the node would say if it were asked for a cluster that it hosts nothing of."""
    report = msgspec.structs.replace(
        feed.report,
        cluster=0,
        cluster_name="",
        replica=0,
        role="waiting",
        leader="",
        term=0,
        vote="",
        last_index=0,
        commit_index=0,
        applied_index=0,
        digest="",
        waiting_for=waiting_for,
        voters=(),
    )
    return msgspec.structs.replace(feed, report=report, elections=(), log=(), first_index=1, locks=None)


_NEVER_HEARD: Final[dict[str, Any]] = {
    "role": "unreachable",
    "leads": False,
    "counts": False,
    "term": None,
    "vote": "",
    "leader": "",
    "last": None,
    "commit": None,
    "applied": None,
    "pid": None,
    "waiting_for": "",
    "drops": {},
    "crashable": False,
}


def _holder(holder: Holder | None) -> dict[str, Any] | None:
    """Sessions are named as the API names them."""
    return None if holder is None else {"session": f"s{holder.session}", "principal": holder.principal}


def _log_row(feed: wire.Feed) -> dict[str, Any]:
    return {"first": feed.first_index, "cells": [[cell.index, cell.term, cell.what] for cell in feed.log]}


def _election(election: wire.Election) -> dict[str, Any]:
    return {
        "term": election.term,
        "leader": election.leader,
        "reason": election.reason,
        "votes": election.votes,
        "voters": election.voters,
        "at_ms": election.at_ms,
        "waited_ms": election.waited_ms,
    }


# --- changes ------------------------------------------------------------------------------------


def changes(old: View, new: View) -> dict[str, dict[str, Any]]:
    """What turns `old` into `new`: {"set": {section: {key: value}}, "gone": {section: [key]}}, empty parts left out."""
    change_set: dict[str, Any] = {}
    gone: dict[str, Any] = {}
    for section, rows in new.items():
        before = old.get(section, {})
        put = {key: value for key, value in rows.items() if key not in before or before[key] != value}
        if put or section not in old:
            change_set[section] = put
        left = [key for key in before if key not in rows]
        if left:
            gone[section] = left
    return {"set": change_set, "gone": gone}


def with_changes(view: View, delta: Mapping[str, Mapping[str, Any]]) -> View:
    """`view` with a delta of `changes` applied, as every browser does it."""
    result = {section: dict(rows) for section, rows in view.items()}
    for section, keys in delta["gone"].items():
        for key in keys:
            del result[section][key]
    for section, rows in delta["set"].items():
        result.setdefault(section, {}).update(rows)
    return result
