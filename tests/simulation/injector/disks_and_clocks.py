"""What befalls disks, memory and clocks."""

from __future__ import annotations

from tests.simulation.clocks import DRIFT_PPM_MAX
from tests.simulation.faults import Fault
from tests.simulation.injector.messages import Messages
from tests.simulation.injector.network import Network


class DisksAndClocks(Messages, Network):
    def _full_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        disk = node.disk
        disk.full = True
        self._later(fault, lambda: setattr(disk, "full", False))
        return True

    def _slow_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None:
            return False
        journal = node.journal
        journal.slow_us = (2_000, 20_000, 150_000, 800_000)[fault.salt % 4]
        self._later(fault, lambda: setattr(journal, "slow_us", 0))
        return True

    def _stalled_disk(self, fault: Fault) -> bool:
        """So slow that its leader is to give way: about as long as it takes the others to lose it."""
        node = self._node(fault)
        if node is None:
            return False
        journal = node.journal
        journal.slow_us = (320_000, 450_000, 800_000, 800_000)[fault.salt % 4]
        self._later(fault, lambda: setattr(journal, "slow_us", 0))
        return True

    def _lost_disk(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not self._may_lose(node):
            return False
        node.die("and its disk is lost")
        node.disk.wipe()
        self._later(fault, node.start)
        return True

    def _bit_flip(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or not self._may_lose(node):
            return False
        node.die("and a bit of its journal has flipped")
        node.disk.damaged = True
        self._later(fault, node.start)
        return True

    def _flip_in_stored_snapshot(self, fault: Fault) -> bool:
        """A byte of a snapshot changes at rest, which its checksum tells when the next process reads it."""
        node = self._node(fault)
        if node is None or not self._may_lose(node) or not node.disk.flip_snapshot(fault.level):
            return False
        node.die("and a byte of its snapshot has flipped")
        self._later(fault, node.start)
        return True

    def _flip_in_sent_snapshot(self, fault: Fault) -> bool:
        """From now on bytes change in some of the parts of snapshots that are sent, before they are signed: whoever
        puts the parts together finds out. It is counted when it happens."""
        for node in self.world.nodes:
            node.flips_parts = 0.05 + 0.5 * fault.level**2
        return False

    def _memory_flip(self, fault: Fault) -> bool:
        node = self._node(fault)
        if node is None or node.replica is None or node.engine.is_witness or node.replica.stopped:
            return False
        if not self._may_lose(node, flips=True):
            return False
        node.flip()
        return True

    def _doubt(self, fault: Fault) -> bool:
        """States are compared while one has a flipped bit and messages are late, so that a leader may hear of the other
        state before it hears that most have its own."""
        leader = self._node(fault)
        if leader is None or leader.replica is None or not leader.replica.engine.is_fit:
            return False
        others = [n for n in self.world.nodes if n is not leader and n.replica is not None and not n.replica.stopped]
        others = [node for node in others if not node.engine.is_witness and self._may_lose(node, flips=True)]
        if not others:
            return False
        others[fault.salt % len(others)].flip()
        leader.wake()
        leader.replica.states.mark(leader.clock.now_us())
        leader.nudge()
        return self._weather(fault._replace(who="all"), "delay", 0.2 + 0.5 * fault.level, 30_000)

    # --- clocks -----------------------------------------------------------------------------------

    def _clocks_drift_apart(self, fault: Fault) -> bool:
        """A client's clock runs as slowly as it may, and all nodes' as fast; and nobody hears the client until its
        session is ended."""
        client = self._client_with_session(fault)
        if client is None or not any(node.leads for node in self.world.nodes):
            return False
        client.clock.drift(-DRIFT_PPM_MAX)
        for node in self.world.nodes:
            node.clock.drift(DRIFT_PPM_MAX)
        self._cut(fault, [(client.name, node.name) for node in self.world.nodes])
        self.moment("client-gone", client)
        return True

    def _wall_clock_jump(self, fault: Fault) -> bool:
        """Somebody sets the clock on the wall, by seconds or by years. Nothing may depend on it."""
        node = self._node(fault)
        if node is None:
            return False
        node.clock.set_wall((fault.salt - 32_768) * fault.duration_us)
        return True
