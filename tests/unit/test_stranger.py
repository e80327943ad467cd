"""A client made of docs/wire.md and docs/semantics.md alone, of numbers, arrays and bytes: nothing here is of the code
that nodes and the Python client encode by. It talks to nodes in memory."""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from typing import Any

import pytest
from msgspec import msgpack

from coordinator.replica.ports import Inbound
from tests.unit.replica.stage import CLUSTER, WEB, Stage

DIRECTORY, COMMAND, QUERY, KEEP_ALIVE, WATCH, EVENTS, CACHED_QUERY, RENEW, DROPPED = 4, 1, 2, 3, 30, 31, 40, 41, 42
ANSWER, KEPT_ALIVE, NOT_LEADER, GRANT, OTHER_TERM, TOLD, CACHED, RENEWED, INVALIDATION = 1, 2, 3, 7, 8, 31, 40, 41, 42


class Stranger:
    def __init__(self, stage: Stage, name: str = "a") -> None:
        _, realm, self.token_id, secret = str(WEB).split("_")
        salt = bytes.fromhex(self.token_id)
        self.key = blake2b(bytes.fromhex(secret), digest_size=32, salt=salt, person=b"conclave-sign").digest()
        self.stage, self.channel = stage, f"conclave:{realm}:r:{name * 32}"
        self.ids, self.numbers, self.session = count(100), count(1), 0

    def mac(self, kind: int, sender: str, receiver: str, body: bytes) -> bytes:
        return blake2b(f"1\n{kind}\n{sender}\n{receiver}\n".encode() + body, digest_size=16, key=self.key).digest()

    def say(self, *requests: list[Any], node: str = "node1", receiver: str = "") -> list[list[Any]]:
        receiver, body = receiver or node, msgpack.encode([self.channel, requests])
        packet = msgpack.encode([1, 2, self.token_id, receiver, self.mac(2, self.token_id, receiver, body), body])
        self.stage.nodes[node].bus.inbox.append(Inbound(from_peers=False, data=packet))
        self.stage.settle()
        return self.hear()

    def hear(self) -> list[list[Any]]:
        """All that came on the own channel, the unsigned refusals among it."""
        heard: list[list[Any]] = []
        for published in self.stage.answers.pop(self.channel, []):
            version, kind, sender, receiver, mac, body = msgpack.decode(published.data)
            assert (version, receiver) == (1, self.channel)
            assert mac == (b"" if kind == 5 else self.mac(3, sender, receiver, body))
            heard += [msgpack.decode(body)] if kind == 5 else msgpack.decode(body)
        return heard

    def command(self, *op: Any, number: int = -1) -> Any:
        """Its result; None where there is none yet."""
        request, number = next(self.ids), next(self.numbers) if number < 0 else number
        heard = self.say([COMMAND, request, CLUSTER, "", [self.session, number, 0, op]])
        return heard[0][2] if heard and heard[0][:2] == [ANSWER, request] else None

    def query(self, *query: Any) -> Any:
        request = next(self.ids)
        (answer,) = self.say([QUERY, request, CLUSTER, "", query])
        assert answer[:2] == [ANSWER, request]
        return answer[2]

    def opened(self) -> Stranger:
        tag, self.session, ttl_ms = self.command(1, 15_000, self.channel.encode()[-16:], number=0)
        assert (tag, ttl_ms) == (1, 15_000)
        return self


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    made.elect("node1")
    return made


@pytest.fixture
def stranger(stage: Stage) -> Stranger:
    return Stranger(stage).opened()


def test_it_finds_the_leader_from_any_node(stage: Stage) -> None:
    stranger, get = Stranger(stage), [QUERY, 8, CLUSTER, "", [1, "a"]]
    ((tag, request, node, nodes, clusters),) = stranger.say([DIRECTORY, 7], node="node2", receiver="*")
    assert (tag, request, node, sorted(nodes)) == (4, 7, "node2", [["node1", ""], ["node2", ""], ["node3", ""]])
    assert clusters == [["default", CLUSTER, "node1", 2, ["node1", "node2", "node3"]]]
    assert stranger.say(get, node="node3") == [[NOT_LEADER, 8, "node1"]]
    assert stranger.say(get, node="node1") == [[ANSWER, 8, [7, None, 0, 0]]]


