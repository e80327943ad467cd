"""What befalls processes: they end at every moment there is, stand still, and are overthrown."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final

from tests.simulation import operators
from tests.simulation.clients import Client
from tests.simulation.faults import Fault
from tests.simulation.injector.harm import RESTART_US_MIN
from tests.simulation.injector.messages import Messages
from tests.simulation.injector.network import Network
from tests.simulation.node import Node
from tests.simulation.quorums import is_quorum

SLEEP_CUT_US: Final = 2_000
"""What a leader had sent before it is cut off arrives, and is answered."""
BLIND_US_MAX: Final = 3_000_000


class Processes(Messages, Network):
    def _end(self, fault: Fault, node: Node, why: str, *, silently: bool = False) -> bool:
        node.die(why, silently=silently)
        self._later(fault, node.start)
        return True

    def _crash(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and self._end(fault, node, "between two turns")

    def _replayed_read_answers(self, fault: Fault) -> bool:
        """A follower that asks for a read index hears the answers to what it asked before, or what its process asked
        that has ended since: the new one asks so often that its questions have the numbers of old ones."""
        node = self._node(fault)
        if node is None or fault.level < 0.4:
            return node is not None and self._replayed("read answer", node.name)
        self.world.follower_reads.asks_anew(node, lambda: self._replayed("read answer", node.name))
        return self._end(fault, node, "behind a question")

    def _silent_death(self, fault: Fault) -> bool:
        node = self._node(fault)
        return node is not None and self._end(fault, node, "with its machine", silently=True)

    def _power_loss(self, fault: Fault) -> bool:
        """Of all machines, or of any of them at once: one side of a change of membership, it may be."""
        random = Random(fault.salt)
        victims = [node for node in self.world.nodes if node.is_up]
        if fault.level < 0.7:
            victims = [node for node in victims if random.random() < 0.3 + fault.level]
        for node in victims:
            self._end(fault, node, "as the power fails")
        return bool(victims)

    def _crash_at_commit(self, fault: Fault, fate: str) -> bool:
        """It is counted when it happens."""
        node = self._node(fault)
        if node is not None:
            node.journal.doom(fate, partial(self._befell, fault))
        return False

    def _crash_before_commit(self, fault: Fault) -> bool:
        """Before the next commit, whatever its turn has sent: what that makes of it is what it is counted as."""
        node = self._node(fault)
        if node is not None:
            sent = fault._replace(kind="crash-after-early-send")
            bus = node.bus
            node.journal.doom("before", lambda: self._befell(sent if bus.has_sent else fault))
        return False

    def _crash_after_early_send(self, fault: Fault) -> bool:
        """Of a leader: its followers have what it is about to write."""
        return self._crash_at_commit(fault, "behind a send")

    def _crash_within_commit(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "within")

    def _crash_after_commit(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "after")

    def _crash_while_sending(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is not None:
            node.die_while_sending(fault.salt % 6, partial(self._befell, fault))
        return False

    def _pause(self, fault: Fault) -> bool:
        return self._stop(fault, clock_stops=False)

    def _pause_at_a_conflict(self, fault: Fault) -> bool:
        """A follower whose log does not match stands still then: it finds at once what takes the place of
        its tail, and what came of that meanwhile: a snapshot, it may be, since operators ask for one."""
        if fault.level < 0.7:
            asked_us = 500 * 2 ** (fault.salt % 7)
            self.world.scheduler.after(asked_us, self._ask_for_snapshots)
        return self._stop(fault, clock_stops=False)

    def _ask_for_snapshots(self) -> None:
        if not self.stopped:
            for node in self.world.nodes:
                operators.compact(node)

    def _stumble(self, fault: Fault) -> bool:
        """A pause within a turn: between what it takes in and the look at its clock, or between two sends."""
        node = self._node(fault)
        if node is not None:
            where = ("drain", "publish")[fault.salt & 1]
            node.bus.stumbles[where] = fault.duration_us, partial(self._befell, fault)
        return False

    def _suspend(self, fault: Fault) -> bool:
        return self._stop(fault, clock_stops=True)

    def _stop(self, fault: Fault, *, clock_stops: bool) -> bool:
        node = self._node(fault)
        if node is None or node.paused:
            return False
        node.pause(clock_stops=clock_stops)
        self.world.note(node.name, "stands still")
        self._later(fault, node.resume)
        return True

    def _stall(self, fault: Fault) -> bool:
        """Almost too long a pause. Redis may have given up the connection meanwhile: what was unread is lost."""
        node = self._node(fault)
        if node is None or not self._stop(fault, clock_stops=False):
            return False
        if fault.salt & 1:
            self.world.scheduler.after(fault.duration_us, node.bus.notice_loss)
        return True

    def _dozing_followers(self, fault: Fault) -> bool:
        """A minority of followers stands still: they find all that came meanwhile at once, entries and snapshots."""
        random = Random(fault.salt)
        awake = [node for node in self.world.nodes if node.is_up and not node.leads and not node.paused]
        most = (len(self.world.nodes) - 1) // 2
        dozing = random.sample(awake, min(len(awake), random.randint(1, most))) if most else []
        for node in dozing:
            node.pause(clock_stops=False)
            self._later(fault, node.resume)
        return bool(dozing)

    def _sleeping_leader(self, fault: Fault) -> bool:
        """A leader's machine is suspended, and cut off from its peers when it wakes: it hears nobody for a while, and
        by its clock no time has passed. Clients still ask it; some of them see nobody else, for longer than that."""
        node = self._node(fault)
        if node is None or node.paused:
            return False
        node.pause(clock_stops=True)
        self.world.note(node.name, "sleeps")
        others = [other.name for other in self.world.nodes if other is not node]
        self.world.scheduler.after(SLEEP_CUT_US, self._cut_off, fault, node.name, others)
        wake_us = int(fault.duration_us * (0.6 + 0.35 * fault.level))
        self._later(fault._replace(duration_us=wake_us), node.resume)
        return True

    def _deposed_leader_returns(self, fault: Fault) -> bool:
        """A leader is cut off with what it has just written, and some clients go on writing to it. When another one is
        elected it is there again: as that one dies (Raft, figure 8), or to find all that came meanwhile at once."""
        node = self._node(fault)
        if node is None or node.name in self._deposing or len(self.world.nodes) < 3:
            return False
        self._deposing[node.name] = fault
        others = [other.name for other in self.world.nodes if other is not node]
        random = Random(fault.salt)
        ways = [way for other in others for way in ((node.name, other), (other, node.name))]
        for client in self.world.clients:
            if random.random() < 0.6:
                ways += [way for other in others for way in ((client.name, other), (other, client.name))]
        self.world.network.cut(ways)
        self._undo_number += 1
        number = self._undo_number

        def mend() -> None:
            self._deposing.pop(node.name, None)
            self.world.network.mend(ways)

        self._undo[number] = mend
        self._returns[node.name] = number
        self.world.scheduler.after(fault.duration_us, self._undo_now, number)
        return True

    def _deposed(self, elected: Node | Client) -> None:
        """Another leader is elected: it has a moment, in which it commits little or nothing."""
        for name, fault in [*self._deposing.items()]:
            if name != elected.name:
                del self._deposing[name]
                self.world.scheduler.after(int(15_000 * fault.level**2), self._comes_back, name, elected, fault)

    def _comes_back(self, name: str, usurper: Node, fault: Fault) -> None:
        if self.stopped:
            return
        if fault.salt & 1:
            # Where nobody is told of its death, the others wait for their time-outs, and the old one may be first.
            usurper.die("soon after its election", silently=fault.salt % 3 > 0)
            self._later(fault, usurper.start)
        else:
            old = next(node for node in self.world.nodes if node.name == name)
            if old.is_up and not old.paused:
                old.pause(clock_stops=False)
                shortly = fault._replace(duration_us=fault.duration_us // 8)
                self._later(shortly, old.resume)
                if fault.level < 0.5:
                    # It takes all others longer to commit what it finds when it wakes.
                    self._weather(shortly._replace(who="all"), "slow-link", 1.0, 20_000 + int(60_000 * fault.level))
        self._undo_now(self._returns.pop(name, 0))

    def _coup(self, fault: Fault) -> bool:
        """A leader is cut off from its peers at the very moment when they can elect another at once: they saw its
        channel fall silent, or it has told one of them to campaign, or they began anew and an operator asks one
        to."""
        node = self._node(fault)
        if node is None:
            return False
        others = [other for other in self.world.nodes if other is not node]
        if not others:
            return False
        way = fault.salt % 3
        if way == 0:
            node.bus.notice_loss()
        elif way == 1:
            operators.transfer(self.world, node, fault.salt // 3)
        else:
            for other in others:
                other.die("with all followers")
                self.world.scheduler.after(RESTART_US_MIN + int(fault.level * 20_000), other.start)
            usurper = others[fault.salt // 3 % len(others)]
            for delay_us in range(150_000, 450_000, 50_000):
                self.world.scheduler.after(delay_us, self._usurp, usurper)
        # It hears nothing from here on; what it is just sending still arrives.
        self._cut(fault, [(other.name, node.name) for other in others])
        self.world.scheduler.after(SLEEP_CUT_US, self._cut_off, fault, node.name, [other.name for other in others])
        return True

    def _usurp(self, node: Node) -> None:
        if not self.stopped and node.is_up:
            operators.campaign(node)

    def _needed_witness(self, fault: Fault) -> bool:
        """The last entries are on a leader and the witnesses alone when the leader dies, it may be for good: a witness
        must bring all others up to date. A learner lacks more than that, since it is cut off for longer."""
        leader = self._node(fault)
        if leader is None or not leader.leads:
            return False
        configuration = leader.engine.configuration
        here = {node.disk.replica: node for node in self.world.nodes}
        witnesses = {m.replica for m in configuration.voters if m.witness}
        if not is_quorum(configuration, witnesses | {leader.disk.replica}):
            return False
        full = [here[r] for r in configuration.full_voter_ids if r in here and here[r] is not leader]
        learners = [here[m.replica] for m in configuration.learners if m.replica in here and not m.witness]
        if not learners and fault.salt % 8 and full:
            chosen = full[fault.salt // 8 % len(full)]
            if operators.demote(self.world, leader, chosen.disk.replica):
                full.remove(chosen)
                learners = [chosen]
        others = [node.name for node in self.world.nodes]
        apart = [way for one in learners for name in others for way in ((one.name, name), (name, one.name))]
        self._cut(fault, apart)
        alone_us = int(fault.duration_us * (0.4 + 0.5 * fault.level))
        self.world.scheduler.after(alone_us, self._leave_to_witnesses, fault, leader, full, alone_us)
        return True

    def _leave_to_witnesses(self, fault: Fault, leader: Node, full: list[Node], after_us: int) -> None:
        if self.stopped or not leader.leads:
            return
        left = fault._replace(duration_us=fault.duration_us - after_us)
        self._cut(left, [way for one in full for way in ((leader.name, one.name), (one.name, leader.name))])
        self.world.scheduler.after(left.duration_us, self._die_needed, fault, leader)

    def _die_needed(self, fault: Fault, leader: Node) -> None:
        if self.stopped or not leader.leads:
            return
        is_lost = fault.salt % 4 == 0 and self._may_lose(leader)
        leader.die("and the last entries are with witnesses alone")
        if is_lost:
            leader.disk.wipe()
        self._later(fault, leader.start)

    def _cut_off(self, fault: Fault, name: str, others: list[str]) -> None:
        """Cut a leader off from its peers; some clients see nobody else, for longer than that."""
        if self.stopped:
            return
        self._cut(fault, [(name, other) for other in others] + [(other, name) for other in others])
        random = Random(fault.salt)
        blind = [client.name for client in self.world.clients if random.random() < 0.5]
        ways = [way for client in blind for other in others for way in ((client, other), (other, client))]
        self._cut(fault._replace(duration_us=fault.duration_us + random.randrange(BLIND_US_MAX)), ways)

    def _failed_fsync(self, fault: Fault) -> bool:
        return self._crash_at_commit(fault, "fail")
