"""The engines that can be put to the proof, by the name that `--engine` takes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from coordinator.consensus.engine import Engine
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from tests.simulation.disk import Stored


class EngineKind(NamedTuple):
    """`build` makes an engine from what a journal held, as `coordinator/replica/host.py` does; `options` draws bounds
    for one seed: small ones are reached in a short run."""

    name: str
    build: Callable[[Stored, Options, Random, int], Engine]
    options: Callable[[Random], Options]


def _build_raft(stored: Stored, options: Options, random: Random, now_us: int) -> Engine:
    found = stored.log
    log = Log(found.terms, found.entries, found.hard_state.commit, found.offset, found.offset_term)
    return Raft(
        stored.replica, found.hard_state, log, options=options, random=random, now_us=now_us, snapshot=found.snapshot
    )


def _raft_options(random: Random) -> Options:
    options = Options()
    if random.random() < 0.5:
        options = options._replace(
            message_bytes_max=random.choice((1, 200, 600)),
            inflight_messages_max=random.choice((1, 2, 5)),
            inflight_bytes_max=random.choice((1, 500, 4_000)),
            snapshot_chunk_bytes=random.choice((64, 300, 1_000)),
            snapshot_window_bytes=random.choice((64, 900, 3_000)),
        )
        if random.random() < 0.3:
            # One entry on its way to each follower: what is proposed waits behind all before it, and rounds overtake.
            options = options._replace(message_bytes_max=1, inflight_messages_max=1)
        # With no draw of its own, so that what every seed does besides stays as it was.
        options = options._replace(
            message_entries_max={1: 3, 2: options.message_entries_max, 5: 2}[options.inflight_messages_max]
        )
    if random.random() < 0.15:
        options = options._replace(uncommitted_bytes_max=random.choice((1, 300)))
    if random.random() < 0.4:
        options = options._replace(lease_reads=True)
    options = options._replace(
        promote_lag_entries_max=random.choice((0, 3, 20, 256)),
        priority_pause_us=random.choice((300_000, 1_000_000, 3_000_000)),
        stall_pause_us=random.choice((0, 0, 300_000, 10_000_000)),
    )
    # No draw of its own here, too. As nodes have it that share a machine, for longer, and not at all.
    return options._replace(spare_us={300_000: 20_000, 1_000_000: 60_000, 3_000_000: 0}[options.priority_pause_us])


ENGINES: Final = {"raft": EngineKind("raft", _build_raft, _raft_options)}
