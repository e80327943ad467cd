"""Who is in a cluster: the configuration, as a log entry holds it.

A configuration takes effect as soon as it is in the log, committed or not (Raft, section 6). Every member is known by
its replica identity, a random 63-bit number that is never used again; the node's name and the address of its mailbox
ride along so that everyone who has the log knows where to write.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from coordinator.consensus.entries import CONFIGURATION, CONFIGURATION_PREFIX


class Member(NamedTuple):
    """`address`: the Redis of the node's mailbox; "" where it is the Redis that the whole installation shares."""

    replica: int
    node: str
    address: str = ""


class Configuration(NamedTuple):
    voters: tuple[Member, ...]

    @property
    def voter_ids(self) -> tuple[int, ...]:
        return tuple(member.replica for member in self.voters)

    def member(self, replica: int) -> Member | None:
        return next((member for member in self.voters if member.replica == replica), None)

    def node_of(self, replica: int) -> str:
        """The node that hosts `replica`; "" where it is not a member."""
        member = self.member(replica)
        return member.node if member is not None else ""


def encode_configuration(configuration: Configuration) -> bytes:
    """The log entry for `configuration`; the same configuration gives the same bytes."""
    body = {"voters": [list(member) for member in configuration.voters]}
    return CONFIGURATION_PREFIX + json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def decode_configuration(entry: bytes) -> Configuration:
    """Raises ValueError where `entry` is not a configuration entry."""
    if not entry or entry[0] != CONFIGURATION:
        raise ValueError(f"expected an entry of kind {CONFIGURATION}, got {entry[:1]!r}")
    body = json.loads(entry[1:])
    return Configuration(
        tuple(Member(int(replica), str(node), str(address)) for replica, node, address in body["voters"])
    )
