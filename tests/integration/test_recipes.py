"""Files, watches and recipes on a real quorum, with leaders, members and consumers that are killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.client import AsyncClient, Client, LeaseLost, NotFound, Standing
from coordinator.client.errors import ConclaveError, Deadlock
from coordinator.client.recipes.double_barrier import DoubleBarrier
from coordinator.client.recipes.election import Election, Leadership
from coordinator.client.recipes.group import Change, Group
from coordinator.client.recipes.queue import Queue
from coordinator.client.transactions import Transaction, key, put
from coordinator.config import PROJECT
from tests.integration.installation import Installation
from tests.integration.quorum import leader, web_client
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ITEMS = 60


@pytest.fixture(scope="module")
def credentials(installation: Installation) -> tuple[str, str]:
    return installation.new_token("recipes")


@pytest.fixture
def client(credentials: tuple[str, str]) -> Iterator[Client]:
    with Client(*credentials, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def web(installation: Installation) -> Iterator[Client]:
    with web_client(installation) as client:
        yield client


def test_an_idle_watch_hears_of_a_change_at_a_new_leader(
    installation: Installation, web: Client, client: Client, credentials: tuple[str, str]
) -> None:
    """It has nothing else to ask, and so finds out by itself that its leader is gone."""
    with Client(*credentials, timeout=30) as watcher:
        watch = watcher.files.watch("idle/a")
        watch.begin()
        told: list[bytes | None] = []
        thread = threading.Thread(target=lambda: told.append(next(watch).after.value), daemon=True)
        thread.start()
        installation.kill(leader(web))
        eventually(lambda: leader(web), timeout_s=20, what="another leads")
        client.put("idle/a", b"1")
        thread.join(20)
        assert told == [b"1"]


def test_candidates_are_elected_one_after_the_other_though_leaders_are_killed(
    installation: Installation, web: Client, client: Client, credentials: tuple[str, str]
) -> None:
    """Leaders of the cluster by `kill -9`, and those of the election by the loss of their process."""
    script = (
        "import sys, time\n"
        "from coordinator.client import Client\n"
        "from coordinator.client.recipes.election import Election\n"
        "leadership = Election(Client(timeout=30), 'boss', ttl=1).campaign(sys.argv[1].encode())\n"
        "print(leadership.token, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]}
    candidate = subprocess.Popen(
        [sys.executable, "-c", script, "first"], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert candidate.stdout is not None
        token = int(candidate.stdout.readline())
        elected: list[Leadership] = []
        observed: list[bytes] = []
        second = threading.Thread(
            target=lambda: elected.append(Election(client, "boss", ttl=5).campaign(b"second")), daemon=True
        )
        second.start()
        watcher = Client(*credentials, timeout=30)
        observer = Election(watcher, "boss").proclamations()
        leaders = Election(watcher, "boss").observe(every=1)
        observed.append(next(observer).value)
        first = next(leaders).leader
        assert first is not None
        assert (first.token, first.value) == (token, b"first")
        installation.kill(leader(web))
        found = eventually(lambda: Election(client, "boss").leader(), timeout_s=20, what="the first leads on")
        assert (found.token, found.value) == (token, b"first")
        assert not elected
        candidate.kill()
        second.join(30)
        assert elected[0].token > token
        assert elected[0].held
        observed.append(next(observer).value)
        assert observed == [b"first", b"second"]
        led = next(seen.leader for seen in leaders if seen.leader is None or seen.leader.value == b"second")
        assert led is not None
        assert (led.session, led.token) == (elected[0].session, elected[0].token)
        assert elected[0].resign()
        assert next(leaders).leader is None
        assert Election(client, "boss").leader() is None
        with pytest.raises(LeaseLost):
            elected[0].proclaim(b"late")
        watcher.close()
    finally:
        candidate.kill()
        candidate.wait(10)


def test_ephemeral_files_are_gone_with_their_session_and_the_group_is_told(
    client: Client, credentials: tuple[str, str]
) -> None:
    script = (
        "import time\n"
        "from coordinator.client import Client\n"
        "from coordinator.client.recipes.group import Group\n"
        "Group(Client(timeout=30), 'team', ttl=1).join('killed', b'data')\n"
        "print('in', flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]}
    member = subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert member.stdout is not None
        assert member.stdout.readline() == "in\n"
        group = Group(client, "team")
        stays = group.join("stays")
        assert group.members() == {"killed": b"data", "stays": b""}
        follow = group.follow()
        next(follow)
        member.kill()
        gone = follow.next(timeout=20)
        assert isinstance(gone, Change)
        assert (gone.name, gone.data) == ("killed", None)
        assert group.members() == {"stays": b""}
        with pytest.raises(NotFound):
            client.files.stat("team/killed")
        assert stays.leave()
    finally:
        member.kill()
        member.wait(10)


def test_every_item_is_done_though_consumers_and_leaders_are_killed(
    installation: Installation, web: Client, client: Client, credentials: tuple[str, str], tmp_path: Path
) -> None:
    queue = Queue(client, "work")
    for number in range(ITEMS):
        queue.put(b"%d" % number)
    log = tmp_path / "done"
    log.touch()
    environment = os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]}

    def consumer() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.consumer", "work", str(log)], cwd=PROJECT, env=environment
        )

    def done() -> int:
        return len(log.read_text().split())

    consumers = [consumer() for _ in range(2)]
    try:
        for number, at in enumerate((ITEMS // 6, ITEMS // 3, ITEMS // 2)):
            eventually(lambda at=at: done() >= at, timeout_s=60, what=lambda: f"work goes on: {done()}")  # type: ignore[misc]
            victim = consumers[number % 2]
            victim.kill()
            victim.wait(10)
            consumers[number % 2] = consumer()
            if number == 1:
                installation.kill(leader(web))
        eventually(lambda: queue.size() == 0, timeout_s=60, what=lambda: f"{queue.size()} are left")
    finally:
        for each in consumers:
            each.kill()
            each.wait(10)
    tally = Tally(map(int, log.read_text().split()))
    assert set(tally) == {*range(ITEMS)}, "each at least once"
    assert sum(tally.values()) - ITEMS <= 3 * 2, "twice only where a consumer was killed, or its leader"


async def test_the_same_for_asyncio(credentials: tuple[str, str]) -> None:
    async with AsyncClient(*credentials, timeout=30) as client, AsyncClient(*credentials, timeout=30) as other:
        async with client.locks.hold("aio/doc", shared=True) as one:
            two = await other.locks.acquire("aio/doc", shared=True)
            upgrading = asyncio.create_task(one.upgrade(wait=20))
            await two.release()
            await upgrading
            assert one.mode == "exclusive"
            assert await other.locks.check_sequencer(one.sequencer())
        members = [DoubleBarrier(each, "aio/b", 2, name) for each, name in ((client, "a"), (other, "b"))]
        await asyncio.gather(*(member.enter(wait=20) for member in members))
        await asyncio.gather(*(member.leave(wait=20) for member in members))
        queue = Queue(client, "aio/q")
        taking = asyncio.create_task(Queue(other, "aio/q").take(wait=20))
        await queue.put(b"item")
        item = await taking
        assert item is not None
        async with item:
            assert item.value == b"item"
        assert await queue.size() == 0
        since = (await client.files.create("aio/f", b"1", parents=True)).revision
        await other.transact(Transaction().when(key("aio/f").version == 1).then(put("aio/f", b"2")))
        values = []
        async for change in client.files.watch("aio/f", since=since):
            values.append(change.after.value if change.after else None)
            if len(values) == 2:
                break
        assert values == [b"1", b"2"]
        assert [view.value async for view in client.files.scan("aio/f")] == [b"2"]


def test_a_deadlock_is_refused_at_once(client: Client, credentials: tuple[str, str]) -> None:
    with Client(*credentials, timeout=30) as other, client.locks.acquire("dead/a"), other.locks.acquire("dead/b"):
        waiting = threading.Thread(target=lambda: client.locks.acquire("dead/b", wait=30).release(), daemon=True)
        waiting.start()
        eventually(lambda: other.locks.look("dead/b").waiting, timeout_s=10, what="it waits")
        with pytest.raises(Deadlock) as caught:
            other.locks.acquire("dead/a", wait=30)
        assert len(caught.value.cycle) == 2
    waiting.join(20)


def test_a_session_is_in_jeopardy_while_nobody_leads_and_safe_again_after(
    installation: Installation, web: Client, client: Client
) -> None:
    """All nodes are stopped for longer than its lease."""
    session = client.session(ttl=1, grace=60)
    hold = client.locks.acquire("jeopardy/a", ttl=1)
    nodes = [installation.part(name) for name in ("node1", "node2", "node3")]
    for node in nodes:
        node.suspend()
    try:
        assert session.next(timeout=20) is Standing.JEOPARDY
        with pytest.raises(LeaseLost):
            hold.check()
    finally:
        for node in nodes:
            node.resume()
    assert session.next(timeout=30) is Standing.SAFE
    hold.check()
    session.close()
    assert [*session] == [Standing.EXPIRED]
    with pytest.raises(ConclaveError):
        hold.upgrade()
    assert leader(web)
