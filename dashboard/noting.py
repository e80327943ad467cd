"""Hands the reports that matter to the database, on the side of the feed reader.

At most one report of a replica waits: a newer one replaces it. The database may be slow, locked or gone; then reports
are replaced, failures are counted, and the feed reader never waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from coordinator import wire
from coordinator.database import asking

REPEAT_MS: Final = 10_000
"""A replica's report is noted again after this long though nothing changed, so that the row's time is right."""
WAITING_MAX: Final = 256
PAUSE_S: Final = 0.2
"""Between two rounds: the database sees at most five of them a second."""

log = logging.getLogger(__name__)
_Key = tuple[str, str]


def _gist(report: wire.ReplicaReport) -> tuple[object, ...]:
    """What the database keeps of a report; indices move with every entry and alone are no news."""
    return (report.cluster, report.replica, report.pid, report.role, report.leader, report.term, report.voters)


class Noting:
    """A bounded hand-over from the reader's loop to `coordinator.record.note`."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, wire.ReplicaReport] = {}
        self._noted: dict[_Key, tuple[int, tuple[object, ...]]] = {}
        self._wake = asyncio.Event()
        self.failures = 0
        self.refused = 0

    def offer(self, report: wire.ReplicaReport, now_ms: int) -> None:
        """Never blocks."""
        key = (report.cluster_name, report.node)
        gist = _gist(report)
        noted = self._noted.get(key)
        if noted is not None and noted[1] == gist and now_ms - noted[0] < REPEAT_MS:
            return
        if key not in self._waiting and len(self._waiting) >= WAITING_MAX:
            self.refused += 1
            return
        self._noted[key] = (now_ms, gist)
        self._waiting[key] = report
        self._wake.set()

    async def run(self) -> None:
        """Note what waits, for ever."""
        from coordinator import record

        note = asking(record.note, thread_sensitive=False)
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            for key, report in waiting.items():
                try:
                    await note(report)
                except Exception as problem:  # noqa: BLE001 - whatever it is, the reader goes on
                    self.failures += 1
                    self._noted.pop(key, None)
                    if self.failures == 1 or self.failures % 1_000 == 0:
                        log.warning("the database did not take a report (%d so far): %s", self.failures, problem)
            await asyncio.sleep(PAUSE_S)
