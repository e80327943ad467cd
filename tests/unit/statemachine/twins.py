"""Two replicas that are asked the same: one that only applies, and one that is made anew from a snapshot after every
entry. Whatever one answers and tells its host, the other does, and in the end they are the same to the last byte."""

from __future__ import annotations

from typing import Any

from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.machine import Machine
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import derived, loaded


class Twins(Asking):
    def __init__(self, level: int = commands.LEVEL, epoch: int = 1) -> None:
        self.again = Machine()
        super().__init__(level, epoch)

    def apply(self, entry: bytes) -> Any:
        result = super().apply(entry)
        assert self.again.apply(self.index, entry) == result
        assert self.again.events == self.machine.events
        self.machine.events.clear()
        self.again = loaded(snapshot.dump(self.again))
        return result

    def acked_by(self, number: int) -> int:
        """All results of before: a snapshot of few results is made soon."""
        return number

    def query(
        self, query: commands.Query, principal: str = "ci", actor: str = "", token: str = "", for_token: str = ""
    ) -> Any:
        answer = super().query(query, principal, actor, token, for_token)
        assert self.again.query(query, principal, lambda session: 1_000, actor, token, for_token) == answer
        return answer

    def agree(self) -> None:
        """So does a third replica, that applies the whole log at once."""
        assert snapshot.dump(self.again) == snapshot.dump(self.machine)
        third = Machine()
        for index, entry in enumerate(self.log, 1):
            third.apply(index, entry)
        assert third.digest() == self.machine.digest() == self.again.digest()
        assert derived(third) == derived(self.machine) == derived(self.again)
