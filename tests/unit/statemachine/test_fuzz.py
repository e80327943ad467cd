"""No input crashes an apply or a query, or makes two replicas differ, one of them restored from a snapshot."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Command, Failure
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry, stamp_without_tokens
from tests.unit.statemachine import fuzzing
from tests.unit.statemachine.asking import Asking, encode
from tests.unit.statemachine.derived import restored

CLIENT_OPS = fuzzing.any_of(commands.ClientOp)
NODE_OPS = fuzzing.any_of(commands.NodeOp)
QUERIES = fuzzing.any_of(commands.Query)
TOKENS = st.sampled_from(["", "", "aa", "bb", "c" * 16])
PRINCIPALS = st.sampled_from(["ci", "ci", "web", "web", "narrow", "nobody"])

_results = msgspec.msgpack.Decoder(commands.Result)


@pytest.mark.long
@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_commands_and_queries(data):
    plain, again = Asking(), Asking()
    sessions = {plain.open(principal): principal for principal in ("ci", "web", "narrow")}
    for principal in sessions.values():
        again.open(principal)
    number = 0
    for _ in range(data.draw(st.integers(1, 15))):
        if data.draw(st.integers(0, 9)) == 0:
            entry = encode_node_entry(data.draw(NODE_OPS))
        else:
            op = data.draw(CLIENT_OPS)
            session, principal = data.draw(st.sampled_from([*sessions.items()]))
            number += 1
            command = Command(session, number, data.draw(st.sampled_from([0, 0, number])), op)
            speaker, actor = data.draw(st.sampled_from([(principal, ""), ("ci", "web")]))
            entry = encode_entry(speaker, actor, encode(command), data.draw(TOKENS), data.draw(TOKENS))
            if data.draw(st.integers(0, 9)) == 0:
                head, tail = stamp_without_tokens(speaker, actor)
                entry = head + encode(command) + tail
        result = plain.apply(entry)
        assert again.apply(entry) == result
        assert _results.decode(encode(result)) == result, "it can be sent and be stored"
        if isinstance(result, commands.SessionOpened):
            sessions[result.session] = "ci"
        query, principal = data.draw(QUERIES), data.draw(PRINCIPALS)
        stamp = (principal, data.draw(st.sampled_from(["", "web"])), data.draw(TOKENS), data.draw(TOKENS))
        answer = plain.query(query, *stamp)
        assert again.query(query, *stamp) == answer
        assert _results.decode(encode(answer)) == answer
        again.machine = restored(again.machine)
    assert again.machine.digest() == plain.machine.digest()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_entries(data):
    one, two = Asking(), Asking()
    for asking in (one, two):
        asking.open()
    for _ in range(data.draw(st.integers(1, 8))):
        entry = bytearray(
            encode_entry("ci", "", encode(Command(2, data.draw(st.integers(1, 5)), 0, data.draw(CLIENT_OPS))))
        )
        for _ in range(data.draw(st.integers(0, 3))):
            entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(entry[: data.draw(st.integers(0, len(entry)))]) if data.draw(st.booleans()) else bytes(entry)
        assert one.apply(cut) == two.apply(cut)
    assert one.machine.digest() == two.machine.digest()


def test_a_command_nested_beyond_all_measure_is_refused():
    deep = b"\x94\x1e\x90\x91" * 5_000
    refused = Machine().apply(1, encode_entry("ci", "", b"\x94\x02\x01\x00" + deep))
    assert isinstance(refused, Failure)


def _below(calls, act):
    """What `act` does where so many calls are under way already."""
    return act() if not calls else _below(calls - 1, act)


@pytest.mark.parametrize("depth", [files.READ_NESTING_MAX, files.READ_NESTING_MAX + 1, 300, 400, 480, 5_000])
def test_whether_replicas_can_read_what_is_nested_does_not_hang_on_what_calls_them(depth):
    """A replica that could not read it would keep no result of it, and have another state than one that could."""
    inner = b"\x94\x1e\x90\x91" * (depth - 1) + b"\x94\x1e\x90\x90\x90" + b"\x90" * (depth - 1)
    one, other = Asking(), Asking()
    session = one.open()
    other.open()
    entry = encode_entry("ci", "", b"\x94" + encode(session) + b"\x01\x00" + inner)
    results = (one.apply(entry), _below(400, lambda: other.apply(entry)))
    assert results[0] == results[1]
    assert one.machine.digest() == other.machine.digest()
    assert results[0].code == (commands.TOO_MANY if depth <= files.READ_NESTING_MAX else commands.INVALID)
