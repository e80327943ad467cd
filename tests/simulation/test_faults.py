"""A fault that waits for a commit, or for something to be sent, is counted when it happens and under what it was."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from coordinator.consensus.engine import HardState
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.ports import JournalFailed, Write
from coordinator.replica.stored import StoredLog
from tests.simulation.disk import Disk, Journal, ProcessDied, Stored
from tests.simulation.faults import Fault
from tests.simulation.run import _world, run_seed

DEATHS = {
    "crash-before-commit": "dies before the journal's commit",
    "crash-after-early-send": "dies behind an early send, before the journal's commit",
    "crash-within-commit": "dies within the journal's commit",
    "crash-after-commit": "dies after the journal's commit",
    "crash-while-sending": "dies while sending",
    "failed-fsync": "dies as its journal failed: the fsync failed",
}


def _plan(kinds: list[str], who: str, every_us: int) -> list[Fault]:
    times = range(500_000, 20_000_000, every_us)
    return [Fault(at, kinds[n % len(kinds)], who, 100_000, 0.5, "", 7 * n) for n, at in enumerate(times)]


def _run(seed: int, plan: list[Fault]) -> tuple[Counter[str], Counter[str]]:
    """What was counted, and what was told of nodes that died."""
    told: Counter[str] = Counter()
    result = run_seed(seed, plan=plan, trace=lambda _, __, what: told.update([what]))
    assert result.violation is None
    return Counter(result.faults), told


def test_a_crash_is_counted_when_it_happens() -> None:
    counted: Counter[str] = Counter()
    for seed in range(1, 9):
        faults, told = _run(seed, _plan([*DEATHS], "any", 100_000))
        for kind, death in DEATHS.items():
            assert faults[kind] == told[death], (seed, kind)
        counted += faults
    assert all(counted[kind] for kind in DEATHS)


def test_what_waits_for_a_commit_that_never_comes_is_not_counted() -> None:
    """The last of many comes when the faults are over, and those before it take the place of one another."""
    plan = _plan(["crash-within-commit"], "any", 500)
    faults, told = _run(2, plan)
    assert 0 < faults["crash-within-commit"] == told[DEATHS["crash-within-commit"]] < len(plan) / 2


def test_a_stumble_is_counted_when_it_happens() -> None:
    plan = _plan(["stumble"], "any", 500)
    faults, _ = _run(2, plan)
    assert 0 < faults["stumble"] < len(plan) / 2


def _journal(*, has_sent: bool) -> tuple[Journal, list[str]]:
    befell: list[str] = []
    disk = Disk(Stored(1, StoredLog(HardState(1, 0, 0), [1], [b"a"])))
    journal = Journal(
        disk,
        Random(1),
        passes=lambda us: None,
        journaled=lambda write: None,
        has_sent=lambda: has_sent,
        slower_us=0,
    )
    return journal, befell


def _commit(journal: Journal) -> None:
    journal.commit([Write(1, HardState(2, 0, 0), 2, [2], [b"b"])])


@pytest.mark.parametrize("fate", ["before", "within", "after", "fail", "behind a send"])
def test_a_fate_befalls_one_commit(fate: str) -> None:
    journal, befell = _journal(has_sent=True)
    journal.doom(fate, lambda: befell.append(fate))
    assert befell == []
    with pytest.raises(JournalFailed if fate == "fail" else ProcessDied):
        _commit(journal)
    assert befell == [fate]
    _commit(journal)
    assert befell == [fate]


def test_a_crash_behind_a_send_waits_for_a_turn_that_has_sent_something() -> None:
    journal, befell = _journal(has_sent=False)
    journal.doom("behind a send", lambda: befell.append("it"))
    _commit(journal)
    assert befell == []


@pytest.mark.parametrize(("clock_stops", "awake_us"), [(False, 250_000), (True, 0)])
def test_a_process_that_is_stopped_within_a_turn_sleeps_from_that_turns_end_on(clock_stops, awake_us):
    """Its clock has shown that end already; where the clock stands still, too, the end comes later (seed 2000811)."""
    world = _world(3, "raft", 3, "plain", [], None)
    node = world.nodes[0]
    node.start()
    node._busy_until_us = 250_000
    before_us = node.awake_us()
    node.pause(clock_stops=clock_stops)
    world.scheduler.at(400_000, node.resume)
    world.scheduler.run(400_000, 1 << 20)
    assert not node.paused
    assert node.awake_us() - before_us == awake_us + STEP_US_MAX
