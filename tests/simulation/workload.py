"""What clients ask of the cluster: scripts of small workers, each doing one thing at a time, as application code does.

Values are unique, so that a read says which write it saw. Every operation on a key is recorded for the checkers.
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from coordinator.client import cached_reads, flows
from coordinator.client.errors import ConclaveError, LockNotAcquired, OutcomeUnknown
from coordinator.statemachine import commands
from tests.simulation.clients import Client, HeldLease, Script, Sleep
from tests.simulation.history import ClientHistory, Operation

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed
    from tests.simulation.world import World

HOLD_CHECKS: Final = 4
READ_PAUSE_US_MAX: Final = 80_000


class Impatience(Exception):
    """A caller is cancelled, as a task of asyncio is."""


def impatient(client: Client, flow: flows.Flow, patience_us: int) -> flows.Flow:
    """Run `flow`, and cancel it where it is not over in time."""
    until_us = client.world.scheduler.now_us + patience_us
    error: BaseException | None = None
    value: object = None
    while True:
        try:
            call = flow.throw(error) if error is not None else flow.send(value)
        except StopIteration as end:
            return end.value
        yield client.either(call, until_us)
        error, value = None, None
        if not call.done:
            client.world.faults["cancelled-caller"] += 1
            error = Impatience()
        elif isinstance(call.outcome, BaseException):
            error = call.outcome
        else:
            value = call.outcome


class Mix(NamedTuple):
    """How busy the clients of one seed are. Times in microseconds."""

    keys: int
    locks: int
    key_workers: int
    lock_workers: int
    readers: int
    """Workers that do nothing but read, and often."""
    pause_us_max: int
    ttls_ms: tuple[int, ...]
    hold_us_max: int
    timeout_us: int
    impatience: float
    """In which share of the attempts at a lock the caller gives up at a moment of its own."""

    @classmethod
    def draw(cls, random: Random) -> Mix:
        return cls(
            keys=random.choice((1, 2, 3)),
            locks=random.choice((1, 1, 2)),
            key_workers=random.choice((1, 1, 2, 4)),
            lock_workers=random.choice((1, 1, 2, 3)),
            readers=random.choice((0, 0, 1)),
            pause_us_max=random.choice((60_000, 150_000, 400_000)),
            ttls_ms=random.choice(((500,), (700, 1_500), (1_000,), (1_800,), (3_000, 500))),
            hold_us_max=random.choice((50_000, 300_000, 1_500_000)),
            timeout_us=random.choice((300_000, 1_500_000, 1_500_000)),
            impatience=random.choice((0.0, 0.1, 0.4)),
        )


class Workload:
    def __init__(self, world: World, mix: Mix, mixed: Mixed | None) -> None:
        """`mixed`: what a share of the workers does instead of plain keys and locks."""
        self.world = world
        self.mix = mix
        self.mixed = mixed
        self.history = ClientHistory()
        self.ending = False
        """Workers begin nothing new."""
        self.locks_taken = 0
        self._values = 0
        self._open: dict[str, set[Operation]] = {}

    @property
    def idle(self) -> bool:
        """Is nothing open on any key, and nothing else?"""
        return not any(self._open.values()) and (self.mixed is None or self.mixed.settled)

    def scripts(self, client: Client) -> list[Script]:
        mix = self.mix
        plain = (
            [self._keys(client) for _ in range(mix.key_workers)]
            + [self._reads(client) for _ in range(mix.readers)]
            + [self._locks(client) for _ in range(mix.lock_workers)]
        )
        return plain if self.mixed is None else self.mixed.replace(client, plain)

    def gone(self, client: Client) -> None:
        """The client's process has ended: what it had open, nobody will ever know the outcome of."""
        if self.mixed is not None:
            self.mixed.gone(client)
        for operation in sorted(self._open.pop(client.name, ()), key=lambda o: o.invoked):
            self._lost(operation, "the client died")

    # --- keys -------------------------------------------------------------------------------------

    def _keys(self, client: Client) -> Script:
        random = client.random
        while True:
            yield Sleep(random.randrange(1_000, self.mix.pause_us_max))
            if self.ending:
                continue
            key = f"k{random.randrange(self.mix.keys)}"
            choice = random.random()
            if choice < 0.5:
                yield from self.put(client, key)
            elif choice < 0.6:
                yield from self.delete(client, key)
            else:
                yield from self.get(client, key)

    def _reads(self, client: Client) -> Script:
        random = client.random
        while True:
            yield Sleep(random.randrange(1_000, READ_PAUSE_US_MAX))
            if not self.ending:
                yield from self.get(client, f"k{random.randrange(self.mix.keys)}")

    def put(self, client: Client, key: str) -> Generator[Any, Any, Operation]:
        self._values += 1
        value = b"%d" % self._values
        return (yield from self._change(client, "put", key, value, commands.PutKey(key, value)))

    def delete(self, client: Client, key: str) -> Generator[Any, Any, Operation]:
        return (yield from self._change(client, "delete", key, None, commands.DeleteKey(key)))

    def _change(
        self, client: Client, action: str, key: str, value: bytes | None, op: commands.ClientOp
    ) -> Generator[Any, Any, Operation]:
        now = client.clock.now_us
        operation = self._invoke(client, action, key, value)
        ttl_ms = client.random.choice(self.mix.ttls_ms)
        try:
            done = yield from flows.command(client.core, now, op, ttl_ms, now() + self.mix.timeout_us, "")
        except OutcomeUnknown as error:
            self._lost(operation, str(error))
        except ConclaveError as error:
            self._nothing(operation, str(error))
        else:
            self._done(operation, done.existed, done.index)
            self.world.injector.moment("written", client)
        return operation

    def get(self, client: Client, key: str, *, caches: bool = False) -> Generator[Any, Any, Operation]:
        """`caches`: the client may answer it from what it keeps."""
        now = client.clock.now_us
        now_us = now()
        operation = self._invoke(client, "get", key, None)
        try:
            if caches:
                ttl_ms, until_us = client.random.choice(self.mix.ttls_ms), now_us + self.mix.timeout_us
                found = yield from cached_reads.read(client.core, now, commands.GetKey(key), ttl_ms, until_us)
            else:
                found = yield client.core.query(commands.GetKey(key), now_us, now_us + self.mix.timeout_us)
        except ConclaveError as error:
            self._nothing(operation, str(error))
        else:
            self._done(operation, found.value, found.revision)
        return operation

    # --- locks ------------------------------------------------------------------------------------

    def _locks(self, client: Client) -> Script:
        random = client.random
        while True:
            yield Sleep(random.randrange(1_000, self.mix.pause_us_max))
            if self.ending:
                continue
            name = f"l{random.randrange(self.mix.locks)}"
            wait_us = random.choice((0, 300_000, 1_000_000, 3_000_000))
            ttl_ms = random.choice(self.mix.ttls_ms)
            flow = flows.acquire(client.core, client.clock.now_us, name, ttl_ms, wait_us, self.mix.timeout_us)
            if random.random() < self.mix.impatience:
                flow = impatient(client, flow, int(200 * 4_000 ** random.random()))
            try:
                grant = yield from flow
            except (LockNotAcquired, ConclaveError, Impatience):
                continue
            self.locks_taken += 1
            lease = client.took(grant)
            yield from self._hold(client, lease)

    def _hold(self, client: Client, lease: HeldLease) -> Script:
        """Use the lock for a while, as long as it can be proven held; then let go, or walk away from it."""
        random = client.random
        hold_us = random.randrange(1_000, self.mix.hold_us_max)
        for _ in range(HOLD_CHECKS):
            yield Sleep(hold_us // HOLD_CHECKS + 1)
            if not lease.held:
                break
        client.let_go(lease)
        now = client.clock.now_us
        try:
            yield from flows.release(client.core, now, lease.state.grant, now() + self.mix.timeout_us)
        except ConclaveError:
            return

    # --- the record -------------------------------------------------------------------------------

    def _invoke(self, client: Client, action: str, key: str, value: bytes | None) -> Operation:
        operation = self.history.invoke(client.name, action, key, value, self.world.scheduler.now_us)
        self._open.setdefault(client.name, set()).add(operation)
        self.world.watch.tell("invoked", operation)
        return operation

    def _done(self, operation: Operation, result: object, index: int) -> None:
        self.history.done(operation, result, index)
        self._close(operation)

    def _lost(self, operation: Operation, error: str) -> None:
        if operation.outcome == Operation.OPEN:
            if operation.action == "get":
                self.history.nothing(operation, error)
            else:
                self.history.unknown(operation, error)
            self._close(operation)

    def _nothing(self, operation: Operation, error: str) -> None:
        self.history.nothing(operation, error)
        self._close(operation)

    def _close(self, operation: Operation) -> None:
        self._open.get(operation.client, set()).discard(operation)
        self.world.watch.tell("returned", operation)
