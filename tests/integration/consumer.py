"""A process that takes items from a queue until it is killed: `python -m tests.integration.consumer QUEUE LOG`.

It works on each for a moment, writes the item's value into LOG, a line each, and says that it is done.
"""

from __future__ import annotations

import os
import sys

from coordinator.client import Client, ConclaveError
from coordinator.client.recipes.queue import Queue

TTL_S = 1.0


def main(name: str, log: str) -> None:
    with Client(timeout=30) as client:
        queue = Queue(client, name, ttl=TTL_S)
        while True:
            item = queue.take()
            assert item is not None
            line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(line, item.value + b"\n")
            os.close(line)
            try:
                item.done()
            except ConclaveError:
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
