"""How what may be asked is described once, for threads and for asyncio.

A method under `@asked` checks its arguments and says by an `Ask` what is to be done: a flow over the core. Of a client
for threads it answers; of one for asyncio it is awaited. So `Part`s, which are what a client is made of, know neither
threads nor loops, and nothing is written twice:

    class Words(Part[S]):
        @asked
        def say(self, word: str) -> Ask[int]: ...

    Words(client).say("a")              # a Client: an int
    await Words(async_client).say("a")  # an AsyncClient: the same
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload
from weakref import ref

from coordinator import wire
from coordinator.client import cached_reads, flows, options
from coordinator.client.calls import Call
from coordinator.client.clock import now_us
from coordinator.client.core import Core
from coordinator.client.errors import refuse
from coordinator.client.flows import Clock
from coordinator.statemachine import commands

T = TypeVar("T")
P = ParamSpec("P")

DEFAULT_TTL_MS: Final = options.ttl_ms(options.DEFAULT_TTL_S)

Asking = Generator[Call, Any, T]
"""A flow whose answer is a T."""


class Ask(Generic[T]):
    """What is to be done for one answer. `undo`: what becomes of that where the asker left before it could take it."""

    __slots__ = ("begins", "flow", "known", "left", "undo")

    def __init__(
        self,
        flow: Callable[[Core], Asking[T]],
        undo: Callable[[Core, T], None] | None = None,
        known: Callable[[Core], tuple[T] | None] | None = None,
        *,
        begins: Callable[[], None] | None = None,
        left: Callable[[], None] | None = None,
    ) -> None:
        """`known`: the answer, where the client has it; from any thread. None: the flow is to be run.

        `begins` is called as it is asked and not before, by the thread or the task that asks: what that one believes
        from then on. `left`: behind an interrupt of a thread that asks, whether it had come to that or not, and where
        what it asked came to nothing."""
        self.flow = flow
        self.undo = undo
        self.known = known
        self.begins = begins
        self.left = left


class Shell(ABC):
    """Who runs flows, and by what clock."""

    clock: Clock = staticmethod(now_us)
    caches: bool = False
    """Does it keep what it reads?"""
    timeout_us: int
    """How long a question may take that says nothing else."""

    def deadline_us(self, timeout: float | None) -> int:
        """When a question ends that may take `timeout` seconds from now. Raises InvalidRequest."""
        timeout_us = self.timeout_us
        if timeout is not None:
            timeout_us = options.seconds("timeout", timeout, 0.01, options.TIMEOUT_S_MAX)
        return self.clock() + timeout_us

    def asker(self) -> object:
        """Who asks: this thread, or this task. Equal for the same alone, while it lives."""
        return threading.get_ident()

    @abstractmethod
    def spawn(self, ask: Ask[Any]) -> None:
        """Run it with nobody waiting for it; it ends with the client."""


class Sync(Shell):
    """A client for threads: whoever asks sleeps until the answer is there."""

    @abstractmethod
    def answer(self, ask: Ask[T]) -> T:
        """The answer, or raise what the flow raised."""


class Async(Shell):
    """A client for asyncio."""

    def asker(self) -> object:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # No loop runs yet.
            return None
        return None if task is None else ref(task)

    @abstractmethod
    async def answer(self, ask: Ask[T]) -> T:
        """The answer, or raise what the flow raised."""


S = TypeVar("S", bound=Shell)


class Part(Generic[S]):
    """Something that asks by a client: `Part[Sync]` for threads, `Part[Async]` for asyncio."""

    def __init__(self, shell: S) -> None:
        self._shell = shell

    def _command(
        self,
        op: commands.ClientOp,
        read: Callable[[Any], T],
        *,
        ttl: float = options.DEFAULT_TTL_S,
        timeout: float | None = None,
        act_for: str = "",
    ) -> Ask[T]:
        """Apply `op` exactly once, under the session for `ttl`; `read` makes the answer of its result."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        ttl_ms = DEFAULT_TTL_MS if ttl is options.DEFAULT_TTL_S else options.ttl_ms(ttl)

        return Ask(lambda core: flows.command(core, clock, op, ttl_ms, deadline_us, act_for, read))

    def _query(
        self, query: commands.Query, read: Callable[[Any], T], *, timeout: float | None = None, act_for: str = ""
    ) -> Ask[T]:
        """A linearizable read; `read` makes the answer of its result."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: flows.query(core, clock, query, deadline_us, act_for, read))

    def _kept_read(self, query: wire.CachedQuery, read: Callable[[Any], T], *, timeout: float | None = None) -> Ask[T]:
        """A linearizable read of what is there now, that costs no round trip where the client has kept it."""
        if not self._shell.caches:
            return self._query(query, read, timeout=timeout)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def known(core: Core) -> tuple[T] | None:
            found = core.cache.look(query, clock)
            return None if found is None else (read(refuse(found)),)

        def flow(core: Core) -> Asking[T]:
            return read((yield from cached_reads.read(core, clock, query, DEFAULT_TTL_MS, deadline_us)))

        return Ask(flow, known=known)


if TYPE_CHECKING:

    class asked(Generic[P, T]):  # noqa: N801 - a decorator
        """See the head of this module."""

        describe: Callable[Concatenate[Any, P], Ask[T]]

        def __init__(self, describe: Callable[Concatenate[Any, P], Ask[T]]) -> None: ...
        @overload
        def __get__(self, part: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, part: Part[Sync], owner: Any) -> Callable[P, T]: ...
        @overload
        def __get__(self, part: Part[Async], owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
        def __get__(self, part: Any, owner: Any) -> Any: ...

else:

    def asked(describe):
        """See the head of this module."""

        @wraps(describe)  # What help() shows.
        def ask(part, *arguments, **named):
            act_for = named.get("act_for", "")
            if act_for != "":
                options.principal("act_for", act_for)
            return part._shell.answer(describe(part, *arguments, **named))

        ask.describe = describe
        return ask


def as_it_is(result: T) -> T:
    """The result is the answer."""
    return result


class Stream(Part[S], ABC, Generic[S, T]):
    """Something that is told bit by bit: iterate over it (`for`, or `async for`), or ask for the `next`. One thread or
    task at a time."""

    @abstractmethod
    def _next(self, until_us: int | None) -> Ask[T | None]:
        """The next of them; None where there is none up to `until_us` (None: as long as it takes)."""

    @asked
    def next(self, *, timeout: float | None = None) -> Ask[T | None]:
        """The next of them; None where there is none within `timeout` seconds (None: as long as it takes)."""
        wait_us = options.wait_us(timeout, "timeout")
        return self._next(None if wait_us is None else self._shell.clock() + wait_us)

    def __iter__(self: Stream[Sync, T]) -> Stream[Sync, T]:
        return self

    def __next__(self: Stream[Sync, T]) -> T:
        told = self.next()
        if told is None:
            raise StopIteration
        return told

    def __aiter__(self: Stream[Async, T]) -> Stream[Async, T]:
        return self

    async def __anext__(self: Stream[Async, T]) -> T:
        told = await self.next()
        if told is None:
            raise StopAsyncIteration
        return told
