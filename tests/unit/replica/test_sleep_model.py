"""Sleeping clusters under loss, delay, false alarms and restarts: whatever a leader takes for confirmed, a majority has
said of it since; and each rule that keeps it so is broken on purpose, to see that this would be noticed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Heard, Role
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.options import Options
from coordinator.replica.ports import Inbound
from coordinator.statemachine.commands import Command, OpenSession
from tests.simulation.mutants.edits import Edit, planted_edits
from tests.unit.replica.dormitory import CLUSTERS, Dormitory
from tests.unit.replica.stage import CHANNELS, Node

SEEDS = range(1, 5)
STEP_US = 20_000
STEPS = 1_000


def _is_of_sleepers(packet: bytes) -> bool:
    messages = wire.decode_peer(wire.open_envelope(packet, wire.PEER).body)
    return all(isinstance(m.message, wire.SleepBeat | wire.SleepAnswer) for m in messages)


class Wrong(AssertionError):
    """A leader takes for confirmed what nobody said."""


class Play:
    """Twenty seconds of three nodes and a few clusters, with all that befalls them drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.room = Dormitory(seed=seed, options=Options(quiet_us=200_000))
        self.followed_us: dict[tuple[int, int, int], dict[int, int]] = {}
        """Cluster, leader and term to when each replica last followed it, or was it."""
        self.late: list[tuple[int, str, bytes]] = []
        self.loss = 0.0
        self.slept = 0
        self.confirmed = 0
        self.seen: list[Raft] = []
        self.unheard = ""
        """A node that nothing passes to or from but what is said of sleepers."""

    def run(self) -> None:
        room = self.room
        room.lull()
        for node in room.nodes.values():
            self._look(node)
        for step in range(STEPS):
            room.clock.us += STEP_US
            if step % 50 == 0:
                self.unheard = self.random.choice(("", "", *self.room.nodes))
                for node in room.nodes.values():
                    if node.name != self.unheard:
                        node.bus.silent = [self.unheard]
                self.loss = self.random.choice((0.0, 0.0, 0.0, 0.0, 0.3, 0.7))
            self._befall()
            for _ in range(3):
                for node in room.nodes.values():
                    self._look(node)
                    node.run()
                    self._look(node)
                self._carry()
            self.slept += sum(len(room.sleepers(cluster)) for cluster in CLUSTERS)

    def _befall(self) -> None:
        random, room = self.random, self.room
        node = random.choice([*room.nodes.values()])
        dice = random.random()
        if dice < 0.002:
            room.restart(node.name)
        elif dice < 0.007:
            node.bus.silent = [random.choice([*room.nodes])]
        elif dice < 0.012:
            raw = msgspec.Raw(wire.encode(Command(0, 0, 0, OpenSession(1_000, b""))))
            room.ask(node.name, wire.CommandRequest(1, random.choice(CLUSTERS), "", raw))
        elif dice < 0.02:
            raft = node.turn.replicas[random.choice(CLUSTERS)].engine
            assert isinstance(raft, Raft)
            node.turn.stir(next(c for c, replica in node.turn.replicas.items() if replica.engine is raft))
            raft.heard_at_us = None if raft.role is not Role.LEADER else raft.heard_at_us
            raft.campaign_now(room.clock.us)

    def _carry(self) -> None:
        random, room = self.random, self.room
        due = [(name, data) for at_us, name, data in self.late if at_us <= room.clock.us]
        self.late = [one for one in self.late if one[0] > room.clock.us]
        for node in room.nodes.values():
            published, node.bus.published = node.bus.published, []
            for packet in published:
                target = packet.channel.rpartition(":")[2]
                if packet.channel != CHANNELS.peer(target) or random.random() < self.loss:
                    continue
                if self.unheard in (node.name, target) and not _is_of_sleepers(packet.data):
                    continue
                if random.random() < 0.1:
                    self.late.append((room.clock.us + random.randrange(800_000), target, packet.data))
                else:
                    due.append((target, packet.data))
        for name, data in due:
            room.nodes[name].bus.inbox.append(Inbound(from_peers=True, data=data))

    def _look(self, node: Node) -> None:
        for cluster, replica in node.turn.replicas.items():
            engine = replica.engine
            assert isinstance(engine, Raft)
            following = (cluster, engine.leader, engine.term)
            self.followed_us.setdefault(following, {})[replica.replica] = self.room.clock.us
            if engine not in self.seen:
                self.seen.append(engine)
                self._see(cluster, engine)

    def _see(self, cluster: int, engine: Raft) -> None:
        answered = engine.answered

        def seen(by: Mapping[int, Heard]) -> None:
            before_us = engine.confirmed_at_us
            answered(by)
            at_us = engine.confirmed_at_us
            said_us = self.followed_us[cluster, engine.replica, engine.term]
            since = [other for other, last_us in said_us.items() if last_us >= at_us]
            if at_us > before_us and len(since) < 2:
                raise Wrong(f"replica {engine.replica} leads {cluster} as of {at_us}, by nobody's word")
            self.confirmed += at_us > before_us

        engine.answered = seen  # type: ignore[method-assign]


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_taken_for_confirmed_that_no_majority_has_said(seed: int) -> None:
    play = Play(seed)
    play.run()
    assert play.slept > STEPS // 4, "whatever befalls them, they sleep now and then"
    assert play.confirmed > 3, "and some have confirmed what was answered meanwhile"


SLEEP = "coordinator.replica.sleep:Sleep"
LOOK = f"{SLEEP}._look_at_each"
BROKEN = {
    "answered for whoever follows another": (
        Edit(LOOK, "if not replica.engine.would_answer(Heartbeat(leader, term, last_index)):", "if False:"),
        Edit(LOOK, " or replica.leader_node != node:", ":"),
        Edit("coordinator.consensus.raft.sleep:heard", "assert raft.role is Role.FOLLOWER", "assert True"),
        Edit(
            "coordinator.consensus.raft.sleep:heard",
            "assert raft.heard_at_us is not None",
            "raft.heard_at_us = raft.heard_at_us or 0\n    assert True",
        ),
    ),
    "who is awake is not heard of": (
        Edit(f"{SLEEP}.take_answer", "for cluster in answer.awake:", "for cluster in ():"),
    ),
}


@pytest.mark.interpreted
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_rule_is_noticed(broken: str) -> None:
    def plays() -> None:
        for seed in range(1, 15):
            Play(seed).run()

    with planted_edits(BROKEN[broken]), pytest.raises(Wrong):
        plays()
