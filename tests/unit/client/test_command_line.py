"""The command line over the state machine itself: what it prints, and with what status it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.client import __main__ as command_line
from coordinator.client.__main__ import (
    EXIT_FAILED,
    EXIT_NOT_ACQUIRED,
    EXIT_NOT_DONE,
    EXIT_NOT_WRITTEN,
    EXIT_USAGE,
    main,
)
from coordinator.client.asking import Ask
from coordinator.client.command_line import output
from coordinator.client.command_line.joining import SEQUENCERS, Around
from coordinator.client.command_line.running import EXIT_LEASE_LOST
from coordinator.client.command_line.transacting import parse
from coordinator.client.core import Core
from coordinator.client.errors import InvalidRequest, LeaseLost, LockNotAcquired
from coordinator.client.flows import Flow
from coordinator.client.locks import Locks
from coordinator.client.recipes.double_barrier import DoubleBarrier
from coordinator.client.recipes.election import Election
from coordinator.client.recipes.group import Group
from coordinator.client.recipes.queue import Queue
from coordinator.statemachine.commands import PutKey
from coordinator.statemachine.lock_commands import Acquire, Release
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
    # Which each shell wraps for itself: a Hold does all that a Lease does.
    monkeypatch.setattr(TestClient, "lock", lambda this, name, **how: this.locks.hold(name, **how), raising=False)

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
    first = re.search(r"instance +(\d+)", shell("files", "stat", "d/a")[1])
    assert first is not None
    assert "generation  1" in shell("files", "stat", "d/a", "--revision", first[1])[1]
    assert shell("files", "ls", "d", "--revision", first[1]) == (0, "a\n")
    _, printed = shell("files", "range", "d/", "--prefix", "--json")
    assert [json.loads(line)["key"] for line in printed.splitlines()] == ["d/a", "d/e"]
    assert base64.b64decode(json.loads(printed.splitlines()[0])["value"]) == b"two\n"
    assert shell("files", "put", "d/a", "three", "--if-revision", first[1])[0] == EXIT_NOT_DONE
    assert shell("files", "rm", "d/a", "--if-revision", first[1])[0] == EXIT_NOT_DONE
    last = re.search(r"revision +(\d+)", shell("files", "stat", "d/a")[1])
    assert last is not None
    assert shell("files", "put", "d/a", "three", "--if-revision", last[1]) == (0, "")
    assert shell("files", "put", "d/b", "", "--create", "--if-revision", "1")[0] == EXIT_USAGE
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
        (("files", "shrink"), EXIT_USAGE, "invalid choice"),
        (("files", "compact"), EXIT_USAGE, "required: revision"),
        (("files", "compact", "now"), EXIT_USAGE, "expected a whole number, got 'now'"),
        (("files", "compact", "99999"), EXIT_USAGE, "a revision up to"),
        (("files", "watch", "a", "--puts", "--deletes"), EXIT_USAGE, "not allowed with"),
        (("files", "watch", "a", "--follow", "--previous"), EXIT_USAGE, "go without it"),
        (("files", "range", "a", "--sort-by", "size"), EXIT_USAGE, "invalid choice: 'size'"),
        (("files", "range", "a", "--limit", "0"), EXIT_USAGE, "from 1 on, got 0"),
        (("locks", "watch", "a", "--acquired", "--conflicts"), EXIT_USAGE, "not allowed with"),
        (("double-barrier", "b", "0", "m", "--", "true"), EXIT_USAGE, "from 1 on, got 0"),
        (("double-barrier", "b", "1", "a/b", "--", "true"), EXIT_USAGE, "without slashes, got 'a/b'"),
        (("group", "join", "g", "m", "--capability", "a b", "--", "true"), EXIT_USAGE, "got 'a b'"),
        (("observe", "e", "--every", "0"), EXIT_USAGE, "a number of seconds from 0.01 to 3600, got 0"),
        (("transact", "no-such-file"), EXIT_USAGE, "no-such-file: No such file"),
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


def test_a_watch_tells_only_what_was_asked_for_and_what_was_there_before(client: TestClient, shell: Shell):
    first = client.put("k/a", b"1")
    client.put("k/a", b"2")
    client.delete("k/a")
    watch = ("files", "watch", "k/", "--prefix", "--since", str(first), "--count")
    puts = shell(*watch, "2", "--puts", "--previous")[1].splitlines()
    assert [line.split(" ", 1)[1] for line in puts] == ["put k/a 1 (new)", "put k/a 2 (was 1)"]
    deletes = [json.loads(line) for line in shell(*watch, "1", "--deletes", "--previous", "--json")[1].splitlines()]
    assert [(each["after"], each["before"]["version"]) for each in deletes] == [(None, 2)]


def test_a_range_is_sorted_limited_and_deleted(client: TestClient, shell: Shell, monkeypatch: pytest.MonkeyPatch):
    for key, value in (("k/a", b"2"), ("k/b", b"1"), ("k/c", b"3")):
        client.put(key, value)
    monkeypatch.setattr("coordinator.client.command_line.filing.LIST_LIMIT_MAX", 2)
    scan = ("files", "range", "k/", "--prefix")
    assert shell(*scan)[1].splitlines() == ["k/a 2", "k/b 1", "k/c 3"], "page after page"
    assert shell(*scan, "--descending")[1].splitlines() == ["k/c 3", "k/b 1", "k/a 2"]
    assert shell(*scan, "--sort-by", "value", "--descending") == (EXIT_USAGE, ""), "that order has one page"
    assert shell(*scan, "--sort-by", "value", "--descending", "--limit", "2")[1].splitlines() == ["k/c 3", "k/a 2"]
    assert shell(*scan, "--sort-by", "value", "--limit", "1")[1].splitlines() == ["k/b 1"]
    assert shell(*scan, "--limit", "3")[1].splitlines() == ["k/a 2", "k/b 1", "k/c 3"]
    assert shell("files", "rm-range", "k/a", "k/c") == (0, "2\n")
    assert shell(*scan)[1] == "k/c 3\n"
    assert shell("files", "rm-range", "k/", "--prefix") == (0, "1\n")


def test_old_revisions_are_given_up(client: TestClient, shell: Shell):
    first = client.put("a", b"1")
    last = client.put("a", b"2")
    assert shell("files", "compact", str(last)) == (0, "")
    assert shell("files", "get", "a", "--revision", str(first))[0] == EXIT_NOT_DONE
    assert shell("files", "get", "a", "--revision", str(last)) == (0, "2")
    client.cluster.grant("reader", "read")
    generation = client.files.stat("a").acl_generation
    assert generation > last
    assert f"acl         {generation}\n" in shell("files", "stat", "a")[1]


def test_what_becomes_of_locks_is_printed(cluster: Cluster, client: TestClient, shell: Shell):
    other = cluster.client()
    held = other.locks.acquire("a")
    third = cluster.client()
    with contextlib.suppress(LockNotAcquired):
        third.locks.acquire("a", shared=True, wait=0)
    since = ("--since", str(held.token))
    told = shell("locks", "watch", "a", *since, "--count", "2")[1].splitlines()
    assert told[0] == f"{held.token} acquired a root session {held.session} exclusive token {held.token}"
    assert told[1].startswith("conflict a root session ", told[1].index(" ") + 1)
    assert told[1].endswith(" shared was refused")
    (printed,) = shell("locks", "watch", "", "--prefix", *since, "--count", "1", "--conflicts", "--json")[
        1
    ].splitlines()
    event = json.loads(printed)
    assert (event["kind"], event["mode"], event["waits"], event["token"]) == ("conflict", "shared", False, held.token)

    client.locks.force_release("a", "it hangs")
    (printed,) = shell("locks", "watch", "a", *since, "--count", "1", "--released")[1].splitlines()
    assert printed.endswith(f" forced a root session {held.session} exclusive token {held.token}")

    def soon(core: Core) -> Flow:
        yield core.pause(other.clock() + 1_000_000)
        cluster.kill_leader()
        yield core.pause(other.clock() + 8_000_000)
        now_us = other.clock()
        yield core.command(core.sessions[15_000], Release(("a",), held.acquisition), now_us, now_us + 9_000_000)
        yield core.command(core.sessions[15_000], Acquire(("a",), 7), now_us, now_us + 9_000_000)

    other.spawn(Ask(soon))
    told = shell("locks", "watch", "a", "--acquired", "--count", "1")[1].splitlines()
    assert told[0] == "fail-over: node2 leads in term 2"
    assert " acquired a root " in told[1]


def test_a_transaction_comes_from_a_file_or_from_standard_input(client: TestClient, shell: Shell, tmp_path: Path):
    move = {
        "when": [{"key": "to", "target": "version", "number": 0}],
        "then": [
            {"do": "put", "key": "to", "value": "AAE="},
            {"do": "create", "path": "d/f", "text": "x", "parents": True},
            {"do": "add", "key": "n", "amount": 3},
            {"do": "read-range", "start": "d/", "prefix": True},
            {
                "do": "transaction",
                "when": [{"key": "to", "target": "value", "value": "AAE="}],
                "then": [{"do": "make-directory", "path": "e"}, {"do": "write", "path": "w", "text": "4"}],
            },
        ],
        "otherwise": [
            {"do": "read", "path": "d/f"},
            {"do": "remove", "path": "d/f", "generation": 1},
            {"do": "delete-range", "start": "e"},
            {"do": "delete", "key": "to"},
        ],
    }
    client.put("w", b"")
    file = tmp_path / "move.json"
    file.write_text(json.dumps(move))
    status, printed = shell("transact", str(file))
    done = json.loads(printed)
    assert (status, done["succeeded"]) == (0, True)
    assert (done["results"][1]["path"], done["results"][2]["value"]) == ("d/f", 3)
    assert done["results"][3]["keys"][0]["key"] == "d/f"
    assert done["results"][4]["succeeded"] is True
    assert (client.get("to"), client.get("w")) == (b"\x00\x01", b"4")
    status, printed = shell("transact", "-", given=file.read_bytes())
    assert status == 1
    read, removed, gone, deleted = json.loads(printed)["results"]
    assert (base64.b64decode(read["value"]), read["stat"]["version"], removed["deleted"]) == (b"x", 1, 1)
    assert (gone["deleted"], deleted["existed"]) == (1, True)
    refused = {"then": [{"do": "put", "key": "a", "text": ""}, {"do": "write", "path": "none", "text": ""}]}
    assert shell("transact", "-", given=json.dumps(refused).encode()) == (EXIT_NOT_DONE, "")
    assert client.get("a") is None
    session = client.session(ttl=15).session
    lamp = {"then": [{"do": "create", "path": "lamp", "ephemeral": f"s{session}"}]}
    assert shell("transact", "-", given=json.dumps(lamp).encode())[0] == 0
    assert client.files.stat("lamp").sessions == (session,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "expected JSON such as"),
        ('{"if": []}', "unknown field `if`"),
        ('{"then": [{"do": "dance"}]}', "Invalid value 'dance' - at `$.then[0].do`"),
        ('{"then": [{"do": "put"}]}', "missing required field `key` - at `$.then[0]`"),
        ('{"then": [{"do": "put", "key": "a", "text": "", "value": ""}]}', "expected `value` or `text`, got both"),
        ('{"then": [{"do": "put", "key": "a", "value": "?"}]}', "Invalid base64"),
        ('{"then": [{"do": "put", "key": ""}]}', "1 to 512 bytes"),
        ('{"when": [{"key": "a", "target": "version", "text": "1"}]}', "compared with `number`"),
        ('{"when": [{"key": "a", "target": "value", "number": 1}]}', "compared with `value` or `text`"),
        ('{"when": [{"key": "a", "target": "size", "number": 1}]}', "Invalid enum value 'size'"),
        ('{"then": [{"do": "create", "path": "a", "ephemeral": "7"}]}', "a session such as s42, got '7'"),
        ('{"then": [{"do": "write", "path": "a", "generation": -1}]}', "whole number from 0 on, got -1"),
    ],
)
def test_a_transaction_that_makes_no_sense_says_where_and_what_was_expected(given: str, said: str):
    with pytest.raises(InvalidRequest) as caught:
        parse(given.encode())
    assert said in str(caught.value)


def test_a_command_runs_together_with_others(cluster: Cluster, client: TestClient, shell: Shell):
    assert shell("double-barrier", "b", "1", "me", "--", "sh", "-c", "echo in; exit 3") == (3, "in\n")
    assert shell("double-barrier", "b", "2", "me", "--wait", "0.1", "--", "echo", "in") == (1, "")
    assert client.files.children("b") == []
    other = DoubleBarrier(cluster.client().later, "b", 2, "other")
    entering = other.enter()
    assert shell("double-barrier", "b", "2", "me", "--wait", "1", "--", "echo", "in") == (1, "in\n"), "one stays in"
    assert entering.is_over
    assert client.files.children("b") == ["other"]


def test_a_lock_within_a_lock_joins_it(client: TestClient, shell: Shell, monkeypatch: pytest.MonkeyPatch):
    held = client.cluster.client().locks.acquire("a", "b")
    monkeypatch.setenv(SEQUENCERS, "\n".join(map(held.sequencer, ("a", "b"))))
    assert shell("lock", "a", "--wait", "0", "--", "true")[0] == EXIT_NOT_ACQUIRED, "not unless it is asked for"
    assert shell("lock", "/a", "--also", "b", "--reentrant", "--wait", "0", "--", "echo", "in") == (0, "in\n")
    assert shell("lock", "a", "--shared", "--reentrant", "--wait", "0", "--", "true")[0] == 0
    assert shell("lock", "a", "--also", "c", "--reentrant", "--wait", "0", "--", "true")[0] == EXIT_USAGE
    assert shell("lock", "c", "--reentrant", "--wait", "0", "--", "true")[0] == 0, "it takes what is not held around it"
    assert client.locks.look("a").holding == 1
    monkeypatch.setattr("coordinator.client.command_line.joining.ASKS_S", 0.0)
    around = Around.of(client, ("a",), "exclusive")
    assert around is not None
    around.check()
    held.release()
    with pytest.raises(LeaseLost, match="not held any more"):
        around.check()
    assert Around.of(client, ("a",), "exclusive") is None
    shared = client.cluster.client().locks.acquire("a", shared=True)
    monkeypatch.setenv(SEQUENCERS, shared.sequencer())
    assert shell("lock", "a", "--reentrant", "--wait", "0", "--", "true")[0] == EXIT_USAGE


def test_a_lock_tells_its_command_by_what_it_is_held(client: TestClient, shell: Shell):
    for more, names in (((), ["a"]), (("--also", "b c"), ["a", "b c"])):
        echo = ("--", "sh", "-c", 'echo "$CONCLAVE_LOCK_SEQUENCERS"')
        lines = shell("lock", "a", *more, *echo)[1].splitlines()
        assert [line.rsplit(":", 2)[:2] for line in lines] == [[name, "exclusive"] for name in names]


def test_a_lock_within_a_lock_hides_no_lock_around_it(cluster: Cluster, shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """`lock a -- lock b -- lock --reentrant a` waited for its own ancestor for ever."""
    around = cluster.client().locks.acquire("a")
    monkeypatch.setenv(SEQUENCERS, around.sequencer())
    for more in ((), ("--also", "c")):
        lines = shell("lock", "b", *more, "--", "sh", "-c", f'echo "${SEQUENCERS}"')[1].splitlines()
        assert lines[-1] == around.sequencer()
        assert [line.rsplit(":", 2)[0] for line in lines] == ["b", *more[1:], "a"]


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


def test_how_long_a_lock_delay_is_counts_from_the_death(
    client: TestClient, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    """The cluster says how long it is in all, and not what is left of it: it was printed as if it were."""
    delayed = msgspec.structs.replace(client.locks.look("a"), delay_ms=40_000)
    monkeypatch.setattr(Locks, "look", lambda locks, name: delayed)
    assert "a holder died; it stays unavailable for 40 s from then on" in shell("locks", "show", "a")[1]


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
    assert shell("observe", "e", "--count", "1", "--values")[1].split()[1] == "host-2"
    led = f"root session {leadership.session} token {leadership.token} host-2"
    assert shell("observe", "e", "--count", "1") == (0, f"{led}\n")
    told = json.loads(shell("observe", "e", "--count", "1", "--json")[1])["leader"]
    assert (told["session"], told["token"]) == (f"s{leadership.session}", leadership.token)
    assert base64.b64decode(told["value"]) == b"host-2"
    assert shell("observe", "none", "--count", "1") == (0, "nobody leads\n")
    assert json.loads(shell("observe", "none", "--count", "1", "--json")[1]) == {"leader": None}
    assert shell("elect", "e", "x", "--wait", "0", "--", "true")[0] == EXIT_NOT_ACQUIRED


def test_groups_barriers_and_queues_from_a_shell(client: TestClient, shell: Shell):
    Group(client.cluster.client(), "g").join("a", b"1")
    assert shell("group", "ls", "g") == (0, "a 1\n")
    assert shell("group", "join", "g", "b", "--data", "2", "--", "true") == (0, "")
    assert shell("group", "ls", "g") == (0, "a 1\n")
    Group(client.cluster.client(), "g").join("b", b"2", capabilities={"ssd", "gpu"})
    assert shell("group", "ls", "g", "--capability", "gpu", "--capability", "ssd") == (0, "b 2\n")
    assert shell("group", "ls", "g", "-l")[1].splitlines() == ["a - 1", "b gpu,ssd 2"]
    member = ("group", "join", "g", "c", "--capability", "x86", "--capability", "gpu", "--")
    assert shell(*member, "true") == (0, "")
    joined = next(op for op in client.cluster.ops if getattr(op, "path", "") == "g/c")
    assert joined.value == b"#capabilities gpu x86\n"
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


def test_what_others_wrote_is_no_word_to_the_terminal(client: TestClient, shell: Shell):
    Group(client, "g").join("a", b"1")
    client.files.write("g/a", b"#capabilities gpu \x1b]0;title\x07\n\x1b[2J")
    assert shell("group", "ls", "g", "-l") == (0, "a gpu \\x1b[2J\n")
    client.locks.acquire("a")
    client.locks.force_release("a", "a\nb \x1b[2J")
    assert shell("locks", "breaks")[1].endswith(": a\\nb \\x1b[2J\n")


@pytest.mark.parametrize("what", [("group", "join", "g", "m"), ("queue", "take", "q")])
def test_a_command_that_was_ended_is_said_so_though_nobody_leads(
    cluster: Cluster, client: TestClient, shell: Shell, monkeypatch: pytest.MonkeyPatch, what: tuple[str, ...]
):
    """That it could not be left, or given back, was told in its place."""
    Queue(client, "q").put(b"item")

    def check(held: Any) -> None:
        cluster.lose_leader()
        raise LeaseLost("planted")

    for held in ("coordinator.client.command_line.together._Member", "coordinator.client.recipes.queue.Item"):
        monkeypatch.setattr(f"{held}.check", check)
    assert shell(*what, "--", "sleep", "60")[0] == EXIT_LEASE_LOST


def test_a_cluster_that_does_not_answer_is_said_so(cluster: Cluster, shell: Shell):
    cluster.lose_leader()
    assert shell("get", "a")[0] == EXIT_FAILED


def test_where_there_is_no_room_it_says_when_to_ask_again(
    shell: Shell, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    assert shell("put", "a", "1") == (0, "")
    said: list[str] = []
    monkeypatch.setattr(output, "say", said.append)
    cluster.refuses = lambda request: isinstance(request, wire.CommandRequest)
    assert shell("put", "a", "1") == (EXIT_FAILED, "")
    assert re.fullmatch(r"conclave: there is no room; nothing was done, ask again in 0\.[2-5] seconds", said[0])


@pytest.mark.parametrize(
    "around", [("lock", "a"), ("lock", "a", "--wait", "1"), ("elect", "e", "me"), ("group", "join", "g", "me")]
)
def test_a_command_has_all_its_arguments(shell: Shell, around: tuple[str, ...]):
    """`lock NAME -- git checkout -- FILE` ran `git checkout FILE`."""
    assert shell(*around, "--", "echo", "a", "--", "b", "--", "--wait") == (0, "a -- b -- --wait\n")
    assert shell("put", "--", "-k", "--")[0] == 0
    assert shell("get", "--", "-k") == (0, "--")


# --- where nothing can be printed or read ---------------------------------------------------------


def test_what_can_not_be_printed_is_a_failure_of_its_own(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """Status 1 was that there is no such key; and what was printed last failed behind all that could say so (120)."""
    shell("put", "a", "1")
    for command in (("get", "a"), ("locks", "show", "a"), ("add", "visits"), ("--help",)):
        with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            status, _ = shell(*command)
        assert status == EXIT_NOT_WRITTEN


def test_whom_nobody_reads_ends_as_by_the_signal(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """Also where all that it prints fits into the buffer, which is written at the end of the program."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as unread, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread)
        status, _ = shell("locks", "show", "a")
    assert status == 128 + signal.SIGPIPE


def test_names_that_an_output_has_no_characters_for_are_escaped(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    shell("put", "ü/ö", "1")
    printed = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
        assert shell("files", "ls", "/")[0] == 0
        assert printed.getvalue() == b"\\xfc/\n"


def test_what_went_wrong_is_no_output(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """With standard error closed it was printed as if it had been asked for."""
    monkeypatch.setattr(sys, "stderr", None)
    assert shell("files", "ls", "nothing") == (EXIT_NOT_DONE, "")
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert shell("files", "ls", "nothing") == (EXIT_NOT_DONE, "")


@pytest.mark.parametrize("command", [("put", "a", "-"), ("transact", "-")])
def test_there_may_be_no_standard_input(
    command: tuple[str, ...], shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "stdin", None)
    assert main([*command]) == EXIT_USAGE
    assert "the standard input, which is closed" in capfd.readouterr().err


def test_there_may_be_no_standard_output(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    shell("put", "a", "1")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert shell("get", "a") == (0, "")
        sys.stdout.close()
