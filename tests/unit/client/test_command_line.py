"""The command line over the state machine itself: what it prints, and with what status it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator.client import __main__ as command_line
from coordinator.client.__main__ import EXIT_FAILED, EXIT_NOT_ACQUIRED, EXIT_NOT_DONE, EXIT_USAGE, main
from coordinator.client.asking import Ask
from coordinator.client.command_line.running import EXIT_LEASE_LOST
from coordinator.client.core import Core
from coordinator.client.flows import Flow
from coordinator.client.recipes.election import Election
from coordinator.client.recipes.group import Group
from coordinator.client.recipes.queue import Queue
from coordinator.statemachine.commands import PutKey
from tests.unit.client.cluster import Cluster, TestClient

Shell = Callable[..., tuple[int, str]]


@pytest.fixture
def shell(
    cluster: Cluster, client: TestClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    """Runs a command; its status and what it printed."""

    @contextlib.contextmanager
    def opened(**options: Any) -> Iterator[TestClient]:
        yield client

    monkeypatch.setattr(command_line, "Client", opened)

    def run(*arguments: str, given: bytes = b"") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        status = main([*arguments])
        return status, capfd.readouterr().out

    return run


@pytest.fixture(autouse=True)
def _signals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in the tests' own process leaves its handlers alone."""
    monkeypatch.setattr("coordinator.client.command_line.running.signal.signal", lambda number, handler: None)


def test_files_are_made_read_listed_and_removed(shell: Shell):
    assert shell("files", "put", "d/a", "one", "--create", "--parents") == (0, "d/a\n")
    assert shell("files", "put", "d/a", "-", "--generation", "1", given=b"two\n") == (0, "")
    assert shell("files", "get", "/d/a") == (0, "two\n")
    assert shell("files", "mkdir", "-p", "d/e/") == (0, "")
    assert shell("files", "ls", "d") == (0, "a\ne/\n")
    assert "generation  2" in shell("files", "stat", "d/a")[1]
    _, printed = shell("files", "range", "d/", "--prefix", "--json")
    assert [json.loads(line)["key"] for line in printed.splitlines()] == ["d/a", "d/e"]
    assert base64.b64decode(json.loads(printed.splitlines()[0])["value"]) == b"two\n"
    assert shell("files", "rm", "-r", "d") == (0, "")
    assert shell("files", "get", "d/a")[0] == EXIT_NOT_DONE


def test_keys_and_counters(shell: Shell):
    assert shell("get", "a")[0] == 1
    assert shell("put", "a", "x") == (0, "")
    assert shell("get", "a") == (0, "x")
    assert shell("add", "n", "5") == (0, "5\n")
    assert shell("add", "n") == (0, "6\n")
    assert shell("delete", "a") == (0, "")
    assert shell("delete", "a")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("files", "put", "none", "x"), EXIT_NOT_DONE, "there is no 'none'"),
        (("files", "put", "a", "x", "--create"), EXIT_NOT_DONE, "'a' is there"),
        (("files", "put", "a", "x", "--generation", "7"), EXIT_NOT_DONE, "at generation 1"),
        (("files", "put", "a", "x", "--parents"), EXIT_USAGE, "go with --create"),
        (("files", "rm", "d"), EXIT_NOT_DONE, "has 1 children"),
        (("files", "get", ""), EXIT_USAGE, "1 to 512 bytes"),
        (("files", "watch", "a", "--follow", "--since", "3"), EXIT_USAGE, "one of them"),
        (("lock", "x", "--shared", "--wait", "-1", "--", "true"), EXIT_USAGE, "got -1"),
        (("lock", "x", "--shared", "--", "no-such-command"), EXIT_USAGE, "no-such-command"),
        (("files", "compact"), EXIT_USAGE, "invalid choice"),
        (("files", "get", "a", "--revision", "x"), EXIT_USAGE, "expected a whole number, got 'x'"),
        (("files", "get", "a", "--revision", "99999"), EXIT_USAGE, "a revision up to"),
        (("lock", "x", "--count", "0", "--", "true"), EXIT_USAGE, "from 1 on, got 0"),
        (("add", "a"), EXIT_NOT_DONE, "no decimal number"),
    ],
)
def test_what_can_not_be_done_says_why_and_ends_with_its_status(
    cluster: Cluster,
    client: TestClient,
    shell: Shell,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    said: str,
):
    client.files.create("a", b"text")
    client.files.create("d/x", parents=True)
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    try:
        ended = shell(*arguments)[0]
    except SystemExit as usage:  # What argparse itself refuses.
        ended = int(str(usage.code))
    assert ended == status
    assert said in errors.getvalue()