def test_a_packet_that_is_signed_wrongly_or_with_a_token_that_nobody_knows(stage: Stage) -> None:
    stranger = Stranger(stage)
    stranger.key = bytes(32)
    assert stranger.say([DIRECTORY, 1]) == []
    stranger.token_id = "0" * 16
    assert [refusal[0] for refusal in stranger.say([DIRECTORY, 1])] == ["unknown-token"]


def test_a_command_is_done_once_and_what_does_not_parse_is_not(stranger: Stranger) -> None:
    done = stranger.command(6, "greeting", b"hello", number=1)
    assert done == [6, done[1], False]
    assert stranger.command(6, "greeting", b"hello", number=1) == done
    assert stranger.query(1, "greeting") == [7, b"hello", done[1], 1]
    assert stranger.command(22, "none", b"", number=2)[:2] == [14, "not-found"]
    assert stranger.command(6, "greeting", "text for bytes", number=3)[:2] == [14, "invalid"]
    assert stranger.say([DIRECTORY, 1], [99, 2]) == [], "a request that is none costs the packet"


def test_a_session_is_kept_alive(stranger: Stranger) -> None:
    ((tag, request, term),) = stranger.say([KEEP_ALIVE, 50, CLUSTER, "", stranger.session, 0, 1])
    assert (tag, request) == (OTHER_TERM, 50)
    again = [KEEP_ALIVE, 51, CLUSTER, "", stranger.session, term, 2]
    assert stranger.say(again) == [[KEPT_ALIVE, 51, stranger.session, 15_000]]
    assert stranger.say(again) == [], "a copy renews nothing"
    ((_, _, refused),) = stranger.say([KEEP_ALIVE, 52, CLUSTER, "", stranger.session + 1, term, 3])
    assert refused[:2] == [14, "session-gone"]


def test_a_lock_is_waited_for_and_its_grant_is_pushed(stage: Stage, stranger: Stranger) -> None:
    other = Stranger(stage, "b").opened()
    tag, token = stranger.command(3, "deploy", 1, False)
    assert (tag, other.command(32, ["deploy"], 5)) == (2, [3, 1])
    assert stranger.command(4, "deploy", 1)[2]
    ((tag, cluster, *granted, later),) = other.hear()
    assert (tag, cluster, granted, later > token) == (GRANT, CLUSTER, [other.session, "deploy", 5], True)
    assert other.query(4, "deploy", 5, other.session) == [2, later]


def test_changes_and_events_of_locks_are_waited_for(stage: Stage, stranger: Stranger) -> None:
    other = Stranger(stage, "b").opened()
    _, _, since, _ = stranger.query(44, "a")
    assert stranger.say([WATCH, 60, CLUSTER, "", [44, "a", "", True, since], 10_000]) == []
    _, revision, _ = other.command(6, "a/b", b"1")
    change = [revision, "a/b", ["a/b", b"1", revision, 1, revision, False, False], None]
    assert stranger.hear() == [[ANSWER, 60, [28, [change], revision + 1, 0]]]
    ((*told, (_, _, since, skip), term),) = stranger.say([EVENTS, 61, CLUSTER, "", [48, "deploy"], 10_000, 1])
    assert told == [TOLD, 61], "another leader than that of term 1 answers at once"
    assert stranger.say([EVENTS, 62, CLUSTER, "", [48, "deploy", "", False, since, skip], 10_000, term]) == []
    _, token = other.command(3, "deploy", 1, False)
    ((*told, (_, (event,), *_), _),) = stranger.hear()
    assert (told, event[1:3], event[5]) == ([TOLD, 62], ["deploy", "acquired"], token)


def test_what_is_kept_is_dropped_before_it_changes(stage: Stage, stranger: Stranger) -> None:
    other, own = Stranger(stage, "b").opened(), [CLUSTER, stranger.session]
    stranger.command(29)
    ((*answer, term, number, ticket, lease_ms),) = stranger.say([CACHED_QUERY, 70, *own, [1, "a"]])
    assert (answer, ticket, lease_ms) == ([CACHED, 70, [7, None, 0, 0]], 0, 2_000)
    assert stranger.say([RENEW, 71, *own, term, number, 1]) == [[RENEWED, 71, term, number, 2_000]]
    assert other.command(6, "a", b"1") is None, "it waits"
    assert stranger.hear() == [[INVALIDATION, *own, term, number, 1, ["a"], False]]
    assert stranger.say([DROPPED, 72, *own, term, number, 1]) == []
    assert [answer[2][0] for answer in other.hear()] == [6]
