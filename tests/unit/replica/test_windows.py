"""What all replicas of a node together may have on its way to one that does not read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from coordinator.consensus.entries import NOOP_ENTRY
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.options import Options
from coordinator.replica.replica import Replica
from coordinator.replica.windows import NODE_BYTES, Windows, shared
from tests.unit.replica.dormitory import Dormitory
from tests.unit.replica.stage import CHANNELS

REPLICAS = 40


def sent_to(stage: Dormitory, name: str) -> int:
    """Bytes published into a mailbox since everything was last carried, and carry it: nobody reads there."""
    size = sum(
        len(packet.data)
        for node in stage.nodes.values()
        for packet in node.bus.published
        if packet.channel == CHANNELS.peer(name)
    )
    stage.carry()
    return size


def options_of(replicas: Iterable[Replica]) -> set[Options]:
    return {replica.engine.options for replica in replicas if isinstance(replica.engine, Raft)}


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_node_that_stands_still_has_no_more_before_it_than_its_redis_keeps(is_shared):
    stage = Dormitory(range(1, REPLICAS + 1))
    stage.pass_time(2_000_000)
    if is_shared:
        for node in stage.nodes.values():
            Windows(Options()).share(node.turn.replicas.values())
    stage.cut = {"node3"}
    for cluster in range(1, REPLICAS + 1):
        leader = next(r for r in stage.replicas(cluster) if r.engine.role.value == "leader")
        if leader.configuration.node_of(leader.replica) != "node3":
            for _ in range(2):
                leader.engine.propose([NOOP_ENTRY + bytes(8_000)] * 125)
    size = 0
    for _ in range(100):
        stage.clock.us += 1_000
        for name in ("node1", "node2"):
            stage.nodes[name].run()
        size += sent_to(stage, "node3")
    assert (size < NODE_BYTES * 1.1) is is_shared, f"{size / (1 << 20):.1f} MiB, heartbeats among them"


@pytest.mark.parametrize("replicas", [1, 2, 3, 10, 100, 1_000])
def test_shares_fit_whatever_the_number(replicas):
    options = shared(Options(), replicas)
    for window, message in [
        (options.inflight_bytes_max, options.message_bytes_max),
        (options.snapshot_window_bytes, options.snapshot_chunk_bytes),
    ]:
        assert 0 < message < window
        assert replicas * (window + message) <= NODE_BYTES
    if replicas <= 3:
        assert options == Options()


def test_whoever_comes_and_goes_changes_the_shares_of_all():
    stage = Dormitory(range(1, 11))
    replicas = stage.nodes["node1"].turn.replicas
    windows = Windows(Options())
    windows.share(replicas.values())
    assert options_of(replicas.values()) == {shared(Options(), 10)} == {windows.options}
    del replicas[10]
    windows.share(replicas.values())
    assert options_of(replicas.values()) == {shared(Options(), 9)}
