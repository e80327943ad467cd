"""The stamp: whom a node verified, whom it speaks for, and by which tokens; what that is good for is the log's word."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.replica.callers import Caller
from coordinator.replica.stamps import Stamp, Stamps, UnknownToken
from coordinator.statemachine import commands
from coordinator.statemachine.commands import (
    RIGHTS,
    AddToken,
    Command,
    Done,
    Entry,
    Failure,
    GetKey,
    OpenSession,
    PutKey,
    RemoveToken,
    SetPrincipal,
)
from coordinator.statemachine.files import ReadChanges
from coordinator.statemachine.permissions import CLUSTER as WHOLE
from coordinator.statemachine.permissions import NarrowToken, Permission, Quota, SetQuota
from coordinator.wire import Token
from tests.unit.replica.stage import CLUSTER, WEB, Stage
from tests.unit.statemachine.asking import Asking

NARROW = (Permission("a", ("read", "write")),)


class Company:
    """The web tier, and `ci`, who may do everything and has a token that is narrowed to what begins with "a"."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stage.elect("node1")
        self.stage.pass_time(100_000)
        self.numbers: dict[int, int] = {}
        self.web = self.open(WEB)
        self.token, self.narrow = Token.new("0123abcd"), Token.new("0123abcd")
        for op in (
            SetPrincipal("ci", RIGHTS),
            AddToken(self.token.token_id, "ci", self.token.key),
            AddToken(self.narrow.token_id, "ci", self.narrow.key),
            NarrowToken(self.narrow.token_id, NARROW),
        ):
            assert isinstance(self.does(op), Done)
        self.ci = self.open(self.token)

    def ask(self, request: wire.Request, token: Token = WEB):
        channel = self.stage.ask("node1", request, token=token)
        self.stage.settle()
        return [
            reply.result if isinstance(reply, wire.Answer) else reply for reply in self.stage.replies(channel, token)
        ]

    def send(self, session: int, number: int, op: commands.ClientOp, token: Token, act_for: str = ""):
        raw = msgspec.Raw(wire.encode(Command(session, number, 0, op)))
        (result,) = self.ask(wire.CommandRequest(5, CLUSTER, act_for, raw), token)
        return result

    def open(self, token: Token) -> int:
        return self.send(0, 0, OpenSession(60_000, b""), token).session

    def does(self, op: commands.ClientOp, session: int = 0, token: Token = WEB, act_for: str = ""):
        session = session or self.web
        number = self.numbers[session] = self.numbers.get(session, 0) + 1
        return self.send(session, number, op, token, act_for)


@pytest.fixture
def company() -> Company:
    return Company()


def code(result: object) -> str:
    return result.code if isinstance(result, Failure) else ""


def test_a_session_is_its_principals_and_each_request_has_the_rights_of_its_own_token(company):
    puts = [
        company.does(PutKey(key, b""), company.ci, token) for key in "ab" for token in (company.token, company.narrow)
    ]
    assert [code(result) for result in puts] == ["", "", "", commands.FORBIDDEN]
    reads = [company.ask(wire.QueryRequest(1, CLUSTER, "", GetKey(key)), company.narrow) for key in "ab"]
    assert [code(result) for (result,) in reads] == ["", commands.FORBIDDEN]


def test_who_acts_for_a_token_may_do_what_the_token_may(company):
    act_for = f"{wire.FOR_TOKEN}{company.narrow.token_id}"
    assert [code(company.does(PutKey(key, b""), act_for=act_for)) for key in "ab"] == ["", commands.FORBIDDEN]
    (read,) = company.ask(wire.QueryRequest(1, CLUSTER, act_for, GetKey("b")))
    assert code(read) == commands.FORBIDDEN
    assert code(company.does(PutKey("b", b""), act_for="ci")) == ""
    company.does(RemoveToken(company.narrow.token_id))
    assert code(company.does(PutKey("a", b""), act_for=act_for)) == commands.FORBIDDEN
    assert code(company.does(PutKey("a", b""), act_for="token:zz")) == commands.FORBIDDEN
    assert code(company.does(PutKey("a", b""), act_for="token zz")) == commands.INVALID
    other = f"{wire.FOR_TOKEN}{WEB.token_id}"
    assert code(company.does(PutKey("a", b""), company.ci, company.token, other)) == commands.FORBIDDEN


def test_a_copy_that_comes_when_its_token_is_gone_is_told_what_the_first_was(company):
    """A refusal is only given where no copy took effect."""
    act_for = f"{wire.FOR_TOKEN}{company.narrow.token_id}"
    done = company.does(PutKey("a", b""), act_for=act_for)
    number = company.numbers[company.web]
    company.does(RemoveToken(company.narrow.token_id))
    assert company.send(company.web, number, PutKey("a", b""), WEB, act_for) == done
    refused = company.send(company.web, number + 2, PutKey("a", b""), WEB, act_for)
    assert code(refused) == commands.FORBIDDEN
    company.does(AddToken(company.narrow.token_id, "ci", company.narrow.key))
    assert company.send(company.web, number + 2, PutKey("a", b""), WEB, act_for) == refused, "it has its place"


