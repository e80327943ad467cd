"""Leadership transfer: a leader hands over to a voter whose disk has all of its log, and leads on where that came to
nothing within an election time-out (thesis, section 3.10).

While it hands over it takes no proposals.

A leader that steps down by itself also tells somebody to campaign; it has nothing to lead on with, and its successor
may lack what was not committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.entries import CONFIGURATION
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SLACK_US: Final = 100_000
"""A leader looks at each heartbeat."""


class LeadershipTransfer(Checker):
    name = "leadership-transfer"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._begun: dict[tuple[str, int, int], tuple[int, int]] = {}
        """Node, start of its process and term to the transfer that is under way, by when it says that it ends (an
        operator may ask for it anew), and since when it was seen."""
        self._told: set[tuple[int, int]] = set()
        self._still: dict[tuple[str, int, int], tuple[int, int]] = {}
        """To by when the transfer ends that was under way when the last turn ended, and how long the log was then."""
        self._ended: dict[str, tuple[tuple[str, int, int], int]] = {}
        """By node: as whom it led when its last turn ended, and how long its log was then."""

    def led(self, node: Node) -> None:
        own = (node.name, node.boots, node.engine.term)
        led_as, length = self._ended.get(node.name, (own, 0))
        self._ended[node.name] = (own, node.engine.log.last_index)
        transfer = node.engine.transferring
        if transfer is None:
            self._begun.pop(own, None)
            self._still.pop(own, None)
            return
        self.checks += 1
        log = node.engine.log
        until_us, last_index = self._still.get(own, (-1, log.last_index))
        if until_us == transfer.until_us and any(
            entry[0] != CONFIGURATION for entry in log.entries[max(0, last_index - log.offset) :]
        ):
            self.violated(f"{node.name} hands over and takes what comes behind entry {last_index} all the same")
        self._still[own] = (transfer.until_us, log.last_index)
        known, since_us = self._begun.setdefault(own, (transfer.until_us, node.spoken.beat_us))
        if known != transfer.until_us:
            self._begun[own] = (transfer.until_us, node.spoken.beat_us)
            return
        took_us = node.spoken.beat_us - since_us
        if took_us > node.engine.options.election_timeout_us_min + SLACK_US:
            self.violated(f"{node.name} has been handing over for {took_us / 1_000:.0f} ms and takes no proposals")
        if transfer.told and (transfer.target, node.engine.term) not in self._told:
            self._told.add((transfer.target, node.engine.term))
            last_index = log.last_index
            known = max(log.offset, length if led_as == own else 0)
            while last_index > known and log.entries[last_index - log.offset - 1][0] == CONFIGURATION:
                last_index -= 1  # A change of membership may have been asked for behind the word, in this very turn.
            if transfer.target not in self.world.watch.holders(last_index, log.term_at(last_index) or 0):
                self.violated(f"{node.name} hands over to {transfer.target:x}, whose disk lacks entry {last_index}")
