"""Which commands the members of a cluster can apply: what they tell one another, and when its level is raised. Pure.

A cluster takes the commands of a level only when all its replicas can apply it; one that could not would have another
state from then on. The leader asks, and proposes `RaiseLevel` when every member that has a state machine, learners
and both sides of a joint configuration among them, has said so in answer to the same question. A witness applies
nothing, and is not asked. Whoever says nothing is of level 1.

The word travels as a `StateDigest` of a version below 0, which is that level with its sign changed; its digest is the
question's own mark, which an answer repeats, so that no old word answers a new question. A message of a new
kind would not do: a peer that does not know it drops the whole packet, with the votes and entries that lie beside it. A
digest over a snapshot of another version is what every peer already passes over.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from coordinator import wire
from coordinator.consensus.engine import Outgoing
from coordinator.statemachine.commands import LEVEL

ASK_US: Final = 5_000_000
"""Members are asked again this often, as long as their cluster is below the leader's own level."""
QUESTION_BYTES_MAX: Final = 64


class Levels:
    def __init__(self, own: int = LEVEL) -> None:
        self.own = own
        """What this replica can apply."""
        self._question = b""
        self._asked = 0
        self._heard: dict[int, int] = {}
        """Replica to its level, in answer to the last question."""
        self.ask_due_us = 0
        """When the leader of a cluster below its own level is to ask again."""
        self._answers: list[Outgoing] = []

    def hear(self, sender: int, said: wire.StateDigest) -> None:
        """Another replica asks, or says its level."""
        if said.wanted:
            answer = wire.StateDigest(-self.own, 0, said.digest[:QUESTION_BYTES_MAX], wanted=False)
            self._answers.append(Outgoing(sender, answer))
        elif said.digest == self._question:
            self._heard[sender] = -said.version

    def take_answers(self) -> list[Outgoing]:
        answers, self._answers = self._answers, []
        return answers

    def ask(self, term: int, others: Collection[int], now_us: int) -> list[Outgoing]:
        """What the leader of `term`, whose cluster is below its own level, asks the `others` where it is time."""
        if now_us < self.ask_due_us:
            return []
        self.ask_due_us = now_us + ASK_US
        self._asked += 1
        self._question = b"%d %d" % (term, self._asked)
        self._heard = {}
        return [Outgoing(other, wire.StateDigest(-self.own, 0, self._question, wanted=True)) for other in others]

    def agreed(self, others: Collection[int]) -> int:
        """The level that this replica and all the `others` can apply, as far as they have said."""
        return min([self.own, *(self._heard.get(other, 1) for other in others)])