def test_a_leader_that_nobody_confirms_does_not_judge_by_the_tokens_that_it_knows(company):
    """Another leads, and has taken a token of which this one knows nothing."""
    stage, added = company.stage, Token.new("0123abcd")
    stage.cut.add("node1")
    stage.elect("node2")
    raw = msgspec.Raw(wire.encode(Command(company.web, 90, 0, AddToken(added.token_id, "ci", added.key))))
    channel = stage.ask("node2", wire.CommandRequest(1, CLUSTER, "", raw))
    stage.settle()
    (answer,) = stage.replies(channel, WEB)
    assert isinstance(answer.result, Done)
    act_for = f"{wire.FOR_TOKEN}{added.token_id}"
    assert company.ask(wire.QueryRequest(2, CLUSTER, act_for, GetKey("a"))) == []
    assert stage.nodes["node1"].replica.engine.role is Role.LEADER
    (found,) = stage_replies(stage, "node2", wire.QueryRequest(3, CLUSTER, act_for, GetKey("a")))
    assert not code(found)


def stage_replies(stage: Stage, node: str, request: wire.Request) -> list[object]:
    channel = stage.ask(node, request)
    stage.settle()
    return [reply.result for reply in stage.replies(channel, WEB) if isinstance(reply, wire.Answer)]


def test_a_narrowed_token_operates_nothing(company):
    for token, refused in ((company.token, ""), (company.narrow, commands.FORBIDDEN)):
        (reply,) = company.ask(wire.ProgressRequest(1, CLUSTER, ""), token)
        assert code(reply) == refused
    (reply,) = company.ask(wire.ProgressRequest(1, CLUSTER, f"{wire.FOR_TOKEN}{company.narrow.token_id}"))
    assert code(reply) == commands.FORBIDDEN
    (reply,) = company.ask(wire.ProgressRequest(1, CLUSTER, f"{wire.FOR_TOKEN}{company.token.token_id}"))
    assert isinstance(reply, wire.Progress)


def watch(number: int, query: ReadChanges, act_for: str = "") -> wire.WatchRequest:
    return wire.WatchRequest(number, CLUSTER, act_for, query, 10_000)


def test_a_watch_is_held_to_its_token_when_it_begins_and_when_it_is_answered(company):
    assert code(company.ask(watch(1, ReadChanges("", prefix=True)), company.narrow)[0]) == commands.FORBIDDEN
    channel = company.stage.ask("node1", watch(2, ReadChanges("a", prefix=True)), token=company.narrow)
    company.stage.settle()
    assert company.stage.replies(channel, company.narrow) == []
    company.does(NarrowToken(company.narrow.token_id, ()))
    company.does(PutKey("a", b""))
    (answer,) = company.stage.replies(channel, company.narrow)
    assert code(answer.result) == commands.FORBIDDEN


def test_there_are_no_more_watches_than_the_quotas_allow(company):
    company.does(SetQuota("ci", Quota(watches=1)))
    assert company.ask(watch(1, ReadChanges("b")), company.token) == []
    (refused,) = company.ask(watch(2, ReadChanges("b")), company.token)
    assert refused == Failure("full", "principal 'ci' has a quota of 1 watches, has 1, and this takes 1 more")
    company.does(SetQuota(WHOLE, Quota(watches=2)))
    assert company.ask(watch(3, ReadChanges("b"))) == []
    (refused,) = company.ask(watch(4, ReadChanges("b")))
    assert refused == Failure("full", "the cluster has a quota of 2 watches, has 2, and this takes 1 more")
    company.does(PutKey("b", b""))
    assert company.ask(watch(5, ReadChanges("b")), company.token) == [], "those that are answered make room"


def test_a_cluster_below_level_3_has_entries_that_its_older_replicas_read():
    asking = Asking(level=2)
    stamps = Stamps(asking.machine)
    own = stamps.own(Caller("r", "bb", b"c" * 32))
    assert own == Stamp("ci", "", "bb", "")
    command = wire.encode(Command(2, 1, 0, PutKey("a", b"")))

    def entry(stamp: Stamp) -> Entry:
        data = stamps.entry(stamp, command)
        assert data.startswith(COMMAND_PREFIX)
        assert len(msgspec.msgpack.decode(data[len(COMMAND_PREFIX) :])) == (4 if asking.machine.level < 3 else 6)
        return msgspec.msgpack.decode(data[len(COMMAND_PREFIX) :], type=Entry)

    assert entry(own).token is None
    asking.node(commands.RaiseLevel(3))
    assert (entry(own).token, entry(own).for_token) == ("bb", "")
    acting = stamps.acting(own, "token:aa")
    assert acting == Stamp("web", "ci", "bb", "aa")
    found = entry(acting)
    assert (found.principal, found.actor, found.token, found.for_token) == acting
    assert stamps.acting(own, "token:dd") == UnknownToken("dd")
    assert stamps.own(Caller("r", "bb", b"x" * 32)) is None
