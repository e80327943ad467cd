"""The wanted membership, as the log holds it: opaque, with a generation that only ever grows by one.

The database is where people say what they want; this is how a database that is behind shows (docs/design.md, rule 10).
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Failure, SetWantedMembership


class Wanted(NamedTuple):
    generation: int = 0
    wanted: bytes = b""

    def put(self, index: int, op: SetWantedMembership) -> tuple[Wanted, Done | Failure]:
        """What it becomes, and what is answered."""
        if len(op.wanted) > commands.WANTED_BYTES_MAX:
            message = f"a wanted membership has at most {commands.WANTED_BYTES_MAX} bytes, got {len(op.wanted)}"
            return self, Failure(commands.INVALID, message)
        if (op.generation, op.wanted) == self:
            return self, Done(index, existed=True)
        if op.generation != self.generation + 1:
            message = (
                f"the log holds generation {self.generation} of the wanted membership, so {self.generation + 1} is "
                f"next; got {op.generation}"
            )
            return self, Failure(commands.REFUSED, message)
        return Wanted(op.generation, op.wanted), Done(index)
