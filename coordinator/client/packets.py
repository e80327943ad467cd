"""What goes out: the requests for one node, in packets of bounded size that are signed with the client's key.

Part of `core.py`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator import wire
from coordinator.client.calls import Batch
from coordinator.client.outstanding import Outstanding
from coordinator.client.routing import Routing
from coordinator.wire import Channels, Token

BATCH_MAX: Final = 256
"""Requests of one packet."""


class Packet(NamedTuple):
    """`node` "": the discovery channel. `ids` of the requests in it, for `undelivered`. `is_sure`: somebody listened
    there a moment ago, and need not be counted again: that costs Redis an answer, and wakes the client for nothing."""

    address: str
    node: str
    channel: str
    data: bytes
    ids: tuple[int, ...]
    is_sure: bool = False


class Packer:
    def __init__(self, token: Token, channels: Channels, routing: Routing, outstanding: Outstanding) -> None:
        self._token_id = token.token_id
        self._key = token.key
        self._channels = channels
        self._routing = routing
        self._outstanding = outstanding

    def pack(self, node: str, requests: Batch, reply_channel: str, *, is_sure: bool) -> list[Packet]:
        """Packets for `node` ("*": any) with these requests, in their order."""
        if node == "*":
            address, name, channel = "", "", self._channels.discovery
        else:
            address, name, channel = self._routing.addresses.get(node, ""), node, self._channels.client(node)
        packets = []
        for part in self._parts(requests):
            ids, batch = zip(*part, strict=True)
            body = wire.encode_requests(reply_channel, batch)
            data = wire.seal(self._key, wire.REQUEST, self._token_id, node, body)
            packets.append(Packet(address, name, channel, data, ids, is_sure))
        return packets

    def _parts(self, requests: Batch) -> list[Batch]:
        """What goes in one packet each."""
        if self._outstanding.room.bytes <= wire.PACKET_BYTES_TARGET:
            if len(requests) <= BATCH_MAX:
                return [requests]
            return [requests[i : i + BATCH_MAX] for i in range(0, len(requests), BATCH_MAX)]
        parts: list[Batch] = [[]]
        size = 0
        for one in requests:
            if size > wire.PACKET_BYTES_TARGET or len(parts[-1]) >= BATCH_MAX:
                parts.append([])
                size = 0
            parts[-1].append(one)
            call = self._outstanding.calls.get(one[0])
            size += 0 if call is None else call.size
        return parts
