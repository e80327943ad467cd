"""How long something may take of the processor's time: not of the clock's, so that a busy machine ends nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TooLong(BaseException):
    """Nothing that is simulated may catch it."""


@contextmanager
def time_limit(cpu_s: float) -> Iterator[None]:
    """Raises TooLong in here when this process has worked for `cpu_s` more. Only a main thread hears signals: in any
    other there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
