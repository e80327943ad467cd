"""A round is confirmed once a majority has answered it in its own term, and never before (thesis, section 6.4;
history 5); and what confirms a read is a round that was sent after the read came.

Reads, keep-alives and check-quorum all rest on it, and count from its sending. It is counted here from the answers that
followers send. Where a leader's lease stands in for a round (`Options.lease_reads`), it is counted here too: from the
sending of the last round that a majority has answered, and not after the leader told anybody to campaign (history 2).
A heartbeat that a node spoke for its quiet leader stands for a round. So does the word of a delegate to which a leader
left reads: the two of them are a majority, and both are still in that term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from coordinator import wire
from coordinator.consensus.engine import ConfirmedRead, Outgoing
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    SnapshotResponse,
    TimeoutNow,
)
from tests.simulation.checkers.check_quorum import confirmed_for_us
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class _Begun(NamedTuple):
    term: int
    round: int
    """The last one that was sent before the read came."""
    lease_ok: bool


class RoundConfirmation(Checker):
    name = "round-confirmation"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._answered: dict[tuple[int, int], dict[int, int]] = {}
        """(leader, term) to each follower's highest round."""
        self._held: dict[tuple[int, int], int] = {}
        """(leader, term) to the highest round that was found confirmed rightly."""
        self._sent_us: dict[tuple[int, int], dict[int, int]] = {}
        """(leader, term) to when it sent each round, by its own clock."""
        self._gave_way_us: dict[tuple[int, int], int] = {}
        """(leader, term) to the turn in which it first told somebody to campaign."""
        self._begun: dict[tuple[str, int, int], _Begun] = {}
        """Node, start of its process and ticket of each read that is not answered yet."""

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        own = node.disk.replica
        for receiver, message in outgoing:
            if isinstance(message, (AppendResponse, SnapshotResponse)):
                answered = self._answered.setdefault((receiver, message.term), {})
                if message.round > answered.get(own, 0):
                    answered[own] = message.round
            elif isinstance(message, (AppendEntries, InstallSnapshot)):
                sent_us = self._sent_us.setdefault((own, message.term), {})
                if message.round not in sent_us:
                    sent_us[message.round] = node.clock.now_us()
            elif isinstance(message, TimeoutNow):
                self._gave_way_us.setdefault((own, message.term), node.turn_us)

    def led(self, node: Node) -> None:
        engine = node.engine
        own = (engine.replica, engine.term)
        confirmed = engine.rounds.confirmed
        sent_us = self._sent_us.get(own, {}).get(confirmed)
        at_us = engine.confirmed_at_us
        if sent_us is not None and at_us > sent_us and at_us > confirmed_for_us(node):
            late_us = at_us - sent_us
            self.violated(f"{node.name} counts from {late_us} us after the sending of round {confirmed}")
        if confirmed <= self._held.get(own, 0):
            return
        self.checks += 1
        self._held[own] = confirmed
        if is_quorum(engine.configuration, {engine.replica}):  # It may have nobody to send it to.
            self._sent_us.setdefault(own, {}).setdefault(confirmed, engine.confirmed_at_us)
        heard = self._heard(node, confirmed)
        if not is_quorum(engine.configuration, heard):
            self.violated(
                f"{node.name} takes round {confirmed} of term {engine.term} for confirmed; {len(heard)} answered it"
            )

    def _heard(self, node: Node, number: int) -> set[int]:
        """Who has answered round `number` of this leader or a later one, itself included."""
        answered = self._answered.get((node.engine.replica, node.engine.term), {})
        return {node.engine.replica} | {replica for replica, last in answered.items() if last >= number}

    # --- reads ------------------------------------------------------------------------------------

    def read_begun(self, node: Node, ticket: int, lease_ok: bool) -> None:
        engine = node.engine
        if not node.leads:
            return  # Its leader confirms it.
        by_lease = lease_ok and engine.options.lease_reads
        self._begun[node.name, node.boots, ticket] = _Begun(engine.term, engine.rounds.current, by_lease)

    def read_confirmed(self, node: Node, read: ConfirmedRead) -> None:
        begun = self._begun.pop((node.name, node.boots, read.ticket), None)
        if begun is None:
            return
        self.checks += 1
        engine = node.engine
        if engine.term != begun.term:
            self.violated(f"{node.name} answers in term {engine.term} what it was asked in term {begun.term}")
        if engine.rounds.confirmed > begun.round:
            return
        if not begun.lease_ok:
            self.violated(
                f"{node.name} answers a read that came after round {begun.round} of term {engine.term}; "
                f"confirmed is round {engine.rounds.confirmed}"
            )
        self._lease_held(node)

    def reads_left(self, node: Node, delegate: int, number: int) -> None:
        self.checks += 1
        engine = node.engine
        if not is_quorum(engine.configuration, {engine.replica, delegate}):
            self.violated(f"{node.name} leaves reads to {delegate}; the two of them are no majority")

    def reads_taken(self, node: Node, leader: int, said: wire.LeftReads) -> None:
        self.checks += 1
        if node.engine.term != said.term:
            self.violated(f"{node.name} answers in term {node.engine.term} what was left to it in term {said.term}")

    def _lease_held(self, node: Node) -> None:
        """Has a majority answered a round of late, and was nobody told to campaign before this turn?"""
        engine = node.engine
        own = (engine.replica, engine.term)
        gave_way_us = self._gave_way_us.get(own)
        if gave_way_us is not None and gave_way_us < node.turn_us:
            self.violated(f"{node.name} reads by its lease of term {engine.term}, and told somebody to campaign in it")
        if is_quorum(engine.configuration, {engine.replica}):
            return  # Who is a majority by itself sends its rounds to nobody.
        rounds = sorted({engine.rounds.current, *self._answered.get(own, {}).values()}, reverse=True)
        last = next((number for number in rounds if is_quorum(engine.configuration, self._heard(node, number))), 0)
        # What confirmed a round before a change of membership still keeps anybody else from being elected: the
        # majorities of both sides overlap.
        last = max(last, self._held.get(own, 0))
        sent_us = max(self._sent_us.get(own, {}).get(last, 0), confirmed_for_us(node))
        if node.turn_us - sent_us >= engine.options.election_timeout_us_min:
            self.violated(
                f"{node.name} reads by its lease of term {engine.term}; a majority last answered round {last}"
            )
