"""A thread's place to sleep until another wakes it; the name is that of park and unpark in Java's LockSupport.

Where `make compile` could make one, it is native code (`_parker.c`), for one thing that Python's locks cannot do: wake
the next and fall asleep as one step, with the interpreter let go of in between. A thread that is woken by one which
still has the interpreter finds it taken, sleeps again, and takes the processor twice from whoever woke it.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib.util import module_from_spec, spec_from_file_location
from typing import Final

from coordinator import compiled

_NAME: Final = "coordinator.client._parker"

logger = logging.getLogger(__name__)


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

    def park(self, timeout_s: float, wakes: PlainParker | None = None, /) -> bool:
        """Wake `wakes`, and sleep: until woken (True), or for `timeout_s` seconds. Raises what a signal's handler
        raises meanwhile."""
        if wakes is not None:
            wakes.unpark()
        if self._lock.acquire(timeout=timeout_s):
            self._lock.release()
            return True
        return False


def load() -> type[PlainParker]:
    """The native one where there is one of this very source; it has the same methods, and is no subclass."""
    if os.environ.get(compiled.VARIABLE) == "never":
        return PlainParker
    try:
        file = compiled.extension(_NAME)
        if not file.is_file():
            return PlainParker
        spec = spec_from_file_location(_NAME, file)
        assert spec is not None, "the name ends as an extension's does"
        assert spec.loader is not None, "so it has a loader"
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        native: type[PlainParker] = module.Parker
    except (ImportError, OSError) as error:
        logger.warning("callers wake each other without native code: %s", error)
        return PlainParker
    return native


Parker = load()
