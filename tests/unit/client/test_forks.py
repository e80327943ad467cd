"""A forked child begins anew: of what its parent holds it has nothing, can prove nothing, and lets go of nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from coordinator.client import AsyncClient, links
from coordinator.client.errors import LeaseLost
from coordinator.client.jeopardy import Standing
from coordinator.client.recipes.group import Group
from coordinator.client.sync import Client
from coordinator.statemachine.commands import CloseSession
from coordinator.statemachine.files import DetachFile
from tests.unit.client.test_sync import TOKEN, FakeChannel

CHILD_S = 20


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        yield client


def in_a_child(work: Callable[[], bool]) -> bool:
    """Is it so in a forked child?"""
    child = os.fork()
    if not child:
        signal.alarm(CHILD_S)  # Should it hang.
        is_so = False
        try:
            is_so = work()
        finally:
            sys.stderr.flush()
            os._exit(not is_so)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_has_no_part_in_its_parents_session(client):
    session = client.session(ttl=15)
    assert session.standing is Standing.SAFE

    def ends_nothing() -> bool:
        is_over = session.standing is Standing.EXPIRED and session.expires_in == 0
        session.close()
        return is_over and not any(isinstance(op, CloseSession) for op in FakeChannel.made.ops)

    assert in_a_child(ends_nothing)
    assert session.standing is Standing.SAFE


def test_a_child_is_no_member_and_leaves_nothing(client):
    member = Group(client, "workers").join("one")
    assert member.held

    def leaves_nothing() -> bool:
        is_none = not member.held and member.leave() is False
        return is_none and not any(isinstance(op, DetachFile) for op in FakeChannel.made.ops)

    assert in_a_child(leaves_nothing)
    assert member.held


def test_a_child_is_no_heir(client):
    heir = client.locks.heir("deploy")

    def has_no_part() -> bool:
        try:
            heir.wait(wait=1)
        except LeaseLost:
            return True
        return False

    assert in_a_child(has_no_part)


def test_a_child_that_was_forked_while_another_thread_started_the_client_uses_it(client):
    held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with client._starts():
            held.set()
            may_end.wait(CHILD_S)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    assert in_a_child(lambda: client.put("a", b"") > 0)
    may_end.set()
    thread.join(5)


async def test_a_child_that_closes_its_parents_client_of_asyncio_closes_nothing_of_it(monkeypatch: pytest.MonkeyPatch):
    """The two share what their event loops wait on: the parent heard nothing any more, and lost its leases."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=2) as client:
        lease = await client.acquire("deploy")

        def closes() -> bool:
            asyncio.run(client.aclose())
            return not any(isinstance(op, CloseSession) for op in FakeChannel.made.ops)

        assert in_a_child(closes)
        assert await client.put("a", b"") > 0
        assert lease.held


@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
async def test_a_child_leaves_an_async_with_of_its_parents(monkeypatch: pytest.MonkeyPatch, taking):
    """Of the one it was told "no running event loop", in the place of what it left with."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)

    async def work(forks: bool) -> int:
        child = 0
        async with taking(client) as held:
            if forks:
                child = os.fork()
                signal.alarm(0 if child else CHILD_S)
                if child:
                    held.check()
        return child

    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=2) as client:
        await work(forks=False)
        child = -1
        try:
            child = await work(forks=True)
        finally:
            if child <= 0:
                os._exit(child)
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0


def test_a_child_of_the_same_number_begins_anew(client, monkeypatch):
    """As where the first process of a PID namespace forks the first of another."""
    number = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: number)
    lease = client.acquire("deploy")

    def begins_anew() -> bool:
        return not lease.held and lease.release() is False and client.put("a", b"") > 0

    assert in_a_child(begins_anew)
    assert lease.held
