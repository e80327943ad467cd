"""A process that holds a lock and writes, as fast as it can, what the lock guards: a file and a row of a database.

`python -m tests.integration.fenced_writer DIRECTORY NAME [PLACE]`, with the client's two environment variables. Without
a PLACE it takes the lock, writes once, says by which token, and ends. With one it goes on writing. At SIGUSR1 it stops
itself (SIGSTOP) once: just before it asks its client whether it still holds the lock ("check"), or between that and
its writes ("write"), which is where a pause does the most harm. It heeds no answer, and writes all the same; what its
client said and what became of each write it prints, a line of JSON each time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import django
from django.conf import settings
from django.db import connection, models

from coordinator.client import Client, LeaseLost
from coordinator.client.fencing import Fenced, FileFence, update_rows

TTL_S: Final = 1.0
ROUNDS_AFTER: Final = 200
"""Rounds after it was stopped."""


def table(directory: Path) -> type[models.Model]:
    """The model of the one row, in a database in `directory`."""
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "guarded.sqlite3"}}
    settings.configure(DATABASES=databases, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
    django.setup()

    class Guarded(models.Model):
        value = models.TextField(default="")
        fencing_token = models.BigIntegerField(default=0)

        class Meta:
            app_label = "fenced"

        def __str__(self) -> str:
            return f"{self.value} by {self.fencing_token}"

    if Guarded._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Guarded)
        Guarded(pk=1).save()
    return Guarded


class Writer:
    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.fence = FileFence(directory / "guarded")
        self.rows: Any = table(directory)

    def write(self, token: int, number: int) -> dict[str, bool]:
        """Which of both took it."""
        text = f"{self.name} {number}"
        taken = {"file": True, "row": True}
        try:
            self.fence.write(token, text.encode())
        except Fenced:
            taken["file"] = False
        try:
            update_rows(self.rows.objects.filter(pk=1), token, value=text)
        except Fenced:
            taken["row"] = False
        return taken


def main(directory: Path, name: str, place: str) -> None:
    writer = Writer(directory, name)
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: asked.append(number))
    with Client() as client, client.locks.hold("guarded", ttl=TTL_S, wait=30) as hold:
        if not place:
            say(token=hold.token, **writer.write(hold.token, 0))
            return
        number, last = 0, None
        while number != last:
            number += 1
            stops = bool(asked) and last is None
            if stops:
                last = number + ROUNDS_AFTER
            if stops and place == "check":
                os.kill(os.getpid(), signal.SIGSTOP)
            looked_ns = time.monotonic_ns()
            try:
                hold.check()
                lost = ""
            except LeaseLost as error:
                lost = str(error)
            if stops and place == "write":
                os.kill(os.getpid(), signal.SIGSTOP)
            taken = writer.write(hold.token, number)
            say(looked_ns=looked_ns, wrote_ns=time.monotonic_ns(), token=hold.token, lost=lost, held=hold.held, **taken)
        hold.release()  # Of what is lost its end would say so once more.


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
