"""Defects of locks that were reported of other services, as histories of the state machine. Each test is named after
its report; the first sentence says what went wrong there."""

from __future__ import annotations

from random import Random

from coordinator.statemachine import commands
from coordinator.statemachine.commands import AwaitGrant, ExpireSessions, Failure, Granted, Queued
from coordinator.statemachine.machine import GrantMade
from tests.unit.statemachine.asking import Asking


def test_etcd_11456_a_waiter_whose_session_ended_while_it_waited_is_not_told_that_it_holds_the_lock():
    """There, the server waited for the lock to come free and then said "yours" without a look at whether the asker's
    own lease still stood; by then it had run out."""
    asking = Asking()
    holder, waiter, later = asking.open(), asking.open(), asking.open()
    asking.acquire(holder)
    assert asking.acquire(waiter) == Queued(1)
    asking.node(ExpireSessions((waiter,)))
    asking.machine.events.clear()
    asking.release(holder)
    assert not [event for event in asking.machine.events if isinstance(event, GrantMade)]
    assert asking.holder() is None
    late = asking.acquire(waiter)
    assert isinstance(late, Failure)
    assert late.code == commands.OUTCOME_UNKNOWN, "for all that it knows, an earlier copy was granted, and ended"
    asked = asking.query(AwaitGrant("deploy", 1, waiter))
    assert isinstance(asked, Failure)
    assert asked.code == commands.SESSION_GONE
    assert isinstance(asking.acquire(later), Granted)


class Store:
    """Something outside that a lock protects: a counter. It knows of nothing but the tokens that come with reads and
    writes."""

    def __init__(self, *, looks_at_tokens: bool) -> None:
        self.value = 0
        self.highest_token = 0
        self._looks_at_tokens = looks_at_tokens

    def read(self, token: int) -> int:
        self.highest_token = max(self.highest_token, token)
        return self.value

    def write(self, token: int, value: int) -> bool:
        if self._looks_at_tokens and token < self.highest_token:
            return False
        self.highest_token = max(self.highest_token, token)
        self.value = value
        return True


def updates_lost(store: Store, seed: int) -> int:
    """Clients read, think for some time, and write one more, each under the lock; who thinks for too long is expired
    and writes all the same. How many of the writes that the store took are not in it at the end."""
    random, asking = Random(seed), Asking()
    sessions = {client: asking.open() for client in range(4)}
    thinking: dict[int, tuple[int, int]] = {}
    """Client to its token and what it read."""
    taken = 0
    for _ in range(400):
        client = random.randrange(4)
        if client in thinking:
            token, value = thinking.pop(client)
            taken += store.write(token, value + 1)
            asking.release(sessions[client], acquisition=client)
        elif random.random() < 0.3 and thinking:
            slow = random.choice(sorted(thinking))
            asking.node(ExpireSessions((sessions[slow],)))
            sessions[slow] = asking.open()
        else:
            result = asking.acquire(sessions[client], acquisition=client, wait=False)
            if isinstance(result, Granted):
                thinking[client] = (result.token, store.read(result.token))
    return taken - store.value


def test_etcd_11457_writes_under_a_lock_are_not_lost_where_the_store_looks_at_the_token():
    """There, a lock stopped nobody: a client that was slow wrote after its lease had gone to another, and updates were
    lost. No lock service can stop that writer; the tokens that it hands out let the store refuse it."""
    assert sum(updates_lost(Store(looks_at_tokens=False), seed) for seed in range(10)) > 0, "the history does its harm"
    for seed in range(50):
        assert updates_lost(Store(looks_at_tokens=True), seed) == 0
