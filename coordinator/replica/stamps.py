"""Who asks, as an entry is stamped with it: the principal, whoever acts for it, and the tokens. By this replica's own
copy of the log; what the stamp is good for is decided when the entry is applied.

A client acts for another by that one's name, or by `token:` and the id of a token that the other gave it: then it may
do what that token may, and no more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from coordinator import wire
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.replica.callers import Caller
from coordinator.statemachine import commands
from coordinator.statemachine.machine import Machine, stamp, stamp_without_tokens

STAMPS_MAX: Final = 1_024
"""Beginnings and ends of entries that are remembered."""


class Stamp(NamedTuple):
    """As in `commands.Entry`."""

    principal: str
    actor: str
    token: str
    for_token: str


class UnknownToken(NamedTuple):
    """No token of this id is known here, or not yet."""

    token_id: str

    def stamp(self, own: Stamp) -> Stamp | commands.Failure:
        """Of `own`, who acts for it: nobody is called so, and so nobody may do anything. But an earlier copy of the
        same request may have come when the token was known, and then the log answers this one as it did that."""
        if not commands.TOKEN_ID.fullmatch(self.token_id):
            return commands.Failure(commands.FORBIDDEN, "act_for is no token of this cluster")
        return Stamp(f"{wire.FOR_TOKEN}{self.token_id}", own.principal, own.token, self.token_id)


class Stamps:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ends: dict[tuple[str, ...], tuple[bytes, bytes]] = {}

    def own(self, caller: Caller) -> Stamp | None:
        """Of a caller that speaks for itself; None where its token is not known here."""
        known = self._machine.key_of(caller.token_id)
        return Stamp(known[0], "", caller.token_id, "") if known is not None and known[1] == caller.key else None

    def acting(self, own: Stamp, act_for: str) -> Stamp | UnknownToken | commands.Failure:
        """Of the same caller, who acts for another."""
        if not act_for.startswith(wire.FOR_TOKEN):
            if commands.PRINCIPAL_NAME.fullmatch(act_for):
                return Stamp(act_for, own.principal, own.token, "")
            return commands.Failure(commands.INVALID, "act_for is no principal's name")
        token_id = act_for.removeprefix(wire.FOR_TOKEN)
        known = self._machine.key_of(token_id)
        return UnknownToken(token_id) if known is None else Stamp(known[0], own.principal, own.token, token_id)

    def entry(self, of: Stamp, command: bytes | msgspec.Raw) -> bytes:
        """The entry of an encoded command, as all replicas of the cluster can read it."""
        key: tuple[str, ...] = of if self._machine.level >= commands.LEVEL_OF_QUOTAS else of[:2]
        ends = self._ends.get(key)
        if ends is None:
            if len(self._ends) >= STAMPS_MAX:
                self._ends.clear()
            head, tail = stamp(*of) if key is of else stamp_without_tokens(of.principal, of.actor)
            ends = self._ends[key] = COMMAND_PREFIX + head, tail
        return b"".join((ends[0], command, ends[1]))
