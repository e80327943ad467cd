"""Heartbeats that hosts speak for quiet clusters: a node answers them for those of its followers alone that would have
answered themselves, as their disks are now (Raft, section 5.3; `coordinator/consensus/raft/sleep.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role
from coordinator.wire import SleepAnswer, SleepBeat
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node


class SpokenHeartbeats(Checker):
    name = "spoken-heartbeats"

    def answered_for(self, node: Node, beat: SleepBeat, answer: SleepAnswer) -> None:
        for cluster, leader, follower, term, last_index in beat.sleepers:
            if cluster in answer.awake:
                continue
            self.checks += 1
            engine = node.engine
            if node.replica is None or node.replica.stopped or engine.replica != follower:
                self.violated(f"{node.name} answers for replica {follower:x}, which does not take part there")
            if engine.role is not Role.FOLLOWER or engine.leader != leader:
                self.violated(f"{node.name} answers {leader:x} for a {engine.role.name} that follows {engine.leader:x}")
            on_disk = node.disk.hard_state.term
            if engine.term != term or on_disk != term:
                self.violated(f"{node.name} answers in term {term}, is in {engine.term} and has {on_disk} on disk")
            ends = (engine.last_index, engine.commit_index, node.disk.offset + len(node.disk.terms))
            if ends != (last_index,) * 3:
                self.violated(
                    f"{node.name} answers that its log ends at {last_index}, committed and on disk; it does at {ends}"
                )
