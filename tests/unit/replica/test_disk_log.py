"""What a node's log says of a slow disk: at once, and then seldom."""

from __future__ import annotations

import pytest

from coordinator.replica.disk_log import SLOW_US, DiskLog
from coordinator.replica.meters import Histogram
from coordinator.seldom import SAID_AGAIN_S


def test_a_disk_that_is_slow_is_told_at_once_and_then_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log, commits = DiskLog("node1", clock=lambda: now), Histogram()
    commits.observe(SLOW_US)
    log.look(commits)
    assert not caplog.records, "as long as may be"
    for _ in range(2 * int(SAID_AGAIN_S)):
        commits.observe(SLOW_US + 1)
        log.look(commits)
        now += 1
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("node1: its disk is slow: 1 commits of the journal took more than 0.5 s")
    assert f"{int(SAID_AGAIN_S)} commits" in second
    now += 10 * SAID_AGAIN_S
    log.look(commits)
    assert len(caplog.records) == 3, "what came since the second"
    log.look(commits)
    now += SAID_AGAIN_S
    log.look(commits)
    assert len(caplog.records) == 3, "it is quick again"
