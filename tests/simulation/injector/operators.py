"""What operators do at bad moments: hand leadership over, change the membership."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.simulation import operators
from tests.simulation.faults import Fault
from tests.simulation.injector.network import Network
from tests.simulation.node import Node

AWAY_US_MIN: Final = 700_000
SOON_US: Final = 300_000
"""Within this a replica that can be reached again has answered."""


class Operators(Network):
    def _transfer(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.transfer(self.world, node, fault.salt)

    def _campaign_request(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.campaign(node)

    def _step_down(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.step_down(node)

    def _new_replica(self, fault: Fault) -> bool:
        return operators.new_replica(self.world, Random(fault.salt))

    def _membership_change(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and operators.change_membership(self.world, node, Random(fault.salt))

    def _hasty_promotion(self, fault: Fault) -> bool:
        """An operator wants a learner to vote that answered of late and lags, since it stands still; and asks for some
        voter to become a learner where there is none."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        configuration = leader.engine.configuration
        here = {node.disk.replica: node for node in self.world.nodes if node.is_up}
        learners = [here[m.replica] for m in configuration.learners if m.replica in here and not m.witness]
        if learners:
            self._promote_late(fault, leader, learners[fault.salt % len(learners)])
            return True
        voters = [here[r] for r in configuration.full_voter_ids if r in here and here[r] is not leader]
        if not voters:
            return False
        chosen = voters[fault.salt % len(voters)]
        if not operators.demote(self.world, leader, chosen.disk.replica):
            return False
        self.world.scheduler.after(fault.duration_us, self._promote_late, fault, leader, chosen)
        return True

    def _promote_late(self, fault: Fault, leader: Node, learner: Node) -> None:
        if self.stopped or not learner.is_up or learner.paused:
            return
        if fault.level < (0.9 if self.world.settings.witnesses else 0.5):
            self._promote_at_once(fault, learner)
            return
        learner.pause(clock_stops=False)
        self._later(fault, learner.resume)
        for share in (0.3, 0.6, 0.9):
            asked_us = int(share * fault.duration_us)
            self.world.scheduler.after(asked_us, self._promote, leader, learner.disk.replica)

    def _promote_at_once(self, fault: Fault, learner: Node) -> None:
        """The learner is cut off so long that nobody waits for it, and is asked for as soon as it answers again: before
        it has what it lacks."""
        others = [node.name for node in self.world.nodes if node is not learner]
        away = fault._replace(duration_us=AWAY_US_MIN + fault.duration_us)
        self._cut(away, [way for other in others for way in ((learner.name, other), (other, learner.name))])
        replica = learner.disk.replica
        self.world.scheduler.after(away.duration_us, self.wanted.add, replica)
        self.world.scheduler.after(away.duration_us + SOON_US, self.wanted.discard, replica)

    def turned(self, node: Node) -> None:
        """A turn of `node` is over, and operators are waiting for a leader that makes a voter of a learner."""
        if not self.stopped and node.leads:
            self.world.scheduler.after(0, self._promote_wanted, node)

    def _promote_wanted(self, leader: Node) -> None:
        for replica in sorted(self.wanted):
            if leader.leads and operators.promote(self.world, leader, replica):
                self.wanted.discard(replica)

    def _promote(self, leader: Node, replica: int) -> None:
        if not self.stopped and leader.leads:
            operators.promote(self.world, leader, replica)

    def _removed_laggard(self, fault: Fault) -> bool:
        """A voter hears nothing, and lags; an operator makes a learner of it, which may come to nothing, and it hears
        again."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        here = {node.disk.replica: node for node in self.world.nodes if node.is_up}
        voters = [here[r] for r in leader.engine.configuration.full_voter_ids if r in here and here[r] is not leader]
        if not voters:
            return False
        chosen = voters[fault.salt % len(voters)]
        asked_us = int(fault.duration_us * (0.4 + 0.5 * fault.level))
        ways = [(leader.name, chosen.name)]
        if leader.engine.configuration.has_witness and fault.salt // 8 % 4:
            # Witnesses drop what all others have: it is who lags most, and nobody waits for who is not heard.
            chosen = self._last_of_voters(leader) or chosen
            ways = [(leader.name, chosen.name), (chosen.name, leader.name)]
        self._cut(fault, ways)
        self.world.scheduler.after(asked_us, self._demote, fault, leader, chosen)
        return True

    def _last_of_voters(self, leader: Node) -> Node | None:
        engine = leader.engine
        match = {r: engine.progress[r].match for r in engine.configuration.full_voter_ids if r in engine.progress}
        last = min(match, key=match.__getitem__, default=None)
        return next((node for node in self.world.nodes if node.disk.replica == last), None)

    def _demote(self, fault: Fault, leader: Node, laggard: Node) -> None:
        if self.stopped or not leader.leads or not operators.demote(self.world, leader, laggard.disk.replica):
            return
        if leader.engine.configuration.has_witness:
            self._leaving[leader.name] = fault

    def _left(self, leader: Node) -> None:
        """Of a configuration that lacks a full voter, and which the leader is just sending, witnesses alone hear."""
        engine = leader.engine
        before = engine.configuration_at(engine.log.commit).full_voter_ids
        if engine.configuration.is_joint or {*before} <= {*engine.configuration.full_voter_ids}:
            return
        fault = self._leaving.pop(leader.name)
        deaf = [node.name for node in self.world.nodes if node.disk.replica in before]
        self._cut(fault, [(leader.name, name) for name in deaf if name != leader.name])
