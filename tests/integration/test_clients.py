"""The shipped clients on a real quorum: threads, tasks, forks, and the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from coordinator.client import (
    AsyncClient,
    Client,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    Unavailable,
)
from coordinator.client.__main__ import EXIT_NOT_ACQUIRED
from coordinator.client.command_line.running import EXIT_LEASE_LOST
from coordinator.config import PROJECT
from coordinator.statemachine.commands import CloseSession, GetLock
from coordinator.wire import Token
from tests.integration.installation import Installation
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def credentials(installation: Installation) -> tuple[str, str]:
    return installation.new_token("clients")


@pytest.fixture
def client(credentials: tuple[str, str]):
    with Client(*credentials) as client:
        yield client


def test_keys_are_written_read_and_deleted(client: Client) -> None:
    assert client.get("clients/none") is None
    first = client.put("/clients/a", b"1")
    assert client.put("clients/a", b"2") > first
    assert client.get("clients/a") == b"2"
    assert client.delete("clients/a")
    assert not client.delete("clients/a")
    assert client.get("clients/a") is None


def test_threads_of_one_client_exclude_each_other(client: Client) -> None:
    inside, most, tokens = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with client.lock("clients/threads", ttl=10) as lease:
                inside += 1
                most = max(most, inside)
                tokens.append(lease.token)
                lease.check()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(tokens) == 40
    assert tokens == sorted(set(tokens))


def test_what_a_client_keeps_is_served_until_it_changes(credentials: tuple[str, str]) -> None:
    with Client(*credentials) as writer, Client(*credentials, cache=True) as reader:
        for number in range(20):
            revision = writer.put("clients/kept", b"%d" % number)
            assert reader.get("clients/kept") == b"%d" % number
            assert reader.files.read("clients/kept").stat.revision == revision
        outstanding = reader._started().core._outstanding
        asked = outstanding._next_id
        for _ in range(100):
            assert reader.get("clients/kept") == b"19"
        assert outstanding._next_id - asked <= 5, "nothing but renewals"


def test_tasks_are_served_too(credentials: tuple[str, str]) -> None:
    async def read() -> None:
        async with AsyncClient(*credentials) as writer, AsyncClient(*credentials, cache=True) as reader:
            for number in range(20):
                await writer.put("clients/kept", b"%d" % number)
                assert await reader.get("clients/kept") == b"%d" % number
                assert await reader.get("clients/kept") == b"%d" % number

    asyncio.run(read())


def test_a_client_that_stands_still_holds_a_change_up_for_its_lease_and_serves_nothing_old(
    client: Client, credentials: tuple[str, str]
) -> None:
    client.put("clients/kept", b"old")
    script = (
        "from coordinator.client import Client\n"
        "with Client(cache=True) as client:\n"
        "    while True:\n"
        "        print(client.get('clients/kept').decode(), flush=True)\n"
        "        input()\n"
    )
    url, token = credentials
    environment = {**os.environ, "CONCLAVE_URL": url, "CONCLAVE_TOKEN": token}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "old\n"
        child.send_signal(signal.SIGSTOP)
        since_s = time.monotonic()
        client.put("clients/kept", b"new")
        took_s = time.monotonic() - since_s
        child.stdin.write("\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "new\n"
        child.kill()
    assert took_s < 2.5


def test_taking_a_lock_opens_no_session(client: Client) -> None:
    sessions = set()
    for number in range(5):
        with client.lock(f"clients/{number}", ttl=7) as lease:
            sessions.add(lease.session)
    with client.lock("clients/other", ttl=8) as lease:
        assert lease.session not in sessions
    assert len(sessions) == 1


def test_the_next_in_line_has_it_when_a_waiter_gives_up(client: Client, credentials: tuple[str, str]) -> None:
    """History 9."""
    with Client(*credentials) as one, Client(*credentials) as two:
        held = client.acquire("clients/line", ttl=30)
        with pytest.raises(LockNotAcquired) as caught:
            one.acquire("clients/line", ttl=30, wait=0.3)
        assert caught.value.holder is not None
        assert caught.value.holder.session == held.session
        thread_result: list[float] = []

        def third() -> None:
            lease = two.acquire("clients/line", ttl=30, wait=20)
            thread_result.append(time.monotonic())
            lease.release()

        thread = threading.Thread(target=third)
        thread.start()
        eventually(lambda: client.query(GetLock("clients/line")).waiters, timeout_s=5, what="it waits")
        released_s = time.monotonic()
        held.release()
        thread.join(10)
        assert thread_result[0] - released_s < 1


def test_a_lease_whose_session_was_ended_is_lost(client: Client) -> None:
    lease = client.acquire("clients/ended", ttl=1)
    client.command(CloseSession(lease.session))
    eventually(lambda: not lease.held, timeout_s=3, what="the client knows")
    with pytest.raises(LeaseLost):
        lease.check()
    assert lease.release() is False
    with client.lock("clients/ended", ttl=1, wait=0) as again:
        assert again.token > lease.token


def test_a_closed_client_frees_what_it_held_at_once(client: Client, credentials: tuple[str, str]) -> None:
    other = Client(*credentials)
    other.acquire("clients/closed", ttl=3_600)
    other.close()
    with client.lock("clients/closed", ttl=5, wait=0):
        pass
    with pytest.raises(Unavailable, match="closed"):
        other.get("a")


def test_a_forked_child_begins_anew(client: Client) -> None:
    lease = client.acquire("clients/fork", ttl=10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = client.acquire("clients/forked", ttl=10)
            os.write(writer, f"{own.session} {lease.held}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    session, held = os.read(reader, 64).split()
    assert int(session) != lease.session
    assert held == b"False", "a lease belongs to the process that took it"
    lease.check()
    lease.release()


def test_bad_input_is_refused_with_what_was_expected(client: Client, credentials: tuple[str, str]) -> None:
    for call in (
        lambda: client.acquire("", ttl=5),
        lambda: client.acquire("a\0b", ttl=5),
        lambda: client.acquire("a", ttl=0.1),
        lambda: client.acquire("a", ttl=90_000),
        lambda: client.acquire("a", ttl=5, wait=-1),
        lambda: client.put("a", "text"),  # type: ignore[arg-type]
        lambda: client.put("a", bytes(1_048_577)),
        lambda: Client(credentials[0], "nonsense"),
        lambda: Client("http://127.0.0.1", credentials[1]),
        lambda: Client(*credentials, timeout=0),
    ):
        with pytest.raises(InvalidRequest):
            call()


def test_an_unknown_token_is_told_so(credentials: tuple[str, str]) -> None:
    url, token = credentials
    stranger = Token.new(Token.parse(token).realm)
    with Client(url, str(stranger), timeout=1) as client, pytest.raises(Unavailable, match="no such token"):
        client.get("a")


def test_rights_narrow_what_a_token_may(installation: Installation) -> None:
    printed = installation.manage("token", "narrowed", "--rights", "read,lock", "--prefix", "build/")
    url, token = (line.partition("=")[2] for line in printed.strip().splitlines())
    with Client(url, token) as client:
        with client.lock("build/x", ttl=5, wait=0):
            assert client.get("build/x") is None
        for call in (
            lambda: client.put("build/x", b"1"),
            lambda: client.get("other"),
            lambda: client.acquire("other", ttl=5),
        ):
            with pytest.raises(Forbidden):
                call()


# --- asyncio --------------------------------------------------------------------------------------


async def test_tasks_share_one_client_and_exclude_each_other(credentials: tuple[str, str]) -> None:
    inside, tokens = 0, []

    async def work(client: AsyncClient) -> None:
        nonlocal inside
        for _ in range(4):
            async with client.lock("clients/tasks", ttl=10) as lease:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                tokens.append(lease.token)
                inside -= 1

    async with AsyncClient(*credentials) as client:
        await asyncio.gather(*(work(client) for _ in range(10)))
        assert await client.put("clients/async", b"1")
        assert await client.get("clients/async") == b"1"
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 40


async def test_a_cancelled_task_leaves_the_queue(credentials: tuple[str, str]) -> None:
    async with AsyncClient(*credentials) as client, AsyncClient(*credentials) as other:
        lease = await client.acquire("clients/cancel", ttl=30)
        waiting = asyncio.create_task(other.acquire("clients/cancel", ttl=30))
        while not (await client.query(GetLock("clients/cancel"))).waiters:
            pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while (await client.query(GetLock("clients/cancel"))).waiters:
            pass
        await lease.release()


# --- the command line -----------------------------------------------------------------------------


def run(credentials: tuple[str, str], *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]}
    return subprocess.run(
        [sys.executable, "-m", "coordinator.client", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_a_command_runs_under_a_lock_with_its_token(client: Client, credentials: tuple[str, str]) -> None:
    done = run(credentials, "lock", "clients/cli", "--", "sh", "-c", "echo $CONCLAVE_LOCK_TOKEN; exit 3")
    assert done.returncode == 3, done.stderr
    with client.lock("clients/cli", ttl=5, wait=0) as lease:
        assert lease.token > int(done.stdout)
        refused = run(credentials, "lock", "clients/cli", "--wait", "0", "--", "true")
        assert refused.returncode == EXIT_NOT_ACQUIRED
        assert "held by clients" in refused.stderr


def test_a_command_whose_lock_is_taken_away_by_force_is_ended(
    installation: Installation, credentials: tuple[str, str]
) -> None:
    """It worked on beside the next holder, for as long as it took."""
    printed = installation.manage("token", "forceful", "--rights", "lock,read,administer")
    url, token = (line.partition("=")[2] for line in printed.strip().splitlines())
    with Client(url, token) as administrator:
        running = subprocess.Popen(
            [sys.executable, "-m", "coordinator.client", "lock", "clients/forced", "--ttl", "6", "--", "sleep", "600"],
            cwd=PROJECT,
            env=os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]},
            stderr=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: administrator.locks.look("clients/forced").holders, timeout_s=20, what="it has the lock")
        assert administrator.locks.force_release("clients/forced", "it hangs")
        _, said = running.communicate(timeout=20)
    assert "was taken away by forceful: it hangs; the command was ended" in said
    assert running.returncode == EXIT_LEASE_LOST


def test_a_waiter_from_a_shell_that_is_told_to_end_leaves_the_line(
    client: Client, credentials: tuple[str, str]
) -> None:
    """It stood there for its time to live, and held up whoever came behind it once it was its turn."""
    with client.lock("clients/line"):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "coordinator.client", "lock", "clients/line", "--", "true"],
            cwd=PROJECT,
            env=os.environ | {"CONCLAVE_URL": credentials[0], "CONCLAVE_TOKEN": credentials[1]},
        )
        eventually(lambda: client.locks.look("clients/line").waiting == 1, timeout_s=20, what="it is in line")
        waiting.terminate()
        assert waiting.wait(20) == 128 + signal.SIGTERM
        assert client.locks.look("clients/line").waiting == 0


def test_keys_and_status_from_a_shell(credentials: tuple[str, str]) -> None:
    assert run(credentials, "put", "clients/shell", "-", input="from a pipe").returncode == 0
    assert run(credentials, "get", "clients/shell").stdout == "from a pipe"
    assert run(credentials, "delete", "clients/shell").returncode == 0
    assert run(credentials, "get", "clients/shell").returncode == 1
    status = run(credentials, "status")
    assert status.returncode == 0
    assert "leader" in status.stdout
    assert run(credentials, "lock", "x", "--ttl", "0", "--", "true").returncode == 2
