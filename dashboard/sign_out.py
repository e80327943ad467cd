"""Tells the open pages of a session that it ended. It ends where its row goes, which is how one signs out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models.signals import post_delete

_Listener = tuple[asyncio.AbstractEventLoop, asyncio.Event]

_lock = threading.Lock()
_listening: defaultdict[str | None, set[_Listener]] = defaultdict(set)


@contextlib.contextmanager
def heard_of(session: str | None) -> Iterator[asyncio.Event]:
    """An event that is set once this process has deleted the session of that key (None: there is none). Of another
    process nothing is heard."""
    listener = (asyncio.get_running_loop(), asyncio.Event())
    with _lock:
        _listening[session].add(listener)
    try:
        yield listener[1]
    finally:
        with _lock:
            _listening[session].discard(listener)
            if not _listening[session]:
                del _listening[session]


def _deleted(instance: Session, using: str, **_: Any) -> None:
    transaction.on_commit(partial(_tell, instance.session_key), using=using)


def _tell(session: str) -> None:
    with _lock:
        listening = tuple(_listening.get(session, ()))
    for loop, event in listening:
        with contextlib.suppress(RuntimeError):  # The loop is closed already.
            loop.call_soon_threadsafe(event.set)


post_delete.connect(_deleted, sender=Session, dispatch_uid="dashboard.sign_out")
