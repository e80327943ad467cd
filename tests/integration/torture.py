"""A load of writes, reads and locks whose history is judged, while things are killed around it.

Every operation is recorded: what came back, or that its outcome is unknown. A round has keys and locks of its own, so
that its history can be judged by itself, and ends with reads of all of them once everything runs again: what was
acknowledged and is not there then is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from coordinator.client import Client, ConclaveError, LockNotAcquired
from coordinator.client.errors import Unavailable
from tests.linearizability import History, LockModel, RegisterModel, Verdict, check
from tests.linearizability.history import split_by_key

KEYS: Final = 3
LOCKS: Final = 2
LOCK_TTL_S: Final = 10.0
JUDGE_S_MAX: Final = 60.0
PAUSE_S: Final = 0.01
"""Between two operations of one caller: a history of a few hundred says as much as one of ten thousand."""


class Round:
    """The load of one round, by a few callers, from `start` to `finish`."""

    def __init__(self, number: int, clients: list[Client]) -> None:
        self._name = f"round{number}"
        self._clients = clients
        self._values = History()
        self._locks = History()
        self._recording = threading.Lock()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work, number, client), daemon=True)
            for number, client in enumerate(clients)
            for work in (self._write_and_read, self._take_and_release)
        ]
        self.defects: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """End the load, and look at all of it once more; everything runs again by now."""
        self._ending.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a caller never came back"
        assert not self.defects, self.defects
        for number in range(KEYS):
            self._read("last", self._clients[0], f"{self._name}/k{number}", needed=True)

    def judge(self) -> int:
        """How many operations were judged. Raises AssertionError where they are not linearizable."""
        count = 0
        for model, history in ((RegisterModel(), self._values), (LockModel(), self._locks)):
            for key, operations in split_by_key(history.operations()).items():
                outcome = check(model, operations, time_limit_s=JUDGE_S_MAX)
                assert outcome.verdict is Verdict.LINEARIZABLE, f"{key}: {outcome.verdict}: {operations}"
                count += len(operations)
        return count

    # --- callers ----------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[int, Client], None], number: int, client: Client) -> None:
        try:
            work(number, client)
        except BaseException as defect:  # noqa: BLE001 - whatever it is, the test is to fail of it
            self.defects.append(defect)

    def _write_and_read(self, number: int, client: Client) -> None:
        count = 0
        while not self._ending.wait(PAUSE_S):
            count += 1
            key = f"{self._name}/k{count % KEYS}"
            if (count + number) % 2:
                self._read(f"c{number}", client, key)
                continue
            value = b"%d-%d" % (number, count)
            process = f"c{number}"
            self._invoke(self._values, process, "write", key, value)
            try:
                client.put(key, value)
            except ConclaveError:
                self._lose(self._values, process)
            else:
                self._complete(self._values, process)

    def _read(self, process: str, client: Client, key: str, *, needed: bool = False) -> None:
        self._invoke(self._values, process, "read", key)
        try:
            value = client.get(key)
        except Unavailable:
            if needed:
                raise
            with self._recording:
                self._values.cancel(process)
        else:
            self._complete(self._values, process, value)

    def _take_and_release(self, number: int, client: Client) -> None:
        count = 0
        while not self._ending.wait(PAUSE_S):
            count += 1
            lock = f"{self._name}/l{count % LOCKS}"
            owner = f"c{number}-{count}"
            # Its session may end from its grant on, before this thread hears of either.
            self._invoke(self._locks, f"end of {owner}", "expire", lock, owner)
            self._invoke(self._locks, owner, "acquire", lock, owner)
            try:
                lease = client.acquire(lock, ttl=LOCK_TTL_S, wait=0)
            except LockNotAcquired:
                self._complete(self._locks, owner)
                with self._recording:
                    self._locks.cancel(f"end of {owner}")
                continue
            except ConclaveError:
                # It may be granted yet; then it is given back, or its session ends, at some time.
                self._lose(self._locks, owner)
                continue
            self._complete(self._locks, owner, lease.token)
            self._invoke(self._locks, owner, "release", lock, owner)
            try:
                released = lease.release()
            except ConclaveError:
                self._lose(self._locks, owner)
                continue
            self._complete(self._locks, owner, released)
            if released:
                with self._recording:
                    self._locks.cancel(f"end of {owner}")

    # --- the record -------------------------------------------------------------------------------

    def _invoke(
        self, history: History, process: str, action: str, key: str, argument: bytes | str | None = None
    ) -> None:
        with self._recording:
            history.invoke(process, action, key=key, argument=argument)

    def _complete(self, history: History, process: str, result: object = None) -> None:
        with self._recording:
            history.complete(process, result)

    def _lose(self, history: History, process: str) -> None:
        with self._recording:
            history.lose(process)
