"""A `lock` that runs within another one, and joins what that holds instead of waiting for it for ever.

What is held is named to the command by its sequencers, one a line (a name holds no line break). Whoever joins asks the
cluster whether they are good, and goes on asking as long as its own command runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

from coordinator.client import options
from coordinator.client.asking import Sync
from coordinator.client.errors import ConclaveError, InvalidRequest, LeaseLost
from coordinator.client.surface import Surface
from coordinator.statemachine.lock_commands import EXCLUSIVE, Mode

SEQUENCERS: Final = "CONCLAVE_LOCK_SEQUENCERS"
ASKS_S: Final = 1.0
"""How often it is asked whether the lock around is held still. Whoever holds it ends its command sooner."""


def named(sequencers: Iterable[str]) -> dict[str, str]:
    """For a command's environment: these, and those of the locks around this one, which hold on within it."""
    return {SEQUENCERS: "\n".join(dict.fromkeys([*sequencers, *os.environ.get(SEQUENCERS, "").splitlines()]))}


class Around:
    """The locks of these sequencers, which a process around this one holds."""

    expires_in: Final = 0.0

    def __init__(self, client: Surface[Sync], sequencers: tuple[str, ...]) -> None:
        self._client = client
        self._sequencers = sequencers
        self._asked_at = time.monotonic()

    @classmethod
    def of(cls, client: Surface[Sync], names: tuple[str, ...], mode: Mode) -> Around | None:
        """None where no process around this one holds any of `names`. Raises InvalidRequest where it holds some of
        them, or in a mode in which they can not be joined."""
        held = {}
        for sequencer in os.environ.get(SEQUENCERS, "").splitlines():
            name, _, rest = sequencer.rpartition(":")[0].rpartition(":")
            if client.locks.check_sequencer(sequencer):
                held[name] = (rest, sequencer)
        wanted = {options.name(name) for name in names}
        found = {name: held[name] for name in sorted(wanted) if name in held}
        if not found:
            return None
        if len(found) < len(wanted):
            lacking = ", ".join(sorted(wanted - held.keys()))
            raise InvalidRequest(
                f"the lock around this one is of {', '.join(found)} and not of {lacking}; take all there"
            )
        for name, (how, _) in found.items():
            if how not in (EXCLUSIVE, mode):
                raise InvalidRequest(f"the lock around this one holds {name!r} {how}, and it was asked for {mode}")
        return cls(client, tuple(sequencer for _, sequencer in found.values()))

    def check(self) -> None:
        """Raises LeaseLost where one of them is not good any more, or nobody can say so."""
        if time.monotonic() < self._asked_at + ASKS_S:
            return
        try:
            good = all(self._client.locks.check_sequencer(sequencer) for sequencer in self._sequencers)
        except ConclaveError as error:
            raise LeaseLost(f"the lock around this one can not be proven held: {error}") from error
        if not good:
            raise LeaseLost("the lock around this one is not held any more")
        self._asked_at = time.monotonic()
