"""Configuration safety: a replica goes by the last configuration in its log, committed or not (Raft, section 6), and
no two configurations that can be in force at once have majorities apart from one another.

For that, each follows from the one before it in the log: one voter differs at the most, or it is joint with the one
before as its outgoing side, or it is what a joint one leaves behind. And a leader begins a change only when the
configuration before is committed, and an entry of its own term is (thesis, section 4.1 and its erratum). To leave a
joint configuration is to end a change: any leader may, once that one is committed.

Of what an operator asks for it takes nothing that could not be undone: a majority of the new voters has answered it
within an election time-out, and so has each of them that had no vote, whose log is behind by no more than
`Options.promote_lag_entries_max` (thesis, section 4.2.1). Counted from the answers that arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.consensus.raft.messages import AppendResponse, Message, SnapshotResponse
from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from coordinator.consensus.engine import Engine
    from tests.simulation.node import Node
    from tests.simulation.world import World

_EMPTY: Final = (0, Configuration(()))
"""What an empty log says."""


class ConfigurationSafety(Checker):
    name = "configuration-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._answered_us: dict[tuple[str, int, int], dict[int, int]] = {}
        """Node, start of its process and term to when each follower's last answer came, by the node's clock."""
        self._on_disk: dict[int, list[tuple[int, Configuration]]] = {}
        for node in world.nodes:
            self._on_disk[node.disk.replica] = [
                (index, decode_configuration(entry))
                for index, entry in enumerate(node.disk.entries, 1)
                if entry[0] == CONFIGURATION
            ]

    def journaled(self, node: Node, write: Write) -> None:
        known = self._on_disk.setdefault(write.replica, [_EMPTY])
        if write.head is not None:
            snapshot = write.head.snapshot
            tail = [one for one in known if one[0] > snapshot.last_index and write.head.keep_tail]
            known[:] = [(snapshot.last_index, snapshot.configuration), *tail]
        if not write.entries:
            return
        while known[-1][0] >= write.first_index:
            known.pop()
        for index, (term, entry) in enumerate(zip(write.terms, write.entries, strict=True), write.first_index):
            if entry[0] == CONFIGURATION:
                configuration = decode_configuration(entry)
                if known[-1] != _EMPTY:
                    self._follows(node, term, known[-1], configuration)
                known.append((index, configuration))

    def took(self, node: Node, sender: int, message: Message) -> None:
        if isinstance(message, (AppendResponse, SnapshotResponse)):
            answered = self._answered_us.setdefault((node.name, node.boots, message.term), {})
            answered[sender] = node.clock.now_us()

    def change_begun(self, node: Node, change: Change) -> None:
        self.checks += 1
        engine, now_us = node.engine, node.clock.now_us()
        answered = self._answered_us.get((node.name, node.boots, engine.term), {})
        spoken = node.spoken.answered_us.get((engine.replica, engine.term), {})

        def answers(replica: int) -> bool:
            last_us = max(answered.get(replica, 0), spoken.get(replica, 0))
            return replica == engine.replica or now_us - last_us <= engine.options.election_timeout_us_min

        silent = [member.node for member in change.voters if not answers(member.replica)]
        if 2 * (len(change.voters) - len(silent)) <= len(change.voters):
            self.violated(f"{node.name} begins a change to {len(change.voters)} voters, of whom {silent} do not answer")
        had_a_vote = {member.replica for side in self._sides(engine) for member in side}
        for member in change.voters:
            if member.replica in had_a_vote:
                continue
            lag = engine.log.commit - len(self.world.watch.logs.get(member.replica, []))
            if not answers(member.replica) or lag > engine.options.promote_lag_entries_max:
                self.violated(f"{node.name} gives {member.node} a vote, which does not answer or lacks {lag} entries")

    @staticmethod
    def _sides(engine: Engine) -> tuple[tuple[Member, ...], ...]:
        """The voters before the change that was just begun."""
        before = engine.configuration_at(engine.configuration_index - 1)
        return before.voters, before.outgoing

    def _follows(self, node: Node, term: int, before: tuple[int, Configuration], after: Configuration) -> None:
        self.checks += 1
        index, earlier = before
        if not _may_follow(earlier, after):
            self.violated(f"{node.name} goes from {_names(earlier)} to {_names(after)}")
        if node.leads and node.engine.term == term:
            commit = node.engine.log.commit
            if index > commit:
                self.violated(f"{node.name} begins a change before the last, at {index}, is committed ({commit})")
            if commit < node.engine.term_start_index and not earlier.is_joint:
                self.violated(f"{node.name} begins a change before an entry of its term {term} is committed")

    def changed(self, node: Node, before: View, after: View) -> None:
        self._compare(node)

    def started(self, node: Node) -> None:
        self._compare(node)

    def _compare(self, node: Node) -> None:
        self.checks += 1
        expected = self._on_disk.setdefault(node.disk.replica, [_EMPTY])[-1][1]
        if node.engine.configuration != expected:
            self.violated(f"{node.name} goes by {node.engine.configuration}, the last one in its log is {expected}")


def _may_follow(before: Configuration, after: Configuration) -> bool:
    if before.is_joint:
        return after == Configuration(before.voters, (), before.learners)
    if after.is_joint:
        return after.outgoing == before.voters
    changed = {member.replica for member in before.voters} ^ {member.replica for member in after.voters}
    return len(changed) <= 1


def _names(configuration: Configuration) -> str:
    sides = [
        ",".join(member.node for member in side) or "nobody" for side in (configuration.outgoing, configuration.voters)
    ]
    return f"{sides[0]} and {sides[1]}" if configuration.is_joint else sides[1]