def test_a_watch_prints_each_change_and_ends_after_so_many(client: TestClient, shell: Shell):
    first = client.put("k/a", b"1")
    second = client.put("k/b", b"two\nlines")
    third = int(client.files.delete("k/a")) and client.cluster.machine.applied
    status, printed = shell("files", "watch", "k/", "--prefix", "--since", str(first), "--count", "3")
    assert status == 0
    assert printed.splitlines() == [f"{first} put k/a 1", f"{second} put k/b two\\nlines", f"{third} delete k/a"]
    other = client.cluster.client()
    other.put("x", b"")

    def soon(core: Core) -> Flow:
        now_us = other.clock()
        yield core.pause(now_us + 1_000_000)
        yield core.command(core.sessions[15_000], PutKey("k/c", b"3"), now_us, now_us + 9_000_000)

    other.spawn(Ask(soon))
    printed = shell("files", "watch", "k/", "--prefix", "--follow", "--count", "1", "--json")[1]
    told = [json.loads(line) for line in printed.splitlines()]
    assert [each["is"]["key"] for each in told[:-1]] == ["k/b"]
    assert told[-1]["key"] == "k/c"


def test_a_command_runs_under_a_lock_in_any_mode(client: TestClient, shell: Shell):
    echo = ("--", "sh", "-c", "echo $CONCLAVE_LOCK_NAME $CONCLAVE_LOCK_TOKEN; exit 3")
    status, printed = shell("lock", "b", "--also", "a", "--shared", *echo)
    assert (status, printed.split()[:2]) == (3, ["a", "b"])
    assert client.locks.look("a").holding == 0
    other = client.cluster.client()
    held = other.locks.acquire("slots", limit=1)
    assert shell("lock", "slots", "--count", "1", "--wait", "0", *echo)[0] == EXIT_NOT_ACQUIRED
    assert "counting to 1" in shell("locks", "show", "slots")[1]
    assert shell("locks", "check", held.sequencer())[0] == 0
    assert shell("locks", "break", "slots", "--reason", "a test") == (0, "")
    assert shell("locks", "check", held.sequencer())[0] == 1
    assert "a test" in shell("locks", "breaks")[1]
    assert shell("locks", "break", "slots", "--reason", "a test")[0] == 1
    assert "free" in shell("locks", "show", "slots")[1]


def test_a_command_whose_lock_is_lost_is_ended(
    cluster: Cluster, client: TestClient, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    taken = threading.Event()

    def check(hold: Any) -> None:
        from coordinator.client.errors import LeaseLost

        taken.set()
        raise LeaseLost("planted")

    monkeypatch.setattr("coordinator.client.locks.Hold.check", check)
    assert shell("lock", "a", "--shared", "--", "sleep", "60")[0] == EXIT_LEASE_LOST
    assert taken.is_set()


def test_an_election_from_a_shell(client: TestClient, shell: Shell):
    assert shell("leader", "e")[0] == 1
    status, printed = shell("elect", "e", "host-1", "--", "sh", "-c", "echo lead $CONCLAVE_LOCK_TOKEN")
    assert status == 0
    assert printed.startswith("lead ")
    leadership = Election(client.cluster.client(), "e").campaign(b"host-2")
    assert shell("leader", "e") == (0, "host-2")
    assert f"session {leadership.session} token {leadership.token} host-2" in shell("leader", "e", "-l")[1]
    assert shell("observe", "e", "--count", "1")[1].split()[1] == "host-2"
    assert shell("elect", "e", "x", "--wait", "0", "--", "true")[0] == EXIT_NOT_ACQUIRED


def test_groups_barriers_and_queues_from_a_shell(client: TestClient, shell: Shell):
    Group(client.cluster.client(), "g").join("a", b"1")
    assert shell("group", "ls", "g") == (0, "a 1\n")
    assert shell("group", "join", "g", "b", "--data", "2", "--", "true") == (0, "")
    assert shell("group", "ls", "g") == (0, "a 1\n")
    assert shell("barrier", "close", "gate")[0] == 0
    assert shell("barrier", "wait", "gate", "--wait", "0")[0] == 1
    assert shell("barrier", "open", "gate")[0] == 0
    assert shell("barrier", "wait", "gate")[0] == 0
    for value in ("one", "two", "bad"):
        assert shell("queue", "put", "q", value)[0] == 0
    assert shell("queue", "size", "q") == (0, "3\n")
    assert shell("queue", "take", "q", "--", "cat") == (0, "one")
    assert shell("queue", "take", "q", "--each", "--wait", "0", "--", "grep", "two") == (1, "two\n")
    assert shell("queue", "size", "q") == (0, "1\n"), "what failed was given back"
    item = Queue(client, "q").take()
    assert item is not None
    assert shell("queue", "take", "q", "--wait", "0", "--", "cat")[0] == 1


def test_a_cluster_that_does_not_answer_is_said_so(cluster: Cluster, shell: Shell):
    cluster.lose_leader()
    assert shell("get", "a")[0] == EXIT_FAILED
