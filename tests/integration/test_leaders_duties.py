"""What a leader counts and whom it tells, on a real quorum: watches over killed leaders, lock-delays, dead sessions."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from coordinator.client import Client
from coordinator.config import PROJECT
from tests.integration.installation import Installation
from tests.integration.quorum import leader, web_client
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

KILLS = 3
HOLDER = """
import sys
from coordinator.client import Client
client = Client(*sys.argv[1:3])
print(client.locks.acquire(sys.argv[3], ttl=float(sys.argv[4]), lock_delay=float(sys.argv[5])).token, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def credentials(installation: Installation) -> tuple[str, str]:
    return installation.new_token("duties")


@pytest.fixture
def client(credentials: tuple[str, str]) -> Iterator[Client]:
    with Client(*credentials, timeout=20) as client:
        yield client


def test_a_watch_hears_each_change_once_and_in_order_though_leaders_are_killed(
    installation: Installation, client: Client, credentials: tuple[str, str]
) -> None:
    watch = client.files.watch("duties/w/", prefix=True, since=client.put("duties/w/begin", b"") + 1)
    written: list[tuple[int, bytes]] = []
    stopping = threading.Event()

    def write() -> None:
        with Client(*credentials, timeout=20) as writer:
            while not stopping.is_set():
                value = b"%d" % len(written)
                written.append((writer.put(f"duties/w/{len(written) % 7}", value), value))

    thread = threading.Thread(target=write)
    thread.start()
    heard: list[tuple[int, bytes]] = []

    def hear(count: int) -> None:
        while len(heard) < count:
            change = watch.next(timeout=20)
            assert change is not None, f"nothing is heard any more behind {len(heard)} of {len(written)}"
            assert change.after is not None
            heard.append((change.revision, change.after.value or b""))

    try:
        with web_client(installation) as operator:
            for _ in range(KILLS):
                hear(len(heard) + 100)
                installation.part(wait_in_step_under_load(operator)).kill()
                hear(len(heard) + 100)
                eventually(lambda: all(operator.status().values()), timeout_s=30, what="all nodes are back")
    finally:
        stopping.set()
        thread.join(30)
    hear(len(written))
    assert heard == written
    assert watch.next(timeout=0.2) is None


def wait_in_step_under_load(operator: Client) -> str:
    """The leader, once all nodes answer."""
    eventually(lambda: all(operator.status().values()), timeout_s=30, what="all nodes answer")
    return leader(operator)


def test_a_change_is_heard_of_long_before_anybody_would_have_asked(
    client: Client, credentials: tuple[str, str]
) -> None:
    took_s: list[float] = []
    with Client(*credentials) as writer:
        watch = client.files.watch("duties/soon")
        watch.begin()
        heard_s: list[float] = []

        def hear() -> None:
            for _ in range(20):
                next(watch)
                heard_s.append(time.monotonic())

        thread = threading.Thread(target=hear)
        thread.start()
        for number in range(20):
            writer.put("duties/soon", b"%d" % number)
            done_s = time.monotonic()
            eventually(partial(is_longer, heard_s, number), timeout_s=10, what="it is heard")
            took_s.append(heard_s[number] - done_s)
        thread.join(10)
    print(f"from the writer's answer to the watch: {sorted(round(s * 1000, 1) for s in took_s)} ms")
    assert statistics.median(took_s) <= 0.05


def is_longer(found: list[float], count: int) -> bool:
    return len(found) > count


def killed_holder(credentials: tuple[str, str], name: str, ttl: float, delay: float) -> tuple[int, float]:
    """A process takes the lock and is killed: its token, and when it was."""
    command = [sys.executable, "-c", HOLDER, *credentials, name, str(ttl), str(delay)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        token = int(process.stdout.readline())
        process.kill()
        return token, time.monotonic()


def test_a_name_stays_unavailable_for_its_dead_holders_lock_delay(client: Client, credentials: tuple[str, str]) -> None:
    token, killed_s = killed_holder(credentials, "duties/delayed", ttl=1, delay=2)
    lease = client.acquire("duties/delayed", ttl=10, wait=20)
    waited_s = time.monotonic() - killed_s
    assert lease.token > token
    assert waited_s >= 2.5, "a second of lease, less what passed before the kill, and two of delay"
    lease.release()


def test_leaders_that_change_before_a_dead_session_runs_out_do_not_keep_it_alive(
    installation: Installation, client: Client, credentials: tuple[str, str]
) -> None:
    """Each change of leader gave it four whole seconds again."""
    token, killed_s = killed_holder(credentials, "duties/dead", ttl=4, delay=0)
    taken: list[float] = []

    def take() -> None:
        lease = client.acquire("duties/dead", ttl=10, wait=60)
        assert lease.token > token
        taken.append(time.monotonic())
        lease.release()

    thread = threading.Thread(target=take)
    thread.start()
    with web_client(installation) as operator:
        changes = 0
        while not taken and changes < 8:
            thread.join(3)
            if not taken:
                operator.step_down()
                changes += 1
    thread.join(30)
    assert changes >= 1, "else this says nothing"
    assert taken[0] - killed_s <= 9


def test_who_only_holds_a_lock_keeps_it_though_its_leader_falls_silent(
    installation: Installation, credentials: tuple[str, str]
) -> None:
    """It asks nothing, and Redis says that somebody listens to the leader's mailbox: that process stands still."""
    ttl_s = 4.0
    with Client(*credentials, timeout=20) as holder, web_client(installation) as operator:
        hold = holder.locks.acquire("duties/idle", ttl=ttl_s)
        session = holder.session(ttl=ttl_s)
        silent = leader(operator)
        installation.freeze(silent)
        try:
            assert session.next(timeout=3 * ttl_s) is None, f"its lease ran out: {session.standing}"
            hold.check()
            assert leader(operator) != silent, "else this says nothing"
        finally:
            installation.part(silent).send_signal(signal.SIGCONT)
