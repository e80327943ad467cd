"""What a caller gets wrong is refused at once, and never sent: a node drops the whole packet in which it can not read
one thing."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe

from coordinator import wire
from coordinator.client import options, transactions
from coordinator.client.errors import InvalidRequest
from coordinator.client.transactions import Transaction
from coordinator.statemachine import commands, files, lock_commands
from tests.unit.client.cluster import Cluster, TestClient
from tests.unit.client.test_sync import TOKEN

number: Any = 5
text: Any = "x"
nothing: Any = None

WRONG: list[tuple[str, Callable[[Any], Any], str]] = [
    (
        "sort_by",
        lambda c: c.files.read_range("a", sort_by="size"),
        "one of key, value, version, instance, revision, got 'size'",
    ),
    ("sort_by of another type", lambda c: c.files.read_range("a", sort_by=None), "got None"),
    ("limit", lambda c: c.files.read_range("a", limit=-1), "a limit is a whole number from 1 to 1000, got -1"),
    ("limit of another type", lambda c: c.files.read_range("a", limit=None), "got None"),
    ("limit that is a truth", lambda c: c.files.read_range("a", limit=False), "got False"),
    ("descending", lambda c: c.files.read_range("a", descending=1), "Expected `bool`, got `int`"),
    ("keys_only", lambda c: c.files.read_range("a", keys_only="no"), "Expected `bool`, got `str`"),
    ("after", lambda c: c.files.read_range("a", after=None), "a name is a str"),
    ("after as bytes", lambda c: c.files.list_directory("a", after=b"b"), "Expected `str | null`, got `bytes`"),
    ("end", lambda c: c.files.count("a", None), "a name is a str"),
    ("start as bytes", lambda c: c.files.count(b"a"), "a name is a str"),
    ("prefix", lambda c: c.files.count("a", prefix=1), "Expected `bool`, got `int`"),
    ("a directory", lambda c: c.files.make_directory(None), "a name is a str"),
    ("ephemeral", lambda c: c.files.create("a", ephemeral=1), "Expected `bool`, got `int`"),
    ("recursive", lambda c: c.files.delete("a", recursive=None), "Expected `bool`, got `None`"),
    ("value", lambda c: c.put("a", "text"), "a value is bytes, got str"),
    ("revision", lambda c: c.files.compact(-1), "a revision is a whole number from 0 on, got -1"),
    ("puts", lambda c: next(c.files.watch("a", since=1, puts="yes")), "Expected `bool`, got `str`"),
    ("conflicts", lambda c: next(c.locks.watch("a", since=1, conflicts=2)), "Expected `bool`, got `int`"),
    (
        "refuse_deadlocks",
        lambda c: c.locks.acquire("a", refuse_deadlocks=None),
        "refuse_deadlocks is True or False, got None",
    ),
    (
        "a time to wait",
        lambda c: c.locks.acquire("a", wait=-1),
        "wait is a number of seconds from 0 to 2592000, got -1",
    ),
    ("reentrant", lambda c: c.locks.acquire("a", reentrant="no"), "reentrant is True or False, got 'no'"),
    ("a sequencer", lambda c: c.locks.check_sequencer(None), "a sequencer is a str, got None"),
    ("a reason", lambda c: c.locks.force_release("a", b"why"), "a reason is a str, got b'why'"),
    ("no reason", lambda c: c.locks.force_release("a", None), "a reason is a str, got None"),
    ("whose it is", lambda c: c.locks.force_release("a", "why", session="s1"), "a session is known by a whole number"),
    ("no transaction", lambda c: c.transact(None), "is a Transaction, got None"),
    ("a time for the next", lambda c: c.files.watch("a").next(timeout=float("nan")), "timeout is a number of seconds"),
    (
        "a session",
        lambda c: c.keep_alive("7"),
        "a session is known by a whole number from 0 to 9223372036854775807, got '7'",
    ),
    (
        "an owner",
        lambda c: c.wait_for_grant("a", None, 1, wait=1),
        "by a whole number from 0 to 9223372036854775807, got None",
    ),
    (
        "an acquisition",
        lambda c: c.wait_for_grant("a", 1, "2", wait=1),
        "an acquisition is known by a whole number from 0 to 9223372036854775807, got '2'",
    ),
    ("act_for", lambda c: c.query(commands.GetKey("a"), act_for=None), "act_for is the name of a principal, got None"),
    (
        "act_for that is no text",
        lambda c: c.wait_for_grant("a", 1, 1, wait=1, act_for="\ud800"),
        "act_for is the name of a principal, got '\\ud800'",
    ),
    ("an owner below 0", lambda c: c.wait_for_grant("a", -1, 1, wait=1), "from 0 to 9223372036854775807, got -1"),
    ("an owner beyond 63 bits", lambda c: c.wait_for_grant("a", 2**63, 1, wait=1), "got 9223372036854775808"),
    ("a session beyond 63 bits", lambda c: c.keep_alive(2**70), "from 0 to 9223372036854775807, got 11805"),
    ("a node", lambda c: c.compact(7), "a node is known by its name, got 7"),
    ("a command", lambda c: c.command(commands.PutKey("a", number)), "Expected `bytes`, got `int`"),
    ("no command", lambda c: c.command(commands.GetKey("a")), "Expected `array` of at least length 3, got 2"),
    ("a query", lambda c: c.query(files.ReadRange("a", limit=text)), "Expected `int`, got `str`"),
    ("breaks", lambda c: c.query(lock_commands.ListBreaks(nothing, 5)), "Expected `int`, got `None`"),
    (
        "within a transaction",
        lambda c: c.transact(Transaction().then(transactions.create("a", ephemeral=number))),
        "Expected `bool`",
    ),
]


@pytest.mark.parametrize(("what", "ask", "told"), WRONG, ids=[what for what, _, _ in WRONG])
def test_what_is_wrong_is_refused_before_it_is_sent(cluster: Cluster, client: TestClient, what, ask, told):
    client.put("first", b"")
    heard: list[wire.Request] = []

    def note(request: wire.Request) -> bool:
        heard.append(request)
        return False

    cluster.drops = note
    with pytest.raises(InvalidRequest, match=re.escape(told)):
        ask(client)
    assert [request for request in heard if not isinstance(request, wire.KeepAliveRequest)] == []
    session = client.core.sessions[15_000]
    assert session.acked == session._next_number, "no number stays open for good"


@pytest.mark.parametrize(
    ("to", "told"),
    [
        (text, "handed over to a Holder, of a waiter or of an Heir, got 'x'"),
        (nothing, "got None"),
        (commands.Holder(-1, 1, ""), "a session is known by a whole number from 0 to 9223372036854775807, got -1"),
        (commands.Holder(1, 2**64, ""), "an acquisition is known by a whole number"),
    ],
)
def test_who_is_no_holder_is_handed_nothing(client: TestClient, to: Any, told: str):
    hold = client.locks.acquire("a")
    with pytest.raises(InvalidRequest, match=told):
        hold.hand_over(to)
    hold.check()


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: transactions.read_range("a", limit=-1), "from 1 to 1000, got -1"),
        (lambda: transactions.read_range("a", limit=None), "got None"),  # type: ignore[arg-type]
        (lambda: transactions.read_range("a", limit=True), "got True"),
        (lambda: transactions.make_directory(None), "a name is a str"),  # type: ignore[arg-type]
    ],
)
def test_of_a_transaction_each_operation_is_checked_where_it_is_written(build, told):
    with pytest.raises(InvalidRequest, match=told):
        build()


class Named(StrEnum):
    DEPLOY = "deploy"


@pytest.mark.parametrize("name", [Named.DEPLOY, mark_safe("deploy"), SimpleLazyObject(lambda: "deploy")])
def test_a_kind_of_str_is_a_name(client: TestClient, name):
    """Its str is: of others msgspec knows nothing, nor does what is compiled."""
    client.put(name, b"1")
    assert client.get("deploy") == client.get(name) == b"1"
    hold = client.locks.acquire(name)
    assert hold.sequencer().startswith("deploy:exclusive:")
    resolved = options.resolve(mark_safe("redis://nowhere"), mark_safe(str(TOKEN)), name, 1.0)
    assert resolved.cluster == "deploy"
    assert {type(said) for said in (resolved.url, resolved.cluster, *resolved.token)} == {str}


@pytest.mark.parametrize("what", ["url", "token", "cluster"])
def test_whose_client_it_is_is_said_in_words(what):
    said: dict[str, Any] = {"url": "redis://nowhere", "token": str(TOKEN), "cluster": "default", what: b"bytes"}
    with pytest.raises(InvalidRequest, match=f"{what}: expected a str, got bytes"):
        options.resolve(**said, timeout=1.0)


def test_what_can_not_be_sent_says_why(client: TestClient):
    with pytest.raises(InvalidRequest) as refused:
        client.query(object())  # type: ignore[arg-type]
    assert isinstance(refused.value.__cause__, TypeError)


def test_what_is_right_stays_so(cluster: Cluster, client: TestClient):
    client.put("a", b"1")
    for limit in (0, 1, commands.LIST_LIMIT_MAX):
        assert client.files.read_range("a", limit=limit, sort_by="version").count == 1
        assert transactions.read_range("a", limit=limit).limit == limit
    assert client.files.make_directory("d/") > 0
