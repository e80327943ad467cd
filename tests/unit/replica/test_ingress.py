"""What comes in over a mailbox: whoever signed it, it is taken by the node that it was sealed for alone."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator import wire
from coordinator.consensus.raft.messages import TimeoutNow
from coordinator.replica.ingress import Asked, Ingress
from coordinator.wire import PEER, REQUEST, PeerMessage, Refusal
from tests.unit.replica.stage import CHANNELS, PEER_KEY, WEB

MESSAGES = wire.encode_peer([PeerMessage(99, 1, 2, TimeoutNow(3))])


@pytest.fixture
def ingress() -> Ingress:
    return Ingress("node2", CHANNELS, PEER_KEY, Counter())


def asked(ingress: Ingress, receiver: str, reply: str = "", key: bytes = WEB.key) -> Asked | None:
    requests = wire.encode_requests(reply or CHANNELS.reply(), [wire.StatusRequest(1, "default")])
    packet = wire.seal(key, REQUEST, WEB.token_id, receiver, requests)
    taken = ingress.clients(packet, {WEB.token_id: WEB.key}.get, lambda: Refusal(wire.REFUSED_TOKEN, "", 1))
    assert taken is None or isinstance(taken, Asked)
    return taken


def test_what_a_peer_sealed_for_this_node_is_taken(ingress):
    sender, messages = ingress.peers(wire.seal(PEER_KEY, PEER, "node1", "node2", MESSAGES))
    assert (sender, [type(message.message) for message in messages]) == ("node1", [TimeoutNow])
    assert not ingress.drops


@pytest.mark.parametrize(
    ("reason", "receiver", "key"), [("peer-receiver", "node3", PEER_KEY), ("peer-signature", "node2", b"x" * 32)]
)
def test_what_is_for_another_node_or_signed_by_nobody_is_dropped(ingress, reason, receiver, key):
    """A copy of what a peer said to node3 is signed, too."""
    assert ingress.peers(wire.seal(key, PEER, "node1", receiver, MESSAGES)) == ("", [])
    assert ingress.drops == {reason: 1}


@pytest.mark.parametrize("receiver", ["node2", "*"])
def test_a_client_asks_this_node_or_whoever_hears_it(ingress, receiver):
    taken = asked(ingress, receiver)
    assert taken is not None
    assert [type(request) for request in taken.requests] == [wire.StatusRequest]


def test_what_a_client_asks_another_node_is_dropped(ingress):
    assert asked(ingress, "node3") is None
    assert ingress.drops == {"client-receiver": 1}


REPLY = CHANNELS.reply_prefix + "0" * 32


@pytest.mark.parametrize("reply", ["conclave:0123abcd:p:node1", REPLY + "\n", REPLY + "x" * 128])
def test_answers_go_to_no_channel_that_is_no_clients(ingress, reply):
    assert asked(ingress, "node2", reply) is None
    assert ingress.drops == {"client-reply-channel": 1}
