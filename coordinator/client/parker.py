"""A thread's place to sleep until another wakes it; the name is that of park and unpark in Java's LockSupport.

Where `make compile` could make one, it is native code (`_parker.c`), for one thing that Python's locks cannot do: wake
another and fall asleep as one step, with the interpreter let go of in between. The other sleeps here, too, or waits for
descriptors. A thread that is woken by one which still has the interpreter finds it taken, sleeps again, and takes the
processor twice from whoever woke it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Final

from coordinator import compiled

_NAME: Final = "coordinator.client._parker"

NO_BELL: Final = -1


class PlainParker:
    """Of one sleeper, for once: who was woken is awake for good."""

    __slots__ = ("_lock", "is_unparked")

    def __init__(self) -> None:
        self.is_unparked = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def unpark(self) -> None:
        """Wake the sleeper, now or as soon as it would sleep. Nothing where it was woken before."""
        self.is_unparked = True
        try:  # noqa: SIM105 - a context manager takes longer than all else here
            self._lock.release()
        except RuntimeError:  # It was.
            pass

    def park(self, timeout_s: float, wakes: PlainParker | None = None, bell: int = NO_BELL, /) -> bool:
        """Wake `wakes`, write a byte to the descriptor `bell`, and sleep: until woken (True), or for `timeout_s`
        seconds. Raises what a signal's handler raises meanwhile."""
        if wakes is not None:
            wakes.unpark()
        if bell != NO_BELL:
            with contextlib.suppress(OSError):  # Full, and whoever hears it wakes anyway; or nobody is there.
                os.write(bell, b"\0")
        if self._lock.acquire(timeout=timeout_s):
            with contextlib.suppress(RuntimeError):  # It was woken once more in the meantime.
                self._lock.release()
            return True
        return False


class PlainPoll:
    """Descriptors, each with the events to wait for (as select.poll has them)."""

    __slots__ = ("_poll",)

    def __init__(self, events: dict[int, int], /) -> None:
        self._poll = select.poll()
        for descriptor, wanted in events.items():
            self._poll.register(descriptor, wanted)

    def wait(self, timeout_ms: int, wakes: PlainParker | None = None, /) -> list[tuple[int, int]]:
        """Wake `wakes`, and sleep until there are events, or for `timeout_ms`. What there is, by descriptor."""
        if wakes is not None:
            wakes.unpark()
        return self._poll.poll(timeout_ms)


def load() -> tuple[type[PlainParker], type[PlainPoll]]:
    """The native one where there is one of this very source; it has the same methods, and is no subclass."""
    module = compiled.native(_NAME)
    return (PlainParker, PlainPoll) if module is None else (module.Parker, module.Poll)


Parker, Poll = load()
