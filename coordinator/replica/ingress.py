"""The mailboxes' door: packets in, verified messages out. Whatever fails a check is dropped and counted by reason.

Every byte that comes in is hostile until it has passed here: too large, not ours, another version, another kind, not
for this node, not signed with the right key, a body that does not parse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from coordinator import wire
from coordinator.replica.callers import Caller
from coordinator.wire import Channels, Envelope, PeerMessage, Refusal, WireError


class Asked(NamedTuple):
    caller: Caller
    requests: list[wire.Request]


class Refused(NamedTuple):
    """A caller that will get an unsigned word of why."""

    channel: str
    refusal: Refusal


class Ingress:
    def __init__(self, node: str, channels: Channels, peer_key: bytes, drops: Counter[str]) -> None:
        self._node = node
        self._channels = channels
        self._peer_key = peer_key
        self.drops = drops

    def peers(self, packet: bytes) -> tuple[str, list[PeerMessage]]:
        """The node that sent it, and what; nothing where the packet was dropped."""
        try:
            envelope = wire.open_envelope(packet, wire.PEER)
            if envelope.receiver != self._node:
                raise WireError("receiver")
            wire.verify(envelope, self._peer_key)
            return envelope.sender, wire.decode_peer(envelope.body)
        except WireError as error:
            self.drops[f"peer-{error.reason}"] += 1
            return "", []

    def clients(
        self, packet: bytes, key_of: Callable[[str], bytes | None], unknown: Callable[[], Refusal]
    ) -> Asked | Refused | None:
        """What a client asked. `key_of` gives a token's key; `unknown` says why there is none."""
        try:
            envelope = wire.open_envelope(packet, wire.REQUEST)
            if envelope.receiver not in (self._node, "*"):
                raise WireError("receiver")
            key = key_of(envelope.sender)
            if key is None:
                return self._unknown_token(envelope, unknown())
            wire.verify(envelope, key)
            batch = wire.decode_requests(envelope.body)
            self._check_channel(batch.reply)
            return Asked(Caller(batch.reply, envelope.sender, key), batch.requests)
        except WireError as error:
            self.drops[f"client-{error.reason}"] += 1
            return None

    def _check_channel(self, reply: str) -> None:
        """Answers go to the clients' own prefix alone; a signature does not buy a word on another channel."""
        if not reply.startswith(self._channels.reply_prefix) or len(reply) > 128 or "\n" in reply:
            raise WireError("reply-channel")

    def _unknown_token(self, envelope: Envelope, refusal: Refusal) -> Refused:
        self.drops["client-token"] += 1
        batch = wire.decode_requests(envelope.body)
        self._check_channel(batch.reply)
        return Refused(batch.reply, refusal)
