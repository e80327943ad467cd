"""Packets: what is signed is taken, everything else is dropped with its reason (history 7)."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse, VoteRequest, VoteResponse
from coordinator.statemachine.commands import GetLock
from coordinator.wire import PEER, REPLY, REQUEST, Channels, Envelope, PeerMessage, Token, WireError
from tests.unit.dashboard.reports import feed

KEY = b"k" * 32
MESSAGES = [
    PeerMessage(1, 2, 3, AppendEntries(4, 5, 4, 3, 9, [4, 4], [b"\x01a", b"\x00"])),
    PeerMessage(1, 2, 3, AppendResponse(4, 9, success=False, match=7, hint_index=5, hint_term=3)),
    PeerMessage(2**63 - 1, 2**62, 1, VoteRequest(5, 7, 4, pre=True, campaign=1)),
    PeerMessage(1, 2, 3, VoteResponse(5, granted=False, pre=False, campaign=2)),
]


def reason(packet: bytes, kind: int = PEER, key: bytes = KEY) -> str:
    with pytest.raises(WireError) as caught:
        wire.verify(wire.open_envelope(packet, kind), key)
    return caught.value.reason


def test_what_one_node_seals_another_opens():
    packet = wire.seal(KEY, PEER, "node1", "node2", wire.encode_peer(MESSAGES))
    envelope = wire.open_envelope(packet, PEER)
    wire.verify(envelope, KEY)
    assert (envelope.sender, envelope.receiver) == ("node1", "node2")
    assert wire.decode_peer(envelope.body) == MESSAGES


@pytest.mark.parametrize("field", ["kind", "sender", "receiver", "body", "mac"])
def test_the_signature_covers_everything(field):
    packet = wire.seal(KEY, PEER, "node1", "node2", wire.encode_peer(MESSAGES))
    envelope = msgspec.msgpack.decode(packet, type=Envelope)
    other = {"kind": REPLY, "sender": "node3", "receiver": "node1", "body": b"x", "mac": bytes(16)}[field]
    forged = msgspec.msgpack.encode(msgspec.structs.replace(envelope, **{field: other}))
    assert reason(forged, REPLY if field == "kind" else PEER) == "signature"


def test_each_reason_has_its_name():
    good = wire.seal(KEY, PEER, "node1", "node2", b"x")
    assert reason(b"\x00" * (wire.PACKET_BYTES_MAX + 1)) == "oversize"
    assert reason(good[:-3]) == "malformed"
    assert reason(b"") == "malformed"
    assert reason(good, REQUEST) == "kind"
    assert reason(good, key=b"z" * 32) == "signature"
    newer = msgspec.structs.replace(msgspec.msgpack.decode(good, type=Envelope), version=2)
    assert reason(msgspec.msgpack.encode(newer)) == "version"


@given(st.binary(max_size=300))
def test_garbage_raises_wire_errors_and_nothing_else(data):
    for parse in (wire.decode_peer, wire.decode_requests, wire.decode_command, wire.decode_replies, wire.decode_feed):
        with contextlib.suppress(WireError):
            parse(data)
    try:
        wire.verify(wire.open_envelope(data, PEER), KEY)
    except WireError:
        return
    raise AssertionError("garbage was taken for a packet")


def test_a_feed_of_a_version_before_and_of_one_to_come_are_read():
    """The live page goes on where nodes and web processes are of two versions."""
    report = feed("node1", shared=(wire.SharedLock("slots", "counting", 5, 2),))
    fields = msgspec.msgpack.decode(wire.encode(report))
    assert wire.decode_feed(wire.encode(fields)) == report
    assert wire.decode_feed(wire.encode(fields[:-1])) == feed("node1", shared=None)
    assert wire.decode_feed(wire.encode([*fields, "to come"])) == report


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_packet_with_one_byte_changed_is_dropped(position, value):
    packet = bytearray(wire.seal(KEY, PEER, "node1", "node2", wire.encode_peer(MESSAGES)))
    position %= len(packet)
    if packet[position] == value:
        return
    packet[position] = value
    with pytest.raises(WireError):
        wire.verify(wire.open_envelope(bytes(packet), PEER), KEY)


def test_deep_nesting_is_malformed_not_a_crash():
    assert reason(b"\x91" * 100_000) == "malformed"


def test_requests_survive_their_encoding():
    batch = wire.RequestBatch(
        "conclave:00000000:r:x", [wire.QueryRequest(1, 2, "", GetLock("a")), wire.DirectoryRequest(3)]
    )
    assert wire.decode_requests(wire.encode(batch)) == batch


def test_a_token_reads_back_and_its_key_tells_nothing_of_it():
    token = Token.new("0123abcd")
    assert Token.parse(str(token)) == token
    assert len(token.key) == 32
    assert token.secret not in token.key.hex()
    assert Token.new("0123abcd").key != token.key


@pytest.mark.parametrize("text", ["", "conclave", "conclave_zz_1_2", "x" * 200])
def test_a_token_that_is_none_is_refused_without_repeating_it(text):
    with pytest.raises(ValueError, match="conclave_REALM_ID_SECRET") as caught:
        Token.parse(text)
    assert not text or text not in str(caught.value) or text == "conclave"


def test_channels_of_clients_lie_under_prefixes_that_an_acl_can_name():
    channels = Channels("0123abcd")
    assert channels.client("node1").startswith("conclave:0123abcd:c:")
    assert channels.discovery.startswith("conclave:0123abcd:c:")
    assert channels.reply().startswith(channels.reply_prefix)
    assert channels.reply() != channels.reply()
    assert not channels.peer("node1").startswith(("conclave:0123abcd:c:", "conclave:0123abcd:r:"))
