"""The database as code on the event loop asks it: in a thread, and the connection is given back with the answer.

Django gives back a request's connection as the request ends. One that waits in a line would keep its own for as long,
where a server of PostgreSQL has a hundred for all; and what is no request would keep its own for ever, also a dead one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def asking(
    work: Callable[Asked, Answer], *, thread_sensitive: bool = True
) -> Callable[Asked, Coroutine[Any, Any, Answer]]:
    """`work`, which asks the database, for the event loop. Not `thread_sensitive`: in any thread, beside others."""

    @wraps(work)
    def giving_back(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        try:
            return work(*args, **kwargs)
        finally:
            close_old_connections()

    return sync_to_async(giving_back, thread_sensitive=thread_sensitive)
