"""Reads that a leader, or its delegate, has taken and not answered yet: how many there may be, and whose turn it is.

Keep-alives and the like are prompt: each costs a few bytes, and leases hang on them, so they are answered as soon as
they may be, before any read. Of the reads, which may ask for 1 MiB in 20 bytes, each reply channel has one answered in
turn. A read that has waited for READ_US_MAX is dropped: whoever asked has asked again since, or waits no longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from coordinator import wire
from coordinator.replica import watching
from coordinator.replica.callers import Caller
from coordinator.replica.stamps import Stamp

READS_MAX: Final = 32_768
"""That wait in a replica. One more is told that there is no room."""
CHANNEL_READS_MAX: Final = 8_192
"""Of one reply channel: nobody takes all the room."""
REQUEST_BYTES_MAX: Final = 8 * 1024
"""Of one read, which waits as it came: three names and whom it is for have less than half of that. So what waits has
256 MiB at the most, and not whatever fits into packets."""
PROMPT_MAX: Final = 262_144
"""Keep-alives, confirmations and renewals that wait in a replica, for a majority's word alone."""
READ_US_MAX: Final = 5_000_000
NO_ROOM: Final = "the leader has as many reads before it as it takes"

ReadRequest = (
    wire.QueryRequest
    | wire.KeepAliveRequest
    | wire.ConfirmRequest
    | watching.WatchRequest
    | wire.CachedQueryRequest
    | wire.RenewCacheRequest
)
_PROMPT: Final = (wire.KeepAliveRequest, wire.ConfirmRequest, wire.RenewCacheRequest)
_READS: Final = (
    wire.QueryRequest,
    wire.KeepAliveRequest,
    wire.ConfirmRequest,
    wire.WatchRequest,
    wire.EventsRequest,
    wire.CachedQueryRequest,
    wire.RenewCacheRequest,
)
TOO_LONG: Final = f"a read is asked for in at most {REQUEST_BYTES_MAX} bytes"


def is_too_long(request: wire.Request) -> bool:
    """Is it a read of more bytes than may wait? To be asked of what came in a packet that has more."""
    return isinstance(request, _READS) and len(wire.encode(request)) > REQUEST_BYTES_MAX


class Read(NamedTuple):
    caller: Caller
    request: ReadRequest
    stamp: Stamp
    since_us: int
    """When it came."""
    read_index: int = 0
    """What is to be applied before it is answered; known once a majority has confirmed the leader."""

    @property
    def is_prompt(self) -> bool:
        return isinstance(self.request, _PROMPT)


class Waiting:
    """All reads of a replica, counted from their coming on; and those that may be answered, in the order of that."""

    def __init__(self) -> None:
        self._prompt = 0
        self._counts: dict[str, int] = {}
        """Of each channel, the reads that are not prompt."""
        self._total = 0
        self._ready: dict[str, deque[Read]] = {}
        """By channel; the first one's turn it is."""

    @property
    def count(self) -> int:
        return self._prompt + self._total

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def takes(self, read: Read) -> bool:
        """Count one that has come. False, and nothing counted, where there is no room."""
        if read.is_prompt:
            self._prompt += 1
            if self._prompt > PROMPT_MAX:
                self._prompt -= 1
                return False
            return True
        count = self._counts.get(read.caller.channel, 0)
        if count >= CHANNEL_READS_MAX or self._total >= READS_MAX:
            return False
        self._counts[read.caller.channel] = count + 1
        self._total += 1
        return True

    def over(self, read: Read) -> None:
        """It is answered, or is not going to be."""
        if read.is_prompt:
            self._prompt -= 1
            return
        channel = read.caller.channel
        self._total -= 1
        self._counts[channel] -= 1
        if not self._counts[channel]:
            del self._counts[channel]

    def add_ready(self, reads: Iterable[Read]) -> None:
        """A majority has confirmed the leader since these came, and what they ask for is applied."""
        for read in reads:
            self._ready.setdefault(read.caller.channel, deque()).append(read)

    def take_ready(self, now_us: int) -> Iterator[Read]:
        """One after the other, until nobody wants the next."""
        while self._ready:
            channel = next(iter(self._ready))
            reads = self._ready.pop(channel)
            read = reads.popleft()
            if reads:
                self._ready[channel] = reads  # Behind all others.
            self.over(read)
            if now_us - read.since_us < READ_US_MAX:
                yield read

    def take_all_ready(self) -> list[Read]:
        """They are not to be answered here. Each is still counted."""
        ready, self._ready = self._ready, {}
        return [read for reads in ready.values() for read in reads]
