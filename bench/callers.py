"""One of the two client processes: callers, each a thread with names of its own, over one client of a peer.

    python -m bench.callers PEER NUMBER

Started by `bench.compare`, which speaks to it in lines of JSON: the connection first, then `begin` (callers start, and
the answer comes when each has done one operation), `measure` (what ends within a span of the monotonic clock is
counted; the callers end with it), or `trace` (the moments of the acknowledgements so far) and `end`; `close` last. The
same loop drives every peer; the floor brings its own (`PeerClient.drive`), for its callers are requests in flight.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.figures import Histogram
from bench.peers import client_class
from bench.peers.base import Drive, Operation, PeerClient
from bench.works import DEATHS

FIRST_S_MAX: Final = 60.0
LAST_S_MAX: Final = 30.0
PAUSE_AFTER_ERROR_S_MAX: Final = 0.05
PAUSE_BETWEEN_WRITES_S: Final = 0.005
"""Of a caller that waits for a leader to die: probes need no load."""


class Tally:
    """What one run of callers has done. Each caller writes its own part; nothing is locked."""

    def __init__(self) -> None:
        self.from_s = math.inf
        self.until_s = math.inf
        self.latencies_s: list[float] = []
        self.acknowledged_s: list[float] = []
        self.grants: list[tuple[float, int]] = []
        self.errors = 0
        self.first_error = ""
        self.broken = ""
        """What ended callers that are to go on; nothing that they have counted is a figure then."""

    def failed(self, error: str) -> None:
        if time.monotonic() >= self.from_s:
            self.errors += 1
        self.first_error = self.first_error or error[:300]

    def to_json(self) -> dict[str, Any]:
        return {
            "count": len(self.latencies_s),
            "histogram": Histogram.of_seconds(self.latencies_s).to_json(),
            "grants": self.grants,
            "errors": self.errors,
            "first_error": self.first_error,
        }


def attempt(client: PeerClient, work: str, caller: int, tally: Tally) -> Operation:
    """What one caller does over and over. Raises in it whatever the client raises."""
    if work == "lock":
        acquire, release = client.lock(f"bench-{caller}")

        def pair() -> None:
            if not acquire():
                raise TimeoutError("the lock was not acquired")
            release()

        return pair
    if work == "handover":
        acquire, release = client.lock("bench-shared")

        def turn() -> None:
            if not acquire():
                raise TimeoutError("the lock was not acquired")
            now_s = time.monotonic()
            if tally.from_s <= now_s <= tally.until_s:
                tally.grants.append((now_s, caller))
            release()

        return turn
    if work not in ("read", "write", *DEATHS):
        raise ValueError(f"no such work: {work!r}")
    operation = client.read(f"bench-{caller}") if work == "read" else client.write(f"bench-{caller}")
    if work in DEATHS:

        def probe() -> None:
            operation()
            tally.acknowledged_s.append(time.monotonic())
            time.sleep(PAUSE_BETWEEN_WRITES_S)

        return probe
    return operation


class Callers:
    """The threads of one run."""

    def __init__(self, client: PeerClient, work: str, callers: Sequence[int]) -> None:
        self.tally = Tally()
        self.started = threading.Semaphore(0)
        if work == "read":
            for caller in callers:
                client.write(f"bench-{caller}")()
        if client.drive is not None:
            targets = [self._driven(client.drive, work, len(callers))] * bool(callers)
        else:
            targets = [self._loop(attempt(client, work, caller, self.tally)) for caller in callers]
        self.threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self.threads:
            thread.start()
        until_s = time.monotonic() + FIRST_S_MAX
        for _ in self.threads:
            if not self.started.acquire(timeout=max(0.0, until_s - time.monotonic())):
                raise TimeoutError(f"no first operation in {FIRST_S_MAX:g} s: {self.tally.first_error}")
        self._must_not_be_broken()

    def _driven(self, drive: Drive, work: str, callers: int) -> Callable[[], None]:
        def target() -> None:
            try:
                drive(work, callers, self.tally, self.started.release)
            except Exception as error:  # noqa: BLE001 - it goes to the one who asked
                self.tally.broken = repr(error)
                self.started.release()

        return target

    def _must_not_be_broken(self) -> None:
        if self.tally.broken:
            raise RuntimeError(f"the callers ended early: {self.tally.broken}")

    def _loop(self, operation: Operation) -> Callable[[], None]:
        tally, now = self.tally, time.monotonic

        def loop() -> None:
            is_first = True
            while True:
                began_s = now()
                if began_s >= tally.until_s:
                    return
                try:
                    operation()
                except Exception as error:  # noqa: BLE001 - the clients of eight systems raise what they like
                    tally.failed(repr(error))
                    time.sleep(random.uniform(0, PAUSE_AFTER_ERROR_S_MAX))
                    continue
                ended_s = now()
                if tally.from_s <= ended_s <= tally.until_s:
                    tally.latencies_s.append(ended_s - began_s)
                if is_first:
                    is_first = False
                    self.started.release()

        return loop

    def finish(self) -> None:
        """Raises RuntimeError where they had ended before."""
        until_s = time.monotonic() + LAST_S_MAX
        for thread in self.threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self.threads)
        if stuck:
            self.tally.failed(f"{stuck} callers were stuck for {LAST_S_MAX:g} s at the end")
        self._must_not_be_broken()


def obey(client: PeerClient, command: Mapping[str, Any], callers: Callers | None) -> tuple[Callers | None, Any]:
    """Carry out one line; the callers that run from here on, and the answer."""
    match command["do"]:
        case "begin":
            return Callers(client, command["work"], command["callers"]), {}
        case "measure":
            assert callers is not None
            callers.tally.until_s = command["until_s"]
            callers.tally.from_s = command["from_s"]
            callers.finish()
            return None, callers.tally.to_json()
        case "trace":
            assert callers is not None
            return callers, {"acknowledged_s": callers.tally.acknowledged_s[:]}
        case "end":
            assert callers is not None
            callers.tally.until_s = 0.0
            callers.finish()
            return None, {"first_error": callers.tally.first_error}
    raise ValueError(f"unknown command {command!r}")


def main(peer: str, number: int) -> None:
    client = client_class(peer)(json.loads(sys.stdin.readline()), number)
    callers: Callers | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "close":
            break
        try:
            callers, answer = obey(client, command, callers)
        except Exception as error:  # noqa: BLE001 - it goes to the one who asked
            answer = {"failed": repr(error)}
        print(json.dumps(answer), flush=True)
    client.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
