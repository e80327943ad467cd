"""PySyncObj with its journal on: three members as processes of their own, the two client processes as observers.

    python -m bench.peers.pysyncobj JOURNAL OWN_ADDRESS OTHER_ADDRESS...     (one member)

An observer (its `SyncObj` without an address of its own) hands commands to the leader and applies the whole log, as any
process does that embeds PySyncObj. All is at its defaults: what happens waits for the next tick, 50 ms apart. The
journal is a memory-mapped file that is never synced, so that it survives `kill -9` and no power cut; there is no switch
for it. It has no read but the local one, which may be stale, so a linearizable read is a replicated command; and no
lock that waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import MEMBERS, VALUE_BYTES, Operation, Peer, PeerClient, free_ports, members

LEASE_S: Final = 15.0
OPERATION_S_MAX: Final = 10.0
FAILOVER_TIMEOUT_S: Final = 1.0
ASK_S_MAX: Final = 1.0
READY_S_MAX: Final = 30.0


def member_of(own: str | None, others: list[str], journal: str | None) -> tuple[Any, Any, Any]:
    """A member, or with `own` None an observer: the whole, its dictionary and its locks."""
    from pysyncobj import SyncObj, SyncObjConf, SyncObjConsumer, replicated
    from pysyncobj.batteries import ReplLockManager

    class Keys(SyncObjConsumer):
        def __init__(self) -> None:
            super().__init__()
            self.values: dict[str, bytes] = {}

        @replicated
        def put(self, key: str, value: bytes) -> None:
            self.values[key] = value

        @replicated
        def get(self, key: str) -> bytes | None:
            return self.values.get(key)

    keys, locks = Keys(), ReplLockManager(autoUnlockTime=LEASE_S)
    whole = SyncObj(own, others, SyncObjConf(journalFile=journal), consumers=[keys, locks])
    return whole, keys, locks


class Server(Peer):
    name = "pysyncobj"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write", "read", "failover", "silence"})
    about = "three members with a journal, which it never syncs; clients are observers; reads are commands"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(MEMBERS)]
        self.addresses = dict(zip(members(), addresses, strict=True))

    @classmethod
    def check(cls) -> str:
        from importlib.metadata import version

        import pysyncobj

        assert pysyncobj.SyncObj
        return f"PySyncObj {version('pysyncobj')}"

    def start(self) -> None:
        for member in members():
            self.launch_member(member)
        self.until(self.is_whole, "PySyncObj serves")

    def member_command(self, member: str) -> tuple[list[str], dict[str, str]]:
        others = [address for name, address in self.addresses.items() if name != member]
        journal = str(self.directory / f"{member}.journal")
        return [sys.executable, "-m", "bench.peers.pysyncobj", journal, self.addresses[member], *others], {}

    def connection(self) -> dict[str, Any]:
        return {"addresses": [*self.addresses.values()]}

    def leader(self) -> str:
        for member in members():
            try:
                found = self._leader_by(member)
            except Exception:  # noqa: BLE001 - one of them may be dead
                continue
            if found:
                return next(name for name, address in self.addresses.items() if address == found)
        raise LookupError("no leader")

    def is_whole(self) -> bool:
        found = {self._leader_by(member) for member in members()}
        return len(found) == 1 and found != {""}

    def _leader_by(self, member: str) -> str:
        from pysyncobj.node import TCPNode
        from pysyncobj.utility import TcpUtility

        status = TcpUtility(timeout=ASK_S_MAX).executeCommand(TCPNode(self.addresses[member]), ["status"])
        return str(status.get("leader") or "")


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        super().__init__(connection, number)
        self.whole, self.keys, self.locks = member_of(None, connection["addresses"], None)
        self.timeout_s = FAILOVER_TIMEOUT_S if connection.get("failover") else OPERATION_S_MAX
        self.value = bytes(VALUE_BYTES)
        until_s = time.monotonic() + READY_S_MAX
        while not self.whole.isReady():
            if time.monotonic() > until_s:
                raise TimeoutError(f"the observer is not ready after {READY_S_MAX:g} s")
            time.sleep(0.05)

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        return (
            lambda: bool(self.locks.tryAcquire(name, sync=True, timeout=self.timeout_s)),
            lambda: self.locks.release(name, sync=True, timeout=self.timeout_s),
        )

    def write(self, key: str) -> Operation:
        return lambda: self.keys.put(key, self.value, sync=True, timeout=self.timeout_s)

    def read(self, key: str) -> Operation:
        return lambda: self.keys.get(key, sync=True, timeout=self.timeout_s)

    def close(self) -> None:
        self.whole.destroy()


def main(journal: str, own: str, *others: str) -> None:
    whole, _, _ = member_of(own, [*others], journal)
    assert whole is not None
    while True:
        time.sleep(3_600)


if __name__ == "__main__":
    main(*sys.argv[1:])
