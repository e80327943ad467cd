"""Quotas: what the cluster and each principal have, and whether there may be more of it.

Whoever adds something that is counted asks first (`refuse_…`) and counts then. What is counted can be told from the
tables: a key counts for the principal that created it (`Item.owner`), a session and its places in line for its own. So
a snapshot holds the quotas alone. A quota below what is in use stops growth, and nothing else.

Watches are counted by the leader, who says how many there are when it asks (`refuse_watch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Failure
from coordinator.statemachine.permissions import CLUSTER, EACH, NO_QUOTA, Quota, QuotaView, Used

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

NO_QUOTAS = Quota()


class Use:
    """What a principal has."""

    __slots__ = ("key_bytes", "keys", "sessions", "waiters")

    def __init__(self) -> None:
        self.key_bytes = self.keys = self.sessions = self.waiters = 0

    def view(self) -> Used:
        return Used(self.key_bytes, self.keys, self.sessions, self.waiters)


# --- counting: keys are counted where they are placed (`namespace.py`) ----------------------------


def count_session(uses: dict[str, Use], principal: str, more: int) -> None:
    use = uses.setdefault(principal, Use())
    use.sessions += more
    forget_unused(uses, principal)


def count_waiters(uses: dict[str, Use], principal: str, more: int) -> None:
    """Only a principal with a session has places in line: its row is there, and stays."""
    uses[principal].waiters += more


def forget_unused(uses: dict[str, Use], principal: str) -> None:
    use = uses[principal]
    if not (use.keys or use.sessions or use.waiters):
        del uses[principal]


# --- what there may be ----------------------------------------------------------------------------


def quota_of(state: State, principal: str) -> Quota:
    rows = state.quotas.rows
    own = rows.get(principal)
    if own is None and principal != CLUSTER:
        own = rows.get(EACH)
    return own or NO_QUOTAS


def used(state: State, principal: str) -> Used:
    if principal == CLUSTER:
        return Used(state.key_bytes, len(state.keys.rows), len(state.sessions.rows), state.waiting)
    use = state.uses.get(principal)
    return Used(0, 0, 0, 0) if use is None else use.view()


def view(state: State, principal: str) -> QuotaView:
    own = state.quotas.rows.get(principal)
    return QuotaView(principal, own, quota_of(state, principal), used(state, principal))


# --- may there be more? ---------------------------------------------------------------------------


def refuse_keys(state: State, owner: str, keys: int, key_bytes: int) -> Failure | None:
    """Why there may not be so many keys and bytes more. `owner` "": a key that nobody is known to have created."""
    if not state.quotas.rows:
        return None
    for who in (CLUSTER, owner) if owner else (CLUSTER,):
        quota, use = quota_of(state, who), used(state, who)
        refused = _refuse(who, "keys", quota.keys, use.keys, keys) or _refuse(
            who, "bytes of keys and contents", quota.key_bytes, use.key_bytes, key_bytes
        )
        if refused is not None:
            return refused
    return None


def refuse_session(state: State, principal: str) -> Failure | None:
    if not state.quotas.rows:
        return None
    for who in (CLUSTER, principal):
        refused = _refuse(who, "sessions", quota_of(state, who).sessions, used(state, who).sessions, 1)
        if refused is not None:
            return refused
    return None


def refuse_waiters(state: State, principal: str, places: int) -> Failure | None:
    if not state.quotas.rows:
        return None
    for who in (CLUSTER, principal):
        refused = _refuse(who, "waiters", quota_of(state, who).waiters, used(state, who).waiters, places)
        if refused is not None:
            return refused
    return None


def refuse_watch(state: State, principal: str, of_cluster: int, of_principal: int) -> Failure | None:
    """The counts are the leader's."""
    return _refuse(CLUSTER, "watches", quota_of(state, CLUSTER).watches, of_cluster, 1) or _refuse(
        principal, "watches", quota_of(state, principal).watches, of_principal, 1
    )


def _refuse(who: str, what: str, most: int, there: int, more: int) -> Failure | None:
    if most == NO_QUOTA or more <= 0 or there + more <= most:
        return None
    whose = f"principal {who!r}" if who else "the cluster"
    return Failure(commands.FULL, f"{whose} has a quota of {most} {what}, has {there}, and this takes {more} more")
