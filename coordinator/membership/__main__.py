"""The reconciler as a process of its own, `python -m coordinator.membership`: one of the parts that `up` runs."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final

from coordinator import environment

START_S: Final = 2.0
"""It is in nobody's way while an installation starts: nothing of what people wait for then needs it."""


def main() -> None:
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    stopping.wait(START_S)
    environment.disregard_others()

    import django

    django.setup()

    from coordinator.membership.clients import Clients
    from coordinator.membership.reconciler import Reconciler

    with Clients() as clients:
        Reconciler(clients, keep=clients.keep).run(stopping.wait)


if __name__ == "__main__":
    main()
